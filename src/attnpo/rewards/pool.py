r"""A pool of verifying processes that can be killed.

Signal-based timeouts do nothing outside the main thread and cannot interrupt C code; threads cannot be killed at all.
So each answer is verified by a separate process (:mod:`attnpo.rewards.worker`), spoken to over pipes. A late worker is
killed and a warm spare takes its place. A worker that dies is replaced and its answer read again, twice at most, for
somebody may have killed it who knew nothing of the answer (the kernel, when memory is short); an answer that costs
three workers their life (memory limit, crash) is ``unverifiable``, and nothing else is lost. Needs a POSIX system.

The workers' parser is one release, whatever else is installed: math-verify reads LaTeX by a parser of ANTLR's, in one
of three versions by the runtime it finds. Hydra, and so verl, pins runtime 4.9.3, under which `50\%` cannot be read:
verdicts would depend on what is installed next to this package. The workers get 4.13.2 put before it, from the wheel
that this package ships; nothing else sees it.
"""

from __future__ import annotations

import json
import os
import queue
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from attnpo.errors import InputError, RunError
from attnpo.rewards.verdict import Judgement, Rules, Verdict

WORKER_SCRIPT = Path(__file__).with_name("worker.py")
ANTLR_RELEASE = "4.13.2"
ANTLR_WHEEL = Path(__file__).parent / "runtime" / f"antlr4_python3_runtime-{ANTLR_RELEASE}-py3-none-any.whl"
START_TIMEOUT = 120.0
"""Seconds a worker may take to import math-verify (about one on an idle machine)."""


READINGS = 3
"""How often an answer is read whose worker dies: one death may be that of a worker killed from outside before it was
given the answer, and so may that of the warm one in its place."""

STARTS = 3
"""Workers in a row that may die before they are ready, of which each is replaced; then the verifier cannot run here."""


KEPT = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONUSERBASE",
    "PYTHONDONTWRITEBYTECODE",
    "TMPDIR",
)
"""Variables that a worker gets of its parent's: what Python needs to start and find packages. No token, no key."""


def parser_path() -> list[str]:
    """What has to stand first in a verifying process's module path; nothing where that release is installed."""
    return [] if installed_antlr() == ANTLR_RELEASE else [str(ANTLR_WHEEL)]


def installed_antlr() -> str | None:
    """The release of the runtime that other processes get; None: there is none."""
    try:
        return version("antlr4-python3-runtime")
    except PackageNotFoundError:
        return None


def worker_environment() -> dict[str, str]:
    """All variables of a worker."""
    found = {name: os.environ[name] for name in KEPT if name in os.environ}
    path = [*parser_path(), str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**found, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}


class _WorkerDied(Exception):
    pass


class _DidNotStart(RunError):
    pass


class _TimedOut(Exception):
    pass


