"""How every head of a model ranks the steps of labelled traces, and which heads are the key-focus heads.

Step ranking accuracy measures how well a head's attention separates essential from redundant steps (paper section 4).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from attnpo.attention.heads import Head
from attnpo.attention.model import all_heads, scorable_layers
from attnpo.bootstrap import bootstrap_over_problems, number_problems
from attnpo.errors import InputError
from attnpo.traces.labelled import has_both_kinds, usable
from attnpo.traces.prepared import PreparedTrace, score_traces


@dataclass(frozen=True, eq=False)
class MeanAccuracy:
    """Step ranking accuracy of every head, averaged over `responses`; `excluded`: responses with one kind of step."""

    accuracy: Float[Tensor, "H"]
    responses: int
    excluded: int


def step_ranking_accuracy(scores: Float[Tensor, "H S"], essential: Bool[Tensor, "S"]) -> Float[Tensor, "H"]:
    """Return the share of (essential, redundant) step pairs with S(essential) > S(redundant), ties one half.

    scores: S(l,h,s_k) of H heads for the S steps of one response. The result is float64, in [0, 1].
    Raises InputError when the response has no essential or no redundant step, or the shapes do not fit.
    """
    if scores.ndim != 2 or essential.shape != scores.shape[1:]:
        raise InputError(f"scores {tuple(scores.shape)} and labels {tuple(essential.shape)}: expected [H, S] and [S]")
    essential = essential.bool()
    if not has_both_kinds(essential):
        raise InputError(
            f"labels: {int(essential.sum())} of {len(essential)} steps are essential, expected both kinds of step"
        )
    difference = scores[:, essential, None].double() - scores[:, None, ~essential].double()
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).mean(dim=(1, 2))


def mean_step_ranking_accuracy(responses: Iterable[tuple[Tensor, Tensor]]) -> MeanAccuracy:
    """Average over labelled responses, pairs of scores [H, S_i] and essential [S_i]; those with one kind are excluded.

    Raises InputError when no response has both kinds of step.
    """
    total: Tensor | None = None
    counted = excluded = 0
    for scores, essential in responses:
        if not has_both_kinds(essential):
            excluded += 1
            continue
        accuracy = step_ranking_accuracy(scores, essential)
        total = accuracy if total is None else total + accuracy
        counted += 1
    if total is None:
        raise InputError(f"labels: none of {excluded} responses has both essential and redundant steps")
    return MeanAccuracy(total / counted, counted, excluded)


ACCURACY, ESSENTIAL, REDUNDANT = range(3)
"""The three figures of a head on a trace: its step ranking accuracy, and the mean scores of the essential and of the
redundant steps in units of |F| / |o|, the score of uniform attention (the baseline B at p = 1)."""

CHANCE = 0.5
FEWEST = 16
"""With fewer traces with both kinds of step, the ranking of heads means little."""

FEWEST_PROBLEMS = 8
"""The same for different problems: responses to one problem are similar, and intervals resample problems."""

SEPARATES = 0.7
"""A key-focus head ranks at least this share of the step pairs correctly, and the lower end of its interval is above
chance. The paper's best heads reach 0.95; most heads of a model are near 0.5 (paper section 3)."""


@dataclass(frozen=True, eq=False)
class HeadTable:
    """The figures of every head on N labelled traces; layers and heads count from 0."""

    figures: Float[Tensor, "N 3 L H"]
    layers: tuple[int, ...]  # the layer of each index along L
    # The problem of each trace, as text or number; () if all are different. Responses to one problem are similar:
    # they are resampled together, and are in the same half.
    problems: tuple[str | int, ...] = ()

    @property
    def traces(self) -> int:
        """N, the number of traces with both kinds of step."""
        return len(self.figures)

    @property
    def problem_count(self) -> int:
        """Number of different problems of the traces."""
        return int(self.groups.max()) + 1

    def mean(self, figure: int = ACCURACY) -> dict[Head, float]:
        """Return the mean of one figure over the traces, for every head."""
        return self._by_head(self.figures[:, figure].mean(dim=0))

    @cached_property
    def intervals(self) -> dict[Head, tuple[float, float]]:
        """`interval` with its defaults, computed once: it takes seconds for thousands of heads."""
        return self.interval()

    def interval(self, draws: int = 2000, seed: int = 0) -> dict[Head, tuple[float, float]]:
        """Return 95 % bootstrap intervals of the step ranking accuracy over problems; points for a single problem."""
        accuracy = self.figures[:, ACCURACY].flatten(1)
        low, high = bootstrap_over_problems(accuracy, self.groups, draws, seed)
        shape = self.figures.shape[2:]
        lows, highs = self._by_head(low.view(shape)), self._by_head(high.view(shape))
        return {head: (lows[head], highs[head]) for head in lows}

    def best(self, count: int, among: Sequence[Head] | None = None) -> list[Head]:
        """Return the `count` heads of highest step ranking accuracy, best first; equal ones in order of layer and head.

        among: default all. Raises InputError when there are fewer.
        """
        accuracy = self.mean()
        among = list(accuracy) if among is None else among
        if not 1 <= count <= len(among):
            raise InputError(f"number of heads: found {count}, expected 1 to {len(among)}, the heads probed")
        return sorted(among, key=lambda head: (-accuracy[head], head))[:count]

    def held_out_accuracy(self, count: int) -> float | None:
        """Return the mean accuracy of the best `count` heads of one half of the problems, measured on the other half.

        On the traces that chose it, the best of many heads looks better than it is; this figure avoids that. Halves
        are the even and the odd problems, both ways. None for fewer than two problems.
        """
        halves = self.halves()
        if halves is None:
            return None
        found = []
        for chosen, measured in (halves, halves[::-1]):
            accuracy = measured.mean()
            found += [accuracy[head] for head in chosen.best(count)]
        return sum(found) / len(found)

    def halves(self) -> tuple[HeadTable, HeadTable] | None:
        """Return the traces of the even and of the odd problems; None for fewer than two problems."""
        places = self.half_places()
        return None if places is None else (self.part(places[0]), self.part(places[1]))

    def half_places(self) -> tuple[list[int], list[int]] | None:
        """Return the indices of the traces of the even and of the odd problems, numbered in order of appearance; None
        for fewer than two problems."""
        if self.problem_count < 2:
            return None
        half = self.groups % 2
        return torch.nonzero(half == 0).flatten().tolist(), torch.nonzero(half == 1).flatten().tolist()

    def part(self, traces: Sequence[int]) -> HeadTable:
        """Return the table of some of the traces, given by their indices."""
        problems = tuple(self.problems[i] for i in traces) if self.problems else ()
        return HeadTable(self.figures[list(traces)], self.layers, problems)

    @cached_property
    def groups(self) -> Int64[Tensor, "N"]:
        """The problem of each trace as a number from 0, in order of appearance."""
        if not self.problems:
            return torch.arange(self.traces)
        assert len(self.problems) == self.traces
        return number_problems(self.problems)

    def _by_head(self, values: Float[Tensor, "L H"]) -> dict[Head, float]:
        return {
            (layer, head): value
            for layer, row in zip(self.layers, values.tolist(), strict=True)
            for head, value in enumerate(row)
        }


