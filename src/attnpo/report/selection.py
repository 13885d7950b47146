"""Which responses the page contains: chosen by rule, within one budget of bytes, with a note of what is left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from attnpo.report.elements import plural
from attnpo.report.evaluation import Sampled
from attnpo.report.packing import Chunk, fitting
from attnpo.report.rollouts import Response, ScoredStep, TracedFile, read_responses
from attnpo.report.run import Run
from attnpo.steps.segment import segment_steps

BUDGET = 6_000_000  # bytes of the page, for the responses of all sources
TRAIN_STEPS = 24  # files of each kind, spread evenly over the run
EVALUATIONS = 16
RESPONSES = 64  # of one training step
PROBLEMS = 32  # of the first and the last evaluation
FLIPS = 32  # further ones of these two, whose verdict changed
BENCHMARK_PROBLEMS = 64  # of one benchmark
TRACES = 200  # of one file
RIGHT = {"right": True, "wrong": False, "no_answer": False}  # other verdicts are not about the answer


@dataclass(frozen=True)
class Pair:
    """The same held-out problem at the first and at the last evaluation."""

    before: Response
    after: Response


def evenly(count: int, wanted: int) -> list[int]:
    """Return `wanted` of the indices below `count`, evenly spaced, including the first and the last.

    >>> evenly(10, 4), evenly(3, 5)
    ([0, 3, 6, 9], [0, 1, 2])
    """
    if count <= wanted:
        return list(range(count))
    return [round(part * (count - 1) / (wanted - 1)) for part in range(wanted)] if wanted > 1 else [0][:wanted]


def ends_first(count: int) -> Iterator[int]:
    """Yield the indices below `count`: the ends, the middle, the middles of the halves, …; each prefix is spread out.

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
    """Choose problems that are in both: first those with scores in both, then others, evenly spaced in their order.

    Up to FLIPS others whose verdict changed follow, also evenly spaced. Each of the three groups is ordered from the
    problem whose response shrank most, relative to its length, to the one whose response grew most.
    """
    before, after = one_per_problem(first), one_per_problem(last)
    pairs = sorted((Pair(before[key], after[key]) for key in before if key in after), key=_growth)
    scored = [pair for pair in pairs if pair.before.scored and pair.after.scored]
    others = [pair for pair in pairs if not (pair.before.scored and pair.after.scored)]
    chosen = [scored[index] for index in evenly(len(scored), wanted)]
    chosen += [others[index] for index in evenly(len(others), wanted - len(chosen))]
    changed = [pair for pair in pairs if flip(pair.before, pair.after) and pair not in chosen]
    return chosen + [changed[index] for index in evenly(len(changed), FLIPS)]


def flip(before: Response, after: Response) -> str | None:
    """Return "gained" (only right after), "lost" (only right before) or None (unchanged, or a verdict is missing)."""
    states = [RIGHT.get(response.verdict or "") for response in (before, after)]
    if None in states or states[0] == states[1]:
        return None
    return "gained" if states[1] else "lost"


@dataclass(frozen=True)
class Flips:
    """How many problems are right before and after, only after, only before, and neither."""

    both: int
    gained: int
    lost: int
    neither: int

    @property
    def problems(self) -> int:
        return self.both + self.gained + self.lost + self.neither

    def sentence(self, of: str) -> str:
        """Describe the counts in one sentence; `of` names the problems and follows their number."""
        return (
            f"Of {self.problems:,} {of} {self.gained:,} went from not right to right and {self.lost:,} from right to "
            f"not right; {self.both:,} are right in both, {self.neither:,} in neither."
        )


def count_flips(first: list[Response], last: list[Response]) -> Flips:
    """Count over the problems of both lists, by the first response to each; both need a verdict about the answer."""
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
    """One response to each problem: a scored one if there is one, else the first."""
    return first_per_problem(sorted(responses, key=lambda r: (not r.scored, r.index)))


