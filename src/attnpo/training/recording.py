"""Records of responses and their metrics, in training (`Recorder`) and in evaluations (`HeldOutEvaluation`).

This module does not change any number of the loss and does not depend on the trainer. The record of a response is
created when its rewards are known (`new_records`), gets its credit micro-batch by micro-batch, and is written with the
others of its optimiser step.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object
from jaxtyping import Float, Int
from torch import Tensor

from attnpo.credit.base import CreditResult
from attnpo.data.targets import TARGET_COLUMN
from attnpo.rewards.verdict import Verdict
from attnpo.steps.fit import Fit, fit_of
from attnpo.steps.lexicon import phrase_counts
from attnpo.training.batch import GenerationBatch
from attnpo.training.records import Record, RunFolder, add_credit, add_rewards, response_record, step_effect
from attnpo.training.rewards import RewardSetup


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def length_metrics(records: Sequence[Record]) -> dict[str, float]:
    """Mean tokens of the complete response, its thinking and its final answer; share of truncated responses.

    Where prompts request a length: its mean, and the mean absolute difference of the responses from it, in tokens.
    """
    requested = [(r[TARGET_COLUMN], r["tokens"]["completion"]) for r in records if TARGET_COLUMN in r]
    targets = {
        "length/target": _mean([target for target, _ in requested]),
        "length/off_target": _mean([abs(target - tokens) for target, tokens in requested]),
    }
    return {
        **{
            f"length/{part}": _mean([r["tokens"][part] for r in records])
            for part in ("completion", "thinking", "answer")
        },
        "truncated": _mean([float(r["truncated"]) for r in records]),
        **(targets if requested else {}),
    }


def verdict_metrics(records: Sequence[Record]) -> dict[str, float]:
    """Number of responses with each verdict; empty where this package's verifier was not used."""
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
    """Steps per response and their size; share of all steps attenuated and protected; mean scale over all steps."""
    steps = [(step, r["advantage"]) for r in records for step in r["steps"]]
    effects = [step_effect(step, advantage) for step, advantage in steps]
    return {
        "steps/per_response": len(steps) / len(records) if records else 0.0,
        "steps/attenuated": _mean([float(e == "attenuated") for e in effects]),
        "steps/protected": _mean([float(e == "protected") for e in effects]),
        "steps/mean_scale": _mean([1.0 if s["scale"] is None else s["scale"] for s, _ in steps]),
        **fit_metrics(records),
    }


def record_fit(records: Sequence[Record]) -> Fit:
    """How well the lexicon that cut these responses fits them; its `warning` reports too few steps for credit."""
    return fit_of(
        [r["text"][r["thinking_start"] : r["thinking_end"]] for r in records],
        [[(step["start"], step["end"]) for step in r["steps"]] for r in records],
        [r["tokens"]["thinking"] for r in records],
    )


def fit_metrics(records: Sequence[Record]) -> dict[str, float]:
    """Tokens per step, the largest step's share of the thinking text (median), and the share of responses uncut."""
    fit = record_fit(records)
    return {"steps/tokens_each": fit.tokens or 0.0, "steps/largest_share": fit.largest, "steps/uncut": fit.uncut}


def rollout_metrics(records: Sequence[Record], lexicon: str) -> dict[str, float]:
    """The metrics of the responses of one training step, for metrics.jsonl."""
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
    """The metrics of one evaluation, for evaluations.jsonl, with 95 % intervals over responses."""
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
    """Share of hits and its Wilson score interval, which stays in [0, 1] and has a width above 0 at 0 % and 100 %."""
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


