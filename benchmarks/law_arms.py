"""The arms of law_simulation.py: which steps of right responses keep the outcome advantage A, and which get 0.

    penalty    all keep it
    stepwise   gold labels: redundant steps get 0 if A > 0, essential ones if A < 0
    shuffled   the stepwise scales of a response, assigned to its written steps at random
    wrong:E    stepwise, each label on the wrong side with probability E (0 to 1), independently

Legend: S seeds, P problems, G responses per problem, K kinds of steps.
"""

from __future__ import annotations

import argparse

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray


def kept_steps(
    arm: str,
    counts: Int[ndarray, "S P G K"],
    essential: Bool[ndarray, "K"],
    advantages: Float[ndarray, "S P G"],
    right: Bool[ndarray, "S P G"],
    rng: np.random.Generator,
) -> Int[ndarray, "S P G K"]:
    """Return how many of the written steps keep the outcome advantage; the scale of the others is 0."""
    if arm == "penalty":
        return counts
    signed = advantages[..., None]
    scale_0 = right[..., None] & (((signed > 0) & ~essential) | ((signed < 0) & essential))
    cut = np.where(scale_0, counts, 0)
    if arm == "shuffled":
        cut = deal(counts, cut.sum(axis=-1), rng)
    elif arm.startswith("wrong:"):
        wrong = rng.binomial(counts, wrong_share(arm))
        rescaled = right[..., None] & (signed != 0)
        cut = np.where(scale_0, counts - wrong, np.where(rescaled, wrong, 0))
    return counts - cut


def deal(
    counts: Int[ndarray, "S P G K"], cut: Int[ndarray, "S P G"], rng: np.random.Generator
) -> Int[ndarray, "S P G K"]:
    """Choose `cut` of a response's steps at random without replacement; return the counts by kind."""
    chosen = np.zeros_like(counts)
    left, rest = cut.copy(), counts.sum(axis=-1)
    for kind in range(counts.shape[-1]):
        rest = rest - counts[..., kind]
        chosen[..., kind] = rng.hypergeometric(counts[..., kind], rest, left)
        left = left - chosen[..., kind]
    return chosen


def wrong_share(arm: str) -> float:
    return float(arm.removeprefix("wrong:"))


def arm_name(text: str) -> str:
    if text in ("penalty", "stepwise", "shuffled"):
        return text
    share = text.removeprefix("wrong:")
    if share == text or not share.replace(".", "", 1).isdigit() or float(share) > 1:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected penalty, stepwise, shuffled or wrong:E with E from 0 to 1, such as wrong:0.2"
        )
    return text
