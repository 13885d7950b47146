"""Shorter thinking without reinforcement learning: sample, trim, fine-tune, evaluate; our method and its controls.

    python benchmarks/without_rl.py --seeds 0 1 2             # the medium task, a quarter of an hour per seed on a core
    python benchmarks/without_rl.py --model overthinker-long --name 30-few --max-tokens 2048 --seeds 1 2 3
    python benchmarks/without_rl.py --table [--name 30-few]   # only the tables, from the records

For each seed: `SAMPLES` responses of the model to each of some training problems; `attnpo trim` trims the right ones,
differently in every arm; the model is fine-tuned on the result (recipes/sft_trimmed.yaml, TRL's SFTTrainer,
the same number of optimiser steps in every arm) and answers held-out problems, one response each at temperature 1.
These problems are the first of those on which training runs are evaluated. A finished arm writes a record to
benchmarks/without_rl_records and is not run again.

The arms, verified by a re-sampled answer where steps are chosen, remove: steps by attention (ours), random steps, the
last steps, steps by leave-one-out likelihood; everything after the first step that states the answer. Other arms: the
shortest right response to each problem, untrimmed; the same trimmed by attention; all right responses, untrimmed, which
shows the effect of fine-tuning alone. "half": at least half of the steps are kept. "pairs": DPO on pairs of the trimmed
and the long response instead of fine-tuning.

Seconds are processor time of this process: trimming and fine-tuning of the arm, and all of the sampling,
which the arms share; with --traces only a part of the samples is used.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import law_records
import law_rollouts  # noqa: F401 - makes sampling faster
import numpy as np
import torch
import yaml
from method_tables import interval
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, set_seed

from attnpo.data.jsonl import json_line, read_jsonl, write_jsonl, write_whole
from attnpo.models import resolve_model
from attnpo.models.loading import pad_left
from attnpo.rewards.pool import VerifierPool
from attnpo.steps.response import answer_of, decode_completion
from attnpo.tables import Table
from attnpo.task.dataset import build_dataset
from attnpo.traces.prepared import prompt_ids
from attnpo.trim.run import trim_file
from attnpo.trim.trimmer import Options

HERE = Path(__file__).resolve().parent
RECORDS = HERE / "without_rl_records"
RECIPES = HERE.parent / "recipes"
RL = {"overthinker-medium": "12-few-2", "30-few": "30-few-2"}  # by name: the cell of law.py with the same start
CHOSEN_ON = 0  # that cell's seed that settings were chosen on
SAMPLES, BATCH = 4, 128

START, OURS = "start", "attention, half"
ARMS: dict[str, Options] = {
    "attention": Options(keep=0),
    "attention, half": Options(keep=0.5),
    "random, half": Options(ranking="random", keep=0.5),
    "likelihood, half": Options(ranking="likelihood", keep=0.5),
    "position, half": Options(ranking="position", keep=0.5),
    "pairs, half": Options(keep=0.5, preference=True),
    "attention, half, shortest": Options(keep=0.5, shortest=1),
    "shortest": Options(verify="none", keep=1, shortest=1),
    "attention, shortest": Options(keep=0, shortest=1),
    "random": Options(ranking="random", keep=0),
    "first answer": Options(ranking="first_answer", verify="none", keep=0),
    "whole": Options(verify="none", keep=1),
    "position": Options(ranking="position", keep=0),
    "likelihood": Options(ranking="likelihood", keep=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="overthinker-medium")
    parser.add_argument("--name", help="of the records (default: the model's)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="to run; of a table: to show")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--problems", type=int, default=96, help="sampled for training, per seed")
    parser.add_argument("--traces", type=int, help="trim the first so many responses only (default: all)")
    parser.add_argument("--held-out", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40, help="optimiser steps of the fine-tuning")
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--work", type=Path, default=Path("runs/without_rl"), help="samples and trimmed traces")
    parser.add_argument("--table", action="store_true", help="only print the tables")
    args = parser.parse_args()
    name = args.name or Path(args.model).name
    torch.set_num_threads(1)
    if not args.table:
        with VerifierPool(1) as pool:
            for seed in args.seeds:
                run_seed(args, name, seed, pool)
    for table in tables(name, args.seeds):
        print(table.markdown())


def run_seed(args: argparse.Namespace, name: str, seed: int, pool: VerifierPool) -> None:
    """Run the start and all arms of a seed that have no record yet."""
    path = resolve_model(args.model)
    held_out = build_dataset(args.held_out, seed=0, split="test", difficulty=(1, 3))
    folder = args.work / name / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(path)
    traces = folder / "traces.jsonl"
    if not traces.exists():
        network = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        began = time.process_time()
        rows = build_dataset(args.problems, seed=1000 + seed, split="train", difficulty=(1, 3))
        sampled = sample(network, tokenizer, rows, SAMPLES, seed, args.max_tokens)
        seconds = time.process_time() - began
        write_jsonl(traces, [row for row in sampled if row["finished"]])
        (folder / "seconds.json").write_text(json.dumps(seconds))
        record(name, seed, START, evaluate(network, tokenizer, held_out, seed, args.max_tokens, pool), {})
        say(f"seed {seed}: {len(sampled)} responses in {seconds:.0f} s")
    sampling = json.loads((folder / "seconds.json").read_text())
    for arm in args.arms:
        if record_file(name, seed, arm).exists():
            continue
        began = time.process_time()
        target = folder / arm.replace(", ", "-").replace(" ", "-") / "train.jsonl"
        target.parent.mkdir(exist_ok=True)
        timed = target.with_suffix(".seconds")
        if not timed.exists():
            trim_file(traces, target, model=path, options=replace(ARMS[arm], max_traces=args.traces))
            timed.write_text(str(time.process_time() - began))
        trimmed = float(timed.read_text())
        rows = list(read_jsonl(target))
        network, tuning = fine_tune(path, target, args.steps, seed, pairs=ARMS[arm].preference)
        found = evaluate(network, tokenizer, held_out, seed, args.max_tokens, pool)
        facts = {
            "examples": len(rows),
            "lengths": [row["trim"]["tokens"] for row in rows],
            "checks": sum(row["trim"]["checks"] for row in rows),
            "kept_for_value": sum(step["kept_for_value"] for row in rows for step in row["trim"]["steps"]),
            "removed": sum(step["removed"] for row in rows for step in row["trim"]["steps"]),
            "steps": sum(len(row["trim"]["steps"]) for row in rows),
            "seconds": {"sampling": sampling, "trimming": trimmed, "fine-tuning": tuning},
        }
        record(name, seed, arm, found, facts)
        say(f"seed {seed}, {arm}: {np.mean(found['right']):.3f} @ {np.mean(found['tokens']):.0f}, {trimmed:.0f} s")


@torch.no_grad()
def sample(
    network: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    count: int,
    seed: int,
    most: int,
    temperature: float = 1.0,
) -> list[dict[str, Any]]:
    """Sample `count` responses to every problem, as traces with their tokens."""
    config = GenerationConfig(
        max_new_tokens=most,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    asked = [(row, k) for row in rows for k in range(count)]
    found = []
    set_seed(seed)
    for first in range(0, len(asked), BATCH):
        batch = asked[first : first + BATCH]
        prompts = [prompt_ids(row["problem"], tokenizer, opens_itself=False) for row, _ in batch]
        ids, mask = pad_left(prompts, tokenizer.pad_token_id)
        output = network.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, ids.shape[1] :]
        for (row, k), tokens in zip(batch, output.tolist(), strict=True):
            ended = tokenizer.eos_token_id in tokens
            tokens = tokens[: tokens.index(tokenizer.eos_token_id) + 1] if ended else tokens
            kept = {name: row[name] for name in ("problem", "reference", "difficulty") if name in row}
            text = decode_completion(tokenizer, tokens)
            found.append({"id": f"{row['id']}/{k}", **kept, "response": text, "tokens": len(tokens), "finished": ended})
    return found


def evaluate(
    network: Any, tokenizer: Any, rows: list[dict[str, Any]], seed: int, most: int, pool: VerifierPool
) -> dict[str, list[float]]:
    """Return right (1 or 0) and tokens of one response to every held-out problem; a truncated one is not right."""
    found = sample(network.eval(), tokenizer, rows, 1, 10_000 + seed, most)
    verdicts = pool.verify((answer_of(row["response"]) if row["finished"] else None, row["reference"]) for row in found)
    return {
        "right": [float(verdict == "right") for verdict in verdicts],
        "tokens": [float(row["tokens"]) for row in found],
    }


def fine_tune(path: str, file: Path, steps: int, seed: int, *, pairs: bool = False) -> tuple[Any, float]:
    """Fine-tune on a trimmed file with the recipe; return the model and seconds of processor time.

    pairs: use DPO on pairs.
    """
    from datasets import disable_progress_bars, load_dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    disable_progress_bars()
    recipe = RECIPES / ("dpo_trimmed.yaml" if pairs else "sft_trimmed.yaml")
    options = yaml.safe_load(recipe.read_text(encoding="utf-8")) | {"max_steps": steps, "seed": seed}
    options |= {"output_dir": str(file.parent / "sft"), "logging_strategy": "no", "disable_tqdm": True}
    data = load_dataset("json", data_files=str(file), split="train")
    trainer = (
        DPOTrainer(path, args=DPOConfig(**options), train_dataset=data)
        if pairs
        else SFTTrainer(path, args=SFTConfig(**options), train_dataset=data)
    )
    began = time.process_time()
    trainer.train()
    return trainer.model, time.process_time() - began


def record_file(name: str, seed: int, arm: str) -> Path:
    return RECORDS / name / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}.json.gz"


def record(name: str, seed: int, arm: str, found: dict[str, list[float]], facts: dict[str, Any]) -> None:
    file = record_file(name, seed, arm)
    file.parent.mkdir(parents=True, exist_ok=True)
    row = {"arm": arm, "seed": seed, "command": " ".join(sys.argv[1:]), **facts, **found}
    write_whole(file, gzip.compress(json_line(row), mtime=0))


def read_records(name: str, seeds: list[int]) -> dict[str, dict[int, dict[str, Any]]]:
    """Read the records of these seeds by arm and seed, the start first."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for file in sorted((RECORDS / name).glob("*.json.gz")):
        row = json.loads(gzip.decompress(file.read_bytes()))
        if row["seed"] in seeds:
            found.setdefault(row["arm"], {})[row["seed"]] = row
    return {arm: found[arm] for arm in (START, *ARMS) if arm in found}


