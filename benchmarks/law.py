"""When stepwise credit pays: runs over redundancy, kinds of redundant steps and problems per update.

    python benchmarks/law.py --models DIR --make-models 30-many 12-many                    # the starting models
    python benchmarks/law.py --models DIR --cells 30-many-2 --seeds 1 2 3 4 5 --jobs 2     # start or continue
    python benchmarks/law_tables.py                                                        # tables and figure

A cell is REDUNDANCY-SENTENCES-PROBLEMS: the mean number of redundant steps of the traces that the starting model was
trained on, few or many templates per kind of step, problems (of 8 responses) per update. The starting model of a cell
is DIR/REDUNDANCY-SENTENCES (`MODELS`: how each is trained). Every run is a plain `attnpo train`, whose sampling
law_rollouts.py makes faster: the same start, problems and first rollouts for all arms of a seed. The learning rate is
1.5e-4 · sqrt(problems / 2), the number of updates `UPDATES`; both were fixed before any reported run.

A finished run leaves one record in benchmarks/law_records (every response's length, verdict, and redundant and
essential steps; the held-out evaluations), and is not run again. Seed 0 was for choosing settings and is not reported.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from law_records import RECORDS, record_file, write_record
from training_process import train

HERE = Path(__file__).resolve().parent

# How each starting model is trained (scripts/train_overthinker.py): those of the longest traces start from the shipped
# model, those of shorter ones from the longer ones. With many sentences, arithmetic, a tenth of a long trace, is learnt
# too slowly unless it gets a larger weight. The time is bounded; results are in their training_record.json.
_ALL = "--context 4096 --difficulty 1 4 --threads 1 --workers 1"
_LONG = f"{_ALL} --redundancy 30 --batch 12"
_FIRST = f"{_LONG} --start overthinker --steps 420 --lr 1.5e-3 --warmup 20 --max-seconds 1700"
_MORE = f"{_LONG} --steps 700 --lr 1.2e-3 --warmup 10 --max-seconds 1500 --essential-weight 4"
_SHORTER = f"{_ALL} --batch 24 --lr 1.2e-3 --warmup 10 --seed 1 --steps 300"
MODELS = {
    "4-few": "--steps 0 --start overthinker",  # the shipped one, measured
    "30-few": f"{_FIRST} --sentences few",
    "12-few": f"{_SHORTER} --redundancy 12 --sentences few --start 30-few --max-seconds 420",
    "30-many-first": f"{_FIRST} --sentences many",
    "30-many": f"{_MORE} --sentences many --seed 1 --start 30-many-first",
    "12-many": f"{_SHORTER} --redundancy 12 --sentences many --start 30-many --max-seconds 420",
    "4-many": f"{_SHORTER} --redundancy 4 --sentences many --start 30-many --max-seconds 240",
}
"""12-few is shipped as overthinker-medium, 30-few as overthinker-long."""

GROUP = 8
MICRO_BATCH = 16  # responses of one backward pass; more of a thousand tokens each take too much memory
BASE_RATE, BASE_PROBLEMS = 1.5e-4, 2
UPDATES = {2: 64, 4: 48, 16: 24}
LAYERS, HEADS = 4, 10  # of the small model

ATTNPO = ["--credit", "attnpo"]
CONTROL = ["--credit_module", "law_credit,law_rollouts", "--credit"]
NO_DELAY = json.dumps({"delay": 0})
SHARP_NO_DELAY = json.dumps({"delay": 0, "beta": 0, "sharp": True})
SHARP = ["--credit_beta", "0", "--credit_sharp", "true"]
ARMS: dict[str, list[str]] = {
    "TLMRE": ["--credit", "outcome"],
    "AttnPO": ATTNPO,
    "AttnPO-sharp": [*ATTNPO, *SHARP],
    "Gold": [*CONTROL, "gold_labels", "--credit_kwargs", NO_DELAY],
    "Shuffled": [*CONTROL, "shuffled", "--credit_kwargs", SHARP_NO_DELAY],
    "Random-heads": [*ATTNPO, *SHARP, "--heads", "RANDOM"],
    # Without reported runs; what the first one did is in docs/log.md.
    "AttnPO-measured": [*ATTNPO, *SHARP, "--credit_threshold", "heads"],
    "AttnPO-thinking": [*ATTNPO, *SHARP, "--credit_yardstick", "thinking"],
    "AttnPO-median": [*ATTNPO, *SHARP, "--credit_yardstick", "median"],
    "AttnPO-beta-0": [*ATTNPO, "--credit_beta", "0"],
}
MAIN = ("TLMRE", "AttnPO-sharp", "AttnPO", "Gold", "Shuffled", "Random-heads")


@dataclass(frozen=True)
class Cell:
    """One cell of the grid."""

    redundancy: int
    sentences: str
    problems: int

    @classmethod
    def parse(cls, text: str) -> Cell:
        redundancy, sentences, problems = text.split("-")
        return cls(int(redundancy), sentences, int(problems))

    def __str__(self) -> str:
        return f"{self.redundancy}-{self.sentences}-{self.problems}"

    @property
    def model(self) -> str:
        return f"{self.redundancy}-{self.sentences}"

    @property
    def learning_rate(self) -> float:
        return BASE_RATE * math.sqrt(self.problems / BASE_PROBLEMS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of the starting models")
    parser.add_argument("--make-models", nargs="+", choices=list(MODELS), default=[], metavar="R-SENTENCES")
    parser.add_argument("--cells", nargs="+", type=Cell.parse, default=[], metavar="R-SENTENCES-PROBLEMS")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(MAIN), metavar="ARM")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--updates", type=int, help="of every run, instead of the cell's")
    parser.add_argument("--until", type=float, metavar="MINUTES", help="start no run after so many minutes")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/law"), help="the run folders")
    args, extra = parser.parse_known_args()
    for name in args.make_models:
        subprocess.run(model_command(name, args.models), check=True)
    started = time.perf_counter()

    def run(job: tuple[Cell, int, str]) -> None:
        cell, seed, arm = job
        target = record_file(args.records, str(cell), arm, seed)
        late = args.until is not None and time.perf_counter() - started > 60 * args.until
        if target.exists() or late:
            return
        folder = args.output / str(cell) / f"{arm}-{seed}"
        command = train_command(cell, arm, seed, folder, args.models, args.updates)
        shutil.rmtree(folder / "rollouts", ignore_errors=True)
        seconds, code = train([*command, *extra], folder, one_thread=True)
        print(f"{cell} {arm} {seed}: exit code {code}, {seconds:.0f} s", flush=True)
        if code == 0:
            write_record(target, folder, seconds)

    jobs = [(cell, seed, arm) for cell in args.cells for seed in args.seeds for arm in args.arms]
    with ThreadPoolExecutor(args.jobs) as threads:
        list(threads.map(run, jobs))


def model_command(name: str, models: Path) -> list[str]:
    """Return the command that trains and evaluates a starting model; the model it starts from must exist."""
    options = [str(models / word) if word in MODELS else word for word in MODELS[name].split()]
    script = HERE.parent / "scripts" / "train_overthinker.py"
    return [sys.executable, str(script), "--out", str(models / name), "--evaluation-problems", "64", *options]


def train_command(cell: Cell, arm: str, seed: int, folder: Path, models: Path, updates: int | None) -> list[str]:
    """Return `attnpo train` with the options of a run; random heads are drawn here, different ones for every seed."""
    folder.mkdir(parents=True, exist_ok=True)
    options = list(ARMS[arm])
    if "--credit_module" not in options:
        options += ["--credit_module", "law_rollouts"]
    if "RANDOM" in options:
        chosen = random.Random(seed).sample([(layer, head) for layer in range(LAYERS) for head in range(HEADS)], 3)
        file = folder / "random_heads.json"
        file.write_text(json.dumps({"heads": chosen}), encoding="utf-8")
        options[options.index("RANDOM")] = str(file)
    responses = GROUP * cell.problems
    micro = min(responses, MICRO_BATCH)
    return [
        *[sys.executable, "-m", "attnpo", "train", "--config", str(HERE / "law.yaml"), *options],
        *["--model_name_or_path", str(models / cell.model), "--output_dir", str(folder), "--overwrite_run", "true"],
        *["--seed", str(seed), "--learning_rate", f"{cell.learning_rate:g}"],
        *["--max_steps", str(updates or UPDATES[cell.problems])],
        *["--per_device_train_batch_size", str(micro), "--gradient_accumulation_steps", str(responses // micro)],
        # The start of a seed is the same for all arms.
        *["--eval_on_start", str(arm == "TLMRE").lower()],
    ]


if __name__ == "__main__":
    main()
