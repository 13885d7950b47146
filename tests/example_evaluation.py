"""Writes a small evaluation folder that looks like a real one, without any model: for tests of what reads them.

    write_evaluation(tmp_path / "base")
    write_evaluation(tmp_path / "short", accuracy=0.7, tokens=500)

Two calls with other numbers sample the same problems, so that they can be compared.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BENCHMARKS = {"math500": 20, "aime24": 10}
THINKING = (
    "First, {n} + {n} = {m}, the sum that is asked for.\nWait, let me check that again, maybe I am wrong.\nSo {m}."
)


def write_evaluation(
    folder: Path,
    *,
    benchmarks: Mapping[str, int] = BENCHMARKS,
    samples: int = 4,
    accuracy: float = 0.6,
    tokens: int = 900,
    limit: int = 4096,
    ungraded: float = 0.0,
    seed: int = 0,
    model: str = "tiny-overthinker",
    results: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Write eval.yaml, environment.json, samples/ and (`results`) the results; returns `folder`.

    accuracy, tokens: about what is found; problems differ in how hard they are. ungraded: share of responses on
    which the verifier failed. options: more of eval.yaml. Level 1 is the easiest of five; aime24 has no levels.
    """
    (folder / "samples").mkdir(parents=True)
    recorded = {
        "model": model,
        "benchmarks": list(benchmarks),
        "max_new_tokens": limit,
        "seed": seed,
        **(options or {}),
    }
    (folder / "eval.yaml").write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in recorded.items()), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps({"attnpo": "0.1.0", "command": ["attnpo", "eval"]}))
    for name, problems in benchmarks.items():
        rng = random.Random(f"{name} {seed}")
        rows = []
        for number in range(problems):
            hard = number / max(1, problems - 1) - 0.5  # −0.5 … 0.5
            for index in range(samples):
                length = min(limit, max(20, round(tokens * (1 + hard) * rng.lognormvariate(0, 0.3))))
                right = rng.random() < accuracy - hard * min(accuracy, 1 - accuracy) * 2
                verdict = "timed_out" if rng.random() < ungraded else "right" if right and length < limit else "wrong"
                level = None if name == "aime24" else str(number * 5 // problems + 1)
                rows.append(sample_row(name, f"{name}-{number}", index, length, verdict, level, length == limit))
        write_samples(folder, name, rows)
    if results:
        from attnpo.evaluation.results import write_results

        write_results(folder)
    return folder


def sample_row(
    benchmark: str = "math500",
    id: str = "p0",
    sample: int = 0,
    tokens: int = 100,
    verdict: str | None = "right",
    level: str | None = None,
    truncated: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """One row of samples/BENCHMARK.jsonl; `changes` replace or add fields."""
    n = sum(map(ord, id)) % 90 + 5
    thinking = THINKING.format(n=n, m=2 * n)
    found = {"right": str(2 * n), "wrong": str(2 * n + 1)}.get(verdict or "")
    answer = 0 if truncated else min(8, tokens)
    row = {
        "benchmark": benchmark,
        "id": id,
        "sample": sample,
        "seed": sample,
        "text": thinking if truncated else f"{thinking}</think>\nThe sum is \\boxed{{{found or '?'}}}.",
        "prompt_tokens": 30,
        "tokens": tokens,
        "thinking_tokens": tokens - answer,
        "answer_tokens": answer,
        "truncated": truncated,
        "extracted": found,
        "verdict": verdict,
        "reference": str(2 * n),
        "level": level,
    }
    return row | changes


def write_samples(folder: Path, benchmark: str, rows: Iterable[dict[str, Any]]) -> Path:
    """samples/BENCHMARK.jsonl of `folder`, which is made if need be; returns the file."""
    file = folder / "samples" / f"{benchmark}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file
