"""Kill training runs with SIGKILL at random moments, resume them each time, and compare with uninterrupted runs.

    python benchmarks/kill_runs.py                 # 20 kills, at least 3 in each phase
    python benchmarks/kill_runs.py --kills 4 --each 1

A process of a small run (the shipped model, a checkpoint after every step) is killed within its rollouts, its update,
an evaluation or the writing of a checkpoint; another process continues with `resume_from_checkpoint=auto`, until the
run has ended. Then it is compared bit for bit with the same run without kills: metrics, evaluations and rollouts of all
steps, final weights, optimiser, schedule and random states. One core, a few minutes; exit code 1 if a run differs or a
process remains.
"""

from __future__ import annotations

import argparse
import gzip
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.update(TOKENIZERS_PARALLELISM="false")
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from attnpo import AttnPOConfig, AttnPOTrainer
from attnpo.data.problems import make_prompts, to_problems
from attnpo.models import resolve_model
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.rewards.pool import VerifierPool
from attnpo.tables import Table
from attnpo.task.dataset import build_dataset
from attnpo.task.problems import parse_difficulty
from attnpo.training.checkpoints import checkpoint_of
from attnpo.training.records import RunFolder

ELSEWHERE, ROLLOUTS, UPDATE, CHECKPOINT, EVALUATION = range(5)
PLACES = ("elsewhere", "rollouts", "update", "checkpoint", "evaluation")
WANTED = (ROLLOUTS, UPDATE, CHECKPOINT)
"""The phases that get at least `--each` kills."""

STEPS = 8
CASES: dict[str, dict[str, Any]] = {
    # Four updates per generation, so that a checkpoint has to keep responses for all but the first.
    "half used": {"num_iterations": 2, "steps_per_generation": 2, "per_device_train_batch_size": 4},
    # Metrics are summed over several steps until they are logged; the data set is repeated after the third step.
    "unlogged": {"logging_steps": 3, "per_device_train_batch_size": 8, "problems": 6},
}


class Marked(AttnPOTrainer):
    """Writes the phase it is in to shared memory: a byte that outlives the process."""

    board: mmap.mmap

    @contextmanager
    def at(self, place: int) -> Iterator[None]:
        before = self.board[0]
        self.board[0] = place
        try:
            yield
        finally:
            self.board[0] = before

    def _generate(self, prompts: list[Any]) -> Any:
        with self.at(self.board[0] if self.board[0] == EVALUATION else ROLLOUTS):
            return super()._generate(prompts)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.board[0] = UPDATE  # to the end of the optimiser's step
        return super().training_step(*args, **kwargs)

    def log(self, *args: Any, **kwargs: Any) -> None:
        self.board[0] = ELSEWHERE
        super().log(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        with self.at(EVALUATION):
            return super().evaluate(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self.at(CHECKPOINT):
            super()._save_checkpoint(*args, **kwargs)


def train(folder: Path, case: str, board: mmap.mmap) -> None:
    """Do one process's part of a run: from its last checkpoint, or its start, to its end."""
    options = dict(CASES[case])
    path = resolve_model("overthinker")
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")

    def problems(count: int, split: str) -> Any:
        rows = build_dataset(count, 0, split, parse_difficulty("1", "task_difficulty"))
        return make_prompts(tokenizer, to_problems(rows, "task").rows, None)

    args = AttnPOConfig(
        str(folder),
        max_steps=STEPS,
        num_generations=4,
        gradient_accumulation_steps=1,
        max_completion_length=200,
        learning_rate=1e-4,
        eval_strategy="steps",
        eval_steps=3,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=2,
        use_cpu=True,
        report_to=["none"],
        disable_tqdm=True,
        gradient_checkpointing=False,
        verifier_workers=1,
        dataloader_pin_memory=False,
        **{name: value for name, value in options.items() if name != "problems"},
    )
    resume = checkpoint_of(folder, "auto")
    if resume is None:
        RunFolder(folder).forget_start()
    with VerifierPool(1, timeout=60) as pool:
        data = problems(options.get("problems", 32), "train"), problems(4, "test")
        trainer = Marked(path, [AccuracyReward(pool)], args, *data, processing_class=tokenizer)
        trainer.board = board
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))


