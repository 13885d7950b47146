"""Do heads found on easy problems serve on hard ones?"""

from __future__ import annotations

from attnpo.evidence.head_sets import Measured, best_of, cross_fitted, random_heads
from attnpo.evidence.output import Cell, Table
from attnpo.evidence.probing import HeadScores

COLUMNS = ("chosen on", "measured on", "SRA", "low", "high", "essential", "redundant", "traces")


def transfer_table(easy: HeadScores, hard: HeadScores, top: int, names: tuple[str, str]) -> Table:
    """SRA of sets of `top` heads on the hard traces: chosen on the easy ones, on others of the hard ones, at random.

    names: what the two files are called, for messages. The first row is the easy traces' own heads, at home. No
    set is measured on a problem that chose it. The interval of random sets
    (`head_sets.RANDOM_DRAWS` of them) is theirs, all others are 95 % bootstrap intervals over problems.
    Raises InputError for fewer than two problems in a file.
    """
    rows: list[tuple[Cell, ...]] = []

    def add(chosen: str, measured: str, figures: Measured, traces: int) -> None:
        rows.append((chosen, measured, *figures, traces))

    add("easy (half)", "easy", cross_fitted(easy, top, names[0]), len(easy.scores))
    add("easy", "hard", Measured.of(hard.of_set(best_of(easy, top, easy.heads))), len(hard.scores))
    add("hard (half)", "hard", cross_fitted(hard, top, names[1]), len(hard.scores))
    add("random", "hard", random_heads(hard, top, hard.heads), len(hard.scores))
    return Table(COLUMNS, rows)
