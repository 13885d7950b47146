"""SHAPE: segments are rewarded for their progress towards the answer, and tokens are weighted by their entropy.

Source: SHAPE (arXiv 2604.06636, section 4; docs/papers.md). Segments of a response begin at high-entropy tokens of its
thinking. Φ(s_k), the potential at the start of segment k, is the mean correctness of short continuations from there;
after the last segment it is the outcome. With R the outcome advantage, L_k the tokens of segment k and z(H_t) the
z-score of a token's entropy among those of its segment,

    γ_k = max(γ_min, 1 - (L_k / L_ref)·(1 - γ_min))          (long segments are discounted)
    A_k = R + α·(γ_k·Φ(s_{k+1}) - Φ(s_k))
    w_t = clip(1 + β·z(H_t), δ_min, δ_max),   A_t = A_k·w_t

With Δ = Φ(s_{k+1}) - Φ(s_k) the bracket is exactly γ_k·Δ - (1 - γ_k)·Φ(s_k): progress minus a tax on potential reached
before. It is in [-1, 1], so every segment of a right response ranks above every segment of a wrong one if
α < (R_right - R_wrong)/2: α < 0.5 for rewards 1 and 0, and for each outcome advantage of this package on a plain
accuracy (dr_grpo's gap is 1, rloo's G/(G - 1), grpo's at least 1.41). A length reward narrows the gap. Weights are
positive, so they change no sign. With m = 8 a step of true progress is never punished while γ_min > 7/8.

Choices where the paper specifies nothing:
- τ is the 0.9 quantile of the response's own thinking entropies; too many candidates are thinned evenly by rank.
- The last segment includes the closing tag and the final answer.
- L_ref is the mean length of the segments of the generation batch. A mean per response would give all of K equal
  segments γ_min, however long the response is.
- β = 0.2, δ_min = 0.5, δ_max = 2; z uses the population standard deviation, and is 0 where that is 0.
- Φ at the prompt is shared by the group. Continuations close the thinking ("immediate solvability"); 64 tokens.
- A response without a verdict is not changed. A segment with an unknown potential at one end keeps R. A group whose
  rewards are all equal has R = 0 but still has potentials, so the method gives a signal that the outcome does not.
Only excerpts and summaries of the paper could be read; one of them states that continuations are forced to answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnpo.checks import check_flag, check_number
from attnpo.credit.base import CreditInputs, CreditResult, register_credit
from attnpo.credit.segments import SegmentOptions, segment_advantages, segment_sums, spread_segments
from attnpo.errors import InputError


@register_credit("shape")
@dataclass(frozen=True)
class ShapeCredit(SegmentOptions):
    """Stage-aware hierarchical advantage. The paper's ablations: `cuts="even"`, `token_weights`, `fixed_discount`.

    Attributes:
        alpha: weight of the shaping term, α (≥ 0).
        gamma_min: least discount, in [0, 1].
        reference_length: L_ref in tokens; by default the mean over the generation batch.
        fixed_discount: γ_min for every segment, whatever its length.
        token_weights: weight tokens by entropy.
        beta: strength of the weights, β (≥ 0).
        weight_min, weight_max: δ_min in (0, 1] and δ_max ≥ 1.

    Raises:
        InputError: an option out of range; the message names it.
    """

    alpha: float = 0.3
    gamma_min: float = 0.9
    reference_length: float | None = None
    fixed_discount: bool = False
    token_weights: bool = True
    beta: float = 0.2
    weight_min: float = 0.5
    weight_max: float = 2.0
    name: ClassVar[str]
    signals: ClassVar[frozenset[str]] = frozenset({"entropy", "segments", "potential", "mean_segment"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("alpha", self.alpha, low=0)
        check_number("gamma_min", self.gamma_min, low=0, high=1)
        check_number("beta", self.beta, low=0)
        check_number("weight_min", self.weight_min, low=0, high=1)
        check_number("weight_max", self.weight_max, low=1)
        if self.weight_min == 0:
            raise InputError("weight_min: found 0, expected more than 0: a weight must not silence its token")
        if self.reference_length is not None:
            check_number("reference_length", self.reference_length, low=1)
        for option in ("fixed_discount", "token_weights"):
            check_flag(option, getattr(self, option))

    def __call__(self, inputs: CreditInputs) -> CreditResult:
        segments, potential = inputs.signals["segments"].long(), inputs.signals["potential"]
        before, after = potential[:, :-1], potential[:, 1:]
        mask, count = inputs.completion_mask.bool(), before.shape[1]
        if self.fixed_discount:
            discounts = torch.full_like(before, self.gamma_min)
        else:
            lengths = segment_sums(torch.ones_like(segments, dtype=potential.dtype), segments, mask, count)
            reference = inputs.signals["mean_segment"]
            if self.reference_length is not None:
                reference = torch.full_like(reference, self.reference_length)
            discounts = length_discounts(lengths, reference, self.gamma_min)
        per_segment = segment_advantages(inputs.advantages, before, after, alpha=self.alpha, discounts=discounts)
        tokens = spread_segments(per_segment, segments, mask)
        if self.token_weights:
            scores = segment_z_scores(inputs.signals["entropy"], segments, mask, count)
            tokens = tokens * (1 + self.beta * scores).clamp(self.weight_min, self.weight_max)
        return CreditResult(advantages=tokens)


def length_discounts(
    lengths: Float[Tensor, "B K"], reference: Float[Tensor, "B"], least: float
) -> Float[Tensor, "B K"]:
    """γ of segments with these lengths in tokens.

    Example:
        >>> length_discounts(torch.tensor([[0.0, 50.0, 100.0, 300.0]]), torch.tensor([100.0]), 0.9)
        tensor([[1.0000, 0.9500, 0.9000, 0.9000]])
    """
    return (1 - lengths / reference[:, None] * (1 - least)).clamp(min=least)


def segment_z_scores(
    entropy: Float[Tensor, "B C"], segments: Int[Tensor, "B C"], mask: Bool[Tensor, "B C"], count: int
) -> Float[Tensor, "B C"]:
    """z-score of each token's entropy within its segment; 0 where all entropies are equal, and on padding."""
    size = segment_sums(torch.ones_like(entropy), segments, mask, count).clamp(min=1)
    mean = segment_sums(entropy, segments, mask, count) / size
    deviation = torch.where(mask, entropy - spread_segments(mean, segments, mask), torch.zeros_like(entropy))
    std = (segment_sums(deviation.square(), segments, mask, count) / size).sqrt()
    scale = spread_segments(std, segments, mask)
    varies = scale > 1e-6  # nats; smaller deviations are rounding
    return torch.where(varies, deviation / torch.where(varies, scale, torch.ones_like(scale)), torch.zeros_like(scale))