def start(folder: Path, case: str, board: mmap.mmap) -> int:
    """Fork such a process, which shares the imported modules; return its id. Its output goes to FOLDER.log."""
    board[0] = ELSEWHERE
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(folder.with_name(f"{folder.name}.log"), "a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            train(folder, case, board)
            code = 0
        finally:
            os._exit(code)
    return child


def ended(child: int) -> bool:
    """Whether a child has ended normally. Raises RuntimeError if it failed."""
    found, status = os.waitpid(child, os.WNOHANG)
    if found and status != 0:
        raise RuntimeError(f"a run ended with status {status}; see its log")
    return found != 0


def uninterrupted(folder: Path, case: str, board: mmap.mmap) -> dict[int, float]:
    """Do a run without kills; return the mean seconds of one visit to each phase."""
    child, seconds, visits, last = start(folder, case, board), dict.fromkeys(range(5), 0.0), Counter[int](), ELSEWHERE
    while not ended(child):
        place = board[0]
        visits[place] += place != last
        seconds[place] += 0.002
        last = place
        time.sleep(0.002)
    return {place: seconds[place] / visits[place] for place in visits}


def kill(child: int, board: mmap.mmap, place: int, visit: int, delay: float) -> int | None:
    """Kill a child `delay` seconds into its visit number `visit` to a phase; return its phase, None if it had ended."""
    last = ELSEWHERE
    while visit:
        if ended(child):
            return None
        now = board[0]
        visit -= now == place != last
        last = now
        time.sleep(0.0005)
    time.sleep(delay)
    if ended(child):
        return None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return board[0]


def rows(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a record without timings."""
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k and k not in ("step_time", "runtime")} for row in found]


def differences(one: Path, other: Path) -> list[str]:
    """Return the differences between two run folders."""
    found = [n for n in ("metrics.jsonl", "evaluations.jsonl") if rows(one / n) != rows(other / n)]
    names = sorted({file.name for run in (one, other) for file in (run / "rollouts").iterdir()})
    for name in names:
        files = [run / "rollouts" / name for run in (one, other)]
        if not all(map(Path.is_file, files)) or len({gzip.decompress(file.read_bytes()) for file in files}) > 1:
            found.append(f"rollouts/{name}")
    last = f"checkpoint-{STEPS}"
    weights = [load_file(run / last / "model.safetensors") for run in (one, other)]
    found += [name for name, tensor in weights[0].items() if not torch.equal(tensor, weights[1][name])]
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        states = [torch.load(run / last / name, weights_only=False) for run in (one, other)]
        if not same(*states):
            found.append(name)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two nested values are equal, with tensors and arrays equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    equal = one == other
    return bool(equal.all()) if hasattr(equal, "all") else bool(equal)


def remaining_processes() -> int:
    """Count the processes that still exist after their parent was killed (children of this one: `adopt_orphans`)."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return len(children)


def adopt_orphans() -> None:
    """Make the children of a killed child children of this process (Linux: PR_SET_CHILD_SUBREAPER)."""
    import ctypes

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def reap() -> None:
    """Reap the orphans that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="kills in all, at least (default: %(default)s)")
    parser.add_argument("--each", type=int, default=3, help="in each place, at least (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="which settings")
    parser.add_argument("--folder", type=Path, help="keep the runs here (default: a temporary folder)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    adopt_orphans()
    root = options.folder or Path(tempfile.mkdtemp())
    root.mkdir(parents=True, exist_ok=True)
    console, draw, board = Console(width=120), random.Random(options.seed), mmap.mmap(-1, 1)
    console.print("undisturbed runs …")
    lasting = {case: uninterrupted(root / case.replace(" ", "-"), case, board) for case in options.cases}
    where: Counter[int] = Counter()
    lines: list[tuple[str, ...]] = []
    bad, run = False, 0
    while sum(where.values()) < options.kills or min(where[place] for place in WANTED) < options.each:
        case = options.cases[run % len(options.cases)]
        folder, here, resumed = root / f"killed-{run}", Counter[int](), []
        run += 1
        while True:
            done = sum(where.values()) >= options.kills and min(where[p] for p in WANTED) >= options.each
            child = start(folder, case, board)
            # The phases in turn, in one of the first visits, as a run has few of them.
            place = draw.choice((*WANTED, *WANTED, EVALUATION))
            if sum(where.values()) >= options.kills:
                place = min(WANTED, key=where.__getitem__)
            delay = draw.uniform(0, lasting[case].get(place, 0.1))
            visit = 10_000 if done else 1 if place == EVALUATION else draw.choice([1, 2, 2])
            hit = kill(child, board, place, visit, delay)
            if hit is None:
                break
            where[hit] += 1
            here[hit] += 1
            last = checkpoint_of(folder, "auto")
            resumed.append("start" if last is None else last.name.rpartition("-")[2])
        found = differences(root / case.replace(" ", "-"), folder)
        bad |= bool(found)
        phases = ", ".join(f"{here[p]} {PLACES[p]}" for p in (*WANTED, EVALUATION, ELSEWHERE) if here[p])
        verdict = "equal" if not found else f"DIFFERENT: {', '.join(found[:4])}"
        lines.append((case, str(sum(here.values())), phases, " ".join(resumed), verdict))
        console.print(" · ".join(lines[-1]), highlight=False)
    names = ("run", "kills", "within", "resumed after step", "compared with the uninterrupted run")
    console.print(Table(names, [*lines]).markdown(), highlight=False, soft_wrap=True)
    total = ", ".join(f"{where[place]} in {PLACES[place]}" for place in (*WANTED, EVALUATION, ELSEWHERE))
    console.print(f"{sum(where.values())} kills: {total}", highlight=False)
    for _ in range(100):
        reap()
        if not remaining_processes():
            break
        time.sleep(0.1)
    console.print(f"remaining processes: {remaining_processes()}", highlight=False)
    if options.folder is None and not bad:
        shutil.rmtree(root)
    else:
        console.print(f"runs: {root}")
    return int(bad or remaining_processes() > 0)


if __name__ == "__main__":
    sys.exit(main())
