"""Which responses the page carries, and their compact form: JSON, gzipped, base64, one chunk per rollout file."""

from __future__ import annotations

import base64
import gzip
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from attnpo.report.elements import short, visible
from attnpo.report.rollouts import Response, ScoredStep

TRAIN_STEPS = 24  # files of each kind, spread evenly over the run
EVALUATIONS = 16
RESPONSES = 64  # of one training step
PROBLEMS = 32  # of the first and the last evaluation
FLIPS = 32  # more of them, whose verdict changed
RIGHT = {"right": True, "wrong": False, "no_answer": False}  # other verdicts say nothing of an answer


@dataclass(frozen=True)
class Pair:
    """The same held-out problem at the first and at the last evaluation."""

    before: Response
    after: Response


def evenly(count: int, wanted: int) -> list[int]:
    """`wanted` of the indices below `count`, at even distances, first and last among them.

    >>> evenly(10, 4), evenly(3, 5)
    ([0, 3, 6, 9], [0, 1, 2])
    """
    if count <= wanted:
        return list(range(count))
    return [round(part * (count - 1) / (wanted - 1)) for part in range(wanted)] if wanted > 1 else [0][:wanted]


def ends_first(count: int) -> Iterator[int]:
    """The indices below `count`: the ends, the middle, the middles of the halves, …; each prefix is spread out.

    >>> list(ends_first(6))
    [0, 5, 2, 1, 3, 4]
    """
    yield from range(min(count, 1))
    if count > 1:
        yield count - 1
    parts = deque([(0, count - 1)])
    while parts:
        low, high = parts.popleft()
        if high - low > 1:
            middle = (low + high) // 2
            yield middle
            parts += [(low, middle), (middle, high)]


def pick_pairs(first: list[Response], last: list[Response], wanted: int = PROBLEMS) -> list[Pair]:
    """Problems in both: first those with scores in both, then others, taken at even distances of their order.

    Behind them stand up to FLIPS others whose verdict changed, at even distances too.

    Each kind runs from the problem whose response became shortest by share to the one whose grew most.
    """
    before, after = one_per_problem(first), one_per_problem(last)
    pairs = sorted((Pair(before[key], after[key]) for key in before if key in after), key=_growth)
    scored = [pair for pair in pairs if pair.before.scored and pair.after.scored]
    others = [pair for pair in pairs if not (pair.before.scored and pair.after.scored)]
    chosen = [scored[index] for index in evenly(len(scored), wanted)]
    chosen += [others[index] for index in evenly(len(others), wanted - len(chosen))] if len(chosen) < wanted else []
    changed = [pair for pair in pairs if flip(pair.before, pair.after) and pair not in chosen]
    return chosen + [changed[index] for index in evenly(len(changed), FLIPS)]


def flip(before: Response, after: Response) -> str | None:
    """ "gained": not right before and right after; "lost": the other way; None: as before, or one has no verdict."""
    states = [RIGHT.get(response.verdict or "") for response in (before, after)]
    if None in states or states[0] == states[1]:
        return None
    return "gained" if states[1] else "lost"


@dataclass(frozen=True)
class Flips:
    """Problems by what became of them: counts."""

    both: int
    gained: int
    lost: int
    neither: int

    @property
    def problems(self) -> int:
        return self.both + self.gained + self.lost + self.neither

    def sentence(self, of: str) -> str:
        """`of`: what the problems are, with how many there are before it."""
        return (
            f"Of {self.problems:,} {of} {self.gained:,} went from not right to right and {self.lost:,} from right to "
            f"not right; {self.both:,} are right in both, {self.neither:,} in neither."
        )


def count_flips(first: list[Response], last: list[Response]) -> Flips:
    """Over the problems that both answered and whose responses have a verdict, the first response of each."""
    before, after = first_per_problem(first), first_per_problem(last)
    pairs = [(before[key], after[key]) for key in before if key in after]
    states = [(RIGHT.get(a.verdict or ""), RIGHT.get(b.verdict or "")) for a, b in pairs]
    return Flips(*(states.count(state) for state in ((True, True), (False, True), (True, False), (False, False))))


def first_per_problem(responses: list[Response]) -> dict[str, Response]:
    """The first response to each problem."""
    found: dict[str, Response] = {}
    for response in responses:
        found.setdefault(response.id, response)
    return found


def one_per_problem(responses: list[Response]) -> dict[str, Response]:
    """The response to each problem: a scored one where there is one, else the first."""
    found: dict[str, Response] = {}
    for response in sorted(responses, key=lambda r: (not r.scored, r.index)):
        found.setdefault(response.id, response)
    return found


def pick_evaluated(responses: list[Response], pairs: list[str]) -> list[Response]:
    """Of one evaluation: those to the problems `pairs`, in their order, then the other scored ones.

    Where there are neither, the first ones.
    """
    own = one_per_problem(responses)
    chosen = [own[key] for key in pairs if key in own]
    paired = {id(response) for response in chosen}
    chosen += [response for response in responses if response.scored and id(response) not in paired]
    return chosen[:RESPONSES] or responses[:PROBLEMS]


def _growth(pair: Pair) -> tuple[float, str]:
    return size(pair.after) / max(1.0, size(pair.before)), pair.before.id