def pick_evaluated(responses: list[Response], pairs: list[str]) -> list[Response]:
    """Choose responses of one evaluation: those to the problems `pairs`, in that order, then the other scored ones.

    If there are neither, take the first ones.
    """
    own = one_per_problem(responses)
    chosen = [own[key] for key in pairs if key in own]
    paired = {id(response) for response in chosen}
    chosen += [response for response in responses if response.scored and id(response) not in paired]
    return chosen[:RESPONSES] or responses[:PROBLEMS]


def _growth(pair: Pair) -> tuple[float, str]:
    return size(pair.after) / max(1.0, size(pair.before)), pair.before.id


def size(response: Response) -> float:
    """The length in tokens, or in characters if tokens were not recorded."""
    return float(len(response.text)) if response.tokens is None else response.tokens


@dataclass(frozen=True)
class Shelf:
    """The responses of one source: chunks by step, evaluations first; `pairs`: problem ids in the order shown.

    `left_out`: how much of what was recorded is here, in words. `kind`: "run", "evaluation" or "traces". `lengths`:
    tokens of all responses of a run's first and last evaluation, by the evaluation's label; `flips`: between those two.
    """

    run: str
    chunks: list[Chunk]
    pairs: list[str]
    left_out: list[str]
    notices: list[str]
    kind: str = "run"
    lengths: dict[str, list[float]] = field(default_factory=dict)
    flips: Flips | None = None


def collect(runs: list[Run], sampled: Sequence[Sampled] = (), files: Sequence[TracedFile] = ()) -> list[Shelf]:
    """Return one shelf per run, evaluation and file of traces, each with an equal part of the budget.

    Raises InputError for malformed rollout files.
    """
    each = BUDGET // max(1, len(runs) + len(sampled) + len(files))
    return [
        *(_shelve_run(run, each) for run in runs),
        *shelve_evaluations(list(sampled), each * len(sampled)),
        *(_shelve_traces(file, each) for file in files),
    ]


