"""Callbacks of a run: metrics file, progress line, guard on gradients, host memory, batches without signal."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback
from transformers.trainer_utils import has_length

from attnpo.errors import RunError
from attnpo.rewards.length import LengthReward
from attnpo.tables import TIME_LEFT_FROM
from attnpo.training.diagnosis import Diagnosis, diagnose, wrong_format
from attnpo.training.processes import any_process, updates_in_backward
from attnpo.training.recording import record_fit
from attnpo.training.records import WARNINGS, Record, RunFolder
from attnpo.training.rewards import RewardSetup


class NotFiniteError(RunError):
    """The loss or a gradient is NaN or infinite; the weights are those of the last finished step."""


class MetricsFile(TrainerCallback):
    """Writes every training log to metrics.jsonl; first drops the lines after the step that training starts from.

    `seconds` is the time since the previous line without evaluations, so that it adds up, also over a resumed run.
    """

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self.since = time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        self.since = time.perf_counter()
        if state.is_world_process_zero:
            self.folder.forget_after(state.global_step)

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs):
        # Evaluations have their own file, and the summary at the end of training is not a step.
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        numbers = {
            key: value if math.isfinite(value) else None  # JSON has no infinity and no NaN
            for key, value in logs.items()
            if isinstance(value, int | float)
        }
        now = time.perf_counter()
        self.folder.append(
            "metrics.jsonl", {"step": state.global_step, "seconds": round(now - self.since, 3), **numbers}
        )
        self.since = now

    def on_evaluate(self, args, state, control, **kwargs):
        self.since = time.perf_counter()  # evaluations.jsonl has the time of an evaluation


class GradientGuard(TrainerCallback):
    """Skips an update whose loss or gradient is not finite; ends the run after `limit` of them in a row.

    The gradients are removed, so that the optimiser changes neither weights nor moments; the step counts, and its
    metrics have `updates/skipped`. Under fp16 a gradient that is not finite is left to the gradient scaler, which skips
    such updates to find its scale. Under DeepSpeed, which updates within the backward pass and removes the gradients,
    the first loss that is not finite ends the run.

    Attributes:
        bad_loss: this process's loss of a micro-batch of the current step, where the loss of any process was not
            finite.
        in_row: skipped updates in a row; total: skipped updates of the run.
    """

    def __init__(self, folder: RunFolder, limit: int):
        self.folder, self.limit = folder, limit
        self.console = Console(stderr=True)
        self.bad_loss: float | None = None
        self.in_row = self.total = 0
        self._unlogged = 0

    def attnpo_state(self) -> dict[str, Any]:
        """For a checkpoint (`training/saving.py`)."""
        return {"in_row": self.in_row, "total": self.total, "unlogged": self._unlogged}

    def load_attnpo_state(self, state: dict[str, Any]) -> None:
        """Go on from `attnpo_state`."""
        self.in_row, self.total, self._unlogged = state["in_row"], state["total"], state["unlogged"]

    def on_pre_optimizer_step(self, args, state, control, model: torch.nn.Module | None = None, **kwargs):
        assert model is not None
        loss, self.bad_loss = self.bad_loss, None
        if loss is None and (args.fp16 or _has_finite_gradients(model)):
            self.in_row = 0
            return
        message = f"step {state.global_step + 1}: {_cause(loss)}"
        for parameter in model.parameters():
            parameter.grad = None
        self.in_row, self.total, self._unlogged = self.in_row + 1, self.total + 1, self._unlogged + 1
        limit = 1 if updates_in_backward(args) else self.limit  # the update may have been made
        if self.in_row >= limit:
            raise NotFiniteError(message if limit == 1 else f"{message}, as in {self.in_row} updates in a row")
        if state.is_world_process_zero:
            message = f"{message}: the update is skipped ({self.in_row} of {self.limit} in a row, which end the run)"
            self.console.print(message, style="yellow", markup=False, highlight=False, soft_wrap=True)
            self.folder.append(WARNINGS, {"step": state.global_step + 1, "message": message})

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs):
        if logs and "loss" in logs and self._unlogged:
            logs["updates/skipped"] = float(self._unlogged)
            self._unlogged = 0


def _cause(loss: float | None) -> str:
    """Say what is not finite; loss: `GradientGuard.bad_loss`."""
    if loss is None:
        return "a gradient is not finite"
    return f"the loss is {loss}" if not math.isfinite(loss) else "the loss of another process is not finite"


def _has_finite_gradients(model: torch.nn.Module) -> bool:
    """Whether the norm of all gradients is finite; under FSDP2 every process has a part of it."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not gradients:
        return True
    norm = torch.nn.utils.get_total_norm(gradients)
    return bool(torch.isfinite(norm.full_tensor() if isinstance(norm, DTensor) else norm))


