"""Cost of AttnPO compared with RLOO: a complete optimiser step on the same rollouts, paired, in one process.

    python benchmarks/step_overhead.py --model overthinker               # the shipped model, a CPU
    python benchmarks/step_overhead.py --model smollm2 --tokens 1000 --arms rloo attnpo   # needs `make test-models`
    python benchmarks/step_overhead.py --sample --cpu-time --rows 32     # with rollouts: a complete training step
    python benchmarks/step_overhead.py --model 1.5b --tokens 16384 --rows 1 --device cuda
    python benchmarks/step_overhead.py --model tiny --tokens 7800 --profile              # only this package's Python

Three arms share model, optimiser and rollouts and take turns in random order: stock TRL (GRPOTrainer), this package
with rloo + none + outcome, and with rloo + tlmre + attnpo. A step is everything after generation: finding steps,
verifying, credit, loss forward, backward, optimiser, writing the records. Generation is not included (the rollouts
are canned), so a real run's ratio is closer to 1; with --sample it is part of the step, from the same seed in all arms,
so that they sample the same tokens. --cpu-time counts the processor time of this process, which other processes hardly
influence. Peak memory: of the device per arm, or of a process with one arm.

--profile runs every step under cProfile and counts the processor time in functions of this package and in the builtins
that they call, other than torch's: on a GPU no kernel is started meanwhile. It includes the profiler's own time, so the
figure is an upper bound.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from transformers.utils import logging
from trl import GRPOTrainer

import attnpo
from attnpo import AttnPOConfig, AttnPOTrainer
from attnpo.attention.heads import load_heads
from attnpo.models import resolve_model
from attnpo.models.loading import load_smollm2
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.rewards.pool import VerifierPool
from attnpo.task.dataset import build_dataset

ARMS = {
    "trl": {},
    "rloo": {"length_reward": "none", "credit": "outcome"},
    "attnpo": {"length_reward": "tlmre", "credit": "attnpo"},
}
OWN = f"{Path(attnpo.__file__).parent}{os.sep}"


def load(name: str, device: str) -> tuple[Any, Any, list[tuple[int, int]]]:
    """Return (model, tokenizer, heads)."""
    if name == "smollm2":
        model, tokenizer = load_smollm2()
        return model.to(device), tokenizer, [(17, 2), (20, 5), (23, 8)]
    path = resolve_model("overthinker")
    tokenizer = AutoTokenizer.from_pretrained(path)
    if name == "tiny":  # arithmetic that takes no time; the shipped model's tokenizer
        config = Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=1,
            num_key_value_heads=1, max_position_embeddings=131072,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )  # fmt: skip
        return AutoModelForCausalLM.from_config(config).to(device), tokenizer, [(0, 0), (1, 0), (2, 0)]
    if name == "1.5b":  # the shape of DeepSeek-R1-Distill-Qwen-1.5B with random weights
        config = Qwen2Config(
            vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
            num_key_value_heads=2, max_position_embeddings=131072, tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )  # fmt: skip
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        return model, tokenizer, [(16, 2), (20, 9), (23, 2)]
    model = AutoModelForCausalLM.from_pretrained(path)
    return model.to(device), tokenizer, load_heads(f"{path}/heads.json")


def canned(
    tokenizer: Any, problems: list[dict[str, Any]], group: int, tokens: int | None
) -> dict[str, list[list[int]]]:
    """Return, per problem, `group` responses of about `tokens` tokens (None: the task's own length); 1 in 4 wrong."""
    rng = random.Random(0)
    steps = [step for row in build_dataset(200, seed=1) for step in thinking_steps(row)]
    responses: dict[str, list[list[int]]] = {}
    for row in problems:
        responses[row["problem"]] = []
        for i in range(group):
            thinking, _, answer = row["response"].partition("</think>")
            if tokens is not None:
                room = int(tokens * rng.uniform(0.85, 1.0))
                length = 0
                parts = []
                while length < room:
                    parts.append(rng.choice(steps))
                    length += len(tokenizer(parts[-1], add_special_tokens=False)["input_ids"])
                thinking = "".join(parts)
            if i % 4 == 3:
                answer = "\\boxed{-1}"
            text = tokenizer(f"{thinking}</think>{answer}", add_special_tokens=False)["input_ids"]
            responses[row["problem"]].append([*text, tokenizer.eos_token_id])
    return responses


def thinking_steps(row: dict[str, Any]) -> list[str]:
    return [row["response"][step["start"] : step["end"]] for step in row["steps"]]


def canned_class(base: type, responses: dict[str, list[list[int]]]) -> type:
    """Return `base` with generation replaced by the canned responses of each problem, in order."""

    class Canned(base):  # pyright: ignore[reportGeneralTypeIssues]
        def _generate(self, prompts):
            self._answers = {}
            self._asked = [p if isinstance(p, str) else p[-1]["content"] for p in prompts]
            return super()._generate(prompts)

        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            served: dict[str, int] = {}
            ids = []
            for problem in self._asked:
                index = served.get(problem, 0)
                served[problem] = index + 1
                ids.append(responses[problem][index])
            return ids, None

    return Canned


class Bench:
    """The arms, sharing one model and one optimiser."""

    def __init__(self, args: argparse.Namespace, arms: list[str], output: str) -> None:
        model, tokenizer, heads = load(args.model, args.device)
        if getattr(tokenizer, "chat_template", None) is None:
            tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        group = max(2, min(8, args.rows))
        rows = build_dataset(max(1, args.rows // group), seed=0)
        responses = canned(tokenizer, rows, group, args.tokens)
        self.lengths = [len(ids) for row in responses.values() for ids in row]
        dataset = Dataset.from_list(
            [
                {"prompt": [{"role": "user", "content": r["problem"]}], "reference": r["reference"], "id": r["id"]}
                for r in rows
            ]
        )
        self.pool = VerifierPool(2)
        common = {
            "output_dir": output, "per_device_train_batch_size": args.rows, "num_generations": group,
            "max_completion_length": 512 if args.sample else 32768, "learning_rate": 0.0, "report_to": "none",
            "use_cpu": args.device == "cpu",
            "gradient_checkpointing": args.device == "cuda", "bf16": args.device == "cuda", "max_steps": 1000,
            "gradient_accumulation_steps": 1, "credit_delay": 1000,
        }  # fmt: skip
        if args.rows == 1:  # one long response at a time: the group of two takes two accumulation steps
            common.update(gradient_accumulation_steps=2)
        self.trainers: dict[str, Any] = {}
        for arm in arms:
            base = GRPOTrainer if arm == "trl" else AttnPOTrainer
            options = {**common, **ARMS[arm]}
            config = AttnPOConfig(**{**options, **({"credit": "outcome"} if arm == "trl" else {})})
            extra = {"heads": heads} if arm == "attnpo" else {}
            trainer = (base if args.sample else canned_class(base, responses))(
                model=model, reward_funcs=[AccuracyReward(self.pool)], args=config, train_dataset=dataset,
                processing_class=tokenizer, **extra,
            )  # fmt: skip
            trainer.current_gradient_accumulation_steps = config.gradient_accumulation_steps
            trainer.model.train()
            if config.gradient_checkpointing:  # `train` would do it; without, activations are most of the memory
                trainer.model.activation_checkpointing_enable()
            self.trainers[arm] = trainer
        first = next(iter(self.trainers.values()))
        first.create_optimizer()
        self.optimizer = first.optimizer
        self.cuda = args.device == "cuda"
        self.batch = next(iter(first.get_train_dataloader()))
        self.peak: dict[str, int] = {}  # bytes on the device
        self.clock = time.process_time if args.cpu_time else time.perf_counter
        self.profiles: dict[str, list[Counter[str]]] | None = defaultdict(list) if args.profile else None
        self.sampled: dict[str, list[list[list[int]]]] = {}
        if args.sample:
            for arm, trainer in self.trainers.items():
                self.keep_samples(arm, trainer)

    def keep_samples(self, arm: str, trainer: Any) -> None:
        """Keep the ids of the arm's last step in `sampled`."""
        inner = trainer._generate_single_turn

        def generate(*args: Any, **kwargs: Any) -> Any:
            output = inner(*args, **kwargs)
            self.sampled.setdefault(arm, []).append(output[0])
            return output

        trainer._generate_single_turn = generate

    def step(self, arm: str, seed: int = 0) -> float:
        """Return the seconds of one complete step of one arm; with --profile those in this package's Python."""
        trainer = self.trainers[arm]
        torch.manual_seed(seed)
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        profile = None if self.profiles is None else cProfile.Profile(time.thread_time)
        started = self.clock()
        if profile:
            profile.enable()
        for _ in range(trainer.args.gradient_accumulation_steps):
            trainer.training_step(trainer.model, self.batch, None)
        self.optimizer.step()
        self.optimizer.zero_grad()
        trainer.log({"loss": 0.0})
        if profile and self.profiles is not None:
            profile.disable()
            self.profiles[arm].append(own_python(profile))
            return self.profiles[arm][-1].total()
        if self.cuda:
            torch.cuda.synchronize()
            self.peak[arm] = torch.cuda.max_memory_allocated()
        return self.clock() - started


def own_python(profile: cProfile.Profile) -> Counter[str]:
    """Return by file of this package the seconds in its functions and in the builtins they call, other than torch's."""
    seconds: Counter[str] = Counter()
    stats: dict[tuple[str, int, str], Any] = pstats.Stats(profile).stats  # pyright: ignore[reportAttributeAccessIssue]
    for (file, _, name), (_, _, own, _, callers) in stats.items():
        if file != "~":
            if file.startswith(OWN):
                seconds[file.removeprefix(OWN)] += own
        elif "torch" not in name and "Tensor" not in name:
            for (caller, _, _), part in callers.items():
                if caller.startswith(OWN):
                    seconds[caller.removeprefix(OWN)] += part[2]
    return seconds


def peak_memory(args: argparse.Namespace, arm: str) -> float:
    """Return the peak MiB of a new process that ran only this arm."""
    command = [sys.executable, __file__, "--model", args.model, "--rows", str(args.rows), "--device", args.device]
    command += ["--tokens", str(args.tokens)] if args.tokens else []
    # Otherwise the peak includes freed blocks that the allocator keeps, in an order that varies.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run([*command, "--memory-of", arm], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.strip().splitlines()[-1])


def peak_rss_mib() -> float:
    """Return this process's own peak. getrusage would include the parent's, which Linux passes on through exec."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("overthinker", "smollm2", "1.5b", "tiny"), default="overthinker")
    parser.add_argument(
        "--rows", type=int, default=None, help="responses per step (default 128; smollm2, tiny 2; 1.5b: 1)"
    )
    parser.add_argument("--tokens", type=int, default=None, help="tokens per response (default: the task's own)")
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS), help="rloo and attnpo at least")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sample", action="store_true", help="sample the rollouts too (up to 512 tokens)")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of this process, not the clock")
    parser.add_argument("--profile", action="store_true", help="only this package's own Python, by cProfile")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory-of", choices=tuple(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", help="write the figures as JSON")
    args = parser.parse_args()
    if not {"rloo", "attnpo"} <= set(args.arms):
        parser.error("--arms: expected rloo and attnpo among them, for the ratio")
    if args.profile and (args.cpu_time or args.device != "cpu"):
        parser.error("--profile counts processor time on a CPU: --cpu-time and --device cuda change nothing")
    args.rows = args.rows or {"overthinker": 128, "smollm2": 2, "1.5b": 1, "tiny": 2}[args.model]
    logging.disable_progress_bar()

    with tempfile.TemporaryDirectory() as folder:
        if args.memory_of:
            bench = Bench(args, [args.memory_of], folder)
            for _ in range(2):
                bench.step(args.memory_of)
            print(peak_rss_mib())
            bench.pool.close()
            return
        bench = Bench(args, args.arms, folder)
        for arm in args.arms:  # warm-up
            print(f"warm-up: {arm} {bench.step(arm):.3f} s", flush=True)
        rng, seconds = random.Random(0), {arm: [] for arm in args.arms}
        for pair in range(args.pairs):
            for arm in rng.sample(args.arms, len(args.arms)):
                seconds[arm].append(bench.step(arm, pair + 1))
            times = ", ".join(f"{arm} {values[-1]:.3f} s" for arm, values in seconds.items())
            print(f"pair {pair + 1}/{args.pairs}: {times}", flush=True)
        lengths = bench.lengths
        if args.sample:
            first, *others = bench.sampled.values()
            assert all(other == first for other in others), "the arms sampled different tokens"
            lengths = [len(ids) for step in first for ids in step]
        bench.pool.close()
    figures: dict[str, Any] = {
        "model": args.model, "device": args.device, "rows": args.rows, "mean_tokens": float(np.mean(lengths)),
        "seconds": {arm: float(np.median(values)) for arm, values in seconds.items()},
    }  # fmt: skip
    for base in ("rloo", "trl"):
        if base not in seconds:
            continue
        ratio = np.array(seconds["attnpo"]) / np.array(seconds[base])
        figures[f"attnpo/{base}"] = median_with_interval(ratio)
        more = 1000 * (np.array(seconds["attnpo"]) - np.array(seconds[base]))
        figures[f"attnpo - {base}, ms"] = median_with_interval(more)
    if bench.profiles is not None:
        each = bench.profiles["attnpo"]
        medians = {file: 1000 * float(np.median([one[file] for one in each])) for file in set().union(*each)}
        largest = sorted(medians, key=lambda file: -medians[file])[:6]
        figures["attnpo, largest files, ms"] = {file: medians[file] for file in largest}
    elif not args.no_memory:
        if bench.cuda:
            figures["peak_mib"] = {arm: peak / 2**20 for arm, peak in bench.peak.items()}
        else:
            figures["peak_mib"] = {arm: peak_memory(args, arm) for arm in ("rloo", "attnpo")}
        figures["peak attnpo/rloo"] = figures["peak_mib"]["attnpo"] / figures["peak_mib"]["rloo"]
    print(json.dumps(figures, indent=1))
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


def median_with_interval(pairs: np.ndarray) -> dict[str, float]:
    """Return the median of paired ratios or differences and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(pairs, size=(2000, len(pairs))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return {"median": float(np.median(pairs)), "low": float(low), "high": float(high)}


if __name__ == "__main__":
    main()
