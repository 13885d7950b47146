"""One generation batch, from the sampled ids to the inputs of a credit method.

`GenerationBatch` holds this process's responses unpadded and in order. The tensors that the loss needs are in TRL's own
batch, a dict that TRL shuffles and splits into micro-batches: `StepTensors`, `GenerationBatch.outcome`.

Shape legend: N responses (of a generation batch or a micro-batch), C completion tokens (padded right), P prompt tokens
(padded left), S most steps of any response of the generation batch, M responses of all processes, K reward functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnpo.attention.layout import StepLayout
from attnpo.credit.advantages import group_accuracy, outcome_advantages, verdict_of
from attnpo.credit.base import CreditInputs, rescalable_rows
from attnpo.steps.formats import THINK, ThinkingFormat
from attnpo.steps.spans import LocatedSteps, locate_steps
from attnpo.training.records import Record
from attnpo.training.resampling import Sampled
from attnpo.training.rewards import RewardSetup


@dataclass(frozen=True)
class StepTensors:
    """Steps and answers of N responses, as positions counted from the first completion token.

    All have N rows, so that TRL can shuffle and split them like any other tensor of the batch.

    Attributes:
        step_ids: k for tokens of step k, S for tokens outside every step (closing tag, answer, padding).
        step_lengths: tokens of each step, 0 beyond a response's steps.
        num_steps: steps of each response.
        answer_spans: [start, end) of the final answer's tokens; (0, 0) without a closing tag.
        has_answer: a closing tag and some text after it.
    """

    step_ids: Int[Tensor, "N C"]
    step_lengths: Int[Tensor, "N S"]
    num_steps: Int[Tensor, " N"]
    answer_spans: Int[Tensor, "N 2"]
    has_answer: Bool[Tensor, " N"]

    @classmethod
    def pack(cls, located: Sequence[LocatedSteps], width: int, device: torch.device | str = "cpu") -> StepTensors:
        """Create the tensors from the located steps of N responses; `width` is C, the number of padded tokens."""
        most = max([1, *(len(row.spans) for row in located)])
        spans = torch.zeros(len(located), most, 2, dtype=torch.long)
        for i, row in enumerate(located):
            if row.spans:
                spans[i, : len(row.spans)] = torch.tensor(row.spans)
        num_steps = torch.tensor([len(row.spans) for row in located])
        # Steps tile the thinking tokens: the step of a position is the number of steps that end at or before it.
        # Absent steps end beyond every position, so that positions after the last step get num_steps.
        absent = torch.arange(most)[None, :] >= num_steps[:, None]
        ends = spans[:, :, 1].masked_fill(absent, width + 1).contiguous()
        positions = torch.arange(width).expand(len(located), width).contiguous()
        step_ids = torch.searchsorted(ends, positions, right=True)
        before_first = positions < spans[:, :1, 0]  # an opening <think> belongs to no step
        outside = (step_ids >= num_steps[:, None]) | before_first
        answers = [row.answer if row.answer is not None else (0, 0) for row in located]
        return cls(
            step_ids=step_ids.masked_fill(outside, most).to(device),
            step_lengths=(spans[:, :, 1] - spans[:, :, 0]).to(device),
            num_steps=num_steps.to(device),
            answer_spans=torch.tensor(answers, dtype=torch.long).to(device),
            has_answer=torch.tensor([row.answer is not None and row.has_answer_text for row in located]).to(device),
        )

    @classmethod
    def of_batch(cls, batch: Mapping[str, Any]) -> StepTensors:
        """Read the tensors from the trainer's batch."""
        return cls(**{entry.name: batch[entry.name] for entry in fields(cls)})

    def as_batch(self) -> dict[str, Tensor]:
        """Return the entries for the trainer's batch."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def __getitem__(self, rows: slice) -> StepTensors:
        return StepTensors(**{name: tensor[rows] for name, tensor in self.as_batch().items()})

    def layout(self, attention_mask: Int[Tensor, "N P+C"], longest_answer: int) -> StepLayout:
        """Return steps and answers as positions in the padded prompt + completion rows, for the attention capture.

        Responses with fewer than two steps, without an answer, or masked out as truncated are not scored.
        """
        prompt_width = attention_mask.shape[1] - self.step_ids.shape[1]
        most = self.step_lengths.shape[1]
        outside = self.step_ids.new_full((self.step_ids.shape[0], prompt_width), most)
        masked_out = attention_mask[:, prompt_width:].sum(dim=1) == 0
        skip = (self.num_steps < 2) | ~self.has_answer | masked_out
        return StepLayout(
            step_ids=torch.cat([outside, self.step_ids], dim=1),
            step_lengths=self.step_lengths,
            answers=(self.answer_spans + prompt_width).masked_fill(skip[:, None], 0),
            attention_mask=attention_mask.bool(),
            longest_answer=longest_answer,
        )


@dataclass
class GenerationBatch:
    """This process's responses of one generation batch, unpadded and in order; the attributes are filled in as known.

    Attributes:
        rows: the data set row of each response: prompt, reference, id …
        group_size: responses per prompt, G.
        first: index of this process's first response in the batch of all processes; response i belongs to group
            (first + i) // G.
        prompt_ids, completion_ids: token ids, end token included (`add_responses`).
        located: steps and answer of each (`add_responses`).
        truncated: whether each was cut off before an end token (`add_responses`).
        rewards: of all processes, including the length reward; None before verification (`add_rewards`).
        verdicts: right or wrong; None where no verdict was possible (`add_rewards`).
        signals: of a forward before the rewards (`ForwardCapture`); empty where none ran.
        records: the record of each response, for the run folder.
        sampled: responses and rewards sampled before the batch was created (`dynamic_sampling`); else None.
    """

    rows: list[dict[str, Any]]
    group_size: int
    first: int = 0
    prompt_ids: list[list[int]] = field(default_factory=list)
    completion_ids: list[list[int]] = field(default_factory=list)
    located: list[LocatedSteps] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)
    rewards: Float[Tensor, "M K"] | None = None
    verdicts: list[bool | None] = field(default_factory=list)
    signals: dict[str, Tensor] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    sampled: Sampled | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def own(self) -> slice:
        """Slice of this process's responses among those of all processes."""
        return slice(self.first, self.first + len(self))

    @property
    def longest_answer(self) -> int:
        """|F| of the longest final answer, computed on the host so that the capture need not wait for the device."""
        return max((row.answer[1] - row.answer[0] for row in self.located if row.answer is not None), default=0)

    def add_responses(
        self,
        prompt_ids: list[list[int]],
        completion_ids: list[list[int]],
        tokenizer: Any,
        lexicon: str,
        end_ids: Sequence[int],
        form: ThinkingFormat = THINK,
    ) -> None:
        """Add the sampled ids; steps are located on these ids, not on text that was tokenised again."""
        self.prompt_ids, self.completion_ids = prompt_ids, completion_ids
        self.located = [locate_steps(tokenizer, ids, lexicon, form) for ids in completion_ids]
        self.truncated = [ids[-1] not in end_ids for ids in completion_ids]

    def add_rewards(self, rewards: Float[Tensor, "M K"], setup: RewardSetup) -> None:
        """Add the rewards of all processes; `setup` knows which column decides right or wrong."""
        self.rewards = rewards
        self.verdicts = [verdict_of(value) for value in setup.judged(rewards)[self.own].tolist()]

    def outcome(
        self, setup: RewardSetup, weights: Float[Tensor, " K"], advantage: str, width: int
    ) -> tuple[dict[str, Any], Float[Tensor, " M"]]:
        """Return entries for TRL's batch, N rows each, and the outcome advantages of all processes.

        The entries are steps, correctness, group accuracy, outcome advantages and other inputs of credit methods;
        `width` is C. The records must exist already.
        """
        assert self.rewards is not None
        device = weights.device
        totals = setup.total(self.rewards, weights)
        advantages = outcome_advantages(totals.view(-1, self.group_size), advantage).view(-1)
        judged = setup.judged(self.rewards).view(-1, self.group_size)
        accuracy = group_accuracy(judged).repeat_interleave(self.group_size)
        lengths = [len(p) + len(c) for p, c in zip(self.prompt_ids, self.completion_ids, strict=True)]
        entries = {
            **StepTensors.pack(self.located, width, device).as_batch(),
            "correct": setup.correct(self.rewards)[self.own],
            "group_accuracy": accuracy[self.own],
            "total_tokens": torch.tensor(lengths, device=device),
            "outcome_advantages": advantages[self.own],
            "advantages": advantages[self.own],
            "rewards": totals[self.own].tolist(),
            "prompts": [record["prompt"] for record in self.records],
            "completions": [record["text"] for record in self.records],
            "rollout_rows": torch.arange(len(lengths), device=device),
        }
        return entries, advantages


def credit_inputs(batch: Mapping[str, Any], *, step: int, signals: Mapping[str, Float[Tensor, "..."]]) -> CreditInputs:
    """Return the inputs of a credit method from one (micro-)batch of the trainer. `step` counts from 1."""
    return CreditInputs(
        advantages=batch["outcome_advantages"],
        correct=batch["correct"],
        group_accuracy=batch["group_accuracy"],
        answer_tokens=batch["answer_spans"][:, 1] - batch["answer_spans"][:, 0],
        total_tokens=batch["total_tokens"],
        rescalable=rescalable_rows(batch["correct"], batch["has_answer"], batch["num_steps"]),
        step_ids=batch["step_ids"],
        num_steps=batch["num_steps"],
        completion_mask=batch["completion_mask"],
        step=step,
        signals=signals,
        prompts=batch["prompts"],
        completions=batch["completions"],
        rewards=batch["rewards"],
    )


STAGE_SIGNAL = "signal/"
"""Prefix of the batch entries that a stage has added (training/stages)."""


def stage_signals(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the signals that stages have added to the batch, without the prefix in their names."""
    return {name.removeprefix(STAGE_SIGNAL): batch[name] for name in batch if name.startswith(STAGE_SIGNAL)}
