"""`Policy`: the operations of the trainer for stages (training/stages) and the search for heads (training/own_heads).

They sample, verify and score through this facade and do not depend on the trainer. Private names of TRL's trainer are
used here, in `AttnPOTrainer` and in training/run_state.py only.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer
from trl.data_utils import is_conversational
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import is_async_callable

from attnpo.errors import InputError
from attnpo.steps.formats import ThinkingFormat
from attnpo.steps.spans import LocatedSteps
from attnpo.training.processes import together
from attnpo.training.records import Record
from attnpo.training.reward_guard import faults_of, infinite_metric, without_infinite
from attnpo.training.run_state import isolated_random_state


@dataclass(frozen=True)
class Response:
    """A response generated and verified as in an evaluation."""

    prompt: list[int]
    completion: list[int]
    located: LocatedSteps
    record: Record


class Policy:
    """Samples, judges and scores with a trainer's policy, as in training or as in an evaluation; collects metrics."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._numbers: dict[str, float] = {}

    @property
    def args(self) -> Any:
        """The options of the run (`AttnPOConfig`)."""
        return self._trainer.args

    @property
    def accelerator(self) -> Any:
        """Accelerate's `Accelerator`."""
        return self._trainer.accelerator

    @property
    def model(self) -> Any:
        return self._trainer.model

    @property
    def problems(self) -> Any:
        """The training set."""
        return self._trainer.train_dataset

    @property
    def tokenizer(self) -> Any:
        return self._trainer._tokenizer

    @property
    def form(self) -> ThinkingFormat:
        """The thinking format of the responses."""
        return self._trainer.form

    @property
    def judge_name(self) -> str | None:
        """Name of the reward function that decides right or wrong."""
        return self._trainer.rewards.correct_name

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def responses(self) -> int:
        """Number of responses per generation batch on this process."""
        return self.args.per_device_train_batch_size * self.args.steps_per_generation

    @property
    def at_once(self) -> int | None:
        """Number of sequences per forward; None: vLLM decides."""
        return None if self._trainer.use_vllm else self.args.per_device_train_batch_size

    @property
    def group_size(self) -> int:
        """Responses per prompt."""
        return self._trainer.num_generations

    @property
    def max_completion_length(self) -> int | None:
        return self._trainer.max_completion_length

    @property
    def max_positions(self) -> int | None:
        """Maximum number of tokens by the model's configuration; None where it has none."""
        model = self.accelerator.unwrap_model(self.model)
        return getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)

    @property
    def pad_to_multiple_of(self) -> int | None:
        return self._trainer.pad_to_multiple_of

    @property
    def end_ids(self) -> set[int]:
        """Ids of the tokens that end a response."""
        return set(self._trainer.eos_token_ids)

    @property
    def can_share_prefixes(self) -> bool:
        """Whether continuations can start from a cache filled by an earlier forward (stages/potentials.py)."""
        trainer = self._trainer
        if trainer.use_vllm or trainer.use_transformers_continuous_batching:
            return False
        if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
            return False
        if trainer.generation_config.cache_implementation is not None:
            return False
        return all(type(layer) is DynamicLayer for layer in DynamicCache(config=self.model.config).layers)

    @property
    def corrects_for_vllm(self) -> bool:
        """Whether the loss weights tokens by the difference of vLLM's log-probabilities from the policy's."""
        return self._trainer.use_vllm and self._trainer.vllm_importance_sampling_correction

    def refuse_uneven_generation(self, why: str) -> None:
        """Raise InputError where processes can only generate together, for a stage in which each generates alone."""
        trainer = self._trainer
        shared_engine = trainer.use_vllm and (trainer.vllm_mode == "server" or trainer.vllm_tensor_parallel_size > 1)
        sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        if self.accelerator.num_processes > 1 and (shared_engine or sharded):
            raise InputError(
                f"credit={self.args.credit!r} on several processes: found FSDP, DeepSpeed, or a vLLM that processes "
                f"share, expected plain data parallelism and vllm_mode 'colocate': {why}, and there they can only "
                "generate together"
            )

    # ---------------------------------------------------------------- sampling

    def prompt_ids(self, prompts: Sequence[Any]) -> list[list[int]]:
        """Tokenise prompts (conversations or texts, as in the data set) in the same way as the trainer."""
        return [list(ids) for ids in self._trainer._tokenize_prompts(list(prompts))[0]] if prompts else []

    def sample(self, prefixes: Sequence[list[int]], count: int, *, max_new_tokens: int | None) -> list[list[list[int]]]:
        """Sample `count` continuations of every prefix from the current policy, at the run's temperature.

        Uses TRL's generation with the run's engine; without vLLM at most as many sequences at a time as the run's
        rollouts. Metrics: sampled tokens as `extra/rollout_tokens`; prefix tokens, once per continuation, as
        `extra/prefix_tokens` (an engine with a prefix cache reads fewer).
        """
        trainer = self._trainer
        if not prefixes:
            return []
        config = trainer.vllm_generation if trainer.use_vllm else trainer.generation_config
        option = "max_completion_length" if trainer.use_vllm else "max_new_tokens"
        limit_of_run = getattr(config, option)
        at_once = len(prefixes) if trainer.use_vllm else max(1, self.responses // count)
        sampled: list[list[int]] = []
        try:
            setattr(config, option, max_new_tokens)
            for first in range(0, len(prefixes), at_once):
                repeated = [list(prefix) for prefix in prefixes[first : first + at_once] for _ in range(count)]
                sampled += trainer._generate_single_turn(repeated, None, {}, count)[0]
        finally:
            setattr(config, option, limit_of_run)
        self.note("extra/rollout_tokens", float(sum(map(len, sampled))))
        self.note("extra/prefix_tokens", float(count * sum(map(len, prefixes))))
        return [sampled[i : i + count] for i in range(0, len(sampled), count)]

    def generation_config(self, max_new_tokens: int) -> GenerationConfig:
        """Return the run's generation configuration with another limit."""
        config = copy.copy(self._trainer.generation_config)
        config.max_new_tokens = max_new_tokens
        return config

    @contextmanager
    def generating(self) -> Iterator[Any]:
        """Yield the model unwrapped for generation by TRL, without gradients."""
        trainer = self._trainer
        with (
            unwrap_model_for_generation(
                trainer.model_wrapped,
                self.accelerator,
                generation_kwargs=trainer.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
        ):
            yield model

    # ---------------------------------------------------------------- judging and scoring

    def judge(self, rows: Sequence[dict[str, Any]], completion_ids: Sequence[list[int]]) -> list[bool | None]:
        """Judge responses by the reward function that decides right or wrong; None where it returns no reward.

        An infinite reward counts as none (metric `rewards/NAME/infinite`). In a stage, which the trainer runs with its
        reward functions guarded, a function that fails gives None for every response, and the run ends after the stage.

        Raises:
            InputError: that function is a reward model.
        """
        if not rows:
            return []
        setup = self._trainer.rewards
        function = self._trainer.reward_funcs[setup.correct_column]
        if isinstance(function, torch.nn.Module):
            name = self._trainer.reward_func_names[setup.correct_column]
            raise InputError(f"option correct_reward: {name!r} is a reward model; expected a Python function")
        given = self._call(function, rows, completion_ids)
        with faults_of(function):  # values above 1 without a threshold
            values = [torch.nan if reward is None else float(reward) for reward in given]
            rewards, (infinite,) = without_infinite(torch.tensor(values)[:, None])
            if infinite:  # the sum over the processes, as for responses
                self.note(infinite_metric(str(self.judge_name)), infinite * self.accelerator.num_processes)
            return [setup.verdict(reward) for reward in rewards[:, 0].tolist()]
        return [None] * len(rows)

    def _call(
        self, function: Any, rows: Sequence[dict[str, Any]], completion_ids: Sequence[list[int]]
    ) -> Sequence[float | None]:
        """Call a reward function as TRL does (`_calculate_rewards`), which gathers one reward per response.

        What it logs is ignored: TRL's metrics and table are of responses.
        """
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in completion_ids]
        own = ("prompt", "completion", "completion_ids")
        given = function(
            prompts=[row["prompt"] for row in rows],
            completions=[
                [{"role": "assistant", "content": text}] if is_conversational(row) else text
                for row, text in zip(rows, texts, strict=True)
            ],
            completion_ids=list(completion_ids),
            trainer_state=self._trainer.state,
            log_extra=lambda column, values: None,
            log_metric=lambda name, value: None,
            **{key: [row.get(key) for row in rows] for key in rows[0] if key not in own},
        )
        if is_async_callable(function):
            return asyncio.run_coroutine_threadsafe(given, self._trainer.async_loop).result()
        return given

    @torch.no_grad()
    def forward(
        self, ids: Int[Tensor, "N T"], mask: Int[Tensor, "N T"], keep: int
    ) -> tuple[Float[Tensor, "N {keep}"], Float[Tensor, "N {keep}"]]:
        """Compute log-probabilities and entropies (nats) of the last `keep` tokens under the current policy."""
        logps, entropy, _ = self._trainer._get_per_token_logps_and_entropies(
            self.model, ids, mask, keep, self.args.per_device_train_batch_size, compute_entropy=True
        )
        self.note("extra/forward_tokens", float(mask.sum()))
        return logps, entropy

    def note(self, name: str, value: float) -> None:
        """Add a number to the metrics of the current step; equal names are summed, processes averaged."""
        self._numbers[name] = self._numbers.get(name, 0.0) + value

    def take_numbers(self) -> dict[str, float]:
        """Return and clear the numbers noted, averaged over the processes. Collective."""
        noted: list[dict[str, float]] = gather_object([self._numbers])
        self._numbers = {}
        names = sorted({name for numbers in noted for name in numbers})
        return {name: sum(numbers.get(name, 0.0) for numbers in noted) / len(noted) for name in names}

    # ---------------------------------------------------------------- as in an evaluation

    @contextmanager
    def as_in_an_evaluation(self, samples: int, seed: int) -> Iterator[None]:
        """Switch to evaluation mode with `samples` responses per problem and `seed`; restores everything afterwards."""
        trainer = self._trainer
        training, group, batch = trainer.model.training, trainer.num_generations_eval, trainer._batch
        logs = copy.deepcopy((trainer._logs, trainer._metrics["eval"]))  # these responses belong to no evaluation
        trainer.model.eval()
        trainer.num_generations_eval = samples
        try:
            with isolated_random_state(seed + self.accelerator.process_index):
                yield
        finally:
            trainer.model.train(training)
            trainer.num_generations_eval, trainer._batch = group, batch
            trainer._logs, trainer._metrics["eval"] = logs

    def respond(self, rows: list[dict[str, Any]]) -> list[Response]:
        """Generate and verify one batch; use inside `as_in_an_evaluation`."""
        self._trainer._generate_and_score_completions(rows)
        batch = self._trainer._batch
        parts = zip(batch.prompt_ids, batch.completion_ids, batch.located, batch.records, strict=True)
        return [Response(list(prompt), list(ids), located, record) for prompt, ids, located, record in parts]

    @contextmanager
    def rollouts_together(self) -> Iterator[None]:
        """`together` for a block in which TRL samples and verifies responses: an error on one process ends all.

        An error in generation is raised on all processes right away, one of a reward function by its guard, after TRL
        has gathered the rewards. With vLLM, which gathers while it generates, nothing is done: a failed process exits,
        and its launcher ends the others.
        """
        trainer = self._trainer
        if self.accelerator.num_processes == 1 or trainer.use_vllm:
            yield
            return
        generate = trainer._generate_single_turn

        def generate_together(*args: Any, **kwargs: Any) -> Any:
            with together(self.accelerator):
                return generate(*args, **kwargs)

        with together(self.accelerator):
            trainer._generate_single_turn = generate_together
            try:
                yield
            finally:
                trainer._generate_single_turn = generate
