"""Writes a small run folder that looks like a real one, without any model: for tests of what reads run folders.

The responses are long additions whose needless second look gets rarer over training, as it does in a real run.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

CONFIG = """\
run_name: {name}
model_name_or_path: tiny-overthinker
advantage: rloo
length_reward: tlmre
credit: attnpo
learning_rate: 2.0e-4
num_generations: 8
max_completion_length: 512
hub_token: hf_not_to_be_shown
"""


def write_run(
    folder: Path, *, name: str = "attnpo-demo", steps: int = 40, groups: int = 4, per_group: int = 8, seed: int = 0
) -> Path:
    """Write config, environment, heads, metrics, evaluations (every 10 steps) and rollouts; returns `folder`."""
    rng = random.Random(seed)
    (folder / "rollouts").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(name=name), encoding="utf-8")
    environment = {"attnpo": "0.1.0", "torch": "2.13.0", "seed": seed, "command": ["attnpo", "train", "--config", "a"]}
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    (folder / "heads.json").write_text(json.dumps({"model": "tiny-overthinker", "heads": [[2, 1], [3, 6]]}))
    metrics, evaluations = [], []
    for step in range(steps + 1):
        needless = 1.0 - 0.85 * min(1.0, step / max(1, steps))  # share of looks back that are still taken
        if step:
            rows = []
            for group in range(groups):
                problem = _problem(rng)
                batch = [_response(rng, problem, needless, "train", step, group, i) for i in range(per_group)]
                rows += _credited(batch)
            write_jsonl(folder / "rollouts" / f"train-{step:06d}.jsonl.gz", rows)
            metrics.append(_metrics(step, rows))
        if step % 10 == 0:
            same = random.Random(seed + 1)
            rows = [_response(rng, _problem(same), needless, "eval", step, group, 0) for group in range(24)]
            write_jsonl(folder / "rollouts" / f"eval-{step:06d}.jsonl.gz", rows)
            evaluations.append(_evaluation(step, steps, rows))
    write_jsonl(folder / "metrics.jsonl", metrics)
    write_jsonl(folder / "evaluations.jsonl", evaluations)
    return folder


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, compresslevel=1, mtime=0) if path.suffix == ".gz" else data)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def _problem(rng: random.Random) -> dict[str, Any]:
    numbers = [rng.randint(11, 89) for _ in range(3)]
    items = rng.choice(("tickets", "loaves of bread", "seedlings", "marbles"))
    text = f"Mira has {numbers[0]} {items}, gets {numbers[1]} more and then {numbers[2]} more. How many has she now?"
    return {"id": "sum-" + "-".join(map(str, numbers)), "numbers": numbers, "text": text}


def _thinking(rng: random.Random, numbers: list[int], needless: float) -> tuple[list[tuple[str, str, bool]], int]:
    """(kind, text, essential) of every step, and the sum they reach."""
    a, b, c = numbers
    slip = rng.choice((0, 0, 0, 0, 10))
    total = a + b + c + slip
    steps = [
        (
            "forward",
            f"We add the numbers one after the other.\nFirst, {a} + {b} = {a + b}, the sum so far.",
            True,
        )
    ]
    looks = [
        f"Wait, let me make sure that I read the question right: it says {a}, then {b}, then {c}. Yes, that is it.\n",
        f"Hmm, maybe I should count the tens and the ones apart: {a // 10 + b // 10} tens and {a % 10 + b % 10} ones, "
        f"so {a + b} again.\n",
        f"Alternatively, {b} + {a} = {a + b}, the same the other way round, so nothing changes at all here.\n",
    ]
    steps += [("confused", look, False) for look in looks if rng.random() < needless]
    steps.append(("forward", f"Next, {a + b} + {c} = {total}, and there is nothing left to add after that.", True))
    if rng.random() < needless:
        text = f"Let me double-check: {total} - {c} = {total - c} and {total - c} - {b} = {total - c - b}. It fits."
        steps.append(("backward", text, False))
    steps.append(("answer", f"So the final answer is {total}.", True))
    return steps, total


def _response(
    rng: random.Random, problem: dict[str, Any], needless: float, split: str, step: int, group: int, index: int
) -> dict[str, Any]:
    parts, total = _thinking(rng, problem["numbers"], needless)
    thinking, steps = "", []
    for kind, text, essential in parts:
        start = len(thinking)
        thinking += text if text.endswith("\n") else text + "\n"
        # In multiples of an even spread: the answer reads the results, hardly the second looks.
        times = rng.uniform(0.9, 4.5) if essential else rng.uniform(0.04, 0.8)
        row = {"start": start, "end": len(thinking), "kind": kind, "tokens": len(text) // 3}
        steps.append(row | {"score": times, "scale": None})
    answer = f"She has \\boxed{{{total}}} now."
    tokens = {"prompt": 38, "thinking": sum(s["tokens"] for s in steps), "answer": len(answer) // 3}
    tokens["completion"] = tokens["thinking"] + tokens["answer"] + 1
    even = tokens["answer"] / (tokens["prompt"] + tokens["completion"])
    for row in steps:
        row["score"] = round(row["score"] * even, 6)
    right = total == sum(problem["numbers"])
    return {
        "step": step,
        "split": split,
        "group": group,
        "index": index,
        "id": problem["id"],
        "prompt": problem["text"],
        "text": f"{thinking}</think>\n{answer}",
        "reference": str(sum(problem["numbers"])),
        "verdict": "right" if right else "wrong",
        "rewards": {"accuracy": float(right)},
        "reward": float(right),
        "advantage": None,
        "mean_token_advantage": None,
        "truncated": False,
        "tokens": tokens,
        "group_accuracy": None,
        "baseline": None,
        "thinking_start": 0,
        "thinking_end": len(thinking),
        "steps": steps,
    }


def _credited(group: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rewards with a length part, leave-one-out advantages, and the scales of ATTNPO without delay."""
    share = sum(row["reward"] for row in group) / len(group)
    lengths = [row["tokens"]["completion"] for row in group]
    middle = sum(lengths) / len(lengths)
    for row in group:
        row["group_accuracy"] = share
        if row["verdict"] == "right":
            row["rewards"]["length"] = round(-0.1 * (row["tokens"]["completion"] / middle) ** 2, 4)
        row["reward"] = round(sum(row["rewards"].values()), 4)
    total = sum(row["reward"] for row in group)
    for row in group:
        row["advantage"] = round(row["reward"] - (total - row["reward"]) / (len(group) - 1), 4)
        if row["verdict"] == "right" and share:
            counts = row["tokens"]
            row["baseline"] = share**2 * counts["answer"] / (counts["prompt"] + counts["completion"])
            for step in row["steps"]:
                below = step["score"] < row["baseline"]
                step["scale"] = 1.0
                if row["advantage"] > 0 and below:
                    step["scale"] = round(share**2 * step["score"] / row["baseline"] + 1 - share**2, 4)
                elif row["advantage"] < 0 and not below:
                    step["scale"] = 0.0
    return group


