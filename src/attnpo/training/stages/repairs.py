"""Repairs of wrong responses, and the batch that is trained on instead of the one that was sampled (credit/iop).

1. Plan: in every group with correct and wrong responses an anchor for each wrong one; other groups fall back.
2. Sample candidates under the repair prompt, verify, audit, choose (attempts.py).
3. Align each wrong response with its repair; keep the first edits where those already verify.
4. Rows (here): fallback rows; wrong and repaired rows with the gates of the edits kept; candidates under the repair
   prompt; filler rows without a gate, so that all processes have as many rows, a multiple of `steps_per_generation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attnpo.credit.advantages import outcome_advantages
from attnpo.credit.iop import IopCredit, Role
from attnpo.credit.iop.audit import make_audit
from attnpo.credit.iop.edits import masks
from attnpo.credit.iop.repairs import plan_repairs
from attnpo.errors import InputError
from attnpo.training.batch import STAGE_SIGNAL, GenerationBatch
from attnpo.training.policy import Policy
from attnpo.training.stages.attempts import Attempt, try_repairs
from attnpo.training.stages.base import Batch, Row, rebuild


@dataclass(frozen=True)
class RepairRow:
    """A row with its part in the loss: `gates` None leaves every token open; `share` of a response's weight 1/N."""

    row: Row
    role: Role
    gates: Sequence[bool] | None = None
    share: float = 1.0