def _shelve_run(run: Run, budget: int) -> Shelf:
    notices: list[str] = []

    def read(path: Path) -> list[Response]:
        responses, notice = read_responses(path)
        if notice:
            notices.append(notice)
        return responses

    ends = {path: read(path) for path in (*run.eval_files[:1], *run.eval_files[1:][-1:])}
    first, last = (*ends.values(), [], [])[:2]
    pairs = [pair.before.id for pair in pick_pairs(first, last)]
    chunks: list[Chunk] = []
    for files, wanted, part in (
        (run.eval_files, EVALUATIONS, budget // 2),
        (run.train_files, TRAIN_STEPS, budget),
    ):
        chosen = [files[index] for index in evenly(len(files), wanted)]
        for index in ends_first(len(chosen)):
            path = chosen[index]
            responses = ends[path] if path in ends else read(path)
            if path in run.eval_files:
                picked = pick_evaluated(responses, pairs if path in ends else [])
            else:
                picked = responses[:RESPONSES]
            chunk = _chunk(path, picked, len(responses), part - sum(len(chunk.data) for chunk in chunks))
            if chunk is None:
                break
            chunks.append(chunk)
    chunks = sorted((chunk for chunk in chunks if chunk.catalogue), key=lambda chunk: (chunk.split, chunk.step))
    lengths = {}
    if len(ends) == 2:
        names = [f"{when}, step {step_of(path)}" for when, path in zip(("before", "after"), ends, strict=True)]
        both = zip(names, (first, last), strict=True)
        lengths = {name: [one.tokens for one in part if one.tokens is not None] for name, part in both}
    left_out, flips = _left_out(run, chunks), count_flips(first, last)
    return Shelf(run.name, chunks, pairs, left_out, notices, lengths=lengths, flips=flips)


def step_of(path: Path) -> int:
    """The step in the name of a rollout file."""
    return int(path.name.removesuffix(".jsonl.gz").split("-")[1])


def _chunk(path: Path, responses: list[Response], recorded: int, room: int) -> Chunk | None:
    """Pack one rollout file."""
    split, step = path.name.split("-")[0], step_of(path)
    return fitting(f"{split}-{step}", split, step, responses, recorded, room)


def _left_out(run: Run, chunks: list[Chunk]) -> list[str]:
    notes = []
    for split, files, noun in (("eval", run.eval_files, "evaluation"), ("train", run.train_files, "training step")):
        here = [chunk for chunk in chunks if chunk.split == split]
        if not files:
            continue
        shown, recorded = sum(len(chunk.catalogue) for chunk in here), sum(chunk.recorded for chunk in here)
        steps = f"{len(here)} of {plural(len(files), f'recorded {noun}')}"
        notes.append(f"{steps}, and {shown:,} of their {plural(recorded, 'response')}")
    return notes


def with_steps(response: Response) -> Response:
    """Return the response with its thinking split into steps as `attnpo segment` does; the steps have no scores."""
    steps = segment_steps(response.thinking)
    return replace(response, steps=tuple(ScoredStep(s.start, s.end, s.kind, None, None, None) for s in steps))


def bases(sampled: list[Sampled]) -> dict[str, Sampled]:
    """Per benchmark, the first evaluation that has responses to it: the others are compared with this one."""
    found: dict[str, Sampled] = {}
    for one in sampled:
        for name in one.responses:
            found.setdefault(name, one)
    return found


def flips_between(sampled: list[Sampled]) -> list[tuple[str, str, str, Flips]]:
    """(benchmark, first evaluation, other one, counts) for each other evaluation that has problems of the first."""
    return [
        (name, base.evaluation.name, one.evaluation.name, counts)
        for name, base in bases(sampled).items()
        for one in sampled
        if one is not base and name in one.responses
        if (counts := count_flips(base.responses[name], one.responses[name])).problems
    ]


def shelve_evaluations(sampled: list[Sampled], budget: int) -> list[Shelf]:
    """Return one shelf per evaluation with a chunk per benchmark: the same problems in each, flipped ones first."""
    chosen = {name: _chosen(name, base, sampled) for name, base in bases(sampled).items()}
    return [_shelve_evaluation(one, chosen, budget // len(sampled)) for one in sampled]


def _chosen(name: str, base: Sampled, sampled: list[Sampled]) -> list[str]:
    """Choose problem ids: up to half are problems whose verdict changed, then others, both evenly spaced."""
    first = first_per_problem(base.responses[name])
    others = [first_per_problem(one.responses[name]) for one in sampled if one is not base and name in one.responses]
    changed = [key for key in first if any(key in other and flip(first[key], other[key]) for other in others)]
    flipped = [changed[index] for index in evenly(len(changed), BENCHMARK_PROBLEMS // 2)]
    rest = [key for key in first if key not in set(flipped)]
    return flipped + [rest[index] for index in evenly(len(rest), BENCHMARK_PROBLEMS - len(flipped))]


def _shelve_evaluation(one: Sampled, chosen: dict[str, list[str]], budget: int) -> Shelf:
    chunks: list[Chunk] = []
    left_out = []
    for index, (name, responses) in enumerate(one.responses.items()):
        own = first_per_problem(responses)
        # An evaluation that has none of the chosen problems shows its own.
        keys = [key for key in chosen[name] if key in own] or list(own)[:BENCHMARK_PROBLEMS]
        picked = [with_steps(own[key]) for key in keys]
        room = (budget - sum(len(chunk.data) for chunk in chunks)) // (len(one.responses) - index)
        chunk = fitting(f"bench-{index}", "bench", 0, picked, len(responses), room, name)
        if chunk is not None:
            chunks.append(chunk)
        shown = 0 if chunk is None else len(chunk.catalogue)
        left_out.append(f"{name}: {shown:,} of {plural(len(own), 'problem')}, of each the first response")
    return Shelf(one.evaluation.name, chunks, [], left_out, one.notices, "evaluation")


def _shelve_traces(file: TracedFile, budget: int) -> Shelf:
    picked = [file.traces[index] for index in evenly(len(file.traces), TRACES)]
    chunk = fitting("traces-0", "traces", 0, picked, len(file.traces), budget, file.name)
    shown = 0 if chunk is None else len(chunk.catalogue)
    note = f"{shown:,} of {plural(len(file.traces), 'trace')}"
    return Shelf(file.name, [] if chunk is None else [chunk], [], [note], [], "traces")
