"""Runs of the launcher for the tests of `tests/on_verl`, and a check that they leave no process and no port."""

from __future__ import annotations

import os
import signal
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
        raise AssertionError(f"remaining processes {processes}, ports {ports}")


def command(*words: object) -> tuple[list[str], dict[str, str]]:
    """The launcher's command line and environment."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return [sys.executable, "-m", "attnpo.engines.verl", *map(str, words)], environment


def end(process: subprocess.Popen[str]) -> None:
    """Kill a run with all of its group, if it still runs: of one that ended, what it left is for `Left` to find."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def launch(*words: object, timeout: float = 1200) -> subprocess.CompletedProcess[str]:
    """A run to its end."""
    line, environment = command(*words)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        line, env=environment, stdout=pipe, stderr=pipe, text=True, cwd=REPOSITORY, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        end(process)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def torchrun(processes: int, script: Path, *words: object) -> None:
    """So many processes of a script, which must end well."""
    port = str(29600 + os.getpid() % 300)
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", port]
    line += [str(script), *map(str, words)]
    done = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-6000:]
