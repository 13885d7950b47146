"""Checkpoints written into a folder of their own and renamed when complete.

Nothing called checkpoint-N is ever half written. In addition to what transformers saves a checkpoint has the state of
`attnpo.training.run_state`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import SaveStrategy, rotate_checkpoints

from attnpo.training.checkpoints import set_aside_after, state_of_checkpoint, write_list_of_files, write_packed
from attnpo.training.processes import any_process
from attnpo.training.records import WARNINGS
from attnpo.training.run_state import (
    REFERENCE,
    Boundary,
    random_states,
    realign,
    restore,
    set_random_states,
    stem_of,
)

ASIDE = ".saving"
"""Folder in the run folder in which the next checkpoint is written."""

CANNOT_WRITE = (OSError, SafetensorError, RuntimeError)
"""Errors of a full disk: torch raises a RuntimeError, safetensors an error of its own."""


class Checkpoints(TrainerCallback):
    """Saves and restores the checkpoints of one trainer; a failure to save is reported and does not end the run.

    Attributes:
        aside: folder in which a checkpoint is being written; None: none is.
        resumed: the checkpoint that training resumes from; None: a new run.
        failed: why the last one could not be saved; None: it was saved.
        before: the state before the current step; None: between two steps.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.aside: str | None = None
        self.resumed: Path | None = None
        self.failed: str | None = None
        self.before: Boundary | None = None
        self._new_epoch = self._just_resumed = False
        self._warned: set[str] = set()
        self.console = Console(stderr=True)

    # ---------------------------------------------------------------- resuming

    @contextmanager
    def resuming(self, checkpoint: Path | None) -> Iterator[None]:
        """Let training inside the block resume from `checkpoint`; None: a new run."""
        self.resumed = checkpoint
        try:
            yield
        finally:
            self.resumed = None

    def skip_used_orders(self, sampler: Any) -> Any:
        """Return TRL's sampler, which draws an order per epoch, after drawing the orders used before `resumed`."""
        generator = getattr(sampler, "generator", None)
        if self.resumed is not None and generator is not None:
            state = type(self.trainer.state).load_from_json(str(self.resumed / TRAINER_STATE_NAME))
            for _ in range(int(state.epoch or 0)):
                torch.randperm(sampler.num_samples, generator=generator)
        return sampler

    # ---------------------------------------------------------------- events of the trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._just_resumed = self.resumed is not None
        if self.resumed is not None:
            if state.is_world_process_zero:
                self._set_aside(Path(args.output_dir), state.global_step)
            warning = restore(self.trainer, self.resumed)
            if warning is not None:
                self.warn(warning)
            if state_of_checkpoint(self.resumed)["max_steps"] != state.max_steps:
                realign(self.trainer.lr_scheduler, self.trainer.optimizer)

    def _set_aside(self, folder: Path, step: int) -> None:
        renamed = set_aside_after(folder, step)
        if renamed:
            names = ", ".join(path.name for path in renamed)
            self.warn(f"training continues from step {step}; later checkpoints stay as {names} and are not used")

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The data loader draws a random number before the first step of an epoch. A checkpoint between two epochs has
        # the state before that draw, a checkpoint within an epoch the state after it.
        self._new_epoch = float(state.epoch or 0).is_integer()
        if self._new_epoch:
            if self._just_resumed:  # transformers loads them too, but only after this event
                self.trainer._load_rng_state(str(self.resumed))
            self.before = Boundary.of(self.trainer)
        self._just_resumed = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._new_epoch:
            self.before = Boundary.of(self.trainer)
        self._new_epoch = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before = None

    # ---------------------------------------------------------------- saving

    def save(self, write: Callable[[], None]) -> None:
        """Let `write` (transformers) save aside, add this package's state, rename. All processes must call it.

        Within a step the state before it is saved: no weight has changed since.
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
        best_before = trainer.state.best_model_checkpoint
        error = self._write_aside(write, root, final.name)
        if self._any_failed(error, step) or self._any_failed(self._put_in_place(root, final), step):
            trainer.state.best_model_checkpoint = best_before
            if args.should_save:
                shutil.rmtree(root, ignore_errors=True)
            return
        if args.push_to_hub:
            trainer._push_from_checkpoint(str(final))
        if args.should_save:
            rotate_checkpoints(str(run), args.save_total_limit, trainer.state.best_model_checkpoint, use_mtime=True)

    def _write_aside(self, write: Callable[[], None], root: Path, name: str) -> str | None:
        """Write all files of the checkpoint into `root`/`name`. Returns the error; None: there was none."""
        args = self.trainer.args
        pushing, args.push_to_hub = args.push_to_hub, False  # nothing is pushed before it has its final name
        self.aside = str(root)
        try:
            if args.should_save:
                shutil.rmtree(root, ignore_errors=True)  # of a run that was killed while it saved
            self.trainer.accelerator.wait_for_everyone()
            write()
            self._write_state(root / name)
        except CANNOT_WRITE as error:
            return _one_line(error)
        finally:
            self.aside, args.push_to_hub = None, pushing
        return None

    def _write_state(self, folder: Path) -> None:
        """Write this process's state and, where it follows the policy, the reference model."""
        trainer = self.trainer
        folder.mkdir(parents=True, exist_ok=True)
        if trainer.args.save_only_model:
            return
        boundary = self.before or Boundary.of(trainer)
        write_packed(folder / stem_of(trainer.args.process_index), boundary.state, boundary.tensors)
        if trainer.args.sync_ref_model and trainer.ref_model is not None and trainer.args.should_save:
            weights = trainer.accelerator.unwrap_model(trainer.ref_model).state_dict()
            save_file({name: tensor.cpu().clone() for name, tensor in weights.items()}, folder / REFERENCE)

    def _put_in_place(self, root: Path, final: Path) -> str | None:
        """List the files, sync them to the disk, rename the folder. Returns the error; None: there was none."""
        trainer = self.trainer
        self._name_best(final)
        if not trainer.args.should_save:
            return None
        written = root / final.name
        try:
            # Again: transformers wrote it with the path in `root` as the best checkpoint.
            trainer.state.save_to_json(str(written / TRAINER_STATE_NAME))
            write_list_of_files(written)
            for file in [*written.rglob("*"), written]:
                _sync(file)
            if final.exists():  # of a run resumed from an earlier step, or cut off under an earlier version
                final.rename(root / "replaced")
            written.rename(final)
            _sync(final.parent)
            shutil.rmtree(root, ignore_errors=True)
        except CANNOT_WRITE as error:
            return _one_line(error)
        return None

    def _name_best(self, final: Path) -> None:
        """Set the best checkpoint as transformers does, by its final name."""
        state, strategy = self.trainer.state, self.trainer.args.save_strategy
        if strategy in (SaveStrategy.STEPS, SaveStrategy.EPOCH, SaveStrategy.BEST) and state.best_global_step:
            best = final.with_name(f"checkpoint-{state.best_global_step}")
            if best == final or best.exists():
                state.best_model_checkpoint = str(best)

    def _any_failed(self, error: str | None, step: int) -> bool:
        """Whether any process has an error; warns of the first one. Collective."""
        errors = [found for found in gather_object([error]) if found is not None]
        self.failed = errors[0] if errors else None
        if errors:
            self.warn(
                f"the checkpoint of step {step} could not be saved ({errors[0]}). Earlier ones are unchanged; "
                "training continues"
            )
        return bool(errors)

    def warn(self, message: str, once: str | None = None) -> None:
        """Warn on the screen and in warnings.jsonl; of several messages with the same `once`, only the first."""
        if once is not None:
            if once in self._warned:
                return
            self._warned.add(once)
        if not self.trainer.is_world_process_zero():
            return
        self.console.print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        try:
            self.trainer.folder.append(WARNINGS, {"step": self.trainer.state.global_step, "message": message})
        except OSError:  # a full disk may be the very reason for the warning, which is on the screen
            return


