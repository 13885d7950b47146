"""What a stage is given and what it may use. It reads one generation batch and returns it with its signal added.

A stage may also replace the rows of the batch (a method that trains on repaired responses does). Every tensor of the
batch must then have the new number of rows (rows.py builds them), a multiple of `steps_per_generation` and the same on
all processes, because TRL gathers numbers per row; a row that is no response of the batch has `rollout_rows` = -1.

A generation batch with other rows: for stages that train on more, or on other, responses than were sampled.

Legend: M rows of the new batch, C its completion tokens (padded right), P its prompt tokens (padded left).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from trl.data_utils import is_conversational
from trl.trainer.utils import pad

from attnpo.credit.advantages import verdict_of
from attnpo.errors import InputError, RunError
from attnpo.steps.spans import LocatedSteps
from attnpo.training.rollout import StepTensors

Batch = dict[str, Any]


@dataclass(frozen=True)
class Rollouts:
    """This process's responses of one generation batch, unpadded and in order.

    Attributes:
        rows: the data set row of each response: prompt, reference, id …
        prompt_ids, completion_ids: token ids, end token included.
        located: steps and answer of each.
        verdicts: right or wrong; None where nobody could judge.
        group_size: responses per prompt, G.
        first: number of the first response here within the batch of all processes; response i is of the group
            (first + i) // G.
    """

    rows: list[dict[str, Any]]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    located: list[LocatedSteps]
    verdicts: list[bool | None]
    group_size: int
    first: int


class Stage(Protocol):
    """Made once per trainer from the credit method, whose options it reads. Raises InputError for what cannot work."""

    def __init__(self, method: Any, trainer: Any) -> None: ...

    def __call__(self, batch: Batch, rollouts: Rollouts) -> Batch:
        """The batch with an entry ``signal/NAME`` (first dimension: rows) for the signal it makes."""
        ...


class Tools:
    """What stages may do with a trainer: sample, judge, look at log-probabilities, note a number."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.tokenizer = trainer._tokenizer

    @property
    def device(self) -> torch.device:
        return self.trainer.accelerator.device

    @property
    def responses(self) -> int:
        """Responses of one generation batch on this process."""
        return self.trainer.args.per_device_train_batch_size * self.trainer.args.steps_per_generation

    @property
    def max_positions(self) -> int | None:
        """Tokens the model can read, by its configuration; None where that does not say."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        return getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)

    def prompt_ids(self, prompts: Sequence[Any]) -> list[list[int]]:
        """Token ids of prompts of the data set's kind (conversations or texts), as the trainer's own are made."""
        return [list(ids) for ids in self.trainer._tokenize_prompts(list(prompts))[0]] if prompts else []

    def record(self, response: int, **facts: Any) -> None:
        """Write something down with response number `response` of the batch, in rollouts/."""
        self.trainer._ledger.records[response].update(facts)

    def sample(self, prefixes: Sequence[list[int]], count: int, *, max_new_tokens: int | None) -> list[list[list[int]]]:
        """`count` continuations of every prefix by the current policy, at the run's own temperature.

        Through TRL's own generation, so by whatever engine the run uses; without vLLM no more sequences at a time than
        the run's own rollouts have. The metrics get the tokens sampled as `extra/rollout_tokens` and those of the
        prefixes, once per continuation, as `extra/prefix_tokens` (an engine with a prefix cache reads fewer).
        """
        trainer = self.trainer
        if not prefixes:
            return []
        config = trainer.vllm_generation if trainer.use_vllm else trainer.generation_config
        option = "max_completion_length" if trainer.use_vllm else "max_new_tokens"
        usual = getattr(config, option)
        at_once = len(prefixes) if trainer.use_vllm else max(1, self.responses // count)
        sampled: list[list[int]] = []
        try:
            setattr(config, option, max_new_tokens)
            for first in range(0, len(prefixes), at_once):
                repeated = [list(prefix) for prefix in prefixes[first : first + at_once] for _ in range(count)]
                sampled += trainer._generate_single_turn(repeated, None, {}, count)[0]
        finally:
            setattr(config, option, usual)
        self.note("extra/rollout_tokens", float(sum(map(len, sampled))))
        self.note("extra/prefix_tokens", float(count * sum(map(len, prefixes))))
        return [sampled[i : i + count] for i in range(0, len(sampled), count)]

    def judge(self, rows: Sequence[dict[str, Any]], completion_ids: Sequence[list[int]]) -> list[bool | None]:
        """Whether these responses are right, by the reward function that says so; None where it gives nothing.

        Raises:
            InputError: that function is a reward model or asynchronous.
        """
        if not rows:
            return []
        setup = self.trainer.rewards
        function = setup.functions[setup.correct_column]
        if isinstance(function, torch.nn.Module | str):
            name = self.trainer.reward_func_names[setup.correct_column]
            raise InputError(f"option correct_reward: {name!r} is a reward model; expected a function of Python")
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in completion_ids]
        columns = {key: [row.get(key) for row in rows] for key in rows[0] if key not in ("prompt", "completion")}
        rewards = function(
            prompts=[row["prompt"] for row in rows],
            completions=[
                [{"role": "assistant", "content": text}] if is_conversational(row) else text
                for row, text in zip(rows, texts, strict=True)
            ],
            completion_ids=list(completion_ids),
            **columns,
        )
        return [verdict_of(reward) for reward in rewards]

    @torch.no_grad()
    def forward(
        self, ids: Int[Tensor, "N T"], mask: Int[Tensor, "N T"], keep: int
    ) -> tuple[Float[Tensor, "N {keep}"], Float[Tensor, "N {keep}"]]:
        """Log-probabilities and entropies (nats) of the last `keep` tokens under the current policy."""
        trainer = self.trainer
        logps, entropy, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, keep, trainer.args.per_device_train_batch_size, compute_entropy=True
        )
        self.note("extra/forward_tokens", float(mask.sum()))
        return logps, entropy

    def note(self, name: str, value: float) -> None:
        """A number for the metrics of the current step; several of one name are added up, processes are averaged."""
        self.trainer.stage_numbers[name] = self.trainer.stage_numbers.get(name, 0.0) + value


def refuse_uneven_generation(trainer: Any, why: str) -> None:
    """Raises InputError where processes may only generate together, for a stage in which each does so on its own."""
    shared_engine = trainer.use_vllm and (trainer.vllm_mode == "server" or trainer.vllm_tensor_parallel_size > 1)
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if trainer.accelerator.num_processes > 1 and (shared_engine or sharded):
        raise InputError(
            f"credit={trainer.args.credit!r} on several processes: found FSDP, DeepSpeed, or a vLLM that processes "
            f"share, expected plain data parallelism and vllm_mode 'colocate': {why}, and there they may only generate "
            "together"
        )


@dataclass(frozen=True)
class Row:
    """One row of the new batch.

    Attributes:
        source: the response of the old batch that it belongs to; its group accuracy and prompt text are taken over.
        prompt_ids, completion_ids, located: what the row says.
        correct: whether it is right; False also where nobody knows.
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


