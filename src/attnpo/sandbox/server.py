"""A warm interpreter that forks one process per run, feeds it from memory, reads it up to a limit, and ends it.

:class:`.sandbox.Sandbox` starts it as a :class:`~attnpo.workers.WorkerProcess`. It reads a JSON request per line,
replies with a JSON line, and ends when its input ends. No program is run, or even compiled, in this process.

Requests: {"id", "program", "stdin", "function", "arguments", "seconds", "wall_seconds", "memory_mb", "output_bytes"};
"function" is null for a program that reads standard input. Replies: {"id", "end", "output", "result", "error",
"seconds"}; see :class:`.sandbox.Run`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import selectors
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from typing import Any, NoReturn

from attnpo.sandbox import confine
from attnpo.sandbox.program import READY, become, import_prelude

TICK = 0.02
"""Seconds between two checks of processor time and threads."""
MOST_THREADS = 256
ERROR_BYTES = 4000
"""Bytes of standard error that are reported, from its end."""

Descriptors = tuple[int, int, int, int]
"""Descriptors of standard input, output, errors, and the result."""


class Supervised:
    """A forked process that becomes a run, and its supervision.

    Args:
        request: as above.
        become: called in the forked process; it does not return.
        control: a descriptor on which nothing arrives during a run; when it is closed, the run and this process end.
    """

    def __init__(self, request: dict[str, Any], become: Callable[[Descriptors], NoReturn], control: int) -> None:
        self.request, self.control = request, control
        self.began = time.monotonic()
        stdin = _in_memory(request["stdin"].encode("utf-8", "surrogatepass"))
        (self.output, output_end), (self.errors, errors_end), (self.result, result_end) = (os.pipe() for _ in range(3))
        self.written: dict[int, bytearray] = {
            self.output: bytearray(),
            self.errors: bytearray(),
            self.result: bytearray(),
        }
        self.pid = os.fork()
        if self.pid == 0:
            become((stdin, output_end, errors_end, result_end))
        for descriptor in (stdin, output_end, errors_end, result_end):
            os.close(descriptor)

    def supervise(self) -> dict[str, Any]:
        """Wait for the end of the run, or end it, and return the reply without its id."""
        cause = self._watch()
        os.kill(
            self.pid, signal.SIGKILL
        )  # no effect on one that has ended, whose number is not reused before it is reaped
        _, status, usage = os.wait4(self.pid, 0)
        if not self.request["confined"]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # processes that the run started, unless in another session
        for descriptor in self.written:
            os.close(descriptor)
        seconds = usage.ru_utime + usage.ru_stime
        output, errors, result = map(bytes, self.written.values())
        error = errors[-ERROR_BYTES:].decode("utf-8", "replace").strip()
        if cause is None and os.WIFSIGNALED(status):
            error = f"{error}\n{signal.Signals(os.WTERMSIG(status)).name}".strip()
        return {
            "end": _end(cause, status, result.startswith(READY), seconds > self.request["seconds"]),
            "output": output.decode("utf-8", "replace"),
            "result": result.removeprefix(READY).decode("utf-8", "replace") or None,
            "error": error,
            "seconds": seconds,
        }

    def _watch(self) -> str | None:
        """Read until the process has ended (None), or until it has to be ended, and return the cause."""
        with selectors.DefaultSelector() as selector:
            for descriptor in (self.control, *self.written):
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                reading = len(selector.get_map()) > 1
                for key, _ in selector.select(TICK if reading else 0.001):
                    if key.fd == self.control:
                        os.kill(self.pid, signal.SIGKILL)
                        os._exit(1)
                    chunk = os.read(key.fd, 65536)
                    self.written[key.fd] += chunk
                    if not chunk:
                        selector.unregister(key.fd)
                if cause := self._excess():
                    return cause
                if not reading and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    return None

    def _excess(self) -> str | None:
        if max(map(len, self.written.values())) > self.request["output_bytes"]:
            return "too much output"
        if _processor_seconds(self.pid) > self.request["seconds"]:
            return "too slow"
        passed = time.monotonic() - self.began
        if passed > self.request["wall_seconds"] and passed - _waited(self.pid) > self.request["wall_seconds"]:
            return "too slow"
        if _threads(self.pid) > MOST_THREADS:
            return "too many threads"
        return None


def _end(cause: str | None, status: int, started: bool, late: bool) -> str:
    """Return how the run ended: a value of :class:`.sandbox.End`."""
    if not started:
        return "not started"
    if cause is not None:
        return cause
    if late:
        return "too slow"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "killed"  # it cannot send this signal to itself
    return "finished" if status == 0 else "crashed"


def _processor_seconds(pid: int) -> float:
    """Return the CPU time of all threads; see clock_getcpuclockid(3), for the number the kernel's posix-timers.h."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:  # not Linux: only the kernel's limit, in whole seconds, applies
        return 0.0


def _waited(pid: int) -> float:
    """Return the seconds that a process was ready to run and had no core; see proc_pid_schedstat(5)."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):  # not Linux, or a kernel built without it
        return 0.0


def _threads(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    except OSError:  # not Linux
        return 0


def _in_memory(data: bytes) -> int:
    """Return a descriptor to read `data` from."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("stdin")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def readable() -> list[str]:
    """Return the paths needed to import modules: Python, libraries, time zones; and the empty current folder."""
    python = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")] + [f"{sys.base_prefix}/lib", *sys.path]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache"]
    devices = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"]
    return list(dict.fromkeys(path for path in [*python, *system, *devices, os.getcwd()] if path))


def main() -> None:
    """Command line: the folders to import from, then "confined" or "limits only"."""
    *folders, mode = sys.argv[1:]
    home = os.environ.pop("PYTHONPATH")  # the path of this package, not needed by programs
    sys.path[:] = [*(path for path in sys.path if path != home), *folders]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (confine.DESCRIPTORS, most))
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")  # descriptor 3
    os.dup2(2, 1)
    confined = mode == "confined"
    ruleset = confine.make_ruleset(readable()) if confined and confine.landlock_version() else None
    names = import_prelude()
    gc.freeze()  # never collected, so that the forks keep sharing these pages

    def send(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    send({"landlock": ruleset is not None})
    for line in sys.stdin:
        request = {**json.loads(line), "parent": os.getpid(), "confined": confined}
        run = Supervised(request, lambda ends: become(request, names, ends, ruleset), sys.stdin.fileno())  # noqa: B023
        send({"id": request["id"], **run.supervise()})


if __name__ == "__main__":
    main()
