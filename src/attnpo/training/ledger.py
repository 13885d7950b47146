"""Bookkeeping of one generation batch: its response records, and what credit did to them as it becomes known."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from attnpo.credit.base import CreditResult
from attnpo.training.records import Record, add_credit


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
