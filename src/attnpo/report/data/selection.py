"""Which responses the page carries. By rule, never by chance and never by hand: the same run gives the same page."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from attnpo.report.data.rollouts import Response

TRAIN_STEPS = 24  # files of each kind, spread evenly over the run
EVALUATIONS = 16
RESPONSES = 64  # of one training step
PROBLEMS = 32  # of the first and the last evaluation


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

    Each kind runs from the problem whose response became shortest by share to the one whose grew most.
    """
    before, after = one_per_problem(first), one_per_problem(last)
    pairs = sorted((Pair(before[key], after[key]) for key in before if key in after), key=_growth)
    scored = [pair for pair in pairs if pair.before.scored and pair.after.scored]
    others = [pair for pair in pairs if not (pair.before.scored and pair.after.scored)]
    chosen = [scored[index] for index in evenly(len(scored), wanted)]
    chosen += [others[index] for index in evenly(len(others), wanted - len(chosen))] if len(chosen) < wanted else []
    return chosen


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
