"""What a training run writes down: the records of its responses, and the metrics made of them.

A layer between the forward that yields credit (:mod:`attnpo.training.signals`) and the trainer: nothing here
changes a number that the loss sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from attnpo.data.targets import TARGET_COLUMN
from attnpo.rewards.verdict import Verdict
from attnpo.steps.lexicon import phrase_counts
from attnpo.steps.spans import LocatedSteps
from attnpo.training.records import Record, RunFolder, add_rewards, response_record, step_effect
from attnpo.training.rewards import RewardSetup
from attnpo.training.signals import CreditInForward


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


class RecordedRollouts(CreditInForward):
    """Keeps one record per response from its generation until credit has reached it, then writes it."""

    folder: RunFolder
    rewards: RewardSetup
    _located: list[LocatedSteps]
    _rewards: Tensor
    _prompt_ids: list[list[int]]
    _completion_ids: list[list[int]]
    _truncated: list[bool]
    _step_records: list[Record]  # finished generation batches of the step, not yet written

    def _new_records(self, inputs: list[dict[str, Any]], local: slice, group_size: int) -> list[Record]:
        """Records of this process's responses, with their rewards; credit comes later."""
        mine = self._rewards[local]
        totals = self.rewards.total(mine, self.reward_weights.to(mine.device)).tolist()
        correct = self.rewards.correct(mine).tolist()
        verdicts = self.rewards.last_verdicts(len(inputs))
        records = []
        for i, (located, row, values) in enumerate(zip(self._located, inputs, mine.tolist(), strict=True)):
            group, index = divmod(local.start + i, group_size)
            record = response_record(
                located,
                split="train" if self.model.training else "eval",
                step=self.state.global_step + int(self.model.training),
                group=group,
                index=index,
                prompt_tokens=len(self._prompt_ids[i]),
                completion_tokens=len(self._completion_ids[i]),
                truncated=self._truncated[i],
                row=row,
            )
            rewards = dict(zip(self.reward_func_names, values, strict=True))
            add_rewards(record, rewards, total=totals[i], correct=correct[i], verdict=verdicts[i])
            records.append(record)
        return records

    def _finish_generation_batch(self) -> None:
        """Complete the records of the batch just trained on; they join those of its step."""
        if not self._ledger.records:
            return
        records = gather_object(self._ledger.close())
        self._relog_advantages([record["mean_token_advantage"] for record in records])
        if self._step_records and self._step_records[0]["step"] != records[0]["step"]:
            self._write_step()
        if self._step_records:  # a step may take several generation batches, each of which counts groups from 0
            first = 1 + max(record["group"] for record in self._step_records)
            for record in records:
                record["group"] += first
        self._step_records += records

    def _write_step(self) -> None:
        """Write the records of one step and put its metrics where TRL logs them."""
        records, self._step_records = self._step_records, []
        if not records:
            return
        if self.accelerator.is_main_process:
            self.folder.write_rollouts(f"train-{records[0]['step']:06d}", records)
        for name, value in rollout_metrics(records, self.args.lexicon).items():
            self._metrics["train"][name].append(value)

    def _relog_advantages(self, advantages: list[float]) -> None:
        """Let the last entries of TRL's table of completions show these advantages."""
        logged = self._logs["advantages"]
        for _ in range(min(len(logged), len(advantages))):
            logged.pop()
        logged.extend(advantages)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training and ("loss" in logs or "train_runtime" in logs):
            if self._ledger.complete:
                self._finish_generation_batch()
            self._write_step()
            for name, seconds in self._timer.take().items():
                self._metrics["train"][name].append(seconds)
        super().log(logs, start_time)
