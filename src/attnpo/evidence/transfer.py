"""Do heads found on easy problems serve on hard ones?"""

from __future__ import annotations

from dataclasses import replace

from attnpo.errors import InputError
from attnpo.evidence.head_sets import PROBLEMS, SETS, Measured, cross_fitted, random_heads
from attnpo.evidence.probing import HeadScores
from attnpo.tables import Cell, Table

COLUMNS = ("chosen on", "measured on", "SRA", "low", "high", "essential", "redundant", "traces", "interval")


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
    return Table(COLUMNS, rows)


def of_other_problems(hard: HeadScores, easy: HeadScores, name: str) -> HeadScores:
    """The hard traces whose problem is not among the easy ones. Raises InputError, naming the file, for none."""
    kept = [i for i, problem in enumerate(hard.problems) if problem not in set(easy.problems)]
    if not kept:
        raise InputError(f"{name}: all problems are among the easy ones too, expected others: those chose the heads")
    return replace(hard.part(kept), counts=hard.counts)
