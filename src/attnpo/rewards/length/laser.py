"""LASER: a bonus for right answers within a target length (arXiv 2505.15612, sections 4 and 5).

    laser      r = 1[right]·(1 + α·1[len ≤ target]),  α = 0.5
    laser_d    the same, with a target per difficulty that follows the policy

Difficulty, by the group's own solve rate: easy from 2/3 on, medium from 1/3 on, else hard. The target of a difficulty d
is the shortest candidate l whose Expected Correct Responses are at least one: floor(P(l, d)·C_d) ≥ 1. P(l, d) is the
share of responses to problems of that difficulty that are not longer than l; C_d is the least number of right responses
among the G: G·2/3, G·1/3 (rounded down), 1. If no candidate suffices, the target is max_completion_length. Candidates
go from `low` in steps of `interval` (4096, 1024). Only right answers get a bonus, so none can rank below a wrong one.

Differences: the paper takes P from a fixed set of monitoring problems, sampled again every 20 steps. Here it is counted
on the training responses since the last update (first those of step 1), which costs no sampling; a difficulty that did
not occur keeps its target. C_d is at least 1 (groups of two). The formula follows the released code
(github.com/hkust-nlp/Laser, whose reward also gives −0.5 to wrong answers and 0 to cut off ones, where ours gives 0);
only extracts of the paper's text could be read. Its 8192 is the default target of `laser`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnpo.checks import check_number, check_whole
from attnpo.errors import InputError
from attnpo.rewards.length.base import LengthInputs, LengthReward, register_length_reward

DIFFICULTIES = ("easy", "medium", "hard")


@register_length_reward("laser")
@dataclass(frozen=True)
class Laser(LengthReward):
    """α for right responses of at most `target` tokens, 0 for all others."""

    alpha: float = 0.5
    target: int = 8192

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low=0)
        check_whole("target", self.target, low=1)

    def check_run(self, max_completion_length: int | None) -> None:
        _check_below("target", self.target, max_completion_length)

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        return self.alpha * (inputs.right & (inputs.lengths <= self.target)).float()


@register_length_reward("laser_d")
@dataclass
class LaserD(LengthReward):
    """The bonus with a target per difficulty. State: the targets, and the counts for the next update."""

    alpha: float = 0.5
    low: int = 4096
    interval: int = 1024
    update_every: int = 20
    _targets: list[int] = field(default_factory=list, init=False)
    _counts: list[list[int]] = field(default_factory=list, init=False)
    """Per difficulty: responses seen, and how many of them fit each candidate."""
    _next_update: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low=0)
        for option in ("low", "interval", "update_every"):
            check_whole(option, getattr(self, option), low=1)

    def check_run(self, max_completion_length: int | None) -> None:
        if max_completion_length is None:
            raise InputError("low: laser_d needs max_completion_length, where the candidate targets end; found none")
        _check_below("low", self.low, max_completion_length)

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        longest = inputs.max_completion_length
        assert longest is not None, "check_run raises without it"
        candidates = range(self.low, longest, self.interval)
        difficulty = difficulties(inputs)
        self._count(inputs, difficulty, candidates)
        if inputs.step >= self._next_update:
            self._update(candidates, longest, inputs.lengths.shape[1], inputs.step)
        targets = torch.tensor(self._targets, device=inputs.lengths.device)[difficulty]
        return self.alpha * (inputs.right & (inputs.lengths <= targets[:, None])).float()

    def _count(self, inputs: LengthInputs, difficulty: Int[Tensor, " P"], candidates: range) -> None:
        if not self._counts or len(self._counts[0]) != 1 + len(candidates):  # new ones: the options were changed
            self._counts = [[0] * (1 + len(candidates)) for _ in DIFFICULTIES]
        for d, counts in enumerate(self._counts):
            lengths = inputs.lengths[(difficulty == d)[:, None] & inputs.known]
            counts[0] += lengths.numel()
            for i, candidate in enumerate(candidates, start=1):
                counts[i] += int((lengths <= candidate).sum())

    def _update(self, candidates: range, longest: int, group_size: int, step: int) -> None:
        before = self._targets or [longest] * len(DIFFICULTIES)
        self._targets = [
            expected_correct_target(counts, candidates, right, longest) if counts[0] else target
            for counts, right, target in zip(self._counts, least_right(group_size), before, strict=True)
        ]
        self._counts, self._next_update = [], step + self.update_every

    def metrics(self, step: int) -> dict[str, float]:
        return {f"length_reward/target_{d}": float(t) for d, t in zip(DIFFICULTIES, self._targets, strict=False)}

    def state(self) -> dict[str, Any]:
        counts = [list(row) for row in self._counts]  # copies, because counting continues in the originals
        return {"targets": list(self._targets), "counts": counts, "next_update": self._next_update}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._targets, self._counts = list(state["targets"]), [list(row) for row in state["counts"]]
        self._next_update = state["next_update"]


def difficulties(inputs: LengthInputs) -> Int[Tensor, " P"]:
    """Index into `DIFFICULTIES` of each group, by the share of right responses among those with a verdict."""
    right, known = inputs.right.sum(dim=1), inputs.known.sum(dim=1)
    return 2 - (3 * right >= known).long() - (3 * right >= 2 * known).long()


def least_right(group_size: int) -> list[int]:
    """C_d: the least number of right responses in a group of each difficulty."""
    return [max(1, 2 * group_size // 3), max(1, group_size // 3), 1]


def expected_correct_target(counts: list[int], candidates: range, least: int, longest: int) -> int:
    """The shortest candidate with floor(share of responses that fit · least) ≥ 1; `longest` if there is none."""
    seen, *fitting = counts
    return next((tokens for tokens, fit in zip(candidates, fitting, strict=True) if fit * least >= seen), longest)


def _check_below(option: str, value: int, max_completion_length: int | None) -> None:
    if max_completion_length is not None and value >= max_completion_length:
        raise InputError(
            f"{option}: found {value}, expected less than max_completion_length, {max_completion_length}: every "
            "finished response would get the bonus, whatever its length"
        )
