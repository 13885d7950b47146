"""Inputs of a credit method, with default values for the fields that it does not use."""

from __future__ import annotations

from typing import Any

import torch

from attnpo.credit.base import CreditInputs


def credit_inputs(
    advantages: list[float], completion_mask: torch.Tensor, signals: dict[str, torch.Tensor], **given: torch.Tensor
) -> CreditInputs:
    """A batch of right responses in double precision, all of one step unless `given` has other values.

    advantages: [B]. completion_mask: [B, C]. given: fields of CreditInputs that matter to the test.
    """
    one = torch.ones(len(advantages), dtype=torch.long)
    fields: dict[str, Any] = {
        "correct": one.bool(),
        "group_accuracy": one.double(),
        "answer_tokens": one,
        "total_tokens": one,
        "rescalable": one.bool(),
        "step_ids": torch.zeros(completion_mask.shape, dtype=torch.long),
        "num_steps": one,
        "step": 1,
    }
    values = torch.tensor(advantages, dtype=torch.float64)
    return CreditInputs(advantages=values, completion_mask=completion_mask, signals=signals, **(fields | given))
