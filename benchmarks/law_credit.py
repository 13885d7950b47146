"""Controls of `law.py`: AttnPO with its own scales assigned to other steps, and with the true labels.

`attnpo train --credit_module law_credit` registers "shuffled" (here) and "gold_labels" (gold_labels.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import gold_labels  # noqa: F401 - registers itself
import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnpo.credit.attnpo import AttnPOCredit, spread_to_tokens
from attnpo.credit.base import CreditInputs, CreditResult, register_credit


@register_credit("shuffled")
@dataclass(frozen=True)
class ShuffledCredit(AttnPOCredit):
    """AttnPO whose scales of a response are assigned to the steps of that response at random.

    As many steps are attenuated and protected, and as strongly, but independently of their kind. The gain of this arm
    over a length penalty is due to the asymmetry of the scales alone; AttnPO's gain over this arm is due to attention.
    """

    name: ClassVar[str]

    def __call__(self, inputs: CreditInputs) -> CreditResult:
        result = super().__call__(inputs)
        assert result.scales is not None
        # A separate generator: the rollouts use torch's, and must be those of the other arms.
        scales = shuffle_steps(result.scales, inputs.num_steps, torch.Generator().manual_seed(inputs.step))
        tokens = spread_to_tokens(inputs.advantages, scales, inputs.step_ids, inputs.completion_mask)
        return replace(result, advantages=tokens, scales=scales)


def shuffle_steps(
    scales: Float[Tensor, "B S"], num_steps: Int[Tensor, "B"], generator: torch.Generator
) -> Float[Tensor, "B S"]:
    """Shuffle the first `num_steps` values of every row; the values after them keep their places."""
    keys = torch.rand(scales.shape, generator=generator).to(scales.device)
    places = torch.arange(scales.shape[1], device=scales.device)
    is_padding = places >= num_steps[:, None].to(scales.device)
    keys = torch.where(is_padding, 1 + places, keys)  # after all steps, in their order
    return scales.gather(1, keys.argsort(dim=1))