def tables(name: str, seeds: list[int]) -> list[Table]:
    """Return tables of the arms compared with the start, and of their training examples."""
    found = read_records(name, seeds)
    if START not in found:
        return []
    results, examples = [], []
    for arm, runs in found.items():
        right, tokens = (np.array([run[what] for run in runs.values()]) for what in ("right", "tokens"))
        begun = {what: np.array([found[START][seed][what] for seed in runs]) for what in ("right", "tokens")}
        cells = [arm, str(len(runs)), _estimate(interval(right), 3), _estimate(interval(tokens), 0)]
        if arm == START:
            results.append((*cells, "", "", ""))
            continue
        seconds = [sum(run["seconds"].values()) for run in runs.values()]
        shorter = 1 - tokens.mean() / begun["tokens"].mean()
        results.append(
            (
                *cells,
                f"{shorter:.0%}",
                _estimate(interval(right - begun["right"]), 3),
                f"{np.mean(seconds) / 60:.1f}",
            )
        )
        long, short = (
            np.mean([t[kind] for run in runs.values() for t in run["lengths"]]) for kind in ("long", "short")
        )
        steps, removed, kept = (
            sum(run[what] for run in runs.values()) for what in ("steps", "removed", "kept_for_value")
        )
        count = np.mean([run["examples"] for run in runs.values()])
        examples.append(
            (
                arm,
                f"{count:.0f}",
                f"{long:.0f} → {short:.0f}",
                f"{steps / (count * len(runs)):.1f}",
                f"{removed / steps:.0%}",
                f"{kept / steps:.1%}",
            )
        )
    results += _rl_rows(RL[name]) if name in RL else []
    columns = ("arm", "seeds", "right", "tokens", "shorter", "right − start's", "minutes of one core")
    return [
        Table(columns, results),
        Table((f"{OURS}, compared with", "seeds", "right, difference", "tokens, ratio"), _ours_compared(found)),
        Table(("arm", "examples", "thinking tokens", "steps", "steps removed", "steps kept for their value"), examples),
    ]


