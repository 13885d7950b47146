"""`AttnPOTrainer`: TRL's GRPOTrainer with per-token credit.

The trainer knows no credit method. It generates (TRL), finds the steps of each response, has the answers verified,
forms outcome advantages, collects the signals the method asks for inside a forward that runs anyway, and hands the
(B, C) advantages to TRL's loss. Which forward: on-policy, the loss forward itself; where the policy moves between
generation and use (several updates per generation, vLLM with importance correction), the old-log-prob forward.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import CompileConfig
from trl.trainer.grpo_config import GRPOConfig

from attnpo.attention.heads import HEADS, load_threshold
from attnpo.credit.advantages import group_accuracy, outcome_advantages, verdict_of
from attnpo.credit.attnpo import AttnPOCredit
from attnpo.credit.base import FORWARD_SIGNALS, CreditMethod
from attnpo.data.problems import check_enough_problems
from attnpo.errors import InputError
from attnpo.models.fast_rollouts import fast_rollouts
from attnpo.steps.spans import locate_steps
from attnpo.training.callbacks import (
    GradientGuard,
    LengthState,
    MetricsFile,
    NotFiniteError,
    SaveByTime,
    SignalWatch,
    StopAfterMinutes,
)
from attnpo.training.config import AttnPOConfig
from attnpo.training.evaluation import HeldOutEvaluation
from attnpo.training.known_heads import found_at_start, kept_heads, known_heads
from attnpo.training.method_options import OF_HEADS
from attnpo.training.own_heads import find_own_heads
from attnpo.training.processes import from_main
from attnpo.training.records import Record, RunFolder
from attnpo.training.rewards import RewardSetup
from attnpo.training.rollout import StepTensors, longest_answer
from attnpo.training.stages import make_stages
from attnpo.training.stages.base import Rollouts

PAPER = "ATTNPO: Attention-Guided Process Supervision for Efficient Reasoning"


class AttnPOTrainer(HeldOutEvaluation):
    """GRPOTrainer whose advantages are per token, by the credit method of `args.credit`.

    Args:
        model: a causal LM of transformers, or its name or path, as in TRL.
        reward_funcs: TRL reward functions (one or several). The one that says whether an answer is right is
            `args.correct_reward`; by default the first known by its name (`accuracy`, TRL's `accuracy_reward`, …:
            `attnpo.training.rewards.JUDGES`), else the first. A response is right from `args.correct_threshold` on, 1.
        args: `AttnPOConfig`; TRL's `GRPOConfig` too, with this package's defaults where it has TRL's.
        train_dataset, eval_dataset, processing_class, callbacks, peft_config, …: as in TRL.
        credit: a credit method; default: the one of `args.credit`.
        heads: key-focus heads as (layer, head), zero-based; default: those of `args.heads`, else of a heads.json in
            the model's folder, else found by `find_heads` when training starts.

    Raises:
        InputError: for heads the model does not have, tools or environments together with step credit, and what
            `AttnPOConfig` refuses.
    """

    _tag_names = ("trl", "grpo", "attnpo")
    _name = "AttnPO"  # this and _paper are for TRL's model card
    args: AttnPOConfig
    num_generations: int
    num_generations_eval: int

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: AttnPOConfig | GRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        heads: list[tuple[int, int]] | None = None,
        credit: CreditMethod | None = None,
        callbacks: list[Any] | None = None,
        **kwargs: Any,
    ):
        args = AttnPOConfig("attnpo-run") if args is None else AttnPOConfig.of(args)
        self.credit = args.make_credit() if credit is None else credit
        if self.credit.signals and any(kwargs.get(k) for k in ("tools", "environment_factory", "rollout_func")):
            raise InputError(
                f"credit={args.credit!r} reads the steps of one uninterrupted response; tools, environments and "
                "rollout_func interleave text of others and are not supported with it"
            )
        self._paper = {"title": PAPER, "id": "2602.09953"}
        if args.credit != "attnpo" or credit is not None:
            self._name, self._paper = f"AttnPOTrainer of the package attnpo (credit: {self.credit.name})", {}
        self.folder = RunFolder(args.output_dir, rollouts=args.record_rollouts)
        self.rewards = RewardSetup.build(reward_funcs, args)
        check_enough_problems(train_dataset, args.generation_batch_size, args.num_generations)
        weights, args.reward_weights = args.reward_weights, self.rewards.weights(args.reward_weights)
        own: list[Any] = [MetricsFile(self.folder), GradientGuard(), LengthState(self.rewards.length)]
        own.append(SignalWatch(self.folder, self.rewards, args))
        if args.save_minutes is not None:
            own.append(SaveByTime(args.save_minutes))
        if args.max_minutes is not None:
            own.append(StopAfterMinutes(args.max_minutes))
        super().__init__(
            model=model,
            reward_funcs=self.rewards.functions,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=[*own, *(callbacks or [])],
            **kwargs,
        )
        args.reward_weights = weights  # as given, for config.yaml and for another trainer
        if self._is_vlm and self.credit.signals:
            raise InputError(
                f"processing_class: found {type(processing_class).__name__}, expected a tokenizer; "
                f"credit={args.credit!r} does not read prompts with images"
            )
        if args.compile_rollouts:
            self._compile_generation()
        self.rewards.bind(self.reward_func_names, self._tokenizer)
        self.heads, self.heads_file = known_heads(self, heads)
        self._prepare_collecting()
        self.stages = make_stages(self.credit, self)
        self.stage_numbers: dict[str, float] = {}
        self._step_records: list[Record] = []  # finished generation batches of the step, not yet written
        self._eval_records = []

    @property
    def needs_heads(self) -> bool:
        """Whether key-focus heads are still to be found (`heads: auto`)."""
        return self.heads is None and "attention" in self.credit.signals

    def find_heads(self, *, resumed: str | bool = False, say: Callable[[str], None] = print) -> None:
        """Find the key-focus heads of the model itself where none were given (`heads: auto`); see `own_heads`.

        `train` does this first; earlier calls make heads.json and step scores of a first evaluation possible. A resumed
        run keeps its heads (`resumed`: its checkpoint, or true), and those of a run that got no further are taken as
        they are. `say` gets lines for the screen (main process only).
        """
        if resumed:
            self.heads, self.heads_file = kept_heads(self, resumed)
        if self.needs_heads:
            self.heads = found_at_start(self, say) or find_own_heads(self, say)
        self._adopt_threshold()

    def _adopt_threshold(self) -> None:
        """`credit_threshold: heads`: the baseline that was measured with the heads, out of their file."""
        if self.args.credit_threshold != OF_HEADS or not isinstance(self.credit, AttnPOCredit):
            return
        file = self.heads_file or self.folder.path / HEADS
        self.credit = replace(self.credit, threshold=from_main(self.accelerator, lambda: load_threshold(file)))

    # ---------------------------------------------------------------- rollouts

    def _compile_generation(self) -> None:
        """Undo TRL's ban on compiling: `generate` does it by itself with a static cache, on accelerators only."""
        self.generation_config.disable_compile = False
        if self.accelerator.device.type != "cpu":
            # One program per batch size (training, evaluation): graphs of moving shapes would be recorded again.
            self.generation_config.compile_config = CompileConfig(dynamic=False)

    def _generate(self, prompts: list):
        # Where compiling fails, the step runs as it is, with a warning.
        failing: Any = torch._dynamo.config.patch(suppress_errors=True) if self.args.compile_rollouts else nullcontext()
        with self._timer("rollout", counts=self.model.training), fast_rollouts(self.model), failing:
            output = super()._generate(prompts)
        prompt_ids, completion_ids = output[0], output[1]
        with self._timer("credit", counts=self.model.training):
            self._located = [locate_steps(self._tokenizer, ids, self.args.lexicon) for ids in completion_ids]
        self._prompt_ids, self._completion_ids = prompt_ids, completion_ids
        self._truncated = [ids[-1] not in self.eos_token_ids for ids in completion_ids]
        return output

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        with self._timer("verify", counts=self.model.training):
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        with_length = self._with_length_reward if self.model.training else self.rewards.without_length_reward
        self._rewards = with_length(rewards, inputs)
        return self._rewards

    def _with_length_reward(self, rewards: torch.Tensor, rows: list[dict[str, Any]]) -> torch.Tensor:
        step, targets = self.state.global_step + 1, self.rewards.targets(rows)
        lengths = self.accelerator.gather(
            torch.tensor([len(ids) for ids in self._completion_ids], device=rewards.device)
        )
        if targets is not None:
            targets = self.accelerator.gather(targets.to(rewards.device))
        rewards = self.rewards.add_length_reward(rewards, lengths, self.num_generations, step=step, targets=targets)
        for name, value in self.rewards.length.metrics(step).items():
            self._metrics["train"][name].append(value)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training = self.model.training
        if training:
            self._finish_generation_batch()
        self._signals = None
        with self._collecting(training and self._scores_before_rewards):
            output = super()._generate_and_score_completions(inputs)
        local = slice(self.accelerator.process_index * len(inputs), (self.accelerator.process_index + 1) * len(inputs))
        group_size = self.num_generations if training else self.num_generations_eval
        records = self._new_records(inputs, local, group_size)
        if not training:
            self._score_examples(output, records)
            self._eval_records.extend(records)
            return output
        with self._timer("credit"):
            self._ledger.open(records)
            self._add_outcome(output, local, group_size)
            for record, advantage, p in zip(
                records, output["outcome_advantages"].tolist(), output["group_accuracy"].tolist(), strict=True
            ):
                record.update(advantage=advantage, group_accuracy=p)
        output = self._run_stages(output, inputs, local.start)
        if not self.credit.signals & FORWARD_SIGNALS or self._scores_before_rewards:
            self._give_credit(output, self._signals or {})
            self._ledger.finish()
        return output

    def _run_stages(self, batch: dict[str, Any], rows: list[dict[str, Any]], first: int) -> dict[str, Any]:
        """What the credit method needs between the rewards and the loss; most need nothing."""
        if not self.stages:
            return batch
        judged = self.rewards.judged(self._rewards[first : first + len(rows)]).tolist()
        verdicts = [verdict_of(value) for value in judged]
        rollouts = Rollouts(
            rows, self._prompt_ids, self._completion_ids, self._located, verdicts, self.num_generations, first
        )
        with self._timer("stages"):
            for stage in self.stages:
                batch = stage(batch, rollouts)
        told = gather_object([self.stage_numbers])
        for name in sorted({name for numbers in told for name in numbers}):
            self._metrics["train"][name].append(sum(numbers.get(name, 0.0) for numbers in told) / len(told))
        self.stage_numbers = {}
        return batch

    def _add_outcome(self, output: dict[str, Any], local: slice, group_size: int) -> None:
        """Outcome advantages, group accuracy and steps of the local responses, ready to be shuffled and split."""
        device = output["completion_ids"].device
        rewards = self.rewards.total(self._rewards, self.reward_weights.to(device))
        advantages = outcome_advantages(rewards.view(-1, group_size), self.args.advantage).view(-1)
        correct = self.rewards.correct(self._rewards)
        verdicts = self.rewards.judged(self._rewards).view(-1, group_size)
        accuracy = group_accuracy(verdicts).repeat_interleave(group_size)
        lengths = [len(p) + len(c) for p, c in zip(self._prompt_ids, self._completion_ids, strict=True)]
        output.update(
            StepTensors.pack(self._located, output["completion_ids"].shape[1], device).as_batch(),
            correct=correct[local],
            group_accuracy=accuracy[local],
            total_tokens=torch.tensor(lengths, device=device),
            outcome_advantages=advantages[local],
            advantages=advantages[local],
            rewards=rewards[local].tolist(),
            prompts=[record["prompt"] for record in self._ledger.records],
            completions=[record["text"] for record in self._ledger.records],
            rollout_rows=torch.arange(len(lengths), device=device),
        )
        self._longest_answer = longest_answer(self._located)
        # TRL logged its own group-normalised advantages; ours replace them (the rescaled ones follow credit).
        self._relog_advantages(advantages.tolist())

    # ---------------------------------------------------------------- training

    def training_step(self, model, inputs, num_items_in_batch):
        with self._timer("update"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        # Asked of all processes, so that they stop together: the checkpoint that follows takes all of them.
        if not self.accelerator.gather(torch.isfinite(loss)).all():
            raise NotFiniteError(f"step {self.state.global_step + 1}: the loss is {loss.item()}")
        return loss

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any):
        """As in transformers, after `find_heads`.

        Where a loss or gradient is not finite, a checkpoint of the weights before it is saved.

        Raises:
            NotFiniteError: names the step and the checkpoint.
        """
        self.find_heads(resumed=resume_from_checkpoint or False)
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        except NotFiniteError as error:
            raise NotFiniteError(f"{error}. The weights before it are in {self.save_checkpoint()}") from error

    def save_checkpoint(self) -> Path:
        """Save a checkpoint of the current weights now; where it is. One of the same step is kept as it is."""
        where = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if not where.exists():
            self._save_checkpoint(self.model, trial=None)
        return where
