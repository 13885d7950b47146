"""AttnPO with the true labels of the steps instead of attention: an upper bound for attention.

A step of the built-in task is essential if it writes the equation of an event ("harvest: 7 + 26 = 33") and no later
step writes that event's equation again; corrections replace what they correct. `compare_methods.py` loads this module
with `--credit_module`. On generated traces the rule reproduces the generator's labels:

    python benchmarks/gold_labels.py
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from attnpo.credit.attnpo import AttnPOCredit
from attnpo.credit.base import CreditInputs, CreditResult, register_credit
from attnpo.training.batch import GenerationBatch
from attnpo.training.policy import Policy
from attnpo.training.stages import STAGES
from attnpo.training.stages.base import Batch

EQUATION = re.compile(r"(\w[\w ]*): \d+ [-+*/] \d+ = \d+")
STAGES["gold"] = f"{__name__}:GoldLabels"


def written_labels(steps: Sequence[str]) -> list[bool]:
    """Whether each step is essential: the last one to write some event's equation."""
    # "the harvest" and "harvest" are one event.
    tags = [[found.split()[-1] for found in EQUATION.findall(step)] for step in steps]
    last = {tag: number for number, found in enumerate(tags) for tag in found}
    return [any(last[tag] == number for tag in found) for number, found in enumerate(tags)]


class GoldLabels:
    """Computes the signal "gold" [B, S]: 1 for essential steps, 0 for redundant ones and for padding."""

    def __init__(self, method: Any, policy: Policy) -> None:
        pass

    def __call__(self, batch: Batch, rollouts: GenerationBatch) -> Batch:
        labels = torch.zeros(batch["step_lengths"].shape)
        for row, located in zip(labels, rollouts.located, strict=True):
            found = written_labels(located.step_texts)
            row[: len(found)] = torch.tensor(found, dtype=torch.float)
        batch["signal/gold"] = labels.to(batch["completion_ids"].device)
        return batch


@register_credit("gold_labels")
@dataclass(frozen=True)
class GoldCredit(AttnPOCredit):
    """AttnPO with scores far above the baseline for essential steps and 0 for redundant ones."""

    delay: float = 5
    name: ClassVar[str]
    signals: ClassVar[frozenset[str]] = frozenset({"gold"})

    def __call__(self, inputs: CreditInputs) -> CreditResult:
        signals = {**inputs.signals, "attention": inputs.signals["gold"] * 1e3}
        return super().__call__(replace(inputs, signals=signals))


def main() -> None:
    from attnpo.task.dataset import build_dataset
    from attnpo.task.problems import parse_difficulty

    wrong = steps = 0
    for row in build_dataset(500, 0, "test", parse_difficulty("1-4", "difficulty")):
        found = written_labels([row["response"][step["start"] : step["end"]] for step in row["steps"]])
        steps += len(found)
        wrong += sum(a != step["essential"] for a, step in zip(found, row["steps"], strict=True))
    print(f"{steps} steps of 500 traces: {wrong} labelled otherwise than by the writer")


if __name__ == "__main__":
    main()
