"""Checkpoints written aside and renamed, with everything in them that a run has in hand between two steps.

transformers saves weights, optimiser, schedule, random states and its counters. TRL's trainer has more: responses that
further updates are still to be made on, sums of metrics not yet logged; so have the recorder and the callbacks that
count (`state_of`). A run resumed without them is another run. All of it goes into a folder of its own first; it gets
the name of a checkpoint when it is whole, so that nothing called checkpoint-N is ever half of one.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import SaveStrategy, rotate_checkpoints

from attnpo.errors import InputError
from attnpo.training.checkpoints import pack, read_packed, state_of_checkpoint, write_list_of_files, write_packed
from attnpo.training.random_states import RandomStates, random_states, set_random_states
from attnpo.training.records import WARNINGS

ASIDE = ".saving"
"""Folder in the run folder in which the next checkpoint is written."""

REFERENCE = "reference.safetensors"
"""In a checkpoint: the reference model, where it follows the policy (`sync_ref_model`)."""

CANNOT_WRITE = (OSError, SafetensorError, RuntimeError)
"""What a full disk comes to: torch says it by a RuntimeError, safetensors by one of its own."""


def stem_of(process: int) -> str:
    """Name, without its ending, of the files with what a process has in hand."""
    return f"attnpo_state-{process:05d}"


def generate_every(trainer: Any) -> int:
    """Micro-batches that one generation of responses is used for."""
    return trainer.args.steps_per_generation * trainer.num_iterations


def state_of(trainer: Any) -> dict[str, Any]:
    """What this process has in hand between two optimiser steps beside what transformers saves; see `restore`."""
    half_used = trainer._step % generate_every(trainer) != 0
    tables = {name: list(values) for name, values in trainer._logs.items() if isinstance(values, deque)}
    tables.pop("images")
    if trainer._is_vlm:
        tables.clear()  # prompts with images in them: no numbers and texts
    return {
        "version": 1,
        "processes": trainer.args.world_size,
        "micro_batches": trainer._step,
        "responses": trainer._buffered_inputs if half_used else None,
        "metrics": dict(trainer._metrics["train"]),
        "loss": trainer._tr_loss.clone(),  # added to in place
        "total_loss": trainer._total_loss_scalar,
        "logged": trainer._globalstep_last_logged,
        "recorder": trainer._recorder.state(),
        "callbacks": {
            type(callback).__name__: callback.attnpo_state()
            for callback in trainer.callback_handler.callbacks
            if hasattr(callback, "attnpo_state")
        },
        "tables": tables if trainer.log_completions else {},
        "rewards": {name: list(values) for name, values in trainer._logs["rewards"].items()}
        if trainer.log_completions
        else {},
    }


@dataclass
class Boundary:
    """What is saved of a run beside weights and optimiser, as it was before a step: a step that cannot be ended leaves
    no trace in a checkpoint. The tensors are not copied; nobody writes into them.
    """

    state: Any
    tensors: dict[str, torch.Tensor]
    random: RandomStates
    tokens_seen: int

    @classmethod
    def of(cls, trainer: Any) -> Boundary:
        """As it is now."""
        tensors: dict[str, torch.Tensor] = {}
        return cls(pack(state_of(trainer), tensors), tensors, random_states(), trainer.state.num_input_tokens_seen)


def restore(trainer: Any, checkpoint: Path) -> str | None:
    """Put `state_of` back, when training begins; a sentence where the checkpoint does not have it.

    Raises:
        InputError: it was made within a generation by another number of processes, or is not whole.
    """
    process, processes = trainer.args.process_index, trainer.args.world_size
    state = read_packed(checkpoint / stem_of(process), trainer.accelerator.device)
    if state is None:  # of more processes than there were, or of an earlier version
        state = read_packed(checkpoint / stem_of(0), trainer.accelerator.device)
    per_step = trainer.args.gradient_accumulation_steps
    if state is None:
        trainer._step = trainer.state.global_step * per_step
        if trainer._step % generate_every(trainer) == 0:
            return None
        return (
            f"{checkpoint} was saved by an earlier version, without the responses that were in use: they are sampled "
            "anew, so this is not number for number the run that was stopped"
        )
    if state["processes"] != processes:
        if state["responses"] is not None:
            raise InputError(
                f"option resume_from_checkpoint: {checkpoint} was saved by {state['processes']} processes between two "
                f"updates on the same responses, found {processes} processes now. Go on with as many, or from a "
                f"checkpoint of a step that ends a generation (every {generate_every(trainer)} micro-batches)"
            )
        state["micro_batches"] = trainer.state.global_step * per_step
    if state["responses"] is None and state["micro_batches"] % generate_every(trainer) != 0:
        state["micro_batches"] = 0  # it ended a generation, of micro-batches of another size
    if state["responses"] is not None and len(state["responses"]) != trainer.args.steps_per_generation:
        raise InputError(
            f"option resume_from_checkpoint: {checkpoint} was saved between two updates on the same responses, in "
            f"{len(state['responses'])} micro-batches, found {trainer.args.steps_per_generation} now. Go on with the "
            "same per_device_train_batch_size and gradient_accumulation_steps"
        )
    trainer._step, trainer._buffered_inputs = state["micro_batches"], state["responses"]
    trainer._metrics["train"].update(state["metrics"])
    trainer._tr_loss, trainer._total_loss_scalar = state["loss"], state["total_loss"]
    trainer._globalstep_last_logged = state["logged"]
    trainer._recorder.load_state(state["recorder"])
    for callback in trainer.callback_handler.callbacks:
        kept = state["callbacks"].get(type(callback).__name__)
        if kept is not None and hasattr(callback, "load_attnpo_state"):
            callback.load_attnpo_state(kept)
    for name, values in state["tables"].items():
        trainer._logs[name].extend(values)
    for name, values in state["rewards"].items():
        trainer._logs["rewards"][name].extend(values)
    if (checkpoint / REFERENCE).is_file() and trainer.ref_model is not None:
        reference = trainer.accelerator.unwrap_model(trainer.ref_model)
        reference.load_state_dict(load_file(checkpoint / REFERENCE))
    return None


def realign(scheduler: Any, optimizer: Any) -> None:
    """The learning rates of the next step by the schedule as it is now.

    A checkpoint has those of the schedule that it was saved under: 0, where that run had come to its end, so that the
    first step of a longer one would move nothing. Schedules without a function of the step keep what they have.
    """
    inner = getattr(scheduler, "scheduler", scheduler)  # accelerate wraps it
    if not isinstance(inner, LambdaLR):
        return
    rates = [base * rate(inner.last_epoch) for base, rate in zip(inner.base_lrs, inner.lr_lambdas, strict=True)]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    inner._last_lr = rates


class Checkpoints(TrainerCallback):
    """Saves and restores the checkpoints of one trainer; what cannot be saved is said and does not end the run.

    Attributes:
        aside: where a checkpoint is being written; None: nowhere.
        resumed: the checkpoint that training goes on from; None: a new run.
        failed: why the last one could not be saved; None: it was.
        before: the state before the step under way; None: between two steps.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.aside: str | None = None
        self.resumed: Path | None = None
        self.failed: str | None = None
        self.before: Boundary | None = None
        self._new_epoch = self._just_resumed = False
        self._told: set[str] = set()
        self.console = Console(stderr=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._just_resumed = self.resumed is not None
        if self.resumed is not None:
            self.tell(restore(self.trainer, self.resumed))
            if state_of_checkpoint(self.resumed)["max_steps"] != state.max_steps:
                realign(self.trainer.lr_scheduler, self.trainer.optimizer)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The loader of an epoch draws a number before the first step of it. Between epochs a checkpoint has the state
        # before that draw, within one the state after it.
        self._new_epoch = float(state.epoch or 0).is_integer()
        if self._new_epoch:
            if self._just_resumed:  # transformers does so a moment later
                self.trainer._load_rng_state(str(self.resumed))
            self.before = Boundary.of(self.trainer)
        self._just_resumed = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._new_epoch:
            self.before = Boundary.of(self.trainer)
        self._new_epoch = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before = None

    @contextmanager
    def going_on_from(self, checkpoint: Path | None) -> Iterator[None]:
        """Within it training goes on from `checkpoint`; None: it begins."""
        self.resumed = checkpoint
        try:
            yield
        finally:
            self.resumed = None

    def advance(self, sampler: Any) -> Any:
        """TRL's sampler, which draws an order per epoch, with the orders drawn that were used before `resumed`."""
        generator = getattr(sampler, "generator", None)
        if self.resumed is not None and generator is not None:
            state = type(self.trainer.state).load_from_json(str(self.resumed / TRAINER_STATE_NAME))
            for _ in range(int(state.epoch or 0)):
                torch.randperm(sampler.num_samples, generator=generator)
        return sampler

    def save(self, write: Callable[[], None]) -> None:
        """Let `write` (transformers) save aside, add this package's state, rename. To be called by all processes.

        Within a step it is the state before it that is saved: no weight has been changed since.
        """
        if self.before is None:
            self._save(write)
            return
        now, seen = random_states(), self.trainer.state.num_input_tokens_seen
        set_random_states(self.before.random)
        self.trainer.state.num_input_tokens_seen = self.before.tokens_seen
        try:
            self._save(write)
        finally:
            set_random_states(now)
            self.trainer.state.num_input_tokens_seen = seen

    def _save(self, write: Callable[[], None]) -> None:
        trainer, args = self.trainer, self.trainer.args
        run, step = Path(args.output_dir), trainer.state.global_step
        root, final = run / ASIDE, run / f"checkpoint-{step}"
        best = trainer.state.best_model_checkpoint
        pushing, args.push_to_hub = args.push_to_hub, False  # what has no name yet is not sent anywhere
        self.aside, error = str(root), None
        try:
            if args.should_save:
                shutil.rmtree(root, ignore_errors=True)  # of a run that was killed while it saved
            trainer.accelerator.wait_for_everyone()
            write()
            self._add_own(root / final.name)
        except CANNOT_WRITE as found:
            error = f"{type(found).__name__}: {found}".splitlines()[0]
        finally:
            self.aside, args.push_to_hub = None, pushing
        if not self._all_well(error, step) or not self._all_well(self._put_in_place(root, final), step):
            trainer.state.best_model_checkpoint = best
            if args.should_save:
                shutil.rmtree(root, ignore_errors=True)
            return
        if pushing:
            trainer._push_from_checkpoint(str(final))
        if args.should_save:
            rotate_checkpoints(str(run), args.save_total_limit, trainer.state.best_model_checkpoint, use_mtime=True)

    def _add_own(self, folder: Path) -> None:
        """What is in hand, of this process; the reference model, where it moves."""
        trainer = self.trainer
        folder.mkdir(parents=True, exist_ok=True)
        if trainer.args.save_only_model:
            return
        what = self.before or Boundary.of(trainer)
        write_packed(folder / stem_of(trainer.args.process_index), what.state, what.tensors)
        if trainer.args.sync_ref_model and trainer.ref_model is not None and trainer.args.should_save:
            weights = trainer.accelerator.unwrap_model(trainer.ref_model).state_dict()
            save_file({name: tensor.cpu().clone() for name, tensor in weights.items()}, folder / REFERENCE)

    def _put_in_place(self, root: Path, final: Path) -> str | None:
        """List the files, get them onto the disk, rename. What went wrong; None: nothing."""
        trainer = self.trainer
        self._name_best(final)
        if not trainer.args.should_save:
            return None
        made = root / final.name
        try:
            # Written by transformers under the name that it had on the way.
            trainer.state.save_to_json(str(made / TRAINER_STATE_NAME))
            write_list_of_files(made)
            for file in [*made.rglob("*"), made]:
                _sync(file)
            if final.exists():  # of a run that went on from an earlier step, or was cut off by an earlier version
                final.rename(root / "replaced")
            made.rename(final)
            _sync(final.parent)
            shutil.rmtree(root, ignore_errors=True)
        except CANNOT_WRITE as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return None

    def _name_best(self, final: Path) -> None:
        """As transformers does, by the name that the best checkpoint has in the end."""
        state, strategy = self.trainer.state, self.trainer.args.save_strategy
        if strategy in (SaveStrategy.STEPS, SaveStrategy.EPOCH, SaveStrategy.BEST) and state.best_global_step:
            best = final.with_name(f"checkpoint-{state.best_global_step}")
            if best == final or best.exists():
                state.best_model_checkpoint = str(best)

    def _all_well(self, error: str | None, step: int) -> bool:
        """Whether no process met an error; the first one is said where one did."""
        errors = [found for found in gather_object([error]) if found is not None]
        self.failed = errors[0] if errors else None
        if errors:
            self.tell(
                f"the checkpoint of step {step} could not be saved ({errors[0]}). Earlier ones are as they were; "
                "training goes on"
            )
        return not errors

    def tell(self, message: str | None, once: str | None = None) -> None:
        """On the screen and, where there is room, in warnings.jsonl; of several with the same `once` the first."""
        if once is not None and once in self._told:
            return
        self._told.add(once or "")
        if message is None or not self.trainer.is_world_process_zero():
            return
        self.console.print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        try:
            self.trainer.folder.append(WARNINGS, {"step": self.trainer.state.global_step, "message": message})
        except OSError:  # the very reason, perhaps; it stands on the screen
            return


def _sync(path: Path) -> None:
    """Have the system write a file or a folder to the disk: a power cut leaves what is in place whole."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
