"""Outcome-only RLOO, TLMRE and AttnPO on the built-in task: same model, problems and number of steps, several seeds.

    python benchmarks/compare_methods.py --seeds 3 --steps 60 -o runs/compare            # two CPU cores: hours
    python benchmarks/compare_methods.py --seeds 3 --steps 60 -o runs/compare --jobs 9 --device cuda
    python benchmarks/compare_methods.py --methods AttnPO "Auto (AttnPO with heads: auto)" -o runs/compare-heads

Every run is a plain `attnpo train`; this script starts them and reads their run folders. Intervals are 95 % bootstrap
intervals over seeds and problems (both resampled); differences are paired by seed and problem.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

METHODS = {
    "RLOO (outcome only)": ["--length_reward", "none", "--credit", "outcome"],
    "TLMRE": ["--length_reward", "tlmre", "--credit", "outcome"],
    "AttnPO": ["--length_reward", "tlmre", "--credit", "attnpo"],
}
# Further arms, run when they are named.
MORE = {"Auto (AttnPO with heads: auto)": [*METHODS["AttnPO"], "--heads", "auto"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--eval-problems", type=int, default=1024)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=[*METHODS, *MORE])
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/compare"))
    parser.add_argument("--at", type=int, help="tabulate the evaluation after this step (default: the last)")
    parser.add_argument("--only-read", action="store_true", help="tabulate finished runs without starting any")
    args, extra = parser.parse_known_args()

    jobs = [(method, seed) for seed in range(args.seeds) for method in args.methods]
    if not args.only_read:
        started = time.perf_counter()
        with ThreadPoolExecutor(args.jobs) as threads:
            failures = [f for f in threads.map(lambda job: run(args, extra, *job), jobs) if f]
        print(f"{len(jobs)} runs in {time.perf_counter() - started:.0f} s", flush=True)
        if failures:
            sys.exit("\n".join(failures))
    args.at = args.steps if args.at is None else args.at
    text = tabulate(args)
    print(text)
    (args.output / f"table-{args.at}.md").write_text(text + "\n", encoding="utf-8")


def folder_of(args: argparse.Namespace, method: str, seed: int) -> Path:
    return args.output / f"{method.split()[0].lower()}-{seed}"


def run(args: argparse.Namespace, extra: list[str], method: str, seed: int) -> str | None:
    """One training run in a process of its own; returns what went wrong, or None."""
    folder = folder_of(args, method, seed)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "attnpo", "train", "--config", args.config, *(METHODS | MORE)[method]]
    command += ["--output_dir", str(folder), "--seed", str(seed), "--max_steps", str(args.steps)]
    command += ["--eval_problems", str(args.eval_problems), "--save_strategy", "no"]
    command += ["--overwrite_run", "true"]
    # The start is the same for every method of a seed.
    command += ["--eval_on_start", str(method == args.methods[0]).lower()]
    if args.device == "cuda":
        command += ["--use_cpu", "false", "--bf16", "false"]
    environment = dict(os.environ)
    if args.jobs > 1:
        environment["OMP_NUM_THREADS"] = "1"
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        code = subprocess.run([*command, *extra], stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
    return f"{folder}: exit code {code}, see {folder / 'log.txt'}" if code else None


def read(folder: Path, step: int) -> tuple[np.ndarray, np.ndarray]:
    """(correct, tokens) per held-out problem, in the order of the problems' ids."""
    with gzip.open(folder / "rollouts" / f"eval-{step:06d}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = sorted((json.loads(line) for line in file), key=lambda row: row["id"])
    return np.array([float(r["correct"]) for r in rows]), np.array([float(r["tokens"]["completion"]) for r in rows])


def interval(values: np.ndarray, rng: np.random.Generator, draws: int = 2000) -> tuple[float, float, float]:
    """Mean of a (seeds, problems) table and its bootstrap interval."""
    seeds, problems = values.shape
    means = np.empty(draws)
    for i in range(draws):
        rows = rng.integers(seeds, size=seeds)
        means[i] = values[rows][:, rng.integers(problems, size=problems)].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def tabulate(args: argparse.Namespace) -> str:
    rng = np.random.default_rng(0)
    tables: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    starts = [(method, 0, "start") for method in args.methods]
    for method, step, label in [*starts, *((method, args.at, method) for method in args.methods)]:
        folders = [folder_of(args, method, seed) for seed in range(args.seeds)]
        if label in tables or not all((f / "rollouts" / f"eval-{step:06d}.jsonl.gz").exists() for f in folders):
            continue  # one method evaluates the start for all; a run may have been ended earlier
        runs = [read(folder, step) for folder in folders]
        tables[label] = np.stack([r[0] for r in runs]), np.stack([r[1] for r in runs])
    start_tokens = tables["start"][1].mean()
    lines = [
        f"{args.seeds} seeds, {args.at} steps, {args.eval_problems} held-out problems, sampled at temperature 1.",
        "",
        "| method | accuracy | 95 % | tokens | 95 % | shorter than the start | per seed (accuracy @ tokens) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (correct, tokens) in tables.items():
        a, t = interval(correct, rng), interval(tokens, rng)
        seeds = ", ".join(f"{c:.3f} @ {n:.0f}" for c, n in zip(correct.mean(1), tokens.mean(1), strict=True))
        lines.append(
            f"| {name} | {a[0]:.3f} | {a[1]:.3f} – {a[2]:.3f} | {t[0]:.0f} | {t[1]:.0f} – {t[2]:.0f} "
            f"| {1 - t[0] / start_tokens:.0%} | {seeds} |"
        )
    if "AttnPO" in tables:
        lines += ["", "AttnPO minus others, paired by seed and problem:", ""]
        for other in [name for name in tables if name != "AttnPO"]:
            a = interval(tables["AttnPO"][0] - tables[other][0], rng)
            t = interval(tables["AttnPO"][1] - tables[other][1], rng)
            lines.append(
                f"- {other}: accuracy {a[0]:+.3f} ({a[1]:+.3f} to {a[2]:+.3f}), "
                f"tokens {t[0]:+.0f} ({t[1]:+.0f} to {t[2]:+.0f})"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
