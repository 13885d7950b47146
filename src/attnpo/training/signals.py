"""Bookkeeping of one generation batch: its response records, and what credit did to them as it becomes known.

Credit inside a forward that runs anyway: the layer between TRL's trainer and ours.

TRL reads `inputs["advantages"]` after the forward that gives the log-probabilities, so credit formed from signals of
that very forward still reaches the loss. On-policy it is the loss forward; where the policy moves between generation
and use, TRL runs an old-log-prob forward, and scores must come from that one, the policy that sampled.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer

from attnpo.attention.capture import capture_scores
from attnpo.credit.base import FORWARD_SIGNALS, CreditMethod, CreditResult, assign_credit
from attnpo.steps.spans import LocatedSteps
from attnpo.training.records import Record, add_credit
from attnpo.training.rollout import StepTensors, credit_inputs, longest_answer, stage_signals


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


class CreditInForward(GRPOTrainer):
    """GRPOTrainer that collects the signals of a credit method and puts (B, C) advantages where the loss reads them."""

    # Optional, or of several types, as their owners declare them; not so once the trainer is built.
    args: Any
    model: Any
    accelerator: Any
    credit: CreditMethod
    heads: list[tuple[int, int]] | None

    def _prepare_collecting(self) -> None:
        """To be called once TRL's own `__init__` is done."""
        generate_every = self.args.steps_per_generation * self.num_iterations
        # TRL runs an old-log-prob forward exactly then.
        self._scores_before_rewards: bool = self.args.gradient_accumulation_steps % generate_every != 0 or (
            self.use_vllm and self.vllm_importance_sampling_correction
        )
        self._located: list[LocatedSteps] = []  # of the responses generated last
        self._longest_answer = 0  # of the training batch, in tokens
        self._forward_batch: dict[str, Any] | None = None  # set while a forward should also yield signals
        self._signals: dict[str, Tensor] | None = None
        self._ledger = RolloutLedger()
        self._timer = PhaseTimer()

    @contextmanager
    def _collecting(self, wanted: bool, batch: dict[str, Any] | None = None):
        """While active, the policy's next log-prob forward also yields the signals the credit method asks for."""
        if not wanted or not self.credit.signals & FORWARD_SIGNALS:
            yield
            return
        self._forward_batch = {} if batch is None else batch
        try:
            yield
        finally:
            self._forward_batch = None

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        batch = self._forward_batch
        if batch is None or model is self.ref_model:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
            )
        self._forward_batch = None  # one forward only: a reference or adapter-free pass that follows is not it
        if "step_ids" in batch:
            steps, longest = StepTensors.of_batch(batch), self._longest_answer
        else:  # before the rewards: steps are known already, outcomes are not
            steps = StepTensors.pack(self._located[: len(input_ids)], logits_to_keep, input_ids.device)
            longest = longest_answer(self._located)
        size = batch_size or len(input_ids)
        wants_entropy = compute_entropy or "entropy" in self.credit.signals
        chunks = []
        for start in range(0, len(input_ids), size):
            rows = slice(start, start + size)
            layout = steps[rows].layout(attention_mask[rows], longest)
            with self._capture(model, layout) as captured:
                logps, entropy, aux = super()._get_per_token_logps_and_entropies(
                    model, input_ids[rows], attention_mask[rows], logits_to_keep, None, wants_entropy, **kwargs
                )
            chunks.append((logps, entropy, aux, captured))
        logps = torch.cat([chunk[0] for chunk in chunks])
        aux = torch.stack([chunk[2] for chunk in chunks]).mean() if chunks[0][2] is not None else None
        entropy, self._signals = None, {}
        if wants_entropy:
            entropy = torch.cat([chunk[1] for chunk in chunks])
            self._signals["entropy"] = entropy.detach()
        if self.heads is not None:
            self._signals["attention"] = torch.cat([captured.scores.mean(dim=0) for *_, captured in chunks])
        if "outcome_advantages" in batch:
            self._give_credit(batch, self._signals, in_loss=True)
        return logps, entropy if compute_entropy else None, aux

    @contextmanager
    def _capture(self, model, layout):
        if self.heads is None:
            yield None
            return
        with capture_scores(model, layout, self.heads) as captured:
            yield captured

    def _compute_loss(self, model, inputs):
        in_this_forward = self.model.training and "step_ids" in inputs and not self._scores_before_rewards
        with self._collecting(in_this_forward, inputs):
            return super()._compute_loss(model, inputs)

    def _give_credit(self, batch: dict[str, Any], signals: dict[str, Tensor], *, in_loss: bool = False) -> None:
        """Spread the advantages of `batch` over tokens, in place, and note what was done for the records."""
        with self._timer("credit"):
            signals = {**stage_signals(batch), **signals}
            inputs = credit_inputs(batch, step=self.state.global_step + 1, signals=signals)
            result = assign_credit(self.credit, inputs)
            batch["advantages"] = result.advantages
            if result.gates is not None:
                # TRL forms its mask before this forward, so gates made in it would change nothing.
                assert not in_loss, f"credit {self.credit.name!r}: gates cannot come out of the loss's own forward"
                batch["tool_mask"] = result.gates.long()  # TRL's name for "these tokens carry loss"
            self._ledger.note(batch, result, signals)