class Repairs:
    """The stage that makes the signals `repair_role`, `repair_gates` and `repair_weight`."""

    def __init__(self, method: Any, policy: Policy) -> None:
        if not isinstance(method, IopCredit):
            raise InputError(f"credit {method.name!r}: repairs are made with the options of the method 'iop'")
        self.method, self.tools = method, policy
        refuse_what_cannot_work(policy)
        self.audit = make_audit(
            method.audit, judge=method.judge, api_key_env=method.judge_api_key_env, cache=method.judge_cache
        )

    def __call__(self, batch: Batch, rollouts: GenerationBatch) -> Batch:
        plan = plan_repairs(
            rollouts.verdicts,
            rollouts.completion_ids,
            rollouts.group_size,
            anchor=self.method.anchor,
            max_repairs=self.method.max_repairs,
        )
        self.tools.note("repair/fallback_groups", plan.fallback_groups)
        self.tools.note("repair/untried", plan.untried)
        attempts = try_repairs(plan.repairs, rollouts, self.method, self.audit, self.tools)
        rows = self._fallback_rows(plan.fallback, batch, rollouts)
        for attempt in attempts:
            rows += self._pair(attempt, batch, rollouts)
        rows = self._with_candidates(rows, attempts, batch, rollouts)
        return self._assemble(rows, batch, rollouts)

    def _fallback_rows(self, responses: Sequence[int], batch: Batch, rollouts: GenerationBatch) -> list[RepairRow]:
        """Responses whose outcome advantage is 0 have no gradient and need no row."""
        advantages = batch["outcome_advantages"].tolist()
        return [RepairRow(_own(i, batch, rollouts), Role.OUTCOME) for i in responses if advantages[i] != 0]

    def _pair(self, attempt: Attempt, batch: Batch, rollouts: GenerationBatch) -> list[RepairRow]:
        """The wrong response and its repair, under the original prompt. A side without a gate needs no row."""
        if attempt.chosen is None:
            return []
        repaired = attempt.candidates[attempt.chosen]
        own = _own(attempt.wrong, batch, rollouts)
        gates = masks(attempt.edits, len(own.completion_ids), len(repaired.ids))
        self.tools.note("repair/gated_tokens_wrong", sum(gates[0]))
        self.tools.note("repair/gated_tokens_repaired", sum(gates[1]))
        other = Row(
            source=attempt.wrong,
            prompt_ids=own.prompt_ids,
            completion_ids=repaired.ids,
            located=repaired.located,
            correct=True,
            advantage=0.0,
            reward=1.0,
            is_source=False,
        )
        pair = (RepairRow(own, Role.WRONG, gates[0]), RepairRow(other, Role.REPAIRED, gates[1]))
        return [side for side in pair if side.gates is not None and any(side.gates)]

    def _with_candidates(
        self, rows: list[RepairRow], attempts: Sequence[Attempt], batch: Batch, rollouts: GenerationBatch
    ) -> list[RepairRow]:
        """The repair mode's own rows, as long as there is room; candidates that score alike teach nothing."""
        limit = int(self.method.row_limit * self.tools.responses)
        for attempt in attempts if self.method.lambda_rep > 0 and self.method.candidates > 1 else ():
            scores = torch.tensor([[candidate.score for candidate in attempt.candidates]])
            advantages = outcome_advantages(scores, self.tools.args.advantage)[0].tolist()
            if not any(advantages):
                continue
            if len(rows) + len(attempt.candidates) > limit:
                self.tools.note("repair/rows_left_out", len(attempt.candidates))
                continue
            for candidate, advantage in zip(attempt.candidates, advantages, strict=True):
                row = Row(
                    source=attempt.wrong,
                    prompt_ids=attempt.prompt_ids,
                    completion_ids=candidate.ids,
                    located=candidate.located,
                    correct=candidate.right is True,
                    advantage=advantage,
                    reward=candidate.score,
                    is_source=False,
                )
                rows = [*rows, RepairRow(row, Role.CANDIDATE, share=1 / len(attempt.candidates))]
        return rows

    def _assemble(self, rows: list[RepairRow], batch: Batch, rollouts: GenerationBatch) -> Batch:
        """Filler up to a multiple of the number of micro-batches, the same on every process, and the signals."""
        self.tools.note("repair/rows", len(rows))
        micro_batches = self.tools.args.steps_per_generation
        everywhere = self.tools.accelerator.gather(torch.tensor([max(1, len(rows))], device=self.tools.device))
        total = -(-int(everywhere.max()) // micro_batches) * micro_batches
        shortest = min(range(len(rollouts.rows)), key=lambda i: len(rollouts.completion_ids[i]))
        filler = RepairRow(_own(shortest, batch, rollouts, is_source=False), Role.FILLER, share=0.0)
        rows = [*rows, *[filler] * (total - len(rows))]
        new = rebuild(batch, [row.row for row in rows], self.tools)
        mask = new["completion_mask"].bool()
        gates = torch.zeros_like(mask)
        for i, row in enumerate(rows):
            if row.gates is not None:
                gates[i, : len(row.gates)] = torch.tensor(row.gates, device=mask.device)
            elif row.role != Role.FILLER:
                gates[i] = mask[i]
        # TRL divides by the number of rows; N, the responses sampled, takes its place.
        scale = len(rows) / len(rollouts.rows)
        device = self.tools.device
        new[f"{STAGE_SIGNAL}repair_role"] = torch.tensor([int(row.role) for row in rows], device=device)
        new[f"{STAGE_SIGNAL}repair_gates"] = gates
        new[f"{STAGE_SIGNAL}repair_weight"] = torch.tensor([row.share * scale for row in rows], device=device)
        new["num_items_in_batch"] = self.tools.accelerator.gather(gates.sum()).sum()
        return new


def _own(i: int, batch: Batch, rollouts: GenerationBatch, *, is_source: bool = True) -> Row:
    """A response of the batch as it is."""
    return Row(
        source=i,
        prompt_ids=rollouts.prompt_ids[i],
        completion_ids=rollouts.completion_ids[i],
        located=rollouts.located[i],
        correct=bool(batch["correct"][i]),
        advantage=float(batch["outcome_advantages"][i]),
        reward=batch["rewards"][i],
        is_source=is_source,
    )


def refuse_what_cannot_work(policy: Policy) -> None:
    """Raises InputError, with the reason, for settings under which repairs would be wrong or would hang."""
    if policy.responses % policy.group_size:
        raise InputError(
            f"per_device_train_batch_size × steps_per_generation: found {policy.responses}, expected a multiple of "
            f"num_generations ({policy.group_size}): credit='iop' repairs within a group, so no group may be spread "
            "over processes"
        )
    if policy.corrects_for_vllm:
        raise InputError(
            "option vllm_importance_sampling_correction: found true, expected false: a repair is sampled under the "
            "repair prompt and trained under the original one, so vLLM's log-probabilities are of another condition"
        )
    policy.refuse_uneven_generation("the processes repair different numbers of responses")
