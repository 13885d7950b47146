"""Outcome credit: every token of a response gets the response's advantage (plain RLOO, GRPO, TLMRE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attnpo.credit.base import CreditInputs, CreditResult, mask_padding, register_credit


@register_credit("outcome")
@dataclass(frozen=True)
class OutcomeCredit:
    """The same advantage on all sampled tokens, 0 on padding."""

    name: ClassVar[str]
    signals: ClassVar[frozenset[str]] = frozenset()
    per_response: ClassVar[bool] = True

    def __call__(self, inputs: CreditInputs) -> CreditResult:
        spread = inputs.advantages[:, None].expand(inputs.step_ids.shape)
        return CreditResult(advantages=mask_padding(spread, inputs.completion_mask))