class SaveByTime(TrainerCallback):
    """Saves a checkpoint whenever the last one is `minutes` old; keeps only the newest of these checkpoints."""

    def __init__(self, minutes: float):
        self.minutes = minutes
        self._last = time.monotonic()
        self._due = False  # the next checkpoint is saved by this callback
        self._own: Path | None = None

    def attnpo_state(self) -> dict[str, Any]:
        """For a checkpoint (`training/run_state.py`), which may itself be one of these."""
        return {"asked": self._due}

    def load_attnpo_state(self, state: dict[str, Any]) -> None:
        """Continue from `attnpo_state`, once training begins."""
        self._due = state["asked"]

    def on_train_begin(self, args, state, control, **kwargs):
        self._last = time.monotonic()
        if self._due:
            self._own = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        self._due = False

    def on_step_end(self, args, state, control, **kwargs):
        due = args.save_strategy != "no" and time.monotonic() - self._last > 60 * self.minutes
        if not control.should_save and any_process(due, args.device):
            self._due = control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        self._last = time.monotonic()
        is_own, self._due = self._due, False
        new = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if not new.exists():  # saving failed: the previous one is the last good one
            return
        old, self._own = self._own, new if is_own else None
        is_best = old is not None and state.best_model_checkpoint == str(old)  # read again at the end of the run
        if old is not None and old != new and not is_best and state.is_world_process_zero:
            shutil.rmtree(old, ignore_errors=True)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _sync(path: Path) -> None:
    """Have the system write a file or a folder to the disk, so that it survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
