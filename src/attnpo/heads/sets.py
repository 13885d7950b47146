"""Sets of heads, judged by the mean score that training uses, against random sets: how many heads, of which layers,
and whether heads found on easy problems serve on hard ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch

from attnpo.attention.heads import Head
from attnpo.errors import InputError
from attnpo.heads.scores import HeadScores
from attnpo.heads.table import ESSENTIAL, REDUNDANT, HeadTable
from attnpo.tables import Cell, Table

RANDOM_DRAWS = 100
PROBLEMS, SETS = "problems", "sets"  # what varies between the low and the high figure of a row
ALONE = (0, 0)  # the one head of a set's table

COLUMNS = ("heads", "of layers", "number", "SRA", "low", "high", "essential", "redundant", "interval")


class Measured(NamedTuple):
    """Step ranking accuracy of a set of heads with its interval, and the mean score of the steps (1: uniform)."""

    sra: float
    low: float
    high: float
    essential: float
    redundant: float

    @classmethod
    def of(cls, table: HeadTable) -> Measured:
        """A set's table (`HeadScores.of_set`), with the 95 % bootstrap interval over problems."""
        return cls(
            table.mean()[ALONE], *table.intervals[ALONE], table.mean(ESSENTIAL)[ALONE], table.mean(REDUNDANT)[ALONE]
        )


def cross_fitted(scores: HeadScores, count: int, source: str, among: Sequence[Head] | None = None) -> Measured:
    """The best `count` heads of one half of the problems, measured on the other half, both ways.

    Raises InputError, naming `source`, for fewer than two problems.
    """
    halves = scores.halves(source)
    tables = [
        measured.of_set(chosen.table.best(count, among))
        for chosen, measured in ((halves[1], halves[0]), (halves[0], halves[1]))
    ]
    together = HeadTable(
        torch.cat([table.figures for table in tables]),
        (0,),
        tuple(problem for table in tables for problem in table.problems),
    )
    return Measured.of(together)


def random_heads(scores: HeadScores, count: int, among: Sequence[Head], seed: int = 0) -> Measured:
    """`RANDOM_DRAWS` sets of `count` different heads: the mean of each figure; 95 % of the sets lie in the interval."""
    rng = random.Random(seed)
    tables = [scores.of_set(rng.sample(list(among), count)) for _ in range(RANDOM_DRAWS)]
    accuracy = torch.tensor([table.mean()[ALONE] for table in tables], dtype=torch.float64)
    low, high = torch.quantile(accuracy, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    essential, redundant = (
        sum(table.mean(kind)[ALONE] for table in tables) / len(tables) for kind in (ESSENTIAL, REDUNDANT)
    )
    return Measured(float(accuracy.mean()), low, high, essential, redundant)


def layer_thirds(layers: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Early, middle and late layers; with fewer than three layers each is a group of its own."""
    count = min(3, len(layers))
    bounds = [round(i * len(layers) / count) for i in range(count + 1)]
    return {_range(layers[start], layers[end - 1]): tuple(layers[start:end]) for start, end in pairwise(bounds)}


def smallest_third(scores: HeadScores) -> int:
    """The number of heads in the smallest of the thirds of the layers."""
    return min(len(layers) for layers in layer_thirds(scores.layers).values()) * scores.per_layer


def head_sets_table(scores: HeadScores, numbers: Sequence[int], top: int, source: str) -> Table:
    """Rows for each number of heads of all layers, then for the best `top` of each third of the layers.

    Each has a row of random heads beside it (`RANDOM_DRAWS` sets). "best" heads are measured on the problems that did
    not choose them. "interval": what varies between low and high, 95 % of it: problems drawn again, or random sets.
    Raises InputError for fewer than two problems, and for more heads than there are.
    """
    for option, number, most in (
        ("--numbers", max(numbers), len(scores.heads)),
        ("--top", top, smallest_third(scores)),
    ):
        if number > most:
            raise InputError(f"{option}: found {number}, expected at most {most}, the heads to choose from")
    rows: list[tuple[Cell, ...]] = []
    cases = [(_range(scores.layers[0], scores.layers[-1]), scores.layers, number) for number in sorted(set(numbers))]
    cases += [(name, layers, top) for name, layers in layer_thirds(scores.layers).items()]
    for name, layers, number in cases:
        among = [head for head in scores.heads if head[0] in layers]
        rows.append(("best", name, number, *cross_fitted(scores, number, source, among), PROBLEMS))
        if number < len(among):
            rows.append(("random", name, number, *random_heads(scores, number, among), SETS))
    return Table(COLUMNS, rows)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"


TRANSFER_COLUMNS = ("chosen on", "measured on", "SRA", "low", "high", "essential", "redundant", "traces", "interval")


def transfer_table(easy: HeadScores, hard: HeadScores, top: int, names: tuple[str, str]) -> Table:
    """SRA of sets of `top` heads on the hard traces: chosen on the easy ones, on others of the hard ones, at random.

    names: what the two files are called, for messages. The first row is the easy traces' own heads, at home. The files
    must not share problems (`of_other_problems`): no set is measured on a problem that chose it. "interval": what
    varies between low and high, 95 % of it: problems drawn again, or random sets (`head_sets.RANDOM_DRAWS` of them).
    Raises InputError for fewer than two problems in a file.
    """
    rows: list[tuple[Cell, ...]] = []

    def add(chosen: str, measured: str, figures: Measured, traces: int, interval: str = PROBLEMS) -> None:
        rows.append((chosen, measured, *figures, traces, interval))

    add("easy (half)", "easy", cross_fitted(easy, top, names[0]), len(easy.scores))
    add("easy", "hard", Measured.of(hard.of_set(easy.table.best(top))), len(hard.scores))
    add("hard (half)", "hard", cross_fitted(hard, top, names[1]), len(hard.scores))
    add("random", "hard", random_heads(hard, top, hard.heads), len(hard.scores), SETS)
    return Table(TRANSFER_COLUMNS, rows)


def of_other_problems(hard: HeadScores, easy: HeadScores, name: str) -> HeadScores:
    """The hard traces whose problem is not among the easy ones. Raises InputError, naming the file, for none."""
    kept = [i for i, problem in enumerate(hard.problems) if problem not in set(easy.problems)]
    if not kept:
        raise InputError(f"{name}: all problems are among the easy ones too, expected others: those chose the heads")
    return replace(hard.part(kept), counts=hard.counts)
