"""A recipe as stages that run once, each within its share of the time.

A stage is one or more commands and a test for their output. `run_stages` writes into stages.json, in the recipe's
folder, which stages are done and how long they took, so that the same call resumes where the last one ended:

- a stage that is done is not repeated;
- one that was stopped (Ctrl-C, SIGTERM) or died resumes from what its commands have saved, in its remaining minutes;
- one whose time runs out counts as done with what it has saved by then, and the next one begins.

Every stage has `share` × the minutes of the recipe, over all calls. Its commands get the remaining minutes as an option
and should end within them; those that do not get SIGTERM, and `GRACE` seconds later are killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpo.data.jsonl import write_whole
from attnpo.errors import InputError, RunError

STATE, LOCK = "stages.json", ".lock"
GRACE = 60.0
"""Seconds for finishing a step and saving a checkpoint, after SIGTERM."""
PATIENCE = 30.0
"""Seconds to wait for another call in the folder to end: a killed training takes time to free its memory."""
NOTHING_MADE = "its time was up before it had made anything; give it more"


@dataclass(frozen=True)
class Stage:
    """One part of a recipe.

    Attributes:
        name: in stages.json and on the screen.
        share: of the recipe's minutes.
        commands: the commands to run one after the other, from the remaining minutes.
        made: whether there is a result to continue with; called when the commands have ended or their time is up.
        outcome: a short description of the result, for the screen and stages.json.
    """

    name: str
    share: float
    commands: Callable[[float], Sequence[Sequence[str]]]
    made: Callable[[], bool]
    outcome: Callable[[], str] = lambda: ""


class Stopped(Exception):
    """Raised upon Ctrl-C or SIGTERM, after the state was written."""


def run_stages(
    stages: Sequence[Stage],
    folder: Path,
    minutes: float,
    *,
    say: Callable[[str], None] = print,
    grace: float = GRACE,
    patience: float = PATIENCE,
) -> dict[str, dict[str, Any]]:
    """Run the stages that are not done yet; returns the final content of stages.json.

    Raises:
        InputError: the minutes or stages.json are invalid, or another call is running in the folder.
        RunError: a command failed, or a stage's time was up before it had made anything; names the stage.
        Stopped: Ctrl-C or SIGTERM.
    """
    if not minutes > 0:
        raise InputError(f"minutes: found {minutes:g}, expected more than 0")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder, patience) as lock, _stop_requests() as stop:
        state = read_state(folder)
        for number, stage in enumerate(stages, 1):
            title = f"[{number}/{len(stages)}] {stage.name}"
            known = state.setdefault(stage.name, {"done": None, "seconds": 0.0})
            if known["done"]:
                say(f"{title}: {_line(known)}, not repeated")
                continue
            if stop.count:
                raise Stopped
            left = 60 * minutes * stage.share - known["seconds"]
            if left > 0:
                say(f"{title}: up to {left / 60:.1f} minutes")
                run = _Run(stop, lock, grace, lambda: _write_state(folder, state))
                run.stage(stage, left, known)
            elif not stage.made():
                known["seconds"] = 0.0  # for a longer time, or simply another try
                _write_state(folder, state)
                raise RunError(f"{stage.name}: {NOTHING_MADE}")
            else:
                known["done"] = "out of time"
            known["outcome"] = stage.outcome()
            _write_state(folder, state)
            say(f"{title}: {_line(known)}")
    return state


def read_state(folder: Path) -> dict[str, dict[str, Any]]:
    """The content of stages.json; empty without one. Raises InputError where `run_stages` cannot have written it."""
    file = folder / STATE
    if not file.exists():
        return {}
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON: {error}; remove it to begin anew") from error
    stages = list(state.values()) if isinstance(state, dict) else [state]
    if not all(isinstance(known, dict) and _is_number(known.get("seconds")) and "done" in known for known in stages):
        raise InputError(f'{file}: found something else than stages with "done" and "seconds"; remove it to begin anew')
    return state


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _write_state(folder: Path, state: dict[str, dict[str, Any]]) -> None:
    write_whole(folder / STATE, (json.dumps(state, indent=1) + "\n").encode())


def _line(known: dict[str, Any]) -> str:
    parts = [known["done"], f"{known['seconds']:.0f} s", known.get("outcome", "")]
    return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class _Run:
    """Runs one stage. `lock` is the descriptor of the lock's file, `grace` in seconds, `save` saves the state."""

    stop: _StopRequests
    lock: int
    grace: float
    save: Callable[[], None]

    def stage(self, stage: Stage, left: float, known: dict[str, Any]) -> None:
        """Run the commands of a stage within `left` seconds; writes into `known` how it ended."""
        began, late = time.monotonic(), False
        for command in stage.commands(left / 60):
            until = left - (time.monotonic() - began)
            code, late = self.call(command, until) if until > 0 else (0, True)
            if code != 0 and self.stop.count:
                known["seconds"] += time.monotonic() - began
                self.save()
                raise Stopped
            if late:
                break
            if code != 0:
                raise RunError(f"{stage.name}: exit code {code} of {shlex.join(command)}")
        if not stage.made():
            known["seconds"] = 0.0  # the next call gives it its full time
            self.save()
            raise RunError(
                f"{stage.name}: " + (NOTHING_MADE if late else "its commands ended without the expected output")
            )
        known["seconds"] += time.monotonic() - began
        known["done"] = "out of time" if late else "finished"

    def call(self, command: Sequence[str], seconds: float) -> tuple[int, bool]:
        """Run a command; returns its exit code and whether its time was up. Requests to stop are passed on to it."""
        # In a process group of its own: else it would get a terminal's Ctrl-C twice, which means to stop at once.
        process = subprocess.Popen(command, process_group=0, pass_fds=[self.lock])
        end, late, passed_on = time.monotonic() + seconds, False, 0
        kill_at = math.inf
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.2), late
            now = time.monotonic()
            if (now >= end and not late) or self.stop.count > passed_on:
                late, passed_on = late or now >= end, self.stop.count
                process.terminate()
                kill_at = min(kill_at, now + self.grace)
            if now >= kill_at:
                process.kill()


class _StopRequests:
    """Counts Ctrl-C and SIGTERM."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, signum: int, frame: Any) -> None:
        self.count += 1


@contextlib.contextmanager
def _stop_requests() -> Iterator[_StopRequests]:
    """Count the requests to stop while the stages run, instead of ending at them."""
    stop = _StopRequests()
    previous = {number: signal.signal(number, stop.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _alone_in(folder: Path, patience: float) -> Iterator[int]:
    """Lock the folder. The commands inherit the lock, so that one that outlives a killed recipe still holds it.

    Raises InputError where another process holds it for longer than `patience` seconds.
    """
    end = time.monotonic() + patience
    with open(folder / LOCK, "w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise InputError(
                        f"{folder}: another call of the recipe, or one of its commands, is running there"
                    ) from None
                time.sleep(0.1)
        yield file.fileno()


def main_of(recipe: Callable[[], None]) -> None:
    """Run a recipe's main function with the exit codes of `attnpo`: 0, 1 failed or stopped, 2 bad input."""
    try:
        recipe()
    except Stopped:
        sys.exit("stopped; the progress is saved, and the same command resumes from there")
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except RunError as error:
        sys.exit(str(error))
