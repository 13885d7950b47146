"""IOP-GSPO: the model repairs its own wrong responses, and only the tokens that the repair changed get credit.

Source: "Internalizing Outcome Supervision into Process Supervision" (IOP, arXiv 2605.05226). Only the idea of the paper
and the order of its stages could be read: prompts, constants and code are not published, so every default here is our
choice (docs/papers.md). For a wrong response y and its repair ỹ, with g = 1 on the tokens that differ,

    w = exp( Σ g·log(π/π_old) / Σ g )                      one ratio per row, over its gated tokens
    ℓ(y) = −min(w·A, clip(w, 1 − ε, 1 + ε)·A)              A = −wrong_weight for y, +repaired_weight for ỹ
    loss = 1/N · [ Σ over repaired y (ℓ(y) + ℓ(ỹ) + λ_rep · mean over its candidates ℓ) + Σ over fallback rows ℓ ]

N is the number of responses sampled, so that neither added rows nor rows that fill up the batch change the scale, and a
batch in which every group falls back has the loss of the outcome method. Both sides are conditioned on the original
prompt; the candidates (all of them, every token open, with group advantages) on the repair prompt. Correct responses
are anchors of the repair and have no gradient: in a mixed group neither accuracy nor a length reward counts. A group
that is all right or all wrong falls back to the outcome method, where a length reward counts. The ratio w and its
clipping are TRL's: with `importance_sampling_level: sequence` it averages over exactly the tokens that `gates` leave
open.

The rows, their roles and gates come from ``training/stages/repairs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import torch

from attnpo.checks import check_number, check_whole
from attnpo.credit.base import CreditInputs, CreditResult, mask_padding, register_credit
from attnpo.credit.iop.audit import check_audit
from attnpo.credit.iop.repairs import ANCHORS, check_prompt
from attnpo.errors import InputError


class Role(IntEnum):
    """The purpose of a row of the batch."""

    FILLER = 0  # makes the number of rows divisible; no gradient
    OUTCOME = 1  # a response of a group that falls back to the outcome method
    WRONG = 2
    REPAIRED = 3
    CANDIDATE = 4  # a repair under the repair prompt: the repair mode's own objective


@register_credit("iop")
@dataclass(frozen=True)
class IopCredit:
    """Credit by token gates from repairs. None of the default values is published.

    Attributes:
        candidates: G_rep, repairs sampled per wrong response (≥ 1).
        max_repairs: wrong responses of a group that are repaired, the first ones; None: all, as in the paper.
        anchor: which correct response the repair may look at: `shortest`, or `nearest` (least edit distance).
        prompt: the repair prompt: `instruct`, `brief`, or a text with {problem}, {wrong} and {anchor}.
        max_new_tokens: most tokens of a repair; None: as many as of a response.
        max_prompt_tokens: longer repair prompts are skipped and counted; None: skip those that leave the model no room
            for a repair.
        audit: `rules`, `judge` (the rules, then a chat endpoint), `none`, or your own module:function.
        judge, judge_api_key_env, judge_cache: the endpoint as URL#MODEL, the variable with its key, a file of answers.
        truncate: K: if the first K edits alone make the response right, only those are gated; else 2K, else all.
        lambda_edit: λ_edit: a repair that verifies and passes the audit scores 1 − λ_edit·(normalised edit distance).
        lambda_rep: λ_rep, weight of the repair mode's objective; 0: none.
        wrong_weight, repaired_weight: size of the advantage of either side; 0: without that side.
        row_limit: most rows of the loss per response sampled; further candidates are left out and counted.

    Raises:
        InputError: an option out of range; the message names it.
    """

    candidates: int = 4
    max_repairs: int | None = None
    anchor: str = "shortest"
    prompt: str = "instruct"
    max_new_tokens: int | None = None
    max_prompt_tokens: int | None = None
    audit: str = "rules"
    judge: str | None = None
    judge_api_key_env: str | None = None
    judge_cache: str | None = None
    truncate: int = 32
    lambda_edit: float = 0.5
    lambda_rep: float = 0.5
    wrong_weight: float = 1.0
    repaired_weight: float = 1.0
    row_limit: float = 2.0
    name: ClassVar[str]
    signals: ClassVar[frozenset[str]] = frozenset({"repair_role", "repair_gates", "repair_weight"})
    run_options: ClassVar[Mapping[str, Any]] = {
        "importance_sampling_level": "sequence",
        "loss_type": "grpo",
        "beta": 0.0,  # a KL term would need reference log-probabilities of the new rows
        "mask_truncated_completions": False,  # a response cut off is wrong, and may be repaired
    }

    def __post_init__(self) -> None:
        check_whole("candidates", self.candidates, low=1)
        check_whole("truncate", self.truncate, low=1)
        for option in ("max_repairs", "max_new_tokens", "max_prompt_tokens"):
            if getattr(self, option) is not None:
                check_whole(option, getattr(self, option), low=1)
        check_number("lambda_edit", self.lambda_edit, low=0, high=1)
        for option in ("lambda_rep", "wrong_weight", "repaired_weight"):
            check_number(option, getattr(self, option), low=0)
        check_number("row_limit", self.row_limit, low=2)  # every wrong response with its repair then fits
        if self.anchor not in ANCHORS:
            raise InputError(f"anchor: found {self.anchor!r}, expected {' or '.join(ANCHORS)}")
        check_prompt(self.prompt)
        check_audit(self.audit, self.judge)

    def __call__(self, inputs: CreditInputs) -> CreditResult:
        role, gates = inputs.signals["repair_role"], inputs.signals["repair_gates"].bool()
        gates = gates & inputs.completion_mask.bool()
        advantage = torch.zeros_like(inputs.advantages)
        advantage = torch.where(role == Role.OUTCOME, inputs.advantages, advantage)
        advantage = torch.where(role == Role.WRONG, -self.wrong_weight, advantage)
        advantage = torch.where(role == Role.REPAIRED, self.repaired_weight, advantage)
        advantage = torch.where(role == Role.CANDIDATE, self.lambda_rep * inputs.advantages, advantage)
        spread = (advantage * inputs.signals["repair_weight"])[:, None].expand(gates.shape)
        return CreditResult(advantages=mask_padding(spread, gates), gates=gates)