def _metrics(step: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    scales = [(s["scale"], r["advantage"]) for r in rows for s in r["steps"]]
    return {
        "step": step,
        "seconds": 8.5,
        "loss": -0.01,
        "reward": _mean([r["reward"] for r in rows]),
        "accuracy": _mean([r["verdict"] == "right" for r in rows]),
        "length/completion": _mean([r["tokens"]["completion"] for r in rows]),
        "length/thinking": _mean([r["tokens"]["thinking"] for r in rows]),
        "length/answer": _mean([r["tokens"]["answer"] for r in rows]),
        "truncated": 0.0,
        "steps/per_response": _mean([len(r["steps"]) for r in rows]),
        "phrases/transition_per_1k": _mean([1000 * r["text"].count("Wait") / r["tokens"]["thinking"] for r in rows]),
        "groups/without_signal": 0.0,
        "steps/attenuated": _mean([s is not None and s < 1 and a > 0 for s, a in scales]),
        "steps/protected": _mean([s is not None and s < 1 and a < 0 for s, a in scales]),
        "steps/mean_scale": _mean([1.0 if s is None else s for s, _ in scales]),
    }


def _evaluation(step: int, steps: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of the rows, except for accuracy and length, which take simple values that a test can name."""
    done = step / max(1, steps)
    accuracy, length = 0.71 + 0.03 * done, 261 - 112 * done
    return {
        "step": step,
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.028,
        "accuracy_high": accuracy + 0.026,
        "length/completion": length,
        "length/completion_low": length - 4,
        "length/completion_high": length + 5,
        "length/thinking": length - 14,
        "length/answer": 13,
        "truncated": 0.004 * (1 - done),
        "n": 1000,
        "seconds": 12.5,
        "confidence": 0.95,
    }


def _mean(values: list[Any]) -> float:
    return round(sum(values) / len(values), 5)
