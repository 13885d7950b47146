"""Numbers of one step or one evaluation, computed from the response records and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attnpo.data.targets import TARGET_COLUMN
from attnpo.rewards.verdict import Verdict
from attnpo.steps.lexicon import phrase_counts
from attnpo.training.records import Record, step_effect


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def length_metrics(records: Sequence[Record]) -> dict[str, float]:
    """Mean tokens of the whole response, its thinking and its final answer; share of truncated responses.

    Where prompts ask for a length: its mean, and how many tokens responses are off it on average.
    """
    asked = [(r[TARGET_COLUMN], r["tokens"]["completion"]) for r in records if TARGET_COLUMN in r]
    targets = {
        "length/target": _mean([target for target, _ in asked]),
        "length/off_target": _mean([abs(target - tokens) for target, tokens in asked]),
    }
    return {
        **{
            f"length/{part}": _mean([r["tokens"][part] for r in records])
            for part in ("completion", "thinking", "answer")
        },
        "truncated": _mean([float(r["truncated"]) for r in records]),
        **(targets if asked else {}),
    }


def verdict_metrics(records: Sequence[Record]) -> dict[str, float]:
    """Responses with each verdict (counts). Absent where no verifier of this package took part."""
    if not any(r.get("verdict") for r in records):
        return {}
    return {f"verdicts/{v.value}": float(sum(r.get("verdict") == v.value for r in records)) for v in Verdict}


def phrase_metrics(records: Sequence[Record], lexicon: str) -> dict[str, float]:
    """Triggers of each kind per 1,000 thinking tokens."""
    tokens = sum(r["tokens"]["thinking"] for r in records)
    totals: dict[str, int] = {}
    for record in records:
        thinking = record["text"][record["thinking_start"] : record["thinking_end"]]
        for kind, count in phrase_counts(thinking, lexicon).items():
            totals[kind] = totals.get(kind, 0) + count
    return {f"phrases/{kind}_per_1k": 1000 * count / tokens if tokens else 0.0 for kind, count in totals.items()}


def step_metrics(records: Sequence[Record]) -> dict[str, float]:
    """Steps per response; share of all steps attenuated and protected; mean scale over all steps."""
    steps = [(step, r["advantage"]) for r in records for step in r["steps"]]
    effects = [step_effect(step, advantage) for step, advantage in steps]
    return {
        "steps/per_response": len(steps) / len(records) if records else 0.0,
        "steps/attenuated": _mean([float(e == "attenuated") for e in effects]),
        "steps/protected": _mean([float(e == "protected") for e in effects]),
        "steps/mean_scale": _mean([1.0 if s["scale"] is None else s["scale"] for s, _ in steps]),
    }


def rollout_metrics(records: Sequence[Record], lexicon: str) -> dict[str, float]:
    """Everything metrics.jsonl says about the responses of one training step."""
    groups: dict[int, list[float]] = {}
    for record in records:
        groups.setdefault(record["group"], []).append(record["advantage"])
    return {
        "accuracy": _mean([float(r["correct"]) for r in records]),
        **length_metrics(records),
        **verdict_metrics(records),
        **step_metrics(records),
        "groups/without_signal": _mean([float(not any(group)) for group in groups.values()]),
        **phrase_metrics(records, lexicon),
    }


def evaluation_metrics(records: Sequence[Record], lexicon: str) -> dict[str, float]:
    """Everything evaluations.jsonl says about one evaluation, with 95 % intervals over responses."""
    accuracy, low, high = wilson_interval(sum(r["correct"] for r in records), len(records))
    lengths = [r["tokens"]["completion"] for r in records]
    half_width = 1.96 * _standard_error(lengths)
    return {
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        **length_metrics(records),
        "length/completion_low": _mean(lengths) - half_width,
        "length/completion_high": _mean(lengths) + half_width,
        **verdict_metrics(records),
        "steps/per_response": _mean([len(r["steps"]) for r in records]),
        **phrase_metrics(records, lexicon),
        "n": len(records),
        "confidence": 0.95,
    }


def wilson_interval(hits: int, n: int, z: float = 1.96) -> tuple[float, float, float]:
    """Share of hits and its Wilson score interval: stays inside [0, 1] and is not empty at 0 % or 100 %."""
    if n == 0:
        return 0.0, 0.0, 1.0
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return share, max(0.0, centre - half), min(1.0, centre + half)


def _standard_error(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    mean = _mean(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