def new_records(
    batch: GenerationBatch,
    setup: RewardSetup,
    *,
    names: Sequence[str],
    weights: Float[Tensor, " K"],
    split: str,
    step: int,
) -> list[Record]:
    """Create the records of this process's responses, with their rewards; credit is added later.

    `names` and `weights` are those of the K reward functions, `step` is the optimiser step.
    """
    assert batch.rewards is not None
    mine = batch.rewards[batch.own]
    totals = setup.total(mine, weights.to(mine.device)).tolist()
    correct = setup.correct(mine).tolist()
    verdicts = setup.last_verdicts(len(batch)) if batch.sampled is None else batch.sampled.verdicts
    records = []
    for i, (located, row, values) in enumerate(zip(batch.located, batch.rows, mine.tolist(), strict=True)):
        group, index = divmod(batch.first + i, batch.group_size)
        record = response_record(
            located,
            split=split,
            step=step,
            group=group,
            index=index,
            prompt_tokens=len(batch.prompt_ids[i]),
            completion_tokens=len(batch.completion_ids[i]),
            truncated=batch.truncated[i],
            row=row,
        )
        rewards = dict(zip(names, values, strict=True))
        add_rewards(record, rewards, total=totals[i], correct=correct[i], verdict=verdicts[i])
        records.append(record)
    return records


def step_means(
    values: Float[Tensor, "B C"], step_ids: Int[Tensor, "B C"], step_lengths: Int[Tensor, "B S"]
) -> Float[Tensor, "B S"]:
    """Mean of token values over the tokens of every step; 0 for a step without tokens."""
    sums = values.new_zeros(len(values), step_lengths.shape[1] + 1).scatter_add(1, step_ids, values)
    return sums[:, :-1] / step_lengths.clamp(min=1)


