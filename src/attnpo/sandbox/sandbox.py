"""The interface of the sandbox: runs a program and returns a :class:`Run`."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import attnpo
from attnpo.errors import InputError, RunError
from attnpo.sandbox.confine import supported
from attnpo.workers import WorkerError, WorkerGroup, WorkerProcess

SERVER = ["-m", "attnpo.sandbox.server"]
START_TIMEOUT = 30.0
"""Seconds a server may take to start."""
PATIENCE = 20
"""A server is killed if a run takes this many times its time limit: the server enforces that limit itself, without the
time that a run waits for a core."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one run, which is one test. The default time and memory are those of LiveCodeBench.

    Attributes:
        seconds: CPU time of all threads together. Wall time is limited to twice as much plus two seconds, for programs
            that sleep; waiting for a core does not count, so that a busy machine makes no program wrong.
        memory_mb: address space, including the interpreter (about 100 MB).
        output_bytes: of standard output; the same limit holds for standard error and for a function's result.

    Raises:
        InputError: a limit out of range; names it.
    """

    seconds: float = 6.0
    memory_mb: int = 4096
    output_bytes: int = 16 * 2**20

    def __post_init__(self) -> None:
        for name, value, least in (
            ("seconds", self.seconds, 0.1),
            ("memory_mb", self.memory_mb, 256),
            ("output_bytes", self.output_bytes, 1),
        ):
            if not least <= value < float("inf"):
                raise InputError(f"{name}: found {value}, expected at least {least}")

    @property
    def wall_seconds(self) -> float:
        return 2 * self.seconds + 2


class End(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    CRASHED = "crashed"
    """An exception (including MemoryError), an exit status other than 0, or a signal such as SIGSEGV."""
    TOO_SLOW = "too slow"
    TOO_MUCH_OUTPUT = "too much output"
    TOO_MANY_THREADS = "too many threads"
    KILLED = "killed"
    """Killed from outside, in practice by the kernel because the machine ran out of memory."""
    NOT_STARTED = "not started"
    """The sandbox failed, not the program."""

    @property
    def is_the_programs_doing(self) -> bool:
        return self not in (End.KILLED, End.NOT_STARTED)


@dataclass(frozen=True)
class Run:
    """The outcome of one run.

    Attributes:
        output: its standard output.
        result: the function's return value as JSON; None if it did not return in time, or no function was called.
        error: the end of its standard error, e.g. a traceback.
        seconds: CPU time.
    """

    end: End
    output: str
    result: str | None
    error: str
    seconds: float


Isolation = Literal["seccomp + Landlock", "seccomp", "limits only"]


class Sandbox:
    """Runs programs, `workers` at a time; safe to use from several threads; a context manager.

    Args:
        workers: number of servers, each with one run at a time; default: the cores this process may use.
        limits: of every run.
        allow_weaker: run programs even if the system cannot confine them; only for programs you trust.

    Attributes:
        isolation: the isolation in force; see the package's docstring.

    Raises:
        InputError: an option out of range, or a system without seccomp if `allow_weaker` is not set.
        RunError: the sandbox does not start.
    """

    def __init__(self, workers: int | None = None, *, limits: Limits | None = None, allow_weaker: bool = False) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"workers: found {workers}, expected at least 1")
        self.workers = workers or _cores()
        self.limits = limits or Limits()
        self._folder = tempfile.TemporaryDirectory(prefix="attnpo-sandbox-")
        self._group = WorkerGroup("the sandbox")
        self._idle: queue.SimpleQueue[WorkerProcess | None] = queue.SimpleQueue()
        try:
            self.isolation: Isolation = self._find_isolation(allow_weaker)
        except BaseException:
            self.close()
            raise
        for _ in range(self.workers - 1):
            self._idle.put(None)  # started when it is needed

    def run(self, program: str, stdin: str = "") -> Run:
        """Run a program that reads `stdin`.

        Raises:
            RunError: the sandbox is closed.
        """
        return self._ask({"program": program, "stdin": stdin, "function": None, "arguments": []})

    def call(self, program: str, function: str, arguments: list[Any]) -> Run:
        """Run a program and call one of its functions, or a method of its class Solution, with JSON values.

        Raises:
            RunError: the sandbox is closed.
        """
        return self._ask({"program": program, "stdin": "", "function": function, "arguments": arguments})

    def _find_isolation(self, allow_weaker: bool) -> Isolation:
        """Start the first server with the strongest isolation that a trial run confirms."""
        failure = "there is no filter for this system and processor"
        if supported():
            self._confined = True
            server = self._start()
            self._idle.put(server)
            trial = self.run("print(6 * 7)")
            if trial.output == "42\n":
                return "seccomp + Landlock" if server.greeting()["landlock"] else "seccomp"
            failure = trial.error or trial.end
            if (unused := self._idle.get()) is not None:
                self._group.release(unused)
        if not allow_weaker:
            raise InputError(
                f"programs cannot be confined here ({failure}); expected Linux with seccomp on x86-64 or ARM64. "
                "allow_weaker runs them unconfined, with your rights: only for programs you trust"
            )
        self._confined = False
        self._idle.put(self._start())
        return "limits only"

    def _ask(self, request: dict[str, Any]) -> Run:
        limits = self.limits
        request |= {
            "seconds": limits.seconds,
            "wall_seconds": limits.wall_seconds,
            "memory_mb": limits.memory_mb,
            "output_bytes": limits.output_bytes,
        }
        server, usable = self._idle.get(), None
        try:
            server = server or self._start()
            reply = server.ask(request, PATIENCE * limits.wall_seconds + START_TIMEOUT)
            usable = server
        except WorkerError as error:
            if self._group.closed:
                raise RunError("the sandbox is closed") from error
            return Run(End.NOT_STARTED, "", None, f"the sandbox died: {error}", 0.0)
        finally:
            if server is not usable:  # it died, or its reply was not waited for
                assert server is not None
                self._group.release(server)
            self._give_back(usable)
        return Run(End(reply["end"]), reply["output"], reply["result"], reply["error"], reply["seconds"])

    def _start(self) -> WorkerProcess:
        """Start a server; it reads one request per line (:mod:`.server`)."""
        folder = self._folder.name
        site = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
        # -S, -s, -P: no site (it is slow to start), no user's site, nothing from the current folder.
        mode = "confined" if self._confined else "limits only"
        command = [sys.executable, "-S", "-s", "-P", *SERVER, *site, mode]
        environment = {
            "PYTHONPATH": str(Path(attnpo.__file__).parents[1]),
            "PYTHONHASHSEED": "0",  # verdicts are the same every time without hash randomisation
            "PYTHONUTF8": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": folder,
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        return self._group.start(command, environment, start_timeout=START_TIMEOUT, folder=folder)

    def _give_back(self, server: WorkerProcess | None) -> None:
        if server is not None and self._group.closed:
            self._group.release(server)
            server = None
        self._idle.put(server)

    def close(self) -> None:
        """End all runs and servers, and remove the folder. May be called again, and from another thread."""
        self._group.end()
        # Pipes of idle servers are closed here, those of busy ones by the threads that read them.
        with contextlib.suppress(queue.Empty):
            for _ in range(self.workers):
                self._give_back(self._idle.get_nowait())
        self._folder.cleanup()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
