"""The interface of a stage: it reads one generation batch and returns TRL's batch with its signal added.

A stage may also replace the rows of the batch (for methods that train on repaired responses). Every tensor of the batch
must then have the new number of rows (see `rebuild`), which is a multiple of `steps_per_generation` and the same on all
processes, because TRL gathers numbers per row; a row that is not a response of the batch has `rollout_rows` = -1.

Legend: M rows of the new batch, C its completion tokens (padded right), P its prompt tokens (padded left).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from trl.trainer.utils import pad

from attnpo.errors import RunError
from attnpo.steps.spans import LocatedSteps
from attnpo.training.batch import GenerationBatch, StepTensors
from attnpo.training.policy import Policy

Batch = dict[str, Any]
"""TRL's own batch, which is shuffled, split into micro-batches and read by the loss."""


class Stage(Protocol):
    """Created once per trainer from the credit method, whose options it reads; may raise InputError."""

    def __init__(self, method: Any, policy: Policy) -> None: ...

    def __call__(self, batch: Batch, rollouts: GenerationBatch) -> Batch:
        """Return TRL's batch with an entry ``signal/NAME`` (first dimension: rows) for its signal."""
        ...


@dataclass(frozen=True)
class Row:
    """One row of the new batch.

    Attributes:
        source: the response of the old batch that it belongs to; its group accuracy and prompt text are copied.
        prompt_ids, completion_ids, located: tokens and steps of the row.
        correct: whether it is right; False also where this is unknown.
        advantage: its outcome advantage; reward: its reward.
        is_source: whether the row is that response itself, so that its credit is written into its record.
    """

    source: int
    prompt_ids: list[int]
    completion_ids: list[int]
    located: LocatedSteps
    correct: bool
    advantage: float
    reward: float
    is_source: bool


HANDLED = {
    *("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "num_items_in_batch"),
    *("old_per_token_logps", "correct", "group_accuracy", "total_tokens", "outcome_advantages", "rewards"),
    *("prompts", "completions", "rollout_rows"),
}
DROPPED = {"sampling_per_token_logps"}  # of vLLM; read for corrections only, which such stages refuse


def rebuild(batch: Batch, rows: Sequence[Row], tools: Policy) -> Batch:
    """Return the batch with exactly these rows.

    Old log-probabilities are computed again where TRL has them. `num_items_in_batch` counts all tokens of all
    processes; a stage with closed gates must count again.

    Raises:
        RunError: the batch has an entry that cannot be computed for new rows; names it.
    """
    steps = StepTensors.pack([row.located for row in rows], max(len(row.completion_ids) for row in rows), tools.device)
    unknown = set(batch) - HANDLED - DROPPED - set(steps.as_batch())
    if unknown:
        raise RunError(f"the batch has {', '.join(sorted(unknown))}, which cannot be computed for rows that were added")
    prompt_ids, prompt_mask = _padded([row.prompt_ids for row in rows], "left", tools)
    completion_ids, completion_mask = _padded([row.completion_ids for row in rows], "right", tools)
    width = completion_ids.shape[1]
    if width != steps.step_ids.shape[1]:  # padded to a multiple
        steps = StepTensors.pack([row.located for row in rows], width, tools.device)

    def numbers(values: list[Any], like: str) -> Tensor:
        return torch.tensor(values, dtype=batch[like].dtype, device=tools.device)

    advantages = numbers([row.advantage for row in rows], "outcome_advantages")
    source = torch.tensor([row.source for row in rows], device=tools.device)
    new: Batch = {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": advantages,
        "outcome_advantages": advantages,
        "num_items_in_batch": tools.accelerator.gather(completion_mask.sum()).sum(),
        **steps.as_batch(),
        "correct": torch.tensor([row.correct for row in rows], device=tools.device),
        "group_accuracy": batch["group_accuracy"][source],
        "total_tokens": numbers([len(row.prompt_ids) + len(row.completion_ids) for row in rows], "total_tokens"),
        "rewards": [row.reward for row in rows],
        "prompts": [batch["prompts"][row.source] for row in rows],
        "completions": [row.located.text for row in rows],
        "rollout_rows": numbers([row.source if row.is_source else -1 for row in rows], "rollout_rows"),
    }
    if "old_per_token_logps" in batch:
        ids = torch.cat([prompt_ids, completion_ids], dim=1)
        mask = torch.cat([prompt_mask, completion_mask], dim=1)
        new["old_per_token_logps"] = tools.forward(ids, mask, width)[0]
    return new


def _padded(ids: list[list[int]], side: str, tools: Policy) -> tuple[Tensor, Tensor]:
    """Return ids and mask, padded in the same way as by TRL."""
    options = {"padding_side": side, "pad_to_multiple_of": tools.pad_to_multiple_of}
    tensors = [torch.tensor(row) for row in ids]
    padded = pad(tensors, padding_value=tools.tokenizer.pad_token_id, **options)
    mask = pad([torch.ones_like(row) for row in tensors], padding_value=0, **options)
    return padded.to(tools.device), mask.to(tools.device)
