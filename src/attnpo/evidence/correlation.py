"""How alike two tables of the same heads are (paper section 3: above 0.85 before and after training)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attnpo.bootstrap import draw_problems
from attnpo.errors import InputError
from attnpo.probe.head_table import ACCURACY, HeadTable


def correlation(first: HeadTable, second: HeadTable) -> float | None:
    """Pearson correlation of the step ranking accuracies of all heads; None where all heads of a table rank alike.

    Raises InputError where the heads are not the same.
    """
    _check(first, second)
    means = [table.figures[:, ACCURACY].flatten(1).mean(dim=0, keepdim=True) for table in (first, second)]
    value = float(_pearson(means[0], means[1])[0])
    return value if value == value else None


def correlation_interval(
    first: HeadTable, second: HeadTable, draws: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """95 % bootstrap interval of `correlation`, the same problems drawn for both.

    None where the tables are not of the same problems trace by trace, or of fewer than two problems.
    """
    _check(first, second)
    if first.traces != second.traces or first.problems != second.problems or first.problem_count < 2:
        return None
    # Every trace counts as often as its problem was drawn.
    weights = draw_problems(first.problem_count, draws, seed)[:, first.groups]
    weights /= weights.sum(dim=1, keepdim=True)
    one, two = (weights @ table.figures[:, ACCURACY].flatten(1) for table in (first, second))
    values = _pearson(one, two)
    values = values[~values.isnan()]
    if not len(values):
        return None
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high


def _pearson(one: Float[Tensor, "D H"], two: Float[Tensor, "D H"]) -> Float[Tensor, "D"]:
    """Row by row; not a number where a row is constant."""
    one, two = one - one.mean(dim=1, keepdim=True), two - two.mean(dim=1, keepdim=True)
    return ((one * two).sum(dim=1) / (one.norm(dim=1) * two.norm(dim=1))).clamp(-1, 1)  # rounding may exceed 1


def _check(first: HeadTable, second: HeadTable) -> None:
    shapes = [(table.layers, table.figures.shape[-1]) for table in (first, second)]
    if shapes[0] != shapes[1]:
        found = " and ".join(f"{len(layers)} layers of {heads} heads" for layers, heads in shapes)
        raise InputError(f"heads: found {found}, expected two models with the same layers and heads")
