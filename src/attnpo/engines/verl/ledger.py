"""Credit for one verl batch, from the sampled ids to the advantage of every token. Does not import verl.

The steps that TRL's trainer performs too are the same code: `GenerationBatch` finds the steps and computes the outcome
advantages, `RewardSetup` adds the length reward, `assign_credit` runs the method, `Recorder` writes the run folder. The
ledger sorts verl's rows, which come in any order, into groups, and the results back into verl's order.

Shape legend: N responses of a batch, C tokens of the longest one, S most steps of any one, G responses per problem.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from attnpo.attention.heads import HEADS, Head, load_heads, load_threshold, parse_heads
from attnpo.credit.attnpo import AttnPOCredit
from attnpo.credit.base import assign_credit
from attnpo.credit.first_correct import FirstCorrectCredit, stated_answers
from attnpo.engines.verl.options import VerlOptions
from attnpo.engines.verl.wire import pack_spans, unpack_scores
from attnpo.errors import InputError, RunError
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.rewards.verdict import REWARD_OF, Verdict
from attnpo.steps.formats import ThinkingFormat
from attnpo.training.batch import GenerationBatch, credit_inputs
from attnpo.training.method_options import OF_HEADS
from attnpo.training.recording import HeldOutEvaluation, Recorder, new_records
from attnpo.training.records import Record, RunFolder
from attnpo.training.rewards import LENGTH, RewardSetup

ACCURACY = "accuracy"
WHY_MISSING = (
    "The other rollouts failed (the log of AgentLoopWorkerTQ has the reason). With "
    "trainer.v1.sampler.sync_refill_failed_groups=true verl samples other problems in their place"
)


@dataclass
class Rows:
    """The responses of one batch: lists of N entries in verl's order.

    Attributes:
        uids: id of the problem's group; numbers: index of the response in its group.
        prompts, responses: sampled token ids.
        rows: prompt, reference and id of the problem, for the records.
        rewards: values of verl's reward function; verdicts: those of this package's verifier, None where a custom
            reward function was used.
    """

    uids: list[str]
    numbers: list[int]
    prompts: list[list[int]]
    responses: list[list[int]]
    rows: list[dict[str, Any]]
    rewards: list[float]
    verdicts: list[str | None]

    def __len__(self) -> int:
        return len(self.uids)

    def bytes(self) -> int:
        """Return the size of the tensors in verl's store: 8 bytes per token id, 4 per response token's reward."""
        return sum(8 * len(ids) for ids in self.prompts) + sum((8 + 4) * len(ids) for ids in self.responses)


class Ledger:
    """Credit and records of a run on verl.

    Args:
        options: of the run.
        tokenizer, form: the model's tokenizer and thinking format.
        end_ids: tokens that end a response.
        group_size: G; steps: number of optimiser steps of the run, for the delay T.
        heads: heads of the attention signal; None if the method does not use it.
    """

    def __init__(
        self,
        options: VerlOptions,
        tokenizer: Any,
        form: ThinkingFormat,
        *,
        end_ids: Sequence[int],
        group_size: int,
        steps: int,
        heads: list[Head] | None,
    ) -> None:
        self.options, self.tokenizer, self.form = options, tokenizer, form
        self.end_ids, self.group_size, self.heads = list(end_ids), group_size, heads
        self.credit = options.make_credit(steps)
        self.folder = RunFolder(options.output_dir, rollouts=options.record_rollouts)
        self._judge = AccuracyReward()  # only holds the verdicts; the reward workers verify
        self.rewards = RewardSetup.build([self._judge], options)
        self.names = [ACCURACY, *([LENGTH] if self.rewards.has_length else [])]
        self.rewards.bind(self.names, tokenizer, form)
        where: dict[str, Any] = {"folder": self.folder, "lexicon": options.lexicon, "gather": list}
        self.recorder = Recorder(**where)
        self.held_out = HeldOutEvaluation(**where)
        self.last_records: list[Record] = []
        self._order: list[int] = []
        self._batch = GenerationBatch(rows=[], group_size=group_size)

    def use_threshold_of(self, heads_file: Path) -> None:
        """Take the threshold from the head file if `credit_threshold` is `heads`."""
        if self.options.credit_threshold == OF_HEADS and isinstance(self.credit, AttnPOCredit):
            self.credit = replace(self.credit, threshold=load_threshold(heads_file))

    # ---------------------------------------------------------------- one batch of training

    def locate(self, rows: Rows) -> list[Int64[Tensor, " n"]]:
        """Begin a batch: find the steps on the sampled ids. Returns the engine's input rows, in verl's order."""
        with self.recorder.timer("credit"):
            self._order = grouped(rows.uids, rows.numbers, self.group_size)
            self._batch = self._located(rows, self._order, self.group_size)
            batch = self._batch
            packed = [
                pack_spans(located, len(ids)) for located, ids in zip(batch.located, batch.prompt_ids, strict=True)
            ]
        return self._back(packed)

    def _located(self, rows: Rows, order: list[int], group_size: int) -> GenerationBatch:
        batch = GenerationBatch([rows.rows[i] for i in order], group_size)
        batch.add_responses(
            [rows.prompts[i] for i in order],
            [rows.responses[i] for i in order],
            self.tokenizer,
            self.options.lexicon,
            self.end_ids,
            self.form,
        )
        return batch

    def _back(self, values: Sequence[Any]) -> list[Any]:
        """Reorder values from the order of the groups to verl's order."""
        placed: list[Any] = [None] * len(values)
        for value, place in zip(values, self._order, strict=True):
            placed[place] = value
        return placed

    def advantages(
        self,
        rows: Rows,
        *,
        step: int,
        scores: Sequence[Float[Tensor, " n"]] | None = None,
        entropies: Sequence[Float[Tensor, " n"]] | None = None,
    ) -> list[Float[Tensor, " n"]]:
        """Return the advantage of every token of every response, in verl's order. Call `locate` first.

        scores: the rows that the engine returned; entropies: one per response token. `step` counts from 1.
        """
        batch, order, options = self._batch, self._order, self.options
        with self.recorder.timer("credit"):
            batch.add_rewards(self._rewards(rows, order, step), self.rewards)
            weights = torch.ones(len(self.names))
            shown = {"names": self.names, "weights": weights, "split": "train", "step": step}
            batch.records = new_records(batch, self.rewards, **shown)
            self.recorder.open(batch.records)
            lengths = [len(ids) for ids in batch.completion_ids]
            width = max(lengths)
            entries, _ = batch.outcome(self.rewards, weights, options.advantage, width)
            entries["completion_mask"] = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
            outcome = zip(entries["outcome_advantages"].tolist(), entries["group_accuracy"].tolist(), strict=True)
            for record, (advantage, accuracy) in zip(batch.records, outcome, strict=True):
                record.update(advantage=advantage, group_accuracy=accuracy)
            signals = self._signals(entries, scores, entropies)
            result = assign_credit(self.credit, credit_inputs(entries, step=step, signals=signals))
            if result.gates is not None:
                raise RunError(f"credit {self.credit.name!r}: closes gates, which verl's loss does not have")
            self.recorder.note(entries, result, signals)
            self.recorder.all_credited()
            self.last_records = self.recorder.close()
            self.recorder.add_to_step(self.last_records)
            tokens = [row[:length] for row, length in zip(result.advantages, lengths, strict=True)]
        return self._back(tokens)

    def _rewards(self, rows: Rows, order: list[int], step: int) -> Float[Tensor, "N K"]:
        """Return accuracy and, if there is one, the length reward; NaN where the answer could not be verified."""
        values = torch.tensor([[judged(rows.rewards[i], rows.verdicts[i])] for i in order])
        self._take_verdicts([rows.verdicts[i] for i in order])
        if self.rewards.has_length:
            values = torch.cat([values, torch.full_like(values, torch.nan)], dim=1)
        lengths = torch.tensor([len(ids) for ids in self._batch.completion_ids])
        return self.rewards.add_length_reward(values, lengths, self.group_size, step=step)

    def _take_verdicts(self, verdicts: list[str | None]) -> None:
        """Use these verdicts for the records; a custom reward function gives none."""
        known = [Verdict(verdict) for verdict in verdicts if verdict is not None]
        self._judge.last_verdicts = known
        self.rewards.functions[0] = self._judge if len(known) == len(verdicts) else judged_elsewhere

    def _signals(
        self,
        entries: dict[str, Any],
        scores: Sequence[Float[Tensor, " n"]] | None,
        entropies: Sequence[Float[Tensor, " n"]] | None,
    ) -> dict[str, Tensor]:
        """Return the signals that the credit method requires, in the order of the groups."""
        signals: dict[str, Tensor] = {}
        counts, width = entries["num_steps"].tolist(), entries["step_lengths"].shape[1]
        if "attention" in self.credit.signals:
            assert scores is not None
            signals["attention"] = unpack_scores([scores[i] for i in self._order], counts, width)
        if "entropy" in self.credit.signals:
            assert entropies is not None
            signals["entropy"] = torch.nn.utils.rnn.pad_sequence([entropies[i] for i in self._order], batch_first=True)
        if isinstance(self.credit, FirstCorrectCredit):
            right = entries["correct"].tolist()
            signals["states_answer"] = stated_answers(self._batch.located, right, width, self.credit.place)
        return signals

    def metrics(self) -> dict[str, float]:
        """Write the records of the step; return their metrics and the seconds spent here, for metrics.jsonl."""
        return {**self.recorder.end_step(), **self.recorder.take_seconds()}

    # ---------------------------------------------------------------- evaluation

    def evaluate(self, rows: Rows, step: int) -> None:
        """Keep the records of held-out responses after `step`; `held_out.finish` writes them."""
        order = sorted(range(len(rows)), key=lambda i: rows.rows[i].get("place", i))  # order of the data set
        batch = self._located(rows, order, 1)
        values = torch.tensor([[judged(rows.rewards[i], rows.verdicts[i])] for i in order])
        self._take_verdicts([rows.verdicts[i] for i in order])
        values = torch.cat([values, values.new_full((len(order), len(self.names) - 1), torch.nan)], dim=1)
        batch.add_rewards(self.rewards.without_length_reward(values), self.rewards)
        weights = torch.ones(len(self.names))
        self.held_out.add(new_records(batch, self.rewards, names=self.names, weights=weights, split="eval", step=step))

    # ---------------------------------------------------------------- state in a checkpoint

    def state(self) -> dict[str, Any]:
        """Return what a resumed run has to restore, as JSON: heads, method options, state of the length reward."""
        method = asdict(self.credit) if is_dataclass(self.credit) else {}
        return {
            "credit": self.credit.name,
            "options": method,
            "heads": None if self.heads is None else [list(head) for head in self.heads],
            "length_reward": self.rewards.length.name,
            "length_state": self.rewards.length.state(),
        }

    def load_state(self, file: Path) -> None:
        """Restore the state in `file`; its heads, delay and threshold replace those of the present options.

        Raises:
            InputError: the file was written with another credit method or length reward.
        """
        state = json.loads(file.read_text(encoding="utf-8"))
        for choice, now in (("credit", self.credit.name), ("length_reward", self.rewards.length.name)):
            if state[choice] != now:
                raise InputError(f"{file}: the run was begun with {choice} {state[choice]!r}, found {now!r} now")
        if state["heads"] is not None:
            self.heads = parse_heads(state["heads"], f"{file}: field 'heads'")
        if isinstance(self.credit, AttnPOCredit):
            self.credit = replace(self.credit, delay=state["options"]["delay"], threshold=state["options"]["threshold"])
        if state["length_state"]:
            self.rewards.length.load_state(state["length_state"])


