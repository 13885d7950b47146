"""Run scripts of this folder in separate processes: several that train together, or in another environment."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def python_with(packages: list[str], folder: Path) -> str:
    """An interpreter with these packages and all of this environment's; this one where nothing is missing."""
    names = [package.partition("==")[0].removesuffix("-skinny") for package in packages]
    if all(importlib.util.find_spec(name) for name in names):
        return sys.executable
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    # as site directories, not as bare paths: only of those are the files read that lead to an editable install
    (site / "ours.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))
    python = str(folder / "bin" / "python")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "-c",
        str(TESTS.parent / "constraints.txt"),
    ]
    subprocess.run([*pip, *packages], check=True, timeout=300)
    return python


def launch(
    count: int,
    script: str,
    *arguments: Path | str,
    port: int,
    recipe: str | None = None,
    python: str = sys.executable,
    **environment: str,
) -> tuple[int, str]:
    """`accelerate launch` of `script` on CPU processes of one thread: its exit code, and what was said.

    recipe: a file of recipes/accelerate, for its way of spreading the model (FSDP: with `spread_on_cpus`).
    """
    command = [python, "-m", "accelerate.commands.launch", "--num_processes", str(count)]
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
