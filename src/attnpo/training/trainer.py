"""`AttnPOTrainer`: TRL's GRPOTrainer with per-token credit.

The trainer does not depend on a credit method. It generates (TRL), finds the steps of each response, verifies the
answers, computes outcome advantages, reads the signals of the method in a forward that runs anyway, and passes the
(B, C) advantages to TRL's loss. On-policy this is the forward of the loss; where the policy changes between generation
and use (several updates per generation, vLLM with importance correction), it is the old-log-prob forward.

All overrides of TRL's methods are in this class. The state between these calls is in five objects: the current
`GenerationBatch`, a `ForwardCapture`, a `Recorder`, a `HeldOutEvaluation` and the `Checkpoints`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import CompileConfig
from transformers.trainer_utils import has_length
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from attnpo.attention.heads import HEADS, Head, load_threshold
from attnpo.attention.positions import OwnPositions
from attnpo.credit.attnpo import AttnPOCredit
from attnpo.credit.base import FORWARD_SIGNALS, CreditMethod, assign_credit
from attnpo.data.problems import check_enough_problems
from attnpo.errors import InputError, RunError
from attnpo.models.fast_rollouts import fast_rollouts
from attnpo.training.batch import GenerationBatch, StepTensors, credit_inputs, stage_signals
from attnpo.training.callbacks import (
    GradientGuard,
    LengthState,
    LexiconWatch,
    MetricsFile,
    NotFiniteError,
    ReturnMemory,
    SignalWatch,
)
from attnpo.training.capture import ForwardCapture, Signals, Wanted
from attnpo.training.card import write_card
from attnpo.training.checkpoints import checkpoint_of, last_checkpoint, passed_over, what_is_broken
from attnpo.training.config import AttnPOConfig, format_of_run
from attnpo.training.description import describe
from attnpo.training.known_heads import found_at_start, kept_heads, known_heads
from attnpo.training.method_options import OF_HEADS
from attnpo.training.options import resolved_options
from attnpo.training.own_heads import find_own_heads
from attnpo.training.policy import Policy
from attnpo.training.processes import from_main, updates_in_backward
from attnpo.training.recording import HeldOutEvaluation, Recorder, new_records
from attnpo.training.records import RunFolder, add_credit
from attnpo.training.resampling import Sampled, Sampler, drawing, fill
from attnpo.training.resampling import check as check_resampling
from attnpo.training.reward_guard import RewardError, RewardInputError, guarded, infinite_metric, without_infinite
from attnpo.training.rewards import RewardSetup
from attnpo.training.run_state import generate_every, isolated_random_state
from attnpo.training.saving import Checkpoints, SaveByTime
from attnpo.training.stages import make_stages
from attnpo.training.stopping import StopAfterMinutes
from attnpo.training.trackers import GuardedTrackers, keep_in_folder, start_trackers
from attnpo.training.vllm_rollouts import keep_weights_as_loaded, seed_sampling


class AttnPOTrainer(GRPOTrainer):
    """GRPOTrainer whose advantages are per token, by the credit method of `args.credit`.

    Args:
        model: a causal LM of transformers, or its name or path, as in TRL.
        reward_funcs: TRL reward functions (one or several). `args.correct_reward` decides whether an answer is right;
            by default the first with a known name (`accuracy`, TRL's `accuracy_reward`, …:
            `attnpo.training.rewards.JUDGES`), else the first. A response is right from `args.correct_threshold` (1) on.
        args: `AttnPOConfig`, or TRL's `GRPOConfig`, with this package's defaults where it has TRL's.
        train_dataset, eval_dataset, processing_class, callbacks, peft_config, …: as in TRL.
        credit: a credit method; default: the one of `args.credit`.
        heads: key-focus heads as (layer, head), zero-based; default: those of `args.heads`, else of a heads.json in
            the model's folder, else found by `find_heads` when training starts.

    Raises:
        InputError: for heads the model does not have, for tools or environments together with step credit, and errors
            of `AttnPOConfig`.
    """

    _tag_names = ("trl", "grpo", "attnpo")
    # Declared as optional or of several types by transformers and TRL; of these types once the trainer is built.
    args: AttnPOConfig
    model: Any
    accelerator: Any
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
                "rollout_func insert text that the model did not generate and are not supported with it"
            )
        self.folder = RunFolder(args.output_dir, rollouts=args.record_rollouts)
        self.rewards = RewardSetup.build(reward_funcs, args)
        check_enough_problems(train_dataset, args.generation_batch_size, args.num_generations)
        weights, args.reward_weights = args.reward_weights, self.rewards.weights(args.reward_weights)
        self._checkpoints = Checkpoints(self)
        self.guard = GradientGuard(self.folder, args.max_skipped)
        own: list[Any] = [
            self._checkpoints,
            self.guard,
            MetricsFile(self.folder),
            LengthState(self.rewards.length),
            ReturnMemory(),
        ]
        own.append(SignalWatch(self.folder, self.rewards, args))
        if args.credit in ("attnpo", "first_correct") and args.thinking != "no":  # the methods that read steps
            own.append(LexiconWatch(self.folder, args.lexicon))
        if args.save_minutes is not None:
            own.append(SaveByTime(args.save_minutes))
        if args.max_minutes is not None:
            own.append(StopAfterMinutes(args.max_minutes))
        keep_weights_as_loaded(args)
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
        seed_sampling(args, self.accelerator.process_index)
        keep_in_folder(self)
        self._trackers = GuardedTrackers(self, self._checkpoints.warn)
        args.reward_weights = weights  # as given, for config.yaml and for another trainer
        if self._is_vlm and self.credit.signals:
            raise InputError(
                f"processing_class: found {type(processing_class).__name__}, expected a tokenizer; "
                f"credit={args.credit!r} does not read prompts with images"
            )
        if args.compile_rollouts:
            self._compile_generation()
        check_resampling(args.dynamic_sampling, self, args.per_device_train_batch_size * args.steps_per_generation)
        self.thinking = format_of_run(args, self._tokenizer, train_dataset)
        self.form = self.thinking.form
        self.rewards.bind(self.reward_func_names, self._tokenizer, self.form)
        self.policy = Policy(self)
        self.heads: list[Head] | None
        self.heads, self.heads_file = known_heads(self, heads)
        self.is_described = False  # whether the run folder has its description; `attnpo train` writes a fuller one
        self.stages = make_stages(self.credit, self.policy)
        where: dict[str, Any] = {"folder": self.folder, "lexicon": args.lexicon}
        where["writes"] = self.accelerator.is_main_process
        self._batch = GenerationBatch(rows=[], group_size=self.num_generations)
        self._capture = ForwardCapture(OwnPositions())
        self._recorder = Recorder(**where)
        self._held_out = HeldOutEvaluation(**where, examples=args.eval_examples)

    def create_model_card(self, model_name: Any = None, dataset_name: Any = None, tags: Any = None) -> None:
        """Write this package's model card into the run folder, from the run's records, in place of TRL's."""
        if self.is_world_process_zero():
            write_card(
                self.folder.path,
                getattr(self.model.config, "_name_or_path", ""),
                name=self.args.hub_model_id or model_name,
                datasets=[dataset_name] if isinstance(dataset_name, str) else dataset_name,
                tags=[tags] if isinstance(tags, str) else tags,
            )

    @property
    def needs_heads(self) -> bool:
        """Whether key-focus heads have yet to be found (`heads: auto`)."""
        return self.heads is None and "attention" in self.credit.signals

    def find_heads(self, *, resumed: str | bool = False, say: Callable[[str], None] = print) -> None:
        """Find the key-focus heads of the model where none were given (`heads: auto`); see `own_heads`.

        `train` calls this first; an earlier call provides heads.json, and step scores for an evaluation before
        training. A resumed run keeps its heads (`resumed`: its checkpoint, or true); heads of a run that ended right
        after finding them are used too. `say` prints lines (main process only).
        """
        if resumed:
            self.heads, self.heads_file = kept_heads(self, resumed)
        if self.needs_heads:
            with self._trackers.within_trl():
                self.heads = found_at_start(self, say) or find_own_heads(self.policy, self.folder, say)
        self._adopt_threshold()

    def _adopt_threshold(self) -> None:
        """Set the threshold for `credit_threshold: heads`, which was measured with the heads, from their file."""
        if self.args.credit_threshold != OF_HEADS or not isinstance(self.credit, AttnPOCredit):
            return
        file = self.heads_file or self.folder.path / HEADS
        self.credit = replace(self.credit, threshold=from_main(self.accelerator, lambda: load_threshold(file)))

    # ---------------------------------------------------------------- from prompts to a batch for the loss

    def _compile_generation(self) -> None:
        """Allow compilation, which TRL disables: `generate` compiles with a static cache, on accelerators only."""
        self.generation_config.disable_compile = False
        if self.accelerator.device.type != "cpu":
            # One program per batch size (training, evaluation): graphs of dynamic shapes would be recorded repeatedly.
            self.generation_config.compile_config = CompileConfig(dynamic=False)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training = self.model.training
        if training:
            self._close_batch()
        group_size = self.num_generations if training else self.num_generations_eval
        sampled = self._resampled(inputs) if training and self.args.dynamic_sampling else None
        inputs = inputs if sampled is None else sampled.rows
        first = self.accelerator.process_index * len(inputs)
        self._batch = batch = GenerationBatch(inputs, group_size, first=first, sampled=sampled)
        # TRL calls _generate, its old-log-prob forward where it has one, then _calculate_rewards.
        wanted = self._wanted(batch) if training and self.scores_before_rewards else None
        with self._capture.next_forward(wanted) as batch.signals:
            output = super()._generate_and_score_completions(inputs)
        batch.records = new_records(
            batch,
            self.rewards,
            names=self.reward_func_names,
            weights=self.reward_weights,
            split="train" if training else "eval",
            step=self.state.global_step + int(training),
        )
        if not training:
            return output
        with self._recorder.timer("credit"):
            self._recorder.open(batch.records)
            self._add_outcome(output, batch)
        output = self._run_stages(output, batch)
        if not self.credit.signals & FORWARD_SIGNALS or self.scores_before_rewards:
            self._give_credit(output, batch.signals)
            self._recorder.all_credited()
        return output

    def _resampled(self, inputs: list[dict[str, Any]]) -> Sampled:
        """Sample and judge responses, replacing groups without signal (`dynamic_sampling`)."""
        step, accelerator = self.state.global_step + 1, self.accelerator

        def judge(rows: list[dict[str, Any]], generated: Any) -> tuple[Tensor, list[Any]]:
            rewards = self._plain_rewards(rows, [row["prompt"] for row in rows], generated[3], generated[1])
            return rewards, self.rewards.last_verdicts(len(rows))

        def worth(rewards: Tensor, lengths: Tensor, rows: list[dict[str, Any]]) -> Tensor:
            trial, lengths = self.rewards.on_trial(), lengths.to(rewards.device)
            rewards = trial.add_length_reward(
                rewards, lengths, self.num_generations, step=step, targets=self._targets(rows)
            )
            return trial.total(rewards, self.reward_weights.to(rewards.device))

        sampler = Sampler(
            generate=self._sample,
            judge=judge,
            worth=worth,
            gather=lambda values: accelerator.gather(values.to(accelerator.device)),
            draw=drawing(self.train_dataset, self.args.seed, self._step, gather_object([r["prompt"] for r in inputs])),
            processes=accelerator.num_processes,
            process=accelerator.process_index,
        )
        sampled = fill(inputs, self.num_generations, self.args.dynamic_sampling, sampler)
        if sampled.replaced:  # extra columns logged by reward functions belong to other rows than those of the batch
            self._pending_extra_logs.clear()
            self._logs["extra"].clear()
        self._add_metrics({"groups/replaced": float(sampled.replaced)})
        return sampled

    def _sample(self, prompts: list):
        # Where compiling fails, the step runs uncompiled, with a warning.
        failing: Any = torch._dynamo.config.patch(suppress_errors=True) if self.args.compile_rollouts else nullcontext()
        with self._recorder.timer("rollout", counts=self.model.training), fast_rollouts(self.model), failing:
            return super()._generate(prompts)

    def _generate(self, prompts: list):
        sampled = self._batch.sampled
        output = self._sample(prompts) if sampled is None else tuple(sampled.generated)
        with self._recorder.timer("credit", counts=self.model.training):
            self._batch.add_responses(
                output[0], output[1], self._tokenizer, self.args.lexicon, self.eos_token_ids, self.form
            )
        return output

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        sampled = self._batch.sampled
        rewards = (
            self._plain_rewards(inputs, prompts, completions, completion_ids_list)
            if sampled is None
            else sampled.rewards
        )
        with_length = self._with_length_reward if self.model.training else self.rewards.without_length_reward
        rewards = with_length(rewards, inputs)
        self._batch.add_rewards(rewards, self.rewards)
        return rewards

    def _plain_rewards(self, inputs, prompts, completions, completion_ids_list) -> Tensor:
        """Compute rewards of all processes without the length reward; infinite ones count as missing."""
        step = self.state.global_step + int(self.model.training)
        with self._recorder.timer("verify", counts=self.model.training), guarded(self, self.accelerator, step):
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        rewards, infinite = without_infinite(rewards)
        for name, count in zip(self.reward_func_names, infinite, strict=True):
            if count and self.model.training:
                self._add_metrics({infinite_metric(name): float(count)})
            self._warn_of_infinite(name, count)
        return rewards

    def _warn_of_infinite(self, name: str, count: int) -> None:
        if count:
            self._checkpoints.warn(
                f"the reward function {name!r} gave {count} infinite rewards; they count as missing", once=name
            )

    def _with_length_reward(self, rewards: Tensor, rows: list[dict[str, Any]]) -> Tensor:
        step = self.state.global_step + 1
        lengths = [len(ids) for ids in self._batch.completion_ids]
        lengths = self.accelerator.gather(torch.tensor(lengths, device=rewards.device))
        targets = self._targets(rows)
        rewards = self.rewards.add_length_reward(rewards, lengths, self.num_generations, step=step, targets=targets)
        self._add_metrics(self.rewards.length.metrics(step))
        return rewards

    def _targets(self, rows: list[dict[str, Any]]) -> Tensor | None:
        """Gather the lengths that the prompts of all processes request."""
        targets = self.rewards.targets(rows)
        return None if targets is None else self.accelerator.gather(targets.to(self.accelerator.device))

    def _add_outcome(self, output: dict[str, Any], batch: GenerationBatch) -> None:
        """Add outcome advantages, group accuracy and steps to TRL's batch, before it is shuffled and split."""
        completion_ids = output["completion_ids"]
        weights = self.reward_weights.to(completion_ids.device)
        entries, advantages = batch.outcome(self.rewards, weights, self.args.advantage, completion_ids.shape[1])
        output.update(entries)
        # Replaces TRL's group-normalised advantages in the log; the rescaled ones follow with the credit.
        self._relog_advantages(advantages.tolist())
        of_records = zip(
            batch.records, entries["outcome_advantages"].tolist(), entries["group_accuracy"].tolist(), strict=True
        )
        for record, advantage, p in of_records:
            record.update(advantage=advantage, group_accuracy=p)

    def _run_stages(self, output: dict[str, Any], batch: GenerationBatch) -> dict[str, Any]:
        """Run the stages of the credit method between rewards and loss; most methods have none."""
        if not self.stages:
            return output
        with self._recorder.timer("stages"), guarded(self, self.accelerator, self.state.global_step + 1):
            for stage in self.stages:
                output = stage(output, batch)
        numbers = self.policy.take_numbers()
        for name in self.reward_func_names:
            self._warn_of_infinite(name, round(numbers.get(infinite_metric(name), 0)))
        self._add_metrics(numbers)
        return output

    # ---------------------------------------------------------------- signals and credit

    @property
    def scores_before_rewards(self) -> bool:
        """Whether TRL runs an old-log-prob forward, from which the scores then come instead of the loss's."""
        corrected = self.use_vllm and self.vllm_importance_sampling_correction
        return self.args.gradient_accumulation_steps % generate_every(self) != 0 or corrected

    def _wanted(self, batch: GenerationBatch, **how: Any) -> Wanted | None:
        """Return the signals to read in a forward over responses of `batch`; None: the method needs no forward."""
        if not self.credit.signals & FORWARD_SIGNALS:
            return None
        return Wanted(batch, heads=self.heads, entropy="entropy" in self.credit.signals, **how)

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        forward = partial(super()._get_per_token_logps_and_entropies, model, **kwargs)
        rows = (input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy)
        return self._capture.run(forward, model, *rows, of_reference=model is self.ref_model)

    def _compute_loss(self, model, inputs):
        wanted = None
        if self.model.training and "step_ids" in inputs and not self.scores_before_rewards:
            credit = partial(self._give_credit, inputs, in_loss=True)
            wanted = self._wanted(self._batch, steps=StepTensors.of_batch(inputs), then=credit)
        with self._capture.next_forward(wanted):
            return super()._compute_loss(model, inputs)

    def _give_credit(self, batch: dict[str, Any], signals: Signals, *, in_loss: bool = False) -> None:
        """Distribute the advantages of TRL's batch over tokens, in place, and note the credit for the records."""
        with self._recorder.timer("credit"):
            signals = {**stage_signals(batch), **signals}
            inputs = credit_inputs(batch, step=self.state.global_step + 1, signals=signals)
            result = assign_credit(self.credit, inputs)
            # One advantage per response is kept for methods with sequence ratios, where TRL counts sequences.
            plain = getattr(self.credit, "per_response", False)
            batch["advantages"] = batch["outcome_advantages"] if plain else result.advantages
            if result.gates is not None:
                # TRL computes its mask before this forward, so gates from it would have no effect.
                assert not in_loss, f"credit {self.credit.name!r}: gates cannot come out of the loss's own forward"
                batch["tool_mask"] = result.gates.long()  # TRL's name for "these tokens carry loss"
            self._recorder.note(batch, result, signals)

    # ---------------------------------------------------------------- records

    def _close_batch(self) -> None:
        """Complete the records of the last batch and add them to those of its step."""
        records = self._recorder.close()
        if records:
            self._relog_advantages([record["mean_token_advantage"] for record in records])
            self._add_metrics(self._recorder.add_to_step(records))

    def _add_metrics(self, numbers: Mapping[str, float]) -> None:
        """Add numbers to TRL's training metrics."""
        for name, value in numbers.items():
            self._metrics["train"][name].append(value)

    def _relog_advantages(self, advantages: list[float]) -> None:
        """Replace the advantages of the last entries of TRL's table of completions."""
        logged = self._logs["advantages"]
        for _ in range(min(len(logged), len(advantages))):
            logged.pop()
        logged.extend(advantages)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training and ("loss" in logs or "train_runtime" in logs):
            if self._recorder.complete:
                self._close_batch()
            self._add_metrics(self._recorder.end_step())
            self._add_metrics(self._recorder.take_seconds())
        super().log(logs, start_time)

    # ---------------------------------------------------------------- evaluation

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Sample every held-out problem, with the same seed each time.

        Several sets (a dict of them) have a line of evaluations.jsonl each, with their name as `set`.
        The random state of training is restored afterwards, so a run is the same with and without evaluations.
        """
        self._held_out.begin()
        start_trackers(self)
        training_batch = self._batch
        try:
            with self._trackers.within_trl(), isolated_random_state(self.args.seed + self.accelerator.process_index):
                return super().evaluate(*args, **kwargs)
        finally:
            self._batch = training_batch

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any):
        started = time.perf_counter()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        data = (args[0] if args else kwargs["dataloader"]).dataset
        metrics = self._held_out.finish(
            step=self.state.global_step,
            seconds=time.perf_counter() - started,
            responses=len(data) * self.num_generations_eval if has_length(data) else None,
            name=metric_key_prefix.removeprefix("eval").removeprefix("_"),
        )
        assert output.metrics is not None
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Generate and grade. A loss would cost a forward and have no meaning without groups."""
        output = self._prepare_inputs(inputs)
        self._score_examples(output)
        self._held_out.add(self._batch.records)
        return None, None, None

    def _score_examples(self, output: dict[str, Any]) -> None:
        """Score the steps of the first held-out responses, so that the same problems can be compared over the run."""
        records = self._batch.records
        count = self._held_out.to_score(len(records))
        if not count or self.heads is None:
            return
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)[:count]
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)[:count]
        with torch.no_grad(), self._capture.next_forward(self._wanted(self._batch)) as signals:
            self._get_per_token_logps_and_entropies(self.model, ids, mask, output["completion_ids"].shape[1])
        for record, scores in zip(records, signals["attention"].tolist(), strict=False):
            add_credit(record, {"scores": scores})

    # ---------------------------------------------------------------- training

    def training_step(self, model, inputs, num_items_in_batch):
        with self._recorder.timer("update"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        # Gathered from all processes, so that they skip the same updates.
        if not self.accelerator.gather(torch.isfinite(loss)).all():
            self.guard.bad_loss = loss.item()
        return loss

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any):
        """Train as in transformers, after `find_heads`; true: resume from the last complete checkpoint.

        Where the run has to end (`max_skipped` losses or gradients in a row are not finite, a reward function fails),
        a checkpoint of the state before the step is saved; under DeepSpeed the error names the last complete one.

        Raises:
            NotFiniteError, RewardError, RewardInputError: name the step, the error and the checkpoint.
            InputError: a resumed run has other settings (`resume_with_changes`).
        """
        found = self._checkpoint_of(resume_from_checkpoint)
        with self._checkpoints.resuming(found), self._trackers.within_trl():
            checkpoint = None if found is None else str(found)
            self.find_heads(resumed=checkpoint or False)
            if not self.is_described:
                describe(self, checkpoint, resolved_options(None, self.args, None))
            try:
                return super().train(checkpoint, *args, **kwargs)
            except (NotFiniteError, RewardError, RewardInputError) as error:
                raise type(error)(f"{error}. {self._where_weights_are()}") from error

    def _where_weights_are(self) -> str:
        """Save the state before the step that failed, if the step has not changed it; name where to resume from."""
        if not updates_in_backward(self.args):
            return f"The weights before it are in {self.save_checkpoint()}"
        folder = Path(self.args.output_dir)
        last = from_main(self.accelerator, lambda: last_checkpoint(folder))
        return f"{folder} has no complete checkpoint" if last is None else f"The last complete checkpoint is {last}"

    def _checkpoint_of(self, resume: str | bool | None) -> Path | None:
        """Return the checkpoint to resume from; warns of later damaged ones. The main process decides."""
        folder = Path(self.args.output_dir)
        found = from_main(self.accelerator, lambda: checkpoint_of(folder, resume))
        if found is not None and resume is True:
            for message in from_main(self.accelerator, lambda: passed_over(folder, found)):
                warnings.warn(message, stacklevel=3)
        return found

    @property
    def checkpoint_failed(self) -> str | None:
        """Why the last checkpoint could not be saved; None: it was saved."""
        return self._checkpoints.failed

    def save_checkpoint(self) -> Path:
        """Save a checkpoint of the current weights and return its folder. A complete one of the same step is kept.

        Raises:
            RunError: it could not be written.
        """
        where = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if not where.exists() or what_is_broken(where) is not None:
            self._save_checkpoint(self.model, trial=None)
            if self._checkpoints.failed is not None:
                raise RunError(f"{where} could not be saved: {self._checkpoints.failed}")
        return where

    def _save_checkpoint(self, model, trial):
        self._checkpoints.save(partial(super()._save_checkpoint, model, trial))

    def _get_output_dir(self, trial):
        return self._checkpoints.aside or super()._get_output_dir(trial)

    def _get_train_sampler(self, dataset=None):
        return self._checkpoints.skip_used_orders(super()._get_train_sampler(dataset))
