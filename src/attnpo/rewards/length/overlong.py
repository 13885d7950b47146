"""DAPO's soft overlong punishment (arXiv 2503.14476, equation 13).

R is 0 up to L_max − L_cache tokens, falls linearly to −1 at L_max, and is −1 beyond, for right and wrong responses.
The paper has L_max = 20480 and L_cache = 4096 (16384 expected tokens + 4096), and adds R to an accuracy of +1 or −1.

Here accuracy is 1 or 0, and ±1 = 2·accuracy − 1, so the paper's reward is 2·(accuracy + R/2) − 1 and the term is R/2.
With `--advantage grpo`, which divides by the group's deviation, that gives the paper's advantages; without the division
(rloo, dr_grpo) all of them are half as large, as if the learning rate were halved.

A right answer keeps at least 1/2 and a wrong one has at most 0, so a right one never ranks below a wrong one. L_max is
by default max_completion_length, and L_cache a fifth of L_max, the paper's ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from attnpo.checks import check_whole
from attnpo.errors import InputError
from attnpo.rewards.length.base import LengthInputs, LengthReward, register_length_reward


@register_length_reward("overlong")
@dataclass(frozen=True)
class Overlong(LengthReward):
    """R/2. `max_length` is L_max, `cache` is L_cache, both in tokens."""

    max_length: int | None = None
    cache: int | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None:
            check_whole("max_length", self.max_length, low=2)
        if self.cache is not None:
            check_whole("cache", self.cache, low=1)

    def check_run(self, max_completion_length: int | None) -> None:
        longest, cache = self._limits(max_completion_length)
        if cache >= longest:
            raise InputError(
                f"cache: found {cache}, expected less than L_max, {longest}: else even an empty response is punished"
            )
        if max_completion_length is not None and longest - cache >= max_completion_length:
            raise InputError(
                f"max_length: found {longest} with a cache of {cache}, so that the punishment begins at "
                f"{longest - cache} tokens; expected less than max_completion_length, {max_completion_length}: no "
                "response would be punished"
            )

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        longest, cache = self._limits(inputs.max_completion_length)
        return ((longest - cache - inputs.lengths) / cache).clamp(-1, 0) / 2

    def _limits(self, max_completion_length: int | None) -> tuple[int, int]:
        """L_max and L_cache of a run."""
        longest = max_completion_length if self.max_length is None else self.max_length
        if longest is None:
            raise InputError("max_length: found none, and max_completion_length has no limit either; give one of them")
        return longest, max(1, longest // 5) if self.cache is None else self.cache
