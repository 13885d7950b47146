"""Runs of the launcher for the tests of `tests/on_verl`, and what may be left of them: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
STARTED_BY_RAY = ("raylet", "gcs_server", "ray::", "dashboard/agent", "log_monitor", "runtime_env/agent")


def ray_processes() -> set[int]:
    """Processes of Ray's on this machine."""
    found = set()
    for process in psutil.process_iter(["pid", "cmdline", "name"]):
        words = " ".join(process.info["cmdline"] or [process.info["name"] or ""])
        if any(word in words for word in STARTED_BY_RAY):
            found.add(process.info["pid"])
    return found


def listening() -> set[int]:
    """Ports that are listened on."""
    return {c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}


class Left:
    """Whether anything is left of what was started since this was made."""

    def __init__(self) -> None:
        self.processes, self.ports = ray_processes(), listening()

    def check(self, seconds: float = 120) -> None:
        """Fails where processes or ports are there that were not, even after a while."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            processes, ports = ray_processes() - self.processes, listening() - self.ports
            if not processes and not ports:
                return
            time.sleep(0.5)
        raise AssertionError(f"left behind: processes {processes}, ports {ports}")


def command(*words: object) -> tuple[list[str], dict[str, str]]:
    """The launcher's command line and environment."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return [sys.executable, "-m", "attnpo.engines.verl", *map(str, words)], environment


def launch(*words: object, timeout: float = 1200) -> subprocess.CompletedProcess[str]:
    """A run to its end."""
    line, environment = command(*words)
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=timeout, cwd=REPOSITORY)