def size(response: Response) -> float:
    """Tokens, or characters where those were not recorded."""
    return float(len(response.text)) if response.tokens is None else response.tokens


HEAD, TAIL = 30_000, 10_000  # characters kept of a long thinking text, from its start and its end
PIECE = 10_000  # of one step, the problem or the answer
EDGES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)  # of the seven colour levels, in multiples of an even spread

Json = dict[str, Any]


@dataclass(frozen=True)
class Chunk:
    """One rollout file's responses: `catalogue` is what lists and filters need, `data` the rest."""

    key: str
    split: str
    step: int
    recorded: int
    catalogue: list[Json]
    data: str
    title: str = ""
    """What the chunk is called where `split` and `step` do not say it: a benchmark, a file."""


@dataclass(frozen=True)
class Shelf:
    """The responses of one source: chunks by step, evaluations first; `pairs`: problems, in the order they are shown.

    `left_out` says what is not here and by which rule. `kind`: a run, an evaluation, or traces. `lengths`: tokens of
    all responses of a run's first and last evaluation, under what these are called; `flips`: between those two.
    """

    run: str
    chunks: list[Chunk]
    pairs: list[str]
    left_out: list[str]
    notices: list[str]
    kind: str = "run"
    lengths: dict[str, list[float]] = field(default_factory=dict)
    flips: Flips | None = None


def fitting(
    key: str, split: str, step: int, responses: list[Response], recorded: int, room: int, title: str = ""
) -> Chunk | None:
    """The chunk, with fewer responses if it takes more than `room` bytes; None if not even a few fit."""
    most = len(responses)
    while True:
        chunk = pack(key, split, step, responses[:most], recorded, title)
        if len(chunk.data) <= room:
            return chunk
        if most <= 4:
            return None
        most //= 2


def pack(key: str, split: str, step: int, responses: list[Response], recorded: int, title: str = "") -> Chunk:
    """A chunk of `responses`, which are in the order they are shown, out of `recorded` in the file."""
    problems = list(dict.fromkeys(response.problem for response in responses))
    number = {problem: index for index, problem in enumerate(problems)}
    content = {
        "problems": [_clipped(problem) for problem in problems],
        "responses": [_packed(response, number[response.problem]) for response in responses],
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Level 9 and no time of day: small, and the same for the same run. Half a character pair becomes "?".
    data = base64.b64encode(gzip.compress(text.encode("utf-8", errors="replace"), 9, mtime=0)).decode("ascii")
    return Chunk(key, split, step, recorded, [_listed(response) for response in responses], data, title)


def level(response: Response, step: ScoredStep) -> int | None:
    """The colour level of a step: its score in multiples of an even spread, in seven classes; None: no colour."""
    share = response.even_share
    if step.score is None or not share:
        return None
    return sum(step.score / share >= edge for edge in EDGES)


def _listed(response: Response) -> Json:
    effects = response.effects()
    marks = [name for name in ("attenuated", "protected") if name in effects]
    return {
        "id": visible(response.id),
        "group": response.group,
        "index": response.index,
        "verdict": visible(response.verdict or ""),
        "tokens": response.tokens,
        "marks": [*marks, *(["truncated"] if response.truncated else [])],
    }


def _packed(response: Response, problem: int) -> Json:
    return {
        "problem": problem,
        "reference": None if response.reference is None else _clipped(response.reference),
        "thinking": response.thinking_tokens,
        "reward": short(response.reward),
        "rewards": {visible(name): short(value) for name, value in response.rewards.items()},
        "advantage": short(response.advantage),
        "accuracy": short(response.group_accuracy),
        "baseline": short(response.baseline),
        "even": short(response.even_share),
        "steps": len(response.steps),
        "pieces": list(_pieces(response)),
        "answer": _clipped(response.answer),
    }


def _pieces(response: Response) -> Iterator[Json]:
    """The thinking in order: steps, text that is in none, and how much was left out of the middle."""
    left_out = [0, 0]
    for start, end, step in _spans(response):
        if end > HEAD and start < len(response.thinking) - TAIL and end - start <= len(response.thinking) - HEAD:
            left_out = [left_out[0] + (step is not None), left_out[1] + end - start]
            continue
        if left_out[1]:
            yield {"left_out": left_out}
            left_out = [0, 0]
        text = _clipped(response.thinking[start:end])
        if step is not None:
            yield _step(response, step, text)
        elif text.strip():
            yield {"text": text}
    if left_out[1]:
        yield {"left_out": left_out}


def _spans(response: Response) -> Iterator[tuple[int, int, ScoredStep | None]]:
    reached = 0
    for step in response.steps:
        if step.start > reached:
            yield reached, step.start, None
        yield step.start, step.end, step
        reached = step.end
    if reached < len(response.thinking):
        yield reached, len(response.thinking), None


def _step(response: Response, step: ScoredStep, text: str) -> Json:
    return {
        "text": text,
        "kind": visible(step.kind),
        "tokens": step.tokens,
        "score": short(step.score),
        "scale": short(step.scale),
        "level": level(response, step),
        "effect": response.effect(step),
    }


def _clipped(text: str) -> str:
    text = text.strip("\n ")
    if len(text) > PIECE:
        text = f"{text[:PIECE]} … [{len(text) - PIECE:,} characters left out]"
    return visible(text)
