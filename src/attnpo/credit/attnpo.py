"""AttnPO: the attention of the final answer determines how much of the advantage each reasoning step gets.

Source: ATTNPO (arXiv 2602.09953, section 3; docs/papers.md). For a correct response with a final answer,

    B = p^β · |F| / |o|                                                          (baseline)
    γ_k = (1 − δ)·[p^λ · S_k/B + 1 − p^λ] + δ   if A > 0, S_k < B, t > T·(1 − p)  (attenuate redundant steps)
    γ_k = 0                                     if A < 0, S_k > B                 (protect essential steps)
    γ_k = 1                                     otherwise

and a token of step k gets γ_k·A; the closing tag and the final answer keep A. p is the share of correct responses in
the group, |F| the tokens of the final answer, |o| those of prompt and response, t the optimiser step (from 1).

Not in the paper, and off by default: other baselines, B = τ · p^β · Y. Y, the `yardstick`, is

- "uniform": |F| / |o|, the score of a step under uniform attention (the paper);
- "thinking": Σ_k |s_k|·S_k / Σ_k |s_k|, the mean score of a thinking token: attention that a sink, the prompt or the
  answer itself takes from all steps alike then makes no difference;
- "median": the median of the response's S_k, which attenuates about half of the steps of any response.

τ, the `threshold`, is the score in yardsticks that separates essential from redundant steps (1 in the paper; measured
when heads are found: `attnpo.heads.table.parting_scale`). With `sharp`, a step below B counts as one that got no
attention, γ_k = (1 − δ)·(1 − p^λ) + δ. That suits a threshold that separates the two kinds well: without it a redundant
step with half the baseline keeps half of its advantage.

The formula is taken literally in its edge cases:
- All inequalities are strict: S_k = B, A = 0 and t = T·(1 − p) change nothing. p is a ratio of counts in floating
  point, so t and T·(1 − p) count as equal within one part in a million of T.
- B = 0 (p = 0 with β > 0, or |F| = 0): no score is below it, so nothing is attenuated; with A < 0 every step with a
  positive score is protected. Neither happens in training: with a correct response p > 0, and a response without a
  final answer is not rescaled.
- p^0 = 1 also for p = 0. δ = 1 switches attenuation off. A score that is NaN (a step without tokens) gives γ = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from attnpo.checks import check_flag, check_number
from attnpo.credit.base import CreditInputs, CreditResult, mask_padding, register_credit
from attnpo.errors import InputError

YARDSTICKS = ("uniform", "thinking", "median")


@register_credit("attnpo")
@dataclass(frozen=True)
class AttnPOCredit:
    """Stepwise rescaling of the advantage. Options are the paper's hyper-parameters and ablations.

    Attributes:
        beta: power of p in the baseline (≥ 0).
        lam: power of p in the attenuation, λ (≥ 0).
        delta: least scale of an attenuated step, δ in [0, 1].
        delay: T, optimiser steps after which even the hardest prompts are attenuated (≥ 0).
        positive: attenuate redundant steps of responses with A > 0.
        negative: protect essential steps of responses with A < 0.
        difficulty: False puts p = 1 in both powers and drops the delay.
        yardstick: "uniform", "thinking" or "median": Y in the module's docstring.
        threshold: τ (≥ 0), in units of the yardstick.
        sharp: attenuate all redundant steps of a response alike, as if their scores were 0.

    Raises:
        InputError: an option out of range; the message names it.
    """

    beta: float = 2.0
    lam: float = 2.0
    delta: float = 0.0
    delay: float = 1000
    positive: bool = True
    negative: bool = True
    difficulty: bool = True
    yardstick: str = "uniform"
    threshold: float = 1.0
    sharp: bool = False
    name: ClassVar[str]
    signals: ClassVar[frozenset[str]] = frozenset({"attention"})

    def __post_init__(self) -> None:
        check_number("beta", self.beta, low=0)
        check_number("lam", self.lam, low=0)
        check_number("delta", self.delta, low=0, high=1)
        check_number("delay", self.delay, low=0)
        for option in ("positive", "negative", "difficulty", "sharp"):
            check_flag(option, getattr(self, option))
        if self.yardstick not in YARDSTICKS:
            raise InputError(f"yardstick: found {self.yardstick!r}, expected one of {', '.join(YARDSTICKS)}")
        check_number("threshold", self.threshold, low=0)

    def __call__(self, inputs: CreditInputs) -> CreditResult:
        scales, baseline = batched_step_scales(
            inputs.signals["attention"],
            num_steps=inputs.num_steps,
            rescalable=inputs.rescalable,
            advantages=inputs.advantages,
            group_accuracy=inputs.group_accuracy,
            answer_tokens=inputs.answer_tokens,
            total_tokens=inputs.total_tokens,
            step=inputs.step,
            options=self,
            step_tokens=count_step_tokens(inputs.step_ids, inputs.signals["attention"].shape[1]),
        )
        tokens = spread_to_tokens(inputs.advantages, scales, inputs.step_ids, inputs.completion_mask)
        baseline = torch.where(inputs.rescalable.bool(), baseline, torch.full_like(baseline, torch.nan))
        return CreditResult(advantages=tokens, scales=scales, baseline=baseline)


def step_scales(
    scores: Float[Tensor, "S"],
    *,
    advantage: float,
    group_accuracy: float,
    answer_tokens: int,
    total_tokens: int,
    step: int,
    beta: float = 2.0,
    lam: float = 2.0,
    delta: float = 0.0,
    delay: float = 1000,
    positive: bool = True,
    negative: bool = True,
    difficulty: bool = True,
) -> Float[Tensor, "S"]:
    """γ of every step of one correct response (the module's formula; paper section 3).

    Args:
        scores: S(s_k), mean over the chosen heads.
        advantage: A, the outcome advantage of the response.
        group_accuracy: p, in [0, 1].
        answer_tokens: |F|; total_tokens: |o|, prompt and response.
        step: t, the optimiser step, counted from 1.

    The response is assumed to be rescalable (:func:`attnpo.credit.base.rescalable_rows`), even with a single step.

    Raises:
        InputError: an option or a number out of range; the message names it.

    Example:
        >>> step_scales(torch.tensor([0.04, 0.15]), advantage=0.3, group_accuracy=1.0, answer_tokens=20,
        ...             total_tokens=200, step=1)
        tensor([0.4000, 1.0000])
    """
    scores = torch.as_tensor(scores)
    if scores.ndim != 1:
        raise InputError(f"scores: found shape {list(scores.shape)}, expected one score per step [S]")
    check_number("group_accuracy", float(group_accuracy), low=0, high=1)
    check_number("total_tokens", int(total_tokens), low=1)
    check_number("answer_tokens", int(answer_tokens), low=0, high=int(total_tokens))
    check_number("advantage", float(advantage))
    options = AttnPOCredit(
        beta=beta, lam=lam, delta=delta, delay=delay, positive=positive, negative=negative, difficulty=difficulty
    )
    dtype, device = _working_dtype(scores), scores.device

    def row(value: float | int | bool) -> Tensor:
        return torch.tensor([value], dtype=dtype if isinstance(value, float) else None, device=device)

    scales, _ = batched_step_scales(
        scores[None],
        num_steps=row(len(scores)),
        rescalable=row(True),
        advantages=row(float(advantage)),
        group_accuracy=row(float(group_accuracy)),
        answer_tokens=row(int(answer_tokens)),
        total_tokens=row(int(total_tokens)),
        step=step,
        options=options,
    )
    return scales[0]


def batched_step_scales(
    scores: Float[Tensor, "B S"],
    *,
    num_steps: Int[Tensor, "B"],
    rescalable: Bool[Tensor, "B"],
    advantages: Float[Tensor, "B"],
    group_accuracy: Float[Tensor, "B"],
    answer_tokens: Int[Tensor, "B"],
    total_tokens: Int[Tensor, "B"],
    step: int,
    options: AttnPOCredit,
    step_tokens: Int[Tensor, "B S"] | None = None,
) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B"]]:
    """γ of every step and the baseline B of every row. No loop, and no value is read back from the device.

    `step_tokens`, |s_k|, is needed only for the yardstick "thinking".

    γ is 1 for rows that are not rescalable and for steps beyond a row's count, whatever `scores` contains there. The
    baseline is computed for every row but is meaningful only for rescalable ones.
    """
    dtype = _working_dtype(scores)
    scores, advantages, p = scores.to(dtype), advantages.to(dtype)[:, None], group_accuracy.to(dtype)[:, None]
    of_row = torch.arange(scores.shape[1], device=scores.device) < num_steps[:, None].to(scores.device)
    if options.yardstick == "uniform":
        yardstick = (answer_tokens.to(dtype) / total_tokens.to(dtype))[:, None]
    else:
        yardstick = own_yardstick(options.yardstick, scores, of_row, step_tokens)
    difficulty = p if options.difficulty else torch.ones_like(p)
    baseline = difficulty**options.beta * options.threshold * yardstick

    redundant = (advantages > 0) & (scores < baseline)
    if options.difficulty:
        redundant &= step - options.delay * (1 - p) > 1e-6 * options.delay
    essential = (advantages < 0) & (scores > baseline)
    power = difficulty**options.lam
    # With B = 0 nothing is redundant; the division must still be defined, because `where` computes both branches.
    ratio = scores / torch.where(baseline > 0, baseline, torch.ones_like(baseline))
    if options.sharp:
        ratio = torch.zeros_like(ratio)
    attenuated = (1 - options.delta) * (power * ratio + 1 - power) + options.delta

    may_change = rescalable.bool()[:, None] & of_row
    scales = torch.ones_like(scores)
    if options.positive:
        scales = torch.where(may_change & redundant, attenuated, scales)
    if options.negative:
        scales = torch.where(may_change & essential, torch.zeros_like(scores), scales)
    return scales, baseline[:, 0]


def own_yardstick(
    kind: str, scores: Float[Tensor, "B S"], of_row: Bool[Tensor, "B S"], step_tokens: Int[Tensor, "B S"] | None
) -> Float[Tensor, "B 1"]:
    """The yardstick "thinking" or "median" of every row, from its own scores; 0 for a row without a score.

    Steps beyond a row's count and scores that are NaN (steps without tokens) do not count.
    """
    counted = of_row & ~scores.isnan()
    if kind == "median":
        return scores.masked_fill(~counted, torch.nan).nanmedian(dim=1, keepdim=True).values.nan_to_num(0.0)
    assert step_tokens is not None, "the yardstick 'thinking' needs the tokens of every step"
    weights = torch.where(counted, step_tokens.to(scores), torch.zeros_like(scores))
    attention = torch.where(counted, scores, torch.zeros_like(scores)) * weights
    return attention.sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=1)


def count_step_tokens(step_ids: Int[Tensor, "B C"], steps: int) -> Int[Tensor, "B S"]:
    """|s_k|: the completion tokens of every step. Tokens outside all steps have an id of `steps` or above."""
    counts = torch.zeros(len(step_ids), steps + 1, dtype=torch.long, device=step_ids.device)
    ids = step_ids.long().clamp(max=steps)
    return counts.scatter_add_(1, ids, torch.ones_like(ids))[:, :steps]


def spread_to_tokens(
    advantages: Float[Tensor, "B"],
    scales: Float[Tensor, "B S"],
    step_ids: Int[Tensor, "B C"],
    completion_mask: Shaped[Tensor, "B C"],
) -> Float[Tensor, "B C"]:
    """γ_k·A on the tokens of step k, A on tokens outside every step (closing tag, final answer), 0 on padding."""
    outside = torch.ones_like(scales[:, :1])
    per_token = torch.cat([scales, outside], dim=1).gather(1, step_ids.long())
    return mask_padding(per_token.to(advantages.dtype) * advantages[:, None], completion_mask)


def _working_dtype(scores: Tensor) -> torch.dtype:
    """float64 for float64 scores, else float32: half precision cannot distinguish S from B reliably."""
    return torch.float64 if scores.dtype == torch.float64 else torch.float32
