"""What a training run writes down: the records of its responses, and the metrics made of them.

A layer between the forward that yields credit (:mod:`attnpo.training.signals`) and the trainer: nothing here changes a
number that the loss sees.
"""

from __future__ import annotations

from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from attnpo.steps.spans import LocatedSteps
from attnpo.training.metrics import rollout_metrics
from attnpo.training.records import Record, RunFolder, add_rewards, response_record
from attnpo.training.rewards import RewardSetup
from attnpo.training.signals import CreditInForward


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