class _Worker:
    """One process. Used by one thread at a time."""

    def __init__(self, timeout: float, memory_mb: int) -> None:
        self.timeout = timeout
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        # -P: neither this folder nor the current one may shadow a module of the worker's. A session of its own: Ctrl-C
        # in the terminal is for the trainer, which closes the pool.
        command = [sys.executable, "-P", str(WORKER_SCRIPT), f"--timeout={timeout}", f"--memory-mb={memory_mb}"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            bufsize=0,
            env=worker_environment(),
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._input, False)
        self._ready = False
        self._received = b""

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to `request`. Raises _TimedOut or _WorkerDied; the worker is of no use after either."""
        if not self._ready:
            self._wait_until_ready()
        reply = self._exchange(json.dumps(request).encode("ascii") + b"\n", self.timeout)
        assert reply["id"] == request["id"], "replies and requests are out of step"
        return reply

    def _wait_until_ready(self) -> None:
        try:
            self._exchange(b"", START_TIMEOUT)
        except (_WorkerDied, _TimedOut) as error:
            self._errors.seek(0)
            said = self._errors.read().decode("utf-8", "replace").strip()[-2000:]
            raise _DidNotStart(
                f"the answer verifier did not start ({sys.executable} {WORKER_SCRIPT.name}): {said}"
            ) from error
        self._ready = True

    def _exchange(self, payload: bytes, timeout: float) -> dict[str, Any]:
        """Write `payload` and read one line, never blocking on one while the other is due."""
        deadline = time.monotonic() + timeout
        pending = memoryview(payload)
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            if pending:
                selector.register(self._input, selectors.EVENT_WRITE)
            while b"\n" not in self._received:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise _TimedOut
                for key, _ in selector.select(left):
                    if key.fd == self._output:
                        chunk = os.read(self._output, 65536)
                        if not chunk:
                            raise _WorkerDied
                        self._received += chunk
                    else:
                        try:
                            pending = pending[os.write(self._input, pending) :]
                        except BrokenPipeError as error:
                            raise _WorkerDied from error
                        if not pending:
                            selector.unregister(self._input)
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def end(self) -> None:
        """Kill the process, wherever it is; safe to call from another thread and more than once."""
        self.process.kill()
        self.process.wait()

    def release(self) -> None:
        """Close the pipes. Only once no thread reads them: a closed descriptor's number is soon another file's."""
        self.end()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            assert stream is not None
            stream.close()


class VerifierPool:
    """Verifies answers in N worker processes; safe to use from several threads; a context manager.

    Args:
        workers: processes; default: the machine's cores shared among the ranks on it, at most 8.
        timeout: seconds one answer may take. Default 10: it takes milliseconds; the rest is for a busy machine.
        memory_mb: address space of one worker (Linux).
        spares: warm workers that wait to replace a killed one.
        judge: verdicts on (answer, reference) pairs that the rules could not decide (`AnswerJudge`); default: none.

    Raises:
        InputError: an option out of range; names it.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        timeout: float = 10.0,
        memory_mb: int = 2048,
        spares: int = 1,
        judge: Callable[[Sequence[tuple[str, str]]], list[Verdict]] | None = None,
    ) -> None:
        if workers is None:
            ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            workers = max(1, min(8, (os.cpu_count() or 1) // ranks))
        for option, value, low in (("workers", workers, 1), ("timeout", timeout, 0.01), ("memory_mb", memory_mb, 256)):
            if value < low:
                raise InputError(f"{option}: found {value!r}, expected at least {low}")
        self.workers, self.timeout, self.memory_mb = workers, timeout, memory_mb
        self._judge = judge
        self._lock = threading.Lock()
        self._closed = False
        self._live: set[_Worker] = set()
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._spares: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._readable: dict[str, bool] = {}
        self._finalizer = weakref.finalize(self, _end_all, self._live)
        for shelf, count in ((self._idle, workers), (self._spares, spares)):
            for _ in range(count):
                shelf.put(self._start())
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="verify")

    def verify(self, items: Iterable[tuple[str | None, str | None]]) -> list[Verdict]:
        """Verdicts on (answer, reference) pairs, in order.

        `answer` is the text after the closing tag, None without one; a reference of None is one that cannot be read.

        Raises:
            RunError: the pool is closed, or a worker cannot even start.
        """
        return [judgement.verdict for judgement in self.judge((answer, reference, {}) for answer, reference in items)]

    def judge(self, items: Iterable[tuple[str | None, str | None, Rules]]) -> list[Judgement]:
        """Like :meth:`verify` on (answer, reference, rules); also says what was read out of the answers.

        `rules`: how close a number must come to its reference; {} for "equal".

        Raises:
            RunError: the pool is closed, or a worker cannot even start.
        """
        items = list(items)
        judged: list[Judgement | None] = []
        jobs: dict[str, list[int]] = {}
        requests: list[dict[str, Any]] = []
        for index, (answer, reference, rules) in enumerate(items):
            if answer is None or not answer.strip():
                judged.append(Judgement(Verdict.NO_ANSWER, None))
            elif reference is None:
                judged.append(Judgement(Verdict.UNVERIFIABLE, None))
            else:
                judged.append(None)
                request = {"answer": answer, "reference": reference, "rules": rules}
                if (key := json.dumps(request, sort_keys=True)) not in jobs:
                    requests.append(request)
                jobs.setdefault(key, []).append(index)
        for indices, reply in zip(jobs.values(), self._ask_all(requests), strict=True):
            for index in indices:
                judged[index] = (
                    Judgement(reply, None)
                    if isinstance(reply, Verdict)
                    else Judgement(Verdict(reply["verdict"]), reply["extracted"], tuple(reply["fired"]))
                )
        found = [judgement for judgement in judged if judgement is not None]
        return found if self._judge is None else self._with_judge(self._judge, items, found)

    @staticmethod
    def _with_judge(
        judge: Callable[[Sequence[tuple[str, str]]], list[Verdict]],
        items: Sequence[tuple[str | None, str | None, Rules]],
        found: list[Judgement],
    ) -> list[Judgement]:
        asked = {
            index: (found[index].extracted or answer, reference)
            for index, (answer, reference, _) in enumerate(items)
            if found[index].verdict is Verdict.UNVERIFIABLE and answer and reference
        }
        for index, verdict in zip(asked, judge(list(asked.values())) if asked else (), strict=True):
            found[index] = replace(found[index], verdict=verdict)
        return found

    def validate_references(self, references: Sequence[str]) -> list[str]:
        """Those of `references` that cannot be read, once each, in order. Every distinct one is read once per pool."""
        new = [reference for reference in dict.fromkeys(references) if reference not in self._readable]
        replies = self._ask_all([{"reference": reference} for reference in new])
        for reference, reply in zip(new, replies, strict=True):
            self._readable[reference] = isinstance(reply, dict) and reply["readable"]
        return [reference for reference in dict.fromkeys(references) if not self._readable[reference]]

    def _ask_all(self, requests: list[dict[str, Any]]) -> list[dict[str, Any] | Verdict]:
        if self._closed:
            raise RunError("the verifier pool is closed")
        futures = [self._threads.submit(self._ask, {"id": index, **request}) for index, request in enumerate(requests)]
        try:
            return [future.result() for future in futures]
        finally:  # after an interrupt, what has not started must not run
            for future in futures:
                future.cancel()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | Verdict:
        """The reply of a worker, or the verdict that follows from its having none."""
        worker = self._idle.get()
        deaths = failed_starts = 0
        try:
            while True:
                try:
                    return worker.ask(request)
                except _TimedOut:
                    worker = self._replace(worker)
                    return Verdict.TIMED_OUT
                except _WorkerDied:
                    worker, deaths = self._replace(worker), deaths + 1
                    if deaths == READINGS or self._closed:
                        return Verdict.UNVERIFIABLE
                except _DidNotStart:
                    failed_starts += 1
                    if failed_starts == STARTS or self._closed:
                        raise
                    worker = self._replace(worker)
        finally:
            self._idle.put(worker)

    def _replace(self, worker: _Worker) -> _Worker:
        """A warm worker for a dead or late one, which is ended; a fresh one starts warming up in its place."""
        worker.release()
        with self._lock:
            self._live.discard(worker)
            if self._closed:
                return worker
        self._spares.put(self._start())
        return self._spares.get()

    def _start(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise RunError("the verifier pool is closed")
            worker = _Worker(self.timeout, self.memory_mb)
            self._live.add(worker)
            return worker

    def close(self) -> None:
        """End all workers, also those in the middle of an answer. May be called again, and from an interrupt."""
        with self._lock:
            self._closed = True
            live = list(self._live)
        for worker in live:
            worker.end()
        # The threads see their pipes end and return; only then may descriptors be closed.
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in live:
            worker.release()
        self._live.clear()

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end_all(workers: set[_Worker]) -> None:
    for worker in list(workers):
        worker.release()
