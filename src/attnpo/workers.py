"""One worker process that can be killed, and the group of those that one pool runs.

Signal-based timeouts do nothing outside the main thread and cannot interrupt C code; threads cannot be killed at all.
Work that may hang or crash is therefore sent to a separate process, as one line of JSON over a pipe, and one line of
JSON comes back. The verifier (:mod:`attnpo.rewards.pool`) and the sandbox (:mod:`attnpo.sandbox.sandbox`) use this.
Both decide for themselves what a dead or late worker means and how it is replaced. Needs a POSIX system.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from attnpo.errors import RunError

ERROR_CHARACTERS = 2000
"""Characters of a worker's standard error that are reported, from its end."""


class WorkerError(Exception):
    """A worker gave no reply; the message is the end of its standard error. The worker cannot be used any more."""


class WorkerDied(WorkerError):
    """It ended, or closed its pipes."""


class WorkerLate(WorkerError):
    """It did not reply in time; it may still be running."""


class WorkerNotStarted(WorkerError):
    """It died, or was late, before its first line."""


class WorkerProcess:
    """One process that replies to JSON lines. Used by one thread at a time, except for :meth:`end`.

    Its first line, the greeting, is written when it is ready; after that it writes one line per request, which repeats
    the request's "id", its number. It has to end when its standard input does: that is how it ends after a parent
    that was killed.

    Args:
        command: program and arguments.
        environment: all its variables; none of this process's are inherited, so no token or key is.
        start_timeout: seconds until the greeting.
        folder: its working directory; None: this process's.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, start_timeout: float, folder: str | None = None
    ) -> None:
        self.start_timeout = start_timeout
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C in the terminal reaches the parent only, which closes the pool
            bufsize=0,
            cwd=folder,
            env=environment,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._input, False)
        self._received = bytearray()
        self._asked = 0
        self._greeting: dict[str, Any] | None = None

    def greeting(self) -> dict[str, Any]:
        """Return the first line that it writes, once it is ready.

        Raises:
            WorkerNotStarted: it ended or was late.
        """
        if self._greeting is None:
            try:
                self._greeting = self._exchange(b"", self.start_timeout)
            except (WorkerDied, WorkerLate) as error:
                raise WorkerNotStarted(str(error)) from error
        return self._greeting

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Return the reply to `request`; `timeout` in seconds, without the time it takes to start.

        Raises:
            WorkerError: it did not start, ended or was late.
        """
        self.greeting()
        self._asked += 1
        reply = self._exchange(json.dumps({**request, "id": self._asked}).encode("ascii") + b"\n", timeout)
        assert reply["id"] == self._asked, "replies and requests are out of step"
        return reply

    def _exchange(self, payload: bytes, timeout: float) -> dict[str, Any]:
        """Write `payload` and read one line, never blocking on one while the other is due."""
        deadline = time.monotonic() + timeout
        pending = memoryview(payload)
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            if pending:
                selector.register(self._input, selectors.EVENT_WRITE)
            complete = b"\n" in self._received
            while not complete:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise WorkerLate(self._error_text())
                for key, _ in selector.select(remaining):
                    if key.fd == self._output:
                        chunk = os.read(self._output, 65536)
                        if not chunk:
                            raise WorkerDied(self._error_text())
                        self._received += chunk
                        complete = b"\n" in chunk  # only of the chunk: a reply may have 100 MB
                    else:
                        try:
                            pending = pending[os.write(self._input, pending) :]
                        except BrokenPipeError as error:
                            raise WorkerDied(self._error_text()) from error
                        if not pending:
                            selector.unregister(self._input)
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def _error_text(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace").strip()[-ERROR_CHARACTERS:]

    def end(self) -> None:
        """Kill the process, whatever it is doing. May be called from another thread, and more than once."""
        self.process.kill()
        self.process.wait()

    def release(self) -> None:
        """Kill the process and close its pipes. Only once no thread reads them: descriptors' numbers are reused."""
        self.end()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            assert stream is not None
            stream.close()


class WorkerGroup:
    """The live workers of one pool. Safe to use from several threads.

    Those still alive when the pool is collected, or when Python ends, are killed.

    Args:
        pool: what the workers belong to, for messages, such as "the sandbox".

    Attributes:
        live: workers that were started and not released.
        closed: whether `end` was called.
    """

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.closed = False
        self.live: set[WorkerProcess] = set()
        self._lock = threading.Lock()
        weakref.finalize(self, _release_all, self.live)

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], *, start_timeout: float, folder: str | None = None
    ) -> WorkerProcess:
        """Start a :class:`WorkerProcess`; the arguments are its own.

        Raises:
            RunError: the group was ended.
        """
        with self._lock:
            self.expect_open()
            worker = WorkerProcess(command, environment, start_timeout=start_timeout, folder=folder)
            self.live.add(worker)
            return worker

    def expect_open(self) -> None:
        """Raise RunError if the group was ended."""
        if self.closed:
            raise RunError(f"{self.pool} is closed")

    def release(self, worker: WorkerProcess) -> None:
        """Kill a worker, close its pipes and forget it. Only once no other thread reads them."""
        worker.release()
        with self._lock:
            self.live.discard(worker)

    def end(self) -> None:
        """Kill all workers and start no more. Threads that wait for a reply get WorkerDied and can release theirs."""
        with self._lock:
            self.closed = True
            live = list(self.live)
        for worker in live:
            worker.end()

    def release_all(self) -> None:
        """Release all workers. Only once no thread reads their pipes."""
        for worker in list(self.live):
            self.release(worker)


def _release_all(workers: set[WorkerProcess]) -> None:
    for worker in list(workers):
        worker.release()