class NoSignalError(RunError):
    """No response of several batches in a row had an advantage: continuing the run would change nothing."""


class WrongFormatError(RunError):
    """The responses use the marks of another thinking format: rewards and steps would refer to the wrong text."""


class SignalWatch(TrainerCallback):
    """Diagnoses the first batch, and stops a run after `args.patience` batches in a row without signal (0: never).

    It also stops, after the first batch, a run whose responses end their thinking by the marks of another format.
    Diagnoses are printed in red and written to warnings.jsonl.

    folder: its listeners get the records. rewards: has the function that decides right or wrong.
    """

    def __init__(self, folder: RunFolder, rewards: RewardSetup, args: Any):
        self.folder, self.rewards = folder, rewards
        self.patience, self.limit = args.patience, args.max_completion_length
        self.thinks = args.thinking != "no"
        self.console = Console(stderr=True)
        self.without = 0  # batches in a row
        self._fresh: list[Sequence[Record]] = []
        self._diagnosed = False  # the first batch has been
        folder.listeners.append(self._listen)

    def attnpo_state(self) -> dict[str, Any]:
        """For a checkpoint (`training/run_state.py`)."""
        return {"without": self.without, "told": self._diagnosed, "fresh": [list(records) for records in self._fresh]}

    def load_attnpo_state(self, state: dict[str, Any]) -> None:
        """Go on from `attnpo_state`."""
        self.without, self._diagnosed, self._fresh = state["without"], state["told"], state["fresh"]

    def _listen(self, name: str, records: Sequence[Record]) -> None:
        if name.startswith("train-"):
            self._fresh.append(records)

    def on_train_begin(self, args, state, control, **kwargs):
        line = self.rewards.describe_judge()
        if line is not None and state.is_world_process_zero:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs):
        if not logs or "loss" not in logs:
            return
        # A KL term has a gradient whatever the rewards are; without it only an advantage has one.
        moved = not args.beta and logs.get("grad_norm", 0.0) > 0
        found: Diagnosis | None = None
        misread: str | None = None
        for records in self._fresh:
            found = diagnose(
                records,
                limit=self.limit,
                moved=moved,
                judge=self.rewards.correct_name,
                thinks=self.thinks,
                form=self.rewards.form,
            )
            self.without = self.without + 1 if found is not None and found.without_signal else 0
            if found is not None and not self._diagnosed:
                self._show(found, state.global_step)
            if not self._diagnosed and self.thinks:
                misread = wrong_format(records, self.rewards.form)
            self._diagnosed = True
        self._fresh = []
        if misread is not None:
            stopped = "Stopped: " if self.patience else ""
            if not stopped:
                self.console.print(f"step {state.global_step}: {misread}", style="bold red", markup=False)
            self.folder.append(WARNINGS, {"step": state.global_step, "message": f"{stopped}{misread}"})
        if any_process(bool(self.patience) and misread is not None, args.device):
            raise WrongFormatError(f"{misread or 'another thinking format'}. --patience 0 continues anyway")
        if any_process(bool(self.patience) and self.without >= self.patience, args.device):
            message = f"no signal in {self.patience} batches in a row, the last of step {state.global_step}"
            if found is not None:  # only the process that has the records
                message += f". {found.message}"
                self.folder.append(WARNINGS, {"step": state.global_step, "message": f"Stopped: {message}"})
            raise NoSignalError(f"{message} --patience 0 continues anyway")

    def _show(self, found: Diagnosis, step: int) -> None:
        self.console.print(f"step {step}: {found.message}", style="bold red", markup=False, soft_wrap=True)
        self.console.print(found.example, markup=False, highlight=False, soft_wrap=True)
        self.folder.append(WARNINGS, {"step": step, "message": found.message, "example": found.example})


class LexiconWatch(TrainerCallback):
    """Warns where complete responses have too few steps for credit per step to have an effect.

    It examines the first batch with at least `ENOUGH` complete responses, and no other.
    folder: its listeners get the records; warnings.jsonl gets the warning. lexicon: the one that cut the steps.
    """

    ENOUGH = 8

    def __init__(self, folder: RunFolder, lexicon: str):
        self.folder, self.lexicon = folder, lexicon
        self.console = Console(stderr=True)
        self._warning: str | None = None  # to be printed with the next log
        self._examined = False
        folder.listeners.append(self._listen)

    def attnpo_state(self) -> dict[str, Any]:
        """For a checkpoint (`training/run_state.py`)."""
        return {"told": self._examined, "said": self._warning}

    def load_attnpo_state(self, state: dict[str, Any]) -> None:
        """Continue from `attnpo_state`."""
        self._examined, self._warning = state["told"], state["said"]

    def _listen(self, name: str, records: Sequence[Record]) -> None:
        if name.startswith("train-") and not self._examined:
            complete = [record for record in records if record["answered"]]
            if len(complete) >= self.ENOUGH:
                self._warning = record_fit(complete).warning(self.lexicon)
                self._examined = True

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs):
        if self._warning is not None:
            message = f"step {state.global_step}: {self._warning}"
            self.console.print(message, style="yellow", markup=False, soft_wrap=True)
            self.folder.append(WARNINGS, {"step": state.global_step, "message": self._warning})
            self._warning = None