def probe_traces(
    model: nn.Module,
    traces: Sequence[PreparedTrace],
    essential: Sequence[Sequence[bool | None]],
    *,
    layers: Sequence[int] | None = None,
    batch_size: int = 8,
) -> Iterator[tuple[int, Float[Tensor, "3 L H"]]]:
    """Yield (index in `traces`, the figures of every head) for each trace with both kinds of step, batch by batch.

    essential[i][k]: the label of step k of trace i; None: unlabelled, left out. Skipped traces are left out too. One
    forward per batch reads every head of every layer. Memory: that of a forward without gradient, at most 512 MiB of
    attention rows (`attnpo.attention.rows.CHUNK_ELEMENTS`; never a T×T matrix), and one number per head and step.
    """
    which = [i for i, (trace, labels) in enumerate(zip(traces, essential, strict=True)) if usable(trace, labels)]
    layers = scorable_layers(model) if layers is None else layers
    heads = all_heads(model, layers)
    for place, scores in score_traces(model, [traces[i] for i in which], heads, batch_size):
        i = which[place]
        labelled = torch.tensor([label is not None for label in essential[i]])
        kinds = torch.tensor([bool(label) for label in essential[i]])[labelled]
        figures = head_figures(scores[:, labelled], kinds, traces[i].answer_tokens / len(traces[i].ids))
        yield i, figures.view(3, len(layers), -1)


def head_figures(scores: Float[Tensor, "H S"], essential: Bool[Tensor, "S"], uniform: float) -> Float[Tensor, "3 H"]:
    """Return the figures of H heads on one trace; `uniform` is |F| / |o|."""
    shares = scores.double() / uniform
    kinds = [shares[:, essential].mean(dim=1), shares[:, ~essential].mean(dim=1)]
    return torch.stack([step_ranking_accuracy(scores, essential), *kinds])


def parting_scale(table: HeadTable, heads: Sequence[Head]) -> float:
    """Return a score that separates essential from redundant steps, in units of uniform attention |F| / |o|.

    The geometric mean of the two kinds' mean scores over `heads`: its ratio to the redundant mean is that of the
    essential mean to it. It is the measured threshold τ of the baseline (`attnpo.credit.attnpo`).
    """
    essential, redundant = (
        statistics.fmean(table.mean(figure)[head] for head in heads) for figure in (ESSENTIAL, REDUNDANT)
    )
    return math.sqrt(essential * redundant)


def separating(table: HeadTable, heads: Sequence[Head]) -> list[Head]:
    """Return those of `heads` that separate essential from redundant steps (`SEPARATES`); none for a single problem."""
    if table.problem_count < 2:
        return []
    accuracy = table.mean()
    return [head for head in heads if accuracy[head] >= SEPARATES and table.intervals[head][0] > CHANCE]


def too_few(table: HeadTable) -> str | None:
    """Return a warning if the traces, or their problems, are too few to choose heads by; otherwise None."""
    if table.traces < FEWEST:
        return f"{table.traces} traces are few to choose heads by (fewer than {FEWEST})"
    if table.problem_count < FEWEST_PROBLEMS:
        return (
            f"the traces answer {table.problem_count} problems, few to choose heads by (fewer than {FEWEST_PROBLEMS})"
        )
    return None
