"""MRT, made dense: every episode of a response is rewarded for its progress.

Source: Meta Reinforcement Fine-Tuning (arXiv 2503.07572, definition 6.1; docs/papers.md). The progress of episode k is
the change of J, the probability that an answer given at that point is right:

    A_k = R + α·(Φ(s_{k+1}) - Φ(s_k))          progress="segment"
    A_k = R + α·(outcome - Φ(s_k))              progress="rest"

with Φ, estimated as in SHAPE, for J. It is SHAPE with γ = 1, equal weights and episodes instead of entropy cuts. The
paper rewards one episode per response, the one after a prefix of another response. Its authors' later MRT-online
(α = 1, at most 6 episodes, 4 continuations: the defaults here) rewards every episode of the response itself, as this
method does. `rest` is the form that SHAPE compares with, according to summaries of that paper: it rewards regaining
potential that an earlier segment lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attnpo.checks import check_number
from attnpo.credit.base import CreditInputs, CreditResult, register_credit
from attnpo.credit.segments import SegmentOptions, segment_advantages, spread_segments
from attnpo.errors import InputError


@register_credit("mrt")
@dataclass(frozen=True)
class MRTCredit(SegmentOptions):
    """Progress bonus per episode.

    Attributes:
        alpha: weight of the progress, α (≥ 0).
        progress: segment or rest.

    Raises:
        InputError: an option out of range; the message names it.
    """

    segments: int = 6
    cuts: str = "steps"
    rollouts: int = 4
    alpha: float = 1.0
    progress: str = "segment"
    name: ClassVar[str]
    signals: ClassVar[frozenset[str]] = frozenset({"segments", "potential"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("alpha", self.alpha, low=0)
        if self.progress not in ("segment", "rest"):
            raise InputError(f"progress: found {self.progress!r}, expected segment or rest")

    def __call__(self, inputs: CreditInputs) -> CreditResult:
        potential = inputs.signals["potential"]
        after = potential[:, 1:] if self.progress == "segment" else potential[:, -1:]  # the outcome is the last entry
        per_segment = segment_advantages(inputs.advantages, potential[:, :-1], after, alpha=self.alpha)
        segments = inputs.signals["segments"].long()
        return CreditResult(advantages=spread_segments(per_segment, segments, inputs.completion_mask))