class ReturnMemory(TrainerCallback):
    """On a CPU, gives freed memory back to the system once in `every` seconds.

    The C library (glibc) keeps the memory that tensors of changing sizes leave free in its heap: half of a process that
    trains a small model, and more as the run goes on (docs/runs.md).
    """

    def __init__(self, every: float = 60.0):
        self.every = every
        self._last = -math.inf
        self._trim: Any = None  # other C libraries have no such function
        if sys.platform == "linux":
            self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def on_step_end(self, args, state, control, **kwargs):
        now = time.monotonic()
        if self._trim is not None and args.device.type == "cpu" and now - self._last >= self.every:
            self._trim(ctypes.c_size_t(0))
            self._last = now


class LengthState(TrainerCallback):
    """Keeps the state of a length reward in the checkpoints (in trainer_state.json)."""

    KEY = "attnpo_length_reward"

    def __init__(self, length: LengthReward):
        self.length = length

    def on_train_begin(self, args, state, control, **kwargs):
        saved: Any = state.stateful_callbacks
        if saved.get(self.KEY):
            self.length.load_state(saved[self.KEY])

    def on_step_end(self, args, state, control, **kwargs):
        if self.length.state():
            saved: Any = state.stateful_callbacks
            saved[self.KEY] = self.length.state()


class LiveProgress(TrainerCallback):
    """A progress line with step, accuracy, length, reward and remaining time; without a terminal a line per step."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console()
        self.progress: Progress | None = None
        self._evaluating: Progress | None = None
        self._done = 0  # batches of the current evaluation
        self._printed = 0.0  # when progress of the evaluation was last printed
        self.task: Any = None

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        self.progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            speed_estimate_period=TIME_LEFT_FROM,
        )
        self.task = self.progress.add_task("first responses …", total=state.max_steps, completed=state.global_step)
        self.progress.start()

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs):
        if self.progress is None or not logs or "loss" not in logs:
            return
        text = describe(logs)
        self.progress.update(self.task, completed=state.global_step, description=text)
        if not self.console.is_terminal:
            remaining = self.progress.tasks[0].time_remaining
            left = "" if remaining is None else f" · {remaining:.0f} s left"
            self.console.print(f"step {state.global_step}/{state.max_steps} · {text}{left}", highlight=False)

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        """Show that a batch of held-out problems is done: in a progress bar, or by a line every half minute."""
        if not state.is_world_process_zero or not has_length(eval_dataloader):
            return
        total, now = len(eval_dataloader), time.monotonic()  # type: ignore[arg-type]
        if self._done == 0:
            self._printed = now
            if self.console.is_terminal and self.progress is None:  # rich has one live display at a time
                columns = (
                    TextColumn("evaluating"),
                    BarColumn(bar_width=20),
                    MofNCompleteColumn(),
                    TimeRemainingColumn(),
                )
                self._evaluating = Progress(
                    *columns, console=self.console, transient=True, speed_estimate_period=TIME_LEFT_FROM
                )
                self._evaluating.add_task("", total=total)
                self._evaluating.start()
        self._done += 1
        if self._evaluating is not None:
            self._evaluating.update(self._evaluating.task_ids[0], completed=self._done)
        elif not self.console.is_terminal and now - self._printed > 30:
            self._printed = now
            self.console.print(f"evaluating: {self._done} of {total} batches", highlight=False)

    def on_evaluate(self, args, state, control, **kwargs):
        self._done = 0
        if self._evaluating is not None:
            self._evaluating.stop()
            self._evaluating = None

    def on_train_end(self, args, state, control, **kwargs):
        self.close()

    def close(self) -> None:
        """Restore the terminal."""
        for bar in (self.progress, self._evaluating):
            if bar is not None:
                bar.stop()
        self.progress = None


def describe(logs: dict[str, Any]) -> str:
    """Return the middle part of the progress line, from one training log."""
    parts = []
    if "accuracy" in logs:
        parts.append(f"accuracy {logs['accuracy']:.0%}")
    if "length/completion" in logs:
        parts.append(f"length {logs['length/completion']:.0f}")
    if logs.get("reward") is not None:
        parts.append(f"reward {logs['reward']:.3f}")
    if not parts:  # an update on responses that an earlier update has used
        parts.append(f"loss {logs['loss']:.4f}, the same responses again")
    return " · ".join(parts)
