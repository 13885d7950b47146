"""Which responses the page shows. By rule, never by chance and never by hand: the same run gives the same page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from attnpo.report.data.rollouts import Response, read_responses

PAIRS = 4  # problems shown before and after
FILES_SEARCHED = 4  # rollout files read from each end of the training
KINDS = ("attenuated", "protected", "other")


@dataclass(frozen=True)
class Pair:
    """The same held-out problem at the first and at the last evaluation."""

    before: Response
    after: Response


def pick_pairs(files: list[Path]) -> tuple[list[Pair], list[str]]:
    """Up to PAIRS problems, evenly spread over those in both files, ordered by how much shorter they became."""
    if len(files) < 2:
        return [], []
    (first, cut_first), (last, cut_last) = read_responses(files[0]), read_responses(files[-1])
    notices = [notice for notice in (cut_first, cut_last) if notice]
    before, after = _one_per_problem(first), _one_per_problem(last)
    pairs = [Pair(before[key], after[key]) for key in before if key in after]
    scored = [pair for pair in pairs if pair.before.scored and pair.after.scored]
    return spread(sorted(scored or pairs, key=_growth), PAIRS), notices


def _one_per_problem(responses: list[Response]) -> dict[str, Response]:
    found: dict[str, Response] = {}
    for response in sorted(responses, key=lambda r: (not r.scored, r.index)):
        found.setdefault(response.id, response)
    return found


def _growth(pair: Pair) -> tuple[float, str]:
    return _size(pair.after) / max(1.0, _size(pair.before)), pair.before.id


def _size(response: Response) -> float:
    return float(len(response.text)) if response.tokens is None else response.tokens


def spread(ordered: list[Pair], wanted: int) -> list[Pair]:
    """`wanted` items at evenly spaced ranks (the middles of equal parts), all of them if there are fewer."""
    if len(ordered) <= wanted:
        return ordered
    return [ordered[int((part + 0.5) * len(ordered) / wanted)] for part in range(wanted)]


def pick_training(files: Iterable[Path]) -> tuple[list[Response], list[str]]:
    """One response per kind from the first of `files` that has one: with an attenuated step, with a protected step,
    and one whose advantage is not 0 and was not rescaled. Reads FILES_SEARCHED files at most."""
    found: dict[str, Response] = {}
    notices: list[str] = []
    for path in list(files)[:FILES_SEARCHED]:
        responses, notice = read_responses(path)
        if notice:
            notices.append(notice)
        trained_on = [r for r in responses if r.advantage and r.steps]
        middle = median(_size(r) for r in trained_on) if trained_on else 0
        for kind in KINDS:
            fitting = [r for r in trained_on if kind_of(r) == kind]
            if fitting and kind not in found:
                found[kind] = min(fitting, key=lambda r: _rank(r, middle))
        if len(found) == len(KINDS):
            break
    return [found[kind] for kind in KINDS if kind in found], notices


def kind_of(response: Response) -> str:
    effects = response.effects()
    return next((kind for kind in ("attenuated", "protected") if kind in effects), "other")


def _rank(response: Response, middle: float) -> tuple[bool, float, int, int]:
    """Prefer responses that show the contrast (some steps rescaled, some not), then a length near the median."""
    return len(response.effects()) < 2, abs(_size(response) - middle), response.group, response.index
