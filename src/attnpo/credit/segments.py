"""Segments of a response: the cuts in its thinking, and the advantage of each segment from the potentials at its ends.

Shared by SHAPE and MRT. A segment runs from one cut to the next; the first begins with the response and the last ends
with it, closing tag and final answer included, so that segments tile the sampled tokens and the potential after the
last one is the outcome. Only thinking is cut.

Shape legend: B responses, C completion tokens (padded), T tokens of one response, K segments (at most).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from attnpo.checks import check_flag, check_number, check_whole
from attnpo.errors import InputError
from attnpo.steps.formats import AUTO, ThinkingFormat

CUTS = ("entropy", "even", "steps")
"""Places at which thinking is cut. entropy: tokens whose entropy is above the threshold. even: into equal lengths.
steps: where steps begin."""


@dataclass(frozen=True)
class SegmentOptions:
    """Options of every method with segments: how a response is cut, and how its potentials are estimated.

    Attributes:
        segments: K, at most; K - 1 potentials are estimated inside the thinking and one per prompt.
        cuts: one of `CUTS`.
        quantile: entropy cuts: the threshold τ is this quantile of the response's own thinking entropies.
        threshold: entropy cuts: τ itself, in nats, instead of the quantile.
        rollouts: m, continuations per boundary.
        closing: text appended to the prefix, so that an answer must follow. Empty: the thinking continues freely, and
            `rollout_tokens` must leave it room to finish. auto: the marks that end the thinking in the run's thinking
            format, and "The final answer is \\boxed{" (`closing_of`).
        rollout_tokens: most tokens of a continuation.
        rollout_batch: continuations sampled at once from a shared cache; by default as many as the run has responses.
        share_prefixes: whether prefixes are computed once and shared; False computes every prefix again.

    Raises:
        InputError: an option out of range; the message names it.
    """

    segments: int = 8
    cuts: str = "entropy"
    quantile: float = 0.9
    threshold: float | None = None
    rollouts: int = 8
    closing: str = AUTO
    rollout_tokens: int = 64
    rollout_batch: int | None = None
    share_prefixes: bool = True

    def __post_init__(self) -> None:
        for option in ("segments", "rollouts", "rollout_tokens", "rollout_batch"):
            if option != "rollout_batch" or self.rollout_batch is not None:
                check_whole(option, getattr(self, option), low=1)
        check_number("quantile", self.quantile, low=0, high=1)
        if self.threshold is not None:
            check_number("threshold", self.threshold, low=0)
        check_flag("share_prefixes", self.share_prefixes)
        if self.cuts not in CUTS:
            raise InputError(f"cuts: found {self.cuts!r}, expected one of {', '.join(CUTS)}")
        if not isinstance(self.closing, str):
            raise InputError(f"closing: found {self.closing!r}, expected a text")


def closing_of(form: ThinkingFormat) -> str:
    """The text that ends the thinking in a format and begins an answer: the default of `closing`.

    >>> from attnpo.steps.formats import THINK
    >>> closing_of(THINK)
    '\\n</think>\\n\\nThe final answer is \\\\boxed{'
    """
    between = "" if form.answer_opening else "\n\n"
    return f"{form.ending}{between}The final answer is \\boxed{{"


def cut_points(
    options: SegmentOptions,
    thinking: tuple[int, int],
    *,
    entropy: Float[Tensor, "T"] | None = None,
    steps: Sequence[int] = (),
) -> list[int]:
    """The tokens at which the second and later segments of a response begin, at most K - 1, in order.

    Args:
        thinking: [first, last) thinking token. The first one is never a cut.
        entropy: in nats, of the distribution from which each token was drawn (entropy cuts).
        steps: the first token of every step (step cuts).
    """
    first, last = thinking
    if options.cuts == "even":
        inner = (first + part * (last - first) // options.segments for part in range(1, options.segments))
        return sorted({cut for cut in inner if cut > first})
    if options.cuts == "steps":
        return thin(sorted({start for start in steps if first < start < last}), options.segments - 1)
    assert entropy is not None
    inside = entropy[first:last].float()
    if len(inside) < 2:
        return []
    threshold = inside.quantile(options.quantile).item() if options.threshold is None else options.threshold
    above = (inside[1:] > threshold).nonzero().flatten() + first + 1
    return thin(above.tolist(), options.segments - 1)


def thin(candidates: Sequence[int], count: int) -> list[int]:
    """At most `count` of the candidates, evenly by rank: the middle one of each of `count` equal groups.

    Example:
        >>> thin([3, 5, 8, 20, 21, 40], 2), thin([3, 5], 4)
        ([5, 21], [3, 5])
    """
    n = len(candidates)
    if n <= count:
        return list(candidates)
    return [candidates[(2 * group + 1) * n // (2 * count)] for group in range(count)]


def segment_ids(cuts: Sequence[Sequence[int]], lengths: Sequence[int], width: int, segments: int) -> Int[Tensor, "B C"]:
    """k for a token of segment k (zero-based); `segments` on padding, from `lengths` on."""
    begins = torch.zeros(len(cuts), width, dtype=torch.long)
    for row, starts in zip(begins, cuts, strict=True):
        row[list(starts)] = 1
    padding = torch.arange(width)[None, :] >= torch.tensor(lengths)[:, None]
    return begins.cumsum(dim=1).masked_fill(padding, segments)


def segment_sums(
    values: Shaped[Tensor, "B C"], segments: Int[Tensor, "B C"], mask: Bool[Tensor, "B C"], count: int
) -> Float[Tensor, "B {count}"]:
    """Sum of `values` over the sampled tokens of every segment."""
    values = torch.where(mask, values, torch.zeros_like(values))
    sums = values.new_zeros(len(values), count + 1)
    return sums.scatter_add(1, segments.masked_fill(~mask, count), values)[:, :count]


def segment_advantages(
    advantages: Float[Tensor, "B"],
    before: Float[Tensor, "B K"],
    after: Float[Tensor, "B #K"],
    *,
    alpha: float,
    discounts: Float[Tensor, "B K"] | float = 1.0,
) -> Float[Tensor, "B K"]:
    """A_k = A + α·(γ_k·after - before) from the potentials at both ends; A if one of them is unknown (NaN)."""
    shaping = discounts * after - before
    return advantages[:, None] + alpha * torch.where(shaping.isnan(), torch.zeros_like(shaping), shaping)


def spread_segments(
    values: Float[Tensor, "B K"], segments: Int[Tensor, "B C"], mask: Shaped[Tensor, "B C"]
) -> Float[Tensor, "B C"]:
    """The value of each token's segment; exactly 0 on padding."""
    padded = torch.cat([values, torch.zeros_like(values[:, :1])], dim=1)
    inside = segments.masked_fill(~mask.bool(), values.shape[1]).clamp(max=values.shape[1])
    return padded.gather(1, inside)
