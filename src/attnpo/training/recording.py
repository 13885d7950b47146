"""Bookkeeping of one generation batch: its response records, and what credit did to them as it becomes known.

What a training run writes down: the records of its responses, and the metrics made of them.

A layer between the forward that yields credit (:mod:`attnpo.training.signals`) and the trainer: nothing here changes a
number that the loss sees.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

from accelerate.utils import gather_object
from jaxtyping import Float, Int
from torch import Tensor

from attnpo.credit.base import CreditResult
from attnpo.steps.spans import LocatedSteps
from attnpo.training.metrics import rollout_metrics
from attnpo.training.records import Record, RunFolder, add_credit, add_rewards, response_record
from attnpo.training.rewards import RewardSetup
from attnpo.training.signals import CreditInForward


class RolloutLedger:
    """The records of the generation batch being trained on (this process's part).

    Credit comes in micro-batches, in shuffled order, and stays on the device until the batch is closed: writing a
    record must not make the device wait.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._notes: list[dict[str, Tensor]] = []
        self._uncredited = 0

    def open(self, records: list[Record]) -> None:
        """Begin a new generation batch."""
        self.records, self._notes, self._uncredited = records, [], len(records)
        for record in records:
            record["mean_token_advantage"] = 0.0  # of a response that a method leaves out of its loss

    @property
    def complete(self) -> bool:
        """Whether every response of the batch has its credit."""
        return bool(self.records) and self._uncredited <= 0

    def note(self, batch: Mapping[str, Any], result: CreditResult, signals: Mapping[str, Tensor]) -> None:
        """Keep what credit did to the rows of one micro-batch. Rows that are no response pass."""
        mask = batch["completion_mask"]
        note = {
            "rows": batch["rollout_rows"],
            "mean": (result.advantages * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1),
        }
        optional = {"scores": signals.get("attention"), "scales": result.scales, "baseline": result.baseline}
        if result.scales is None and signals:  # a method that cuts otherwise: what it comes to for the steps shown
            optional["step_advantages"] = step_means(result.advantages, batch["step_ids"], batch["step_lengths"])
        note.update({name: tensor for name, tensor in optional.items() if tensor is not None})
        self._notes.append({name: tensor.detach() for name, tensor in note.items()})
        self._uncredited -= len(batch["rollout_rows"])

    def finish(self) -> None:
        """Credit was given to the whole batch at once, whichever rows are left in it."""
        self._uncredited = 0

    def close(self) -> list[Record]:
        """The records with their credit filled in; the ledger is empty afterwards."""
        for note in self._notes:
            numbers = {name: tensor.tolist() for name, tensor in note.items()}
            for i, row in enumerate(numbers["rows"]):
                if row >= 0:
                    add_credit(self.records[row], {name: values[i] for name, values in numbers.items()})
        records = self.records
        self.open([])
        return records


def step_means(
    values: Float[Tensor, "B C"], step_ids: Int[Tensor, "B C"], step_lengths: Int[Tensor, "B S"]
) -> Float[Tensor, "B S"]:
    """Mean of token values over the tokens of every step; 0 for a step without tokens."""
    sums = values.new_zeros(len(values), step_lengths.shape[1] + 1).scatter_add(1, step_ids, values)
    return sums[:, :-1] / step_lengths.clamp(min=1)


class PhaseTimer:
    """Seconds of wall time per phase since they were last taken. A phase inside another counts for itself only."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str, *, counts: bool = True):
        """Time the block as `phase`; with counts=False, run it untimed."""
        started, inner = time.perf_counter(), sum(self._seconds.values())
        yield
        if counts:
            inside = sum(self._seconds.values()) - inner
            self._seconds[phase] += time.perf_counter() - started - inside

    def take(self) -> dict[str, float]:
        """{"seconds/<phase>": seconds}, and start from zero."""
        taken = {f"seconds/{phase}": seconds for phase, seconds in self._seconds.items()}
        self._seconds.clear()
        return taken


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
