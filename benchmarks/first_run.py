"""Does README's main command learn in 20 updates? Runs it with the shipped model and 64 problems.

    python benchmarks/first_run.py -o runs/first-run        # a quarter of an hour on one core

The command is read from README.md. Model and files replace README's names; the only other changes serve the
measurement: held-out problems are also evaluated after `--updates`, and then the run gets a SIGTERM, as from a
scheduler. Prints accuracy and tokens per response before and after, with the 95 % interval of the paired difference
(problems resampled); exit code 1 if neither accuracy rose nor length fell beyond its interval.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch

from attnpo.bootstrap import bootstrap_over_problems
from attnpo.data.jsonl import read_jsonl, write_jsonl
from attnpo.tables import Cell, Table

README = Path(__file__).resolve().parent.parent / "README.md"
REQUEUE = 75
"""Exit code of a run that SIGTERM stopped."""


def command_of_readme(model: str, problems: Path, held_out: Path, folder: Path) -> list[str]:
    """Return the words of README's `attnpo train`, with its model, files and folder replaced by these."""
    found = re.search(r"^attnpo train (--model_name_or_path(?:.*\\\n)*.*)$", README.read_text(encoding="utf-8"), re.M)
    if found is None:
        raise SystemExit(f"{README}: found no command that begins with attnpo train --model_name_or_path")
    words = shlex.split(found[1].replace("\\\n", " "))
    given = {
        "--model_name_or_path": model,
        "--dataset_name": str(problems),
        "--eval_dataset_name": str(held_out),
        "--output_dir": str(folder),
    }
    for option, value in given.items():
        words[words.index(option) + 1] = value
    return [sys.executable, "-m", "attnpo", "train", *words]


def make_problems(file: Path, count: int, split: str) -> Path:
    """Write problems and references of the built-in task to a file such as a user has."""
    task = ["task", "--n", str(count), "--split", split, "--seed", "11", "-o", str(file)]
    subprocess.run([sys.executable, "-m", "attnpo", *task], check=True)
    names = ("problem", "reference")
    write_jsonl(file, [{name: row[name] for name in names} for row in read_jsonl(file, names)])
    return file


def run_until(command: list[str], folder: Path, updates: int) -> None:
    """Run the command until it has evaluated after `updates` updates."""
    process = subprocess.Popen([*command, "--eval_strategy", "steps", "--eval_steps", str(updates)])
    file = folder / "evaluations.jsonl"
    while process.poll() is None:
        time.sleep(1)
        if file.exists() and any(row["step"] >= updates for row in read_jsonl(file, ("step",))):
            process.terminate()
            break
    if process.wait() not in (0, REQUEUE):
        raise SystemExit(f"the run ended with code {process.returncode}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/first-run"))
    parser.add_argument("--model", default="overthinker")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--held-out", type=int, default=512)
    parser.add_argument("--updates", type=int, default=20)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    problems = make_problems(options.output / "problems.jsonl", options.problems, "train")
    held_out = make_problems(options.output / "held_out.jsonl", options.held_out, "test")
    folder = options.output / "run"
    run_until(command_of_readme(options.model, problems, held_out, folder), folder, options.updates)
    return report(folder, options.updates)


def report(folder: Path, updates: int) -> int:
    """Print the table; return 1 if nothing was learnt."""
    ends = []
    for step in (0, updates):
        records = list(read_jsonl(folder / "rollouts" / f"eval-{step:06d}.jsonl.gz", ("correct", "tokens")))
        ends.append(torch.tensor([[row["correct"], row["tokens"]["completion"]] for row in records]).double())
    before, after = ends
    low, high = bootstrap_over_problems(after - before, torch.arange(len(before)))
    rows: list[tuple[Cell, ...]] = [
        (name, start, end, end - start, least, most)
        for name, start, end, least, most in zip(
            ("right", "tokens"), *(t.tolist() for t in (before.mean(0), after.mean(0), low, high)), strict=True
        )
    ]
    print(f"{updates} updates, {len(before)} held-out problems, one response each\n")
    print(Table(("", "before", "after", "difference", "low", "high"), rows).markdown())
    return int(not (low[0] > 0 or high[1] < 0))


if __name__ == "__main__":
    raise SystemExit(main())
