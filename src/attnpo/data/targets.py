"""Target lengths: prompts that say how many tokens to think for (L1, `attnpo.rewards.length.l1`)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnpo.errors import InputError

TARGET_COLUMN = "target_length"
PLACE = "{length_instruction}"
"""Where a prompt template has the sentence; without it, it ends the user's message."""


@dataclass(frozen=True)
class LengthTargets:
    """Which length each prompt asks for, and in which words.

    Attributes:
        instruction: the sentence, a text containing {target}.
        low, high: a problem's target is drawn from low … high, both included, by `seed` and the problem's id alone:
            it is the same in every epoch and after a resumption.
    """

    instruction: str
    low: int
    high: int
    seed: int = 0

    def of(self, problem_id: str) -> int:
        """The target of a problem, in tokens."""
        return random.Random(f"{self.seed} {problem_id}").randint(self.low, self.high)

    def sentence(self, target: int) -> str:
        return self.instruction.replace("{target}", str(target))


def add_targets(problems: Sequence[dict[str, Any]], targets: LengthTargets | None) -> list[dict[str, Any]]:
    """The problems with a column `target_length`; as they are where there are no targets."""
    return [row if targets is None else {**row, TARGET_COLUMN: targets.of(str(row["id"]))} for row in problems]


def check_place(template: str | None, targets: LengthTargets | None, *, conversational: bool) -> None:
    """Whether the sentence and the template go together.

    Raises:
        InputError: a place without a sentence; a template that is the whole prompt and has no place: what stands at its
            end, an opened <think> for example, is not ours to move.
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
            f"chat template, so that this is the whole prompt, and {targets.sentence(targets.high)!r} needs a place"
        )