def rebuild(batch: Batch, rows: Sequence[Row], tools: Tools) -> Batch:
    """The batch with exactly these rows; log-probabilities of the policy that sampled are formed anew where TRL has
    them. `num_items_in_batch` counts all tokens of all processes; whoever closes gates counts again.

    Raises:
        RunError: the batch holds an entry that cannot be made for new rows; names it.
    """
    steps = StepTensors.pack([row.located for row in rows], max(len(row.completion_ids) for row in rows), tools.device)
    unknown = set(batch) - HANDLED - DROPPED - set(steps.as_batch())
    if unknown:
        raise RunError(f"the batch has {', '.join(sorted(unknown))}, which cannot be made for rows that were added")
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
        "num_items_in_batch": tools.trainer.accelerator.gather(completion_mask.sum()).sum(),
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


def _padded(ids: list[list[int]], side: str, tools: Tools) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded as TRL pads them."""
    options = {"padding_side": side, "pad_to_multiple_of": tools.trainer.pad_to_multiple_of}
    tensors = [torch.tensor(row) for row in ids]
    padded = pad(tensors, padding_value=tools.tokenizer.pad_token_id, **options)
    mask = pad([torch.ones_like(row) for row in tensors], padding_value=0, **options)
    return padded.to(tools.device), mask.to(tools.device)