class PhaseTimer:
    """Seconds of wall time per phase since the last `take`. Time of a nested phase counts for that phase only."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str, *, counts: bool = True) -> Iterator[None]:
        """Time the block as `phase`; with counts=False, run it untimed."""
        started, inner = time.perf_counter(), sum(self._seconds.values())
        yield
        if counts:
            inside = sum(self._seconds.values()) - inner
            self._seconds[phase] += time.perf_counter() - started - inside

    def take(self) -> dict[str, float]:
        """Return {"seconds/<phase>": seconds} and start from zero."""
        taken = {f"seconds/{phase}": seconds for phase, seconds in self._seconds.items()}
        self._seconds.clear()
        return taken


@dataclass(eq=False)
class _RunRecords:
    """What training and evaluations do with records.

    Attributes:
        folder: the run folder.
        lexicon: its phrases are counted for the metrics.
        writes: whether this process writes the files (the main process).
        gather: one list of all processes' lists, in their order.
    """

    folder: RunFolder
    lexicon: str
    _: KW_ONLY
    writes: bool = True
    gather: Callable[[list[Record]], list[Record]] = gather_object


@dataclass(eq=False)
class Recorder(_RunRecords):
    """Keeps the records of training responses until they have credit and their step is over, then writes them.

    Credit arrives in micro-batches, in shuffled order, and stays on the device until the generation batch is closed, so
    that records never make the device wait. A step may use several generation batches.
    """

    def __post_init__(self) -> None:
        self.timer = PhaseTimer()
        self._records: list[Record] = []  # of this process, of the generation batch being trained on
        self._notes: list[dict[str, Tensor]] = []  # credit of the rows of each micro-batch
        self._uncredited = 0
        self._step: list[Record] = []  # of all processes, of the step's finished generation batches
        self._tokens = 0  # of the responses of all processes since the seconds were last taken

    def state(self) -> dict[str, Any]:
        """Return everything kept between two steps; its tensors are not copied."""
        return {
            "records": self._records,
            "notes": self._notes,
            "uncredited": self._uncredited,
            "step": self._step,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._records, self._notes = state["records"], state["notes"]
        self._uncredited, self._step = state["uncredited"], state["step"]

    def open(self, records: list[Record]) -> None:
        """Begin a new generation batch."""
        self._records, self._notes, self._uncredited = records, [], len(records)
        for record in records:
            record["mean_token_advantage"] = 0.0  # stays so where a method leaves the response out of its loss

    @property
    def complete(self) -> bool:
        """Whether every response of the batch has its credit."""
        return bool(self._records) and self._uncredited <= 0

    def note(self, batch: Mapping[str, Any], result: CreditResult, signals: Mapping[str, Tensor]) -> None:
        """Keep the credit of one micro-batch's rows. Rows that are no response of the batch are skipped on `close`."""
        mask = batch["completion_mask"]
        note = {
            "rows": batch["rollout_rows"],
            "mean": (result.advantages * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1),
        }
        optional = {"scores": signals.get("attention"), "scales": result.scales, "baseline": result.baseline}
        if result.scales is None and signals:  # a method with other segments: its mean over each recorded step
            optional["step_advantages"] = step_means(result.advantages, batch["step_ids"], batch["step_lengths"])
        note.update({name: tensor for name, tensor in optional.items() if tensor is not None})
        self._notes.append({name: tensor.detach() for name, tensor in note.items()})
        self._uncredited -= len(batch["rollout_rows"])

    def all_credited(self) -> None:
        """Mark all responses as credited: the complete batch got its credit at once, whatever rows it has."""
        self._uncredited = 0

    def close(self) -> list[Record]:
        """End the generation batch; returns the records of all processes with their credit, none without an open batch.

        Collective. `add_to_step` takes the records; they are written when their step is over.
        """
        if not self._records:
            return []
        for note in self._notes:
            numbers = {name: tensor.tolist() for name, tensor in note.items()}
            for i, row in enumerate(numbers["rows"]):
                if row >= 0:
                    add_credit(self._records[row], {name: values[i] for name, values in numbers.items()})
        records = self._records
        self.open([])
        return self.gather(records)

    def add_to_step(self, records: list[Record]) -> dict[str, float]:
        """Add closed records to their step; returns the metrics of the previous step where they begin a new one."""
        metrics = {}
        if self._step and records and self._step[0]["step"] != records[0]["step"]:
            metrics = self.end_step()
        if self._step:  # a step may have several generation batches, each of which numbers its groups from 0
            first = 1 + max(record["group"] for record in self._step)
            for record in records:
                record["group"] += first
        self._step += records
        return metrics

    def end_step(self) -> dict[str, float]:
        """Write the records of one step; returns its metrics, empty where there are no records."""
        records, self._step = self._step, []
        if not records:
            return {}
        if self.writes:
            self.folder.write_rollouts(f"train-{records[0]['step']:06d}", records)
        self._tokens += sum(record["tokens"]["completion"] for record in records)
        return rollout_metrics(records, self.lexicon)

    def take_seconds(self) -> dict[str, float]:
        """Return, since the last call, wall time per phase, response tokens per second of sampling and of updating, and
        the peak memory of this process's GPU."""
        taken = self.timer.take()
        tokens, self._tokens = self._tokens, 0
        for phase in ("rollout", "update"):
            seconds = taken.get(f"seconds/{phase}", 0.0)
            if tokens and seconds:
                taken[f"tokens_per_second/{phase}"] = tokens / seconds
        if torch.cuda.is_available():
            taken["memory/peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            torch.cuda.reset_peak_memory_stats()
        return taken


@dataclass(eq=False)
class HeldOutEvaluation(_RunRecords):
    """Collects the records of held-out responses, batch by batch, then writes them and a line of evaluations.jsonl.

    Attributes:
        examples: number of this process's responses whose steps are scored: the first ones, so that the same problems
            can be compared over the run.
    """

    examples: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start a new evaluation, without records."""
        self._own = 0
        self._records: list[Record] = []  # of all processes

    def to_score(self, count: int) -> int:
        """Return how many of this process's next `count` responses are among the examples."""
        return max(0, min(self.examples - self._own, count))

    def add(self, records: list[Record]) -> None:
        """Add the records of one batch of this process. Collective, which keeps the order of the problems."""
        self._own += len(records)
        self._records += self.gather(records)

    def finish(
        self, *, step: int, seconds: float, responses: int | None = None, name: str | None = None
    ) -> dict[str, float]:
        """Write evaluations.jsonl and rollouts/; returns the metrics.

        name: of this set of problems where there are several, `set` in its line. responses: their number, None where
        the data set has no length. Accelerate repeats the first problems to fill the last round of batches; the
        repetitions are left out.
        """
        records = self._records[:responses]
        metrics = evaluation_metrics(records, self.lexicon)
        if self.writes:
            of_set = {"set": name} if name else {}
            self.folder.append("evaluations.jsonl", {"step": step, **of_set, **metrics, "seconds": round(seconds, 3)})
            self.folder.write_rollouts(f"eval-{step:06d}" + (f"-{name}" if name else ""), records)
        return metrics
