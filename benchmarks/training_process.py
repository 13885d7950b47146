"""Runs `attnpo train` in a separate process, for the scripts that start many runs."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# glibc returns the memory of every large tensor to the system; keeping it saves a fifth of a step on a CPU.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


def train(command: list[str], folder: Path, *, one_thread: bool) -> tuple[float, int]:
    """Do a run that can import the modules of benchmarks/; return seconds and exit code. Output: FOLDER/log.txt."""
    environment = os.environ | KEEP_MEMORY | ({"OMP_NUM_THREADS": "1"} if one_thread else {})
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [environment.get("PYTHONPATH")])])
    started = time.perf_counter()
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
    return time.perf_counter() - started, code
