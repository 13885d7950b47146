"""Accuracy–Efficiency Score: saved tokens and change of accuracy relative to a base model, as one number.

    ΔL = (L_base − L) / L_base        ΔA = (A − A_base) / A_base
    AES = length·ΔL + gain·ΔA  if ΔA ≥ 0,  else  length·ΔL − loss·|ΔA|

Source: Luo et al. 2025 (arXiv 2501.12570), with the weights 1, 3 and 5. Imports no torch, because the report uses it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from attnpo.errors import InputError


@dataclass(frozen=True)
class Weights:
    """Weights of a relative saving of tokens, a relative gain and a relative loss of accuracy."""

    length: float = 1.0
    gain: float = 3.0
    loss: float = 5.0

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not math.isfinite(weight) or weight < 0:
                raise InputError(f"AES weight {name}: found {weight}, expected a number of at least 0")


def aes(
    accuracy: float, tokens: float, base_accuracy: float, base_tokens: float, weights: Weights | None = None
) -> float:
    """The score from accuracies (both in the same unit) and mean tokens; NaN unless both numbers of the base are > 0.

    >>> round(aes(45.83, 3975, 45.21, 9340), 2)
    0.62
    """
    if not (base_accuracy > 0 and base_tokens > 0):
        return math.nan
    weights = weights or Weights()
    saved, gained = 1 - tokens / base_tokens, accuracy / base_accuracy - 1
    return weights.length * saved + (weights.loss if gained < 0 else weights.gain) * gained
