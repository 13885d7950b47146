"""Ending a run early: upon Ctrl-C, upon a scheduler's SIGTERM, and after a number of minutes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from transformers import TrainerCallback

from attnpo.errors import StoppedError
from attnpo.training.processes import any_process, updates_in_backward

AGAIN = 0.5
"""Seconds until the next attempt to abandon a step, where weights were being changed at the last one."""


class StepAbandoned(KeyboardInterrupt):
    """Raised within a step that would not end in time, before it has changed any weight.

    Not an `Exception`, so that reward functions that catch exceptions do not catch it.
    """


class Terminated(KeyboardInterrupt):
    """Raised upon SIGTERM where there is nothing to save."""


class StopOnInterrupt(TrainerCallback):
    """First Ctrl-C or SIGTERM: finish the step, save a checkpoint, stop. Second: stop at once.

    `notice` is the time in seconds until SIGKILL follows SIGTERM. A step that has not ended within a third of it is
    abandoned (`StepAbandoned`), which leaves time to save the state before it; not in a run of several processes, which
    cannot all leave a step at the same point, and not under DeepSpeed, which updates within the backward pass. Outside
    of training there is nothing to save, and SIGTERM ends the run at once.

    Attributes:
        asked: whether to stop; terminated: whether because of SIGTERM, in this process or another.
    """

    def __init__(self, notice: float = 30.0) -> None:
        self.notice = notice
        self.asked = self.terminated = False
        self._training = self._in_step = self._alone = False
        self._watching = False
        self._previous: dict[signal.Signals, Any] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals inside the block. Raises StoppedError upon SIGTERM outside of training."""
        self._install()
        self._watching = True
        try:
            yield
        except Terminated:
            raise StoppedError(
                "stopped by SIGTERM outside of training, with nothing to save that is not in a checkpoint; the same "
                "command with --resume_from_checkpoint auto resumes"
            ) from None
        finally:
            self._watching = False
            self.close()

    def _install(self) -> None:
        if self._previous:
            return
        for signum in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[signum] = signal.signal(signum, self._handle)
            except ValueError:  # not in the main thread: whoever called us handles interrupts
                return

    def _handle(self, signum: int, frame: Any) -> None:
        if self.asked and signum == signal.SIGTERM:
            self.terminated = True  # schedulers and launchers may send it twice; that does not mean to stop at once
            return
        if self.asked:
            raise KeyboardInterrupt
        self.asked, self.terminated = True, signum == signal.SIGTERM
        if not self._training:
            raise Terminated if self.terminated else KeyboardInterrupt
        again = "" if self.terminated else "; Ctrl-C again stops at once"
        Console(stderr=True).print(f"Stopping after this step with a checkpoint{again}.")
        if self.terminated and self._alone:
            self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._late)
            signal.setitimer(signal.ITIMER_REAL, self.notice / 3, AGAIN)

    def _late(self, signum: int, frame: Any) -> None:
        if self._in_step:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._in_step = False
            raise StepAbandoned

    def on_train_begin(self, args, state, control, **kwargs):
        # A step that makes its update unseen cannot be abandoned before it.
        self._training, self._alone = True, args.world_size == 1 and not updates_in_backward(args)
        self._install()

    def on_step_begin(self, args, state, control, **kwargs):
        self._in_step = True

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self._in_step = False

    def on_step_end(self, args, state, control, **kwargs):
        self._in_step = False
        if any_process(self.asked, args.device):  # all processes take part in saving
            self.terminated = any_process(self.terminated, args.device)
            self.asked = True
            control.should_training_stop = True
            control.should_save = True

    def on_train_end(self, args, state, control, **kwargs):
        self._training = self._in_step = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not self._watching:
            self.close()

    def close(self) -> None:
        """Restore the signal handlers."""
        self._training = self._in_step = False
        if signal.SIGALRM in self._previous:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self._watching:
            return
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}


class StopAfterMinutes(TrainerCallback):
    """Stops with a checkpoint if another step as long as the last would end later than `minutes` after creation.

    At least one step is made. The time counts from the creation of this object.
    """

    def __init__(self, minutes: float):
        self.minutes = minutes
        self.reached = False
        self._end = time.monotonic() + 60 * minutes
        self._step_began = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        self._step_began = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.monotonic()
        if any_process(
            2 * now - self._step_began > self._end, args.device
        ):  # clocks differ, and all take part in saving
            self.reached = True
            control.should_training_stop = True
            control.should_save = True
