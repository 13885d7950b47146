"""Train for hours and monitor resources: memory, processes, threads, file handles, temporary files.

    python benchmarks/soak.py --minutes 120      # two cores; records in benchmarks/soak_records.json.gz
    python benchmarks/soak.py --table            # only the table, from the records

A run of the shipped model with all parts of a long run: rollouts, verifier workers, credit, records, an
evaluation every 25 steps and a checkpoint every 10, of which two are kept. The learning rate is so small that responses
keep their length, so growth has other causes. Once per step another process inspects the processes of the run. At
the end it gets SIGTERM, as from a scheduler; afterwards nothing of it may remain.

The slope per step is that of a line through the means of `BLOCKS` stretches of equal length after the first fifth of
the run; its 95 % interval is Student's over the stretches, whose means are less correlated than single steps.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from attnpo.data.jsonl import json_line, write_whole
from attnpo.tables import Table

RECORDS = Path(__file__).resolve().parent / "soak_records.json.gz"
BLOCKS, STUDENT = 20, 2.101  # t(0.975) with 18 degrees of freedom
MIB = 2**20
REQUEUE = 75  # exit code of a run that a scheduler stopped
WATCHED = {
    "trainer": "memory of the trainer, MiB",
    "workers": "memory of its workers, MiB",
    "processes": "processes",
    "threads": "threads",
    "handles": "open file handles",
    "temporary": "temporary files",
    "shared": "shared memory, MiB",
}
OPTIONS = {
    "model_name_or_path": "overthinker",
    "dataset_name": "task",
    "task_difficulty": "1-3",
    "train_problems": 4096,
    "eval_problems": 32,
    "credit": "attnpo",
    "credit_delay": 0,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "num_generations": 8,
    "max_steps": 1_000_000,
    "learning_rate": 1e-9,
    "max_completion_length": 320,
    "gradient_checkpointing": "false",
    "use_cpu": "true",
    "eval_strategy": "steps",
    "eval_steps": 25,
    "save_steps": 10,
    "save_total_limit": 2,
    "report_to": "none",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--table", action="store_true", help="only print the table")
    args = parser.parse_args()
    if not args.table:
        with tempfile.TemporaryDirectory() as folder:
            found = soak(Path(folder), args.minutes)
        write_whole(args.records, gzip.compress(json_line(found), mtime=0))
    found = json.loads(gzip.decompress(args.records.read_bytes()))
    print(table(found["samples"]).markdown())
    print(summary(found))
    if not args.table and found["code"] != REQUEUE:
        raise SystemExit(f"the run ended with code {found['code']}, expected {REQUEUE} after SIGTERM")


def soak(folder: Path, minutes: float) -> dict[str, Any]:
    """Return the samples of each step, and what remained after the end of the run."""
    temporary, run = folder / "tmp", folder / "run"
    temporary.mkdir()
    options = [part for name, value in OPTIONS.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "attnpo", "train", "--output_dir", str(run), *options]
    shared = set(os.listdir("/dev/shm"))
    samples: list[dict[str, float]] = []
    seen: set[psutil.Process] = set()  # they know when they began, so a number used again is another one
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(temporary)},
            start_new_session=True,
        )
        began = time.monotonic()
        while time.monotonic() - began < minutes * 60 and process.poll() is None:
            time.sleep(1)
            step = finished_steps(run)
            if step == 0 or (samples and step == samples[-1]["step"]):
                continue
            with contextlib.suppress(psutil.NoSuchProcess):  # one that ended while it was looked at
                found = look(psutil.Process(process.pid), temporary, shared, seen)
                samples.append({"step": step, "seconds": time.monotonic() - began} | found)
        code = process.poll()
        if code is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(300)
    time.sleep(2)
    if not samples:
        raise SystemExit(f"the run did not finish a step; its output:\n{(folder / 'log.txt').read_text()}")
    left = [one for one in seen if one.is_running()]
    if code is None:  # what is left is counted, and ended
        os.killpg(process.pid, signal.SIGKILL)
    return {
        "minutes": (time.monotonic() - began) / 60,
        "code": code,
        "samples": samples,
        "left": {
            "processes": len(left),
            "temporary files": sorted(str(file.relative_to(temporary)) for file in temporary.rglob("*")),
            "entries of /dev/shm": sorted(set(os.listdir("/dev/shm")) - shared),
            "checkpoints": len(list(run.glob("checkpoint-*"))),
        },
    }


def finished_steps(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def look(trainer: psutil.Process, temporary: Path, shared: set[str], seen: set[psutil.Process]) -> dict[str, float]:
    """Take one sample; add all processes to `seen`. Memory is resident, shared pages are counted in each process."""
    workers = trainer.children(recursive=True)
    family = [trainer, *workers]
    seen.update(family)
    new = [Path("/dev/shm", name) for name in set(os.listdir("/dev/shm")) - shared]
    return {
        "trainer": trainer.memory_info().rss / MIB,
        "workers": sum(one.memory_info().rss for one in workers) / MIB,
        "processes": len(family),
        "threads": sum(one.num_threads() for one in family),
        "handles": sum(one.num_fds() for one in family),
        "temporary": len(list(temporary.rglob("*"))),
        "shared": sum(file.stat().st_size for file in new if file.is_file()) / MIB,
    }


def slope(steps: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return (slope per step, half of its 95 % interval) of a line through the means of `BLOCKS` stretches."""
    x, y = (np.array([part.mean() for part in np.array_split(of, BLOCKS)]) for of in (steps, values))
    x = x - x.mean()
    steepness = (x * y).sum() / (x**2).sum()
    residuals = y - y.mean() - steepness * x
    error = np.sqrt((residuals**2).sum() / (BLOCKS - 2) / (x**2).sum())
    return float(steepness), float(STUDENT * error)


def table(samples: list[dict[str, float]]) -> Table:
    """Return first, last and largest values and the slope of the samples after the first fifth."""
    kept = samples[len(samples) // 5 :]
    if len(kept) < 2 * BLOCKS:
        raise SystemExit(f"{len(samples)} samples are too few for a slope: expected at least {5 * BLOCKS // 2}")
    steps = np.array([sample["step"] for sample in kept])

    def row(title: str, values: np.ndarray) -> tuple[str, ...]:
        parts = np.array_split(values, BLOCKS)
        middle, half = slope(steps, values)
        of_thousand = f"{1000 * middle:+.2f} ({1000 * (middle - half):+.2f} to {1000 * (middle + half):+.2f})"
        return title, f"{parts[0].mean():.1f}", f"{parts[-1].mean():.1f}", f"{values.max():.1f}", of_thousand

    watched = {name: np.array([sample[name] for sample in kept]) for name in WATCHED}
    rows = [row(title, watched[name]) for name, title in WATCHED.items()]
    # A run returns freed memory once a minute and takes it again within two steps: growth shows in the lowest values.
    lowest = [np.full(len(part), part.min()) for part in np.array_split(watched["trainer"], BLOCKS)]
    rows.insert(1, row("– its lowest in each stretch, MiB", np.concatenate(lowest)))
    return Table(("what", "first stretch", "last stretch", "most", "slope per 1,000 steps"), rows)


def summary(found: dict[str, Any]) -> str:
    left = ", ".join(f"{name} {count}" for name, count in found["left"].items())
    steps = int(found["samples"][-1]["step"])
    return f"{steps} steps in {found['minutes']:.0f} minutes; exit code {found['code']} after SIGTERM; left: {left}"


if __name__ == "__main__":
    main()
