"""Scripts of this folder run by torchrun, for tests of several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def launch(
    count: int, script: str, *arguments: Path | str, port: int, recipe: str | None = None, **environment: str
) -> tuple[int, str]:
    """`accelerate launch` of `script` on CPU processes of one thread: its exit code, and what was said.

    recipe: a file of recipes/accelerate, for its way of spreading the model (`fsdp_on_cpus`).
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(count)]
    # --cpu would start one process, whatever the count; what runs on CPUs is said to the trainer, by use_cpu.
    how = ["--multi_gpu"] if count > 1 else ["--cpu"]
    command += ["--config_file", str(TESTS.parent / "recipes" / "accelerate" / recipe)] if recipe else how
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(port + os.getpid() % 1000), script, *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=TESTS,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def run_processes(count: int, script: str, *arguments: Path | str, port: int) -> None:
    """`script` on `count` processes of one thread; fails with the end of what they said.

    port: of their meeting, one per test module; test runs side by side shift it.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    command += ["--master-port", str(port + os.getpid() % 1000), script, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=TESTS, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