def judged(reward: float, verdict: str | None) -> float:
    """Return the accuracy of a response: NaN if the verdict is unknown, a case that verl's reward cannot express."""
    if verdict is None:
        return reward
    known = REWARD_OF[Verdict(verdict)]
    return float("nan") if known is None else known


def judged_elsewhere(completions: list[Any], **columns: Any) -> list[None]:
    """Placeholder for a reward function whose values arrive together with the responses."""
    return [None] * len(completions)


def grouped(uids: Sequence[str], numbers: Sequence[int], group_size: int) -> list[int]:
    """Return the indices of the rows sorted by problem, in order of appearance, and by number within a problem.

    Raises:
        RunError: a problem with missing responses, which would change its baseline.
    """
    counts = Counter(uids)
    short = {uid: count for uid, count in counts.items() if count != group_size}
    if short:
        uid, count = next(iter(short.items()))
        raise RunError(
            f"problem {uid}: {count} of {group_size} responses came back; responses are missing for {len(short)} of "
            f"{len(counts)} problems. {WHY_MISSING}"
        )
    first = {uid: place for place, uid in reversed(list(enumerate(uids)))}
    return sorted(range(len(uids)), key=lambda i: (first[uids[i]], numbers[i]))


def heads_of_run(folder: Path) -> list[Head]:
    """Load the heads of a run folder."""
    return load_heads(folder / HEADS)


__all__ = ["Ledger", "Record", "Rows", "grouped", "heads_of_run", "judged", "judged_elsewhere"]