def _ours_compared(found: dict[str, dict[int, dict[str, Any]]]) -> list[tuple[str, ...]]:
    """Return the default arm compared with every other one, on the seeds that both have."""
    rows = []
    for arm, runs in found.items() if OURS in found else ():
        seeds = sorted(runs.keys() & found[OURS].keys())
        if arm in (START, OURS) or not seeds:
            continue
        right, tokens = (
            [np.array([of[seed][what] for seed in seeds]) for of in (found[OURS], runs)] for what in ("right", "tokens")
        )
        ratio = tokens[0].mean() / tokens[1].mean()
        rows.append((arm, str(len(seeds)), _estimate(interval(right[0] - right[1]), 3), f"{ratio:.2f}"))
    return rows


def _rl_rows(cell: str) -> list[tuple[str, ...]]:
    """Return the runs of law.py from the same start, on its held-out problems, compared with its start."""
    rows = []
    begun = law_records.read_records(law_records.RECORDS, cell, "TLMRE")
    for arm in ("TLMRE", "AttnPO-sharp"):
        found = law_records.read_records(law_records.RECORDS, cell, arm)
        runs = {seed: run for seed, run in found.items() if seed != CHOSEN_ON and seed in begun}
        if not runs:
            continue
        last, first = (
            [(one["held_out"][max(one["held_out"], key=int)] if ended else one["held_out"]["0"]) for one in chosen]
            for ended, chosen in ((True, runs.values()), (False, [begun[seed] for seed in runs]))
        )
        right, tokens = (np.array([one[what] for one in last], dtype=float) for what in ("right", "tokens"))
        before = np.array([one["right"] for one in first], dtype=float)
        shorter = 1 - tokens.mean() / np.mean([one["tokens"] for one in first])
        minutes = np.mean([run["seconds"] for run in runs.values()]) / 60
        differences = (f"{shorter:.0%}", _estimate(interval(right - before), 3), f"{minutes:.1f} (wall)")
        rows.append(
            (
                f"RL: {arm}",
                str(len(runs)),
                _estimate(interval(right), 3),
                _estimate(interval(tokens), 0),
                *differences,
            )
        )
    return rows


def _estimate(estimate: tuple[float, float, float], places: int) -> str:
    mean, low, high = (f"{value:.{places}f}" for value in estimate)
    return f"{mean} ({low} to {high})"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
