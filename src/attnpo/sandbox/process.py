"""The parent's end of a server process: requests and replies over pipes, and its end."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from typing import Any

import attnpo

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
