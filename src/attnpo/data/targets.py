"""Target lengths: prompts that specify how many tokens to think for (L1, `attnpo.rewards.length.l1`)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnpo.errors import InputError

TARGET_COLUMN = "target_length"
PLACE = "{length_instruction}"
"""The placeholder of the sentence in a prompt template; without it the sentence ends the user's message."""


@dataclass(frozen=True)
class LengthTargets:
    """The target length of each prompt, and the sentence that states it.

    Attributes:
        instruction: the sentence, a text containing {target}.
        low, high: a problem's target is drawn from low … high, both included. It depends only on `seed` and the
            problem's id, so it is the same in every epoch and after resuming.
    """

    instruction: str
    low: int
    high: int
    seed: int = 0

    def of(self, problem_id: str) -> int:
        """The target of a problem, in tokens."""
        return random.Random(f"{self.seed} {problem_id}").randint(self.low, self.high)

    def sentence(self, target: int) -> str:
        """The instruction with the target filled in."""
        return self.instruction.replace("{target}", str(target))


def add_targets(problems: Sequence[dict[str, Any]], targets: LengthTargets | None) -> list[dict[str, Any]]:
    """The problems with a column `target_length`; unchanged without targets."""
    return [row if targets is None else {**row, TARGET_COLUMN: targets.of(str(row["id"]))} for row in problems]


def check_place(template: str | None, targets: LengthTargets | None, *, conversational: bool) -> None:
    """Check that the sentence and the template fit together.

    Raises:
        InputError: a placeholder without a sentence; a template that is the complete prompt but has no placeholder: the
            sentence must not follow the end of the template, which may open the thinking.
    """
    has_place = template is not None and PLACE in template
    if has_place and targets is None:
        raise InputError(
            f"option prompt_template: found {PLACE}, but only the length rewards l1_exact and l1_max have an "
            "instruction to put there"
        )
    if targets is not None and not conversational and not has_place:
        raise InputError(
            f"option prompt_template: found {template!r}, expected a text containing {PLACE} too: the tokenizer has no "
            f"chat template, so this is the complete prompt, and {targets.sentence(targets.high)!r} needs a place"
        )
