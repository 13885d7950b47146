"""The sandbox as the rest of the package sees it: give it a program, get a :class:`Run`."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import sysconfig
import tempfile
import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import attnpo
from attnpo.errors import InputError, RunError
from attnpo.sandbox.confine import supported

SERVER = ["-m", "attnpo.sandbox.server"]
GRACE = 30.0
"""Seconds a server may take to start."""
PATIENCE = 20
"""How many times the time limit of a run a server may take before it is given up: it keeps that limit itself, and does
not count what a run waits for a core."""


class ServerDied(Exception):
    """It ended, or was late and is killed; the message is what it wrote to standard error."""


class ServerProcess:
    """One server process. Used by one thread at a time."""

    def __init__(self, folder: str, *, confined: bool) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        site = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
        self._process = subprocess.Popen(
            # -S, -s, -P: no site (it is slow to start), no user's site, nothing from the current folder.
            [sys.executable, "-S", "-s", "-P", *SERVER, *site, "confined" if confined else "limits only"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for whoever started us, who closes the sandbox
            cwd=folder,
            # All of it: no token or key of the user's. Verdicts are the same every time without hash randomisation.
            env={
                "PYTHONPATH": str(Path(attnpo.__file__).parents[1]),
                "PYTHONHASHSEED": "0",
                "PYTHONUTF8": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": folder,
                "LANG": "C.UTF-8",
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
        )
        self._hello: dict[str, Any] | None = None

    def hello(self) -> dict[str, Any]:
        """What it said when it was ready: {"landlock": bool}."""
        if self._hello is None:
            self._hello = self._exchange(b"", GRACE)
        return self._hello

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply. Raises ServerDied; the server is of no use afterwards."""
        self.hello()
        reply = self._exchange(json.dumps(request).encode("ascii") + b"\n", PATIENCE * request["wall_seconds"] + GRACE)
        assert reply["id"] == request["id"], "replies and requests are out of step"
        return reply

    def _exchange(self, payload: bytes, timeout: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Timer(timeout, self._process.kill)
        late.daemon = True
        late.start()
        try:
            self._process.stdin.write(payload)
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError as error:
            raise ServerDied(self._said()) from error
        finally:
            late.cancel()
        if not line.endswith(b"\n"):
            raise ServerDied(self._said())
        return json.loads(line)

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace").strip()[-2000:]

    def end(self) -> None:
        """Kill the process and, through the kernel, its run; safe to call from another thread."""
        self._process.kill()
        self._process.wait()

    def release(self) -> None:
        """Close the pipes. Only once no thread reads them."""
        self.end()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # a request that it did not take
                stream.close()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one run, that is of one test. The defaults are LiveCodeBench's time and memory.

    Attributes:
        seconds: CPU time, all threads together. The time that passes is limited to twice as much and two seconds more,
            for programs that sleep; waiting for a core does not count, so that a busy machine makes no program wrong.
        memory_mb: address space, interpreter included (about 100 MB).
        output_bytes: of standard output; as much again of standard error and of a function's result.

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
    """An exception (MemoryError included), an exit status of its own, or a signal such as SIGSEGV."""
    TOO_SLOW = "too slow"
    TOO_MUCH_OUTPUT = "too much output"
    TOO_MANY_THREADS = "too many threads"
    KILLED = "killed"
    """From outside, in practice by the kernel because the machine ran out of memory."""
    NOT_STARTED = "not started"
    """The sandbox failed, not the program."""

    @property
    def is_the_programs_doing(self) -> bool:
        return self not in (End.KILLED, End.NOT_STARTED)


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        output: what it printed.
        result: JSON of what the function returned; None where it returned nothing in time, or none was called.
        error: the end of what it wrote to standard error, e.g. a traceback.
        seconds: of CPU time.
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
        workers: servers, each with one run at a time; default: the cores this process may use.
        limits: of every run.
        allow_weaker: run programs also where the system cannot confine them; only for programs you trust.

    Attributes:
        isolation: what confines the runs here; see the package's docstring.

    Raises:
        InputError: an option out of range, or a system without seccomp and `allow_weaker` not set.
        RunError: the sandbox does not start.
    """

    def __init__(self, workers: int | None = None, *, limits: Limits | None = None, allow_weaker: bool = False) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"workers: found {workers}, expected at least 1")
        self.workers = workers or _cores()
        self.limits = limits or Limits()
        self._folder = tempfile.TemporaryDirectory(prefix="attnpo-sandbox-")
        self._lock, self._closed, self._count = threading.Lock(), False, 0
        self._live: set[ServerProcess] = set()
        self._idle: queue.SimpleQueue[ServerProcess | None] = queue.SimpleQueue()
        try:
            self.isolation: Isolation = self._find_isolation(allow_weaker)
        except BaseException:
            self.close()
            raise
        for _ in range(self.workers - len(self._live)):
            self._idle.put(None)  # started when it is needed

    def run(self, program: str, stdin: str = "") -> Run:
        """Run a program that reads `stdin`.

        Raises:
            RunError: the sandbox is closed.
        """
        return self._ask({"program": program, "stdin": stdin, "function": None, "arguments": []})

    def call(self, program: str, function: str, arguments: list[Any]) -> Run:
        """Run a program and call a function of it, or a method of its class Solution, with arguments (JSON values).

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
                return "seccomp + Landlock" if server.hello()["landlock"] else "seccomp"
            failure = trial.error or trial.end
            self._idle.get()
        if not allow_weaker:
            raise InputError(
                f"programs cannot be confined here ({failure}); expected Linux with seccomp on x86-64 or ARM64. "
                "allow_weaker runs them all the same, with your rights: only for programs you trust"
            )
        self._confined = False
        self._idle.put(self._start())
        return "limits only"

    def _ask(self, request: dict[str, Any]) -> Run:
        limits = self.limits
        with self._lock:
            self._count += 1
            number = self._count
        request |= {
            "id": number,
            "seconds": limits.seconds,
            "wall_seconds": limits.wall_seconds,
            "memory_mb": limits.memory_mb,
            "output_bytes": limits.output_bytes,
        }
        server, usable = self._idle.get(), None
        try:
            server = server or self._start()
            reply = server.ask(request)
            usable = server
        except ServerDied as error:
            if self._closed:
                raise RunError("the sandbox is closed") from error
            return Run(End.NOT_STARTED, "", None, f"the sandbox died: {error}", 0.0)
        finally:
            if server is not usable:  # it died, or its reply was not waited for
                assert server is not None
                server.release()
                self._live.discard(server)
            self._give_back(usable)
        return Run(End(reply["end"]), reply["output"], reply["result"], reply["error"], reply["seconds"])

    def _start(self) -> ServerProcess:
        with self._lock:
            if self._closed:
                raise RunError("the sandbox is closed")
            server = ServerProcess(self._folder.name, confined=self._confined)
            self._live.add(server)
            return server

    def _give_back(self, server: ServerProcess | None) -> None:
        if server is not None and self._closed:
            server.release()
            server = None
        self._idle.put(server)

    def close(self) -> None:
        """End all runs and servers, and remove the folder. May be called again, and from another thread."""
        with self._lock:
            self._closed = True
            live, self._live = list(self._live), set()
        for server in live:
            server.end()
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
