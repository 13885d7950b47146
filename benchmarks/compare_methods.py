"""Methods on the built-in task: the same model, problems and number of policy updates, several seeds.

    python benchmarks/compare_methods.py -o runs/methods                       # all arms of method_arms.py: hours
    python benchmarks/compare_methods.py -o runs/methods --arms RLOO TLMRE AttnPO --seeds 3 --jobs 2
    python benchmarks/compare_methods.py -o runs/methods --only-read           # tables and figure of the existing runs

Every run is a plain `attnpo train`; this script starts them and reads their run folders. Finished runs are kept, so
that it can be interrupted and called again. Unknown options are passed to `attnpo train`. Writes table.md, table.csv
and frontier.png into the folder (`method_tables.py`).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from method_arms import ARMS, OWN_START, SAMPLING_MORE, options_of
from method_runs import run_folder
from method_tables import write_tables
from training_process import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/short.yaml", help="what all arms have in common")
    parser.add_argument(
        "--arms", nargs="*", default=list(ARMS), choices=list(ARMS), metavar="ARM", help=", ".join(ARMS)
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16, help="policy updates")
    parser.add_argument("--responses", type=int, default=32, help="responses of an update, 8 for a problem")
    parser.add_argument("--eval-problems", type=int, default=256)
    parser.add_argument("--eval-steps", type=int, help="updates between evaluations; by default only the last, and "
                        "a quarter of the run for the methods that sample more")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; timings then count for little")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/methods"))
    parser.add_argument("--only-read", action="store_true", help="tabulate what is there without starting any run")
    args, extra = parser.parse_known_args()
    if not args.only_read:
        started = time.perf_counter()
        jobs = [(arm, seed) for seed in range(args.seeds) for arm in args.arms]
        with ThreadPoolExecutor(args.jobs) as threads:
            failures = [f for f in threads.map(lambda job: run(args, extra, *job), jobs) if f]
        print(f"{time.perf_counter() - started:.0f} s", flush=True)
        if failures:
            print("\n".join(failures), file=sys.stderr)
    print(write_tables(args.output, args.arms, args.seeds, args.steps))
    if not args.only_read and failures:
        sys.exit(1)


def run(args: argparse.Namespace, extra: list[str], arm: str, seed: int) -> str | None:
    """Do one training run in a separate process; return an error message, or None."""
    folder = run_folder(args.output, arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "attnpo", "train", "--config", args.config, *options_of(arm, seed, folder)]
    command += ["--output_dir", str(folder), "--seed", str(seed), "--max_steps", str(args.steps)]
    command += ["--eval_problems", str(args.eval_problems), "--save_strategy", "no", "--overwrite_run", "true"]
    command += ["--per_device_train_batch_size", str(args.responses)]
    between = args.eval_steps or (args.steps // 4 if arm in SAMPLING_MORE else args.steps)
    command += ["--eval_strategy", "steps", "--eval_steps", str(between)]
    command += ["--eval_on_start", str(arm in OWN_START).lower()]
    if args.device == "cuda":
        command += ["--use_cpu", "false", "--bf16", "false"]
    command += extra
    if (made := finished_run(folder)) is not None:
        if comparable_options(made) == comparable_options(["attnpo", *command[3:]]):
            return None
        return f"{folder}: holds a finished run with other options, {shlex.join(made)}; remove it or choose another -o"
    _, code = train(command, folder, one_thread=args.jobs > 1)
    print(f"{folder.name}: exit code {code}", flush=True)
    return f"{folder}: exit code {code}, see {folder / 'log.txt'}" if code else None


def finished_run(folder: Path) -> list[str] | None:
    """Return the command of the run in a folder, or None if it did not reach its last evaluation."""
    environment = folder / "environment.json"
    if not environment.exists():
        return None
    command = shlex.split(json.loads(environment.read_text(encoding="utf-8"))["command"])
    steps = int(command[command.index("--max_steps") + 1])
    return command if (folder / "rollouts" / f"eval-{steps:06d}.jsonl.gz").exists() else None


def comparable_options(command: list[str]) -> list[str]:
    """Return a command without options that may differ between two runs of an arm: paths and evaluation steps."""
    ignored = {"--output_dir", "--heads", "--eval_steps"}
    return [word for before, word in zip(["", *command], command, strict=False) if before not in ignored]


if __name__ == "__main__":
    main()
