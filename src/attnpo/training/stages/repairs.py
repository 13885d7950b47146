"""Repairs of wrong responses, and the batch built from them in place of the sampled one (credit/iop).

1. Plan: in every group with correct and wrong responses an anchor for each wrong one; other groups fall back.
2. Sample candidates under the repair prompt, verify, audit, score; choose the best.
3. Align each wrong response with its repair; keep only the first edits where those already verify.
4. Rows: fallback rows; wrong and repaired rows with the gates of the kept edits; candidates under the repair prompt;
   filler rows without open gates, so that all processes have the same number of rows, a multiple of
   `steps_per_generation`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from attnpo.credit.advantages import outcome_advantages
from attnpo.credit.iop import IopCredit, Role
from attnpo.credit.iop.audit import Audit, Case, make_audit
from attnpo.credit.iop.repairs import (
    Edit,
    align,
    best,
    edit_distance,
    masks,
    plan_repairs,
    repair_prompt,
    score,
    truncate,
)
from attnpo.errors import InputError
from attnpo.steps.formats import ThinkingFormat
from attnpo.steps.spans import LocatedSteps, locate_steps
from attnpo.training.batch import STAGE_SIGNAL, GenerationBatch
from attnpo.training.policy import Policy
from attnpo.training.records import prompt_text
from attnpo.training.stages.base import Batch, Row, rebuild


@dataclass(frozen=True)
class RepairRow:
    """A row with its part in the loss: `gates` None opens all tokens; `share` of a response's weight 1/N."""

    row: Row
    role: Role
    gates: Sequence[bool] | None = None
    share: float = 1.0


class Repairs:
    """The stage of the signals `repair_role`, `repair_gates` and `repair_weight`."""

    def __init__(self, method: Any, policy: Policy) -> None:
        if not isinstance(method, IopCredit):
            raise InputError(f"credit {method.name!r}: repairs need the options of the method 'iop'")
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
        rows = self._with_candidates(rows, attempts)
        return self._assemble(rows, batch, rollouts)

    def _fallback_rows(self, responses: Sequence[int], batch: Batch, rollouts: GenerationBatch) -> list[RepairRow]:
        """Return rows for fallback responses; those with outcome advantage 0 have no gradient and need none."""
        advantages = batch["outcome_advantages"].tolist()
        return [RepairRow(_own(i, batch, rollouts), Role.OUTCOME) for i in responses if advantages[i] != 0]

    def _pair(self, attempt: Attempt, batch: Batch, rollouts: GenerationBatch) -> list[RepairRow]:
        """Return wrong response and repair, under the original prompt. A side without open gates needs no row."""
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

    def _with_candidates(self, rows: list[RepairRow], attempts: Sequence[Attempt]) -> list[RepairRow]:
        """Add rows for candidates under the repair prompt, up to the limit; equal scores give no rows."""
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
        """Add filler rows up to a multiple of the micro-batches, the same on every process, and the signals."""
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
        # TRL divides by the number of rows; this factor makes it N, the number of sampled responses.
        scale = len(rows) / len(rollouts.rows)
        device = self.tools.device
        new[f"{STAGE_SIGNAL}repair_role"] = torch.tensor([int(row.role) for row in rows], device=device)
        new[f"{STAGE_SIGNAL}repair_gates"] = gates
        new[f"{STAGE_SIGNAL}repair_weight"] = torch.tensor([row.share * scale for row in rows], device=device)
        new["num_items_in_batch"] = self.tools.accelerator.gather(gates.sum()).sum()
        return new


def _own(i: int, batch: Batch, rollouts: GenerationBatch, *, is_source: bool = True) -> Row:
    """Return a response of the batch as a row."""
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
    """Raise InputError, with the reason, for settings under which repairs would be wrong or would hang."""
    if policy.responses % policy.group_size:
        raise InputError(
            f"per_device_train_batch_size × steps_per_generation: found {policy.responses}, expected a multiple of "
            f"num_generations ({policy.group_size}): credit='iop' repairs within a group, so no group may be split "
            "over processes"
        )
    if policy.corrects_for_vllm:
        raise InputError(
            "option vllm_importance_sampling_correction: found true, expected false: a repair is sampled under the "
            "repair prompt and trained under the original one, so vLLM's log-probabilities have another condition"
        )
    policy.refuse_uneven_generation("the processes repair different numbers of responses")


@dataclass(frozen=True)
class Candidate:
    """One repair. `right` None: no verdict. `refused`: why it is not usable; None: it is. `score`: NaN without a
    verdict."""

    ids: list[int]
    located: LocatedSteps
    right: bool | None
    refused: str | None
    distance: float
    score: float


@dataclass(frozen=True)
class Attempt:
    """A wrong response, its candidates, the index of the chosen one (None: no candidate), the edits kept."""

    wrong: int
    anchor: int
    prompt_ids: list[int]
    candidates: list[Candidate]
    chosen: int | None
    edits: list[Edit]


def try_repairs(
    pairs: Sequence[tuple[int, int]], rollouts: GenerationBatch, method: IopCredit, audit: Audit, tools: Policy
) -> list[Attempt]:
    """Make one attempt per (wrong, anchor) whose repair prompt is not too long, and count the outcomes."""
    prompts = [_prompt(wrong, anchor, rollouts, method.prompt) for wrong, anchor in pairs]
    prompted = list(zip(pairs, tools.prompt_ids(prompts), strict=True))
    new_tokens = method.max_new_tokens or tools.max_completion_length
    limit = method.max_prompt_tokens or math.inf
    if tools.max_positions is not None and new_tokens is not None:
        limit = min(limit, tools.max_positions - new_tokens)
    fitting = [(pair, ids) for pair, ids in prompted if len(ids) <= limit]
    sampled = tools.sample([ids for _, ids in fitting], method.candidates, max_new_tokens=new_tokens)
    owners = [wrong for ((wrong, _), _), group in zip(fitting, sampled, strict=True) for _ in group]
    verdicts = _verify(owners, [ids for group in sampled for ids in group], rollouts, tools)
    attempts = []
    for i, (((wrong, anchor), ids), group) in enumerate(zip(fitting, sampled, strict=True)):
        rights = verdicts[i * method.candidates : (i + 1) * method.candidates]
        candidates = [_candidate(rollouts, wrong, *one, tools) for one in zip(group, rights, strict=True)]
        attempts.append(Attempt(wrong, anchor, ids, candidates, None, []))
    attempts = _choose(_audited(attempts, rollouts, method, audit, tools.form), rollouts, method, tools)
    _count(attempts, rollouts, tools)
    tools.note("repair/too_long", len(prompted) - len(fitting))
    return attempts


def _prompt(wrong: int, anchor: int, rollouts: GenerationBatch, template: str) -> Any:
    row, texts = rollouts.rows[wrong], rollouts.located
    return repair_prompt(
        row["prompt"],
        wrong=texts[wrong].text,
        anchor=texts[anchor].text,
        template=template,
        problem=row.get("problem"),
    )


def _verify(
    owners: Sequence[int], completions: Sequence[list[int]], rollouts: GenerationBatch, tools: Policy
) -> list[bool | None]:
    """Judge each completion as a response to the problem of response `owners[i]`."""
    return tools.judge([rollouts.rows[i] for i in owners], completions)


def _candidate(rollouts: GenerationBatch, wrong: int, ids: list[int], right: bool | None, tools: Policy) -> Candidate:
    own = rollouts.completion_ids[wrong]
    refused = None if right else "not verified"
    if ids == own:
        refused = "identical"
    located = locate_steps(tools.tokenizer, ids, tools.args.lexicon, tools.form)
    return Candidate(ids, located, right, refused, edit_distance(own, ids), score=float("nan"))


def _audited(
    attempts: list[Attempt], rollouts: GenerationBatch, method: IopCredit, audit: Audit, form: ThinkingFormat
) -> list[Attempt]:
    """Audit all verified candidates at once, and score every candidate."""
    texts = rollouts.located
    open_ones = [(a, c) for a in attempts for c in a.candidates if c.refused is None]
    cases = [
        Case(
            problem=prompt_text(rollouts.rows[a.wrong]["prompt"]),
            wrong=texts[a.wrong].text,
            repaired=c.located.text,
            anchor=texts[a.anchor].text,
            form=form,
        )
        for a, c in open_ones
    ]
    reasons = {id(c): reason for (_, c), reason in zip(open_ones, audit(cases) if cases else [], strict=True)}

    def scored(candidate: Candidate) -> Candidate:
        refused = reasons.get(id(candidate), candidate.refused)
        if candidate.right is None:
            return candidate
        value = score(candidate.right, refused is None, candidate.distance, method.lambda_edit)
        return replace(candidate, refused=refused, score=value)

    return [replace(attempt, candidates=[scored(c) for c in attempt.candidates]) for attempt in attempts]


def _choose(attempts: list[Attempt], rollouts: GenerationBatch, method: IopCredit, tools: Policy) -> list[Attempt]:
    """Choose the best candidate of each attempt and the edits to keep."""
    chosen = [best([c.score for c in a.candidates], [c.refused is None for c in a.candidates]) for a in attempts]
    found = [(a, a.candidates[k]) for a, k in zip(attempts, chosen, strict=True) if k is not None]
    pairs = [(rollouts.completion_ids[a.wrong], candidate.ids) for a, candidate in found]
    edits = [align(*pair) for pair in pairs]

    def verify(numbers: Sequence[int], grafts: Sequence[list[int]]) -> list[bool]:
        return [bool(v) for v in _verify([found[i][0].wrong for i in numbers], grafts, rollouts, tools)]

    kept = truncate(pairs, edits, method.truncate, verify)
    for of_pair, count in zip(edits, kept, strict=True):
        tools.note("repair/edits", len(of_pair))
        tools.note("repair/edits_kept", count)
    cut = iter([of_pair[:count] for of_pair, count in zip(edits, kept, strict=True)])
    return [
        replace(a, chosen=k, edits=next(cut) if k is not None else []) for a, k in zip(attempts, chosen, strict=True)
    ]


def _count(attempts: Sequence[Attempt], rollouts: GenerationBatch, tools: Policy) -> None:
    """Note the metrics of the step, and write the repairs into the records of the wrong responses."""
    candidates = [candidate for attempt in attempts for candidate in attempt.candidates]
    tools.note("repair/tried", len(attempts))
    tools.note("repair/candidates", len(candidates))
    tools.note("repair/verified", sum(c.right is True for c in candidates))
    tools.note("repair/passed", sum(c.refused is None for c in candidates))
    tools.note("repair/chosen", sum(a.chosen is not None for a in attempts))
    # Reasons for no repair: no candidate was right, or the audit refused all that were right.
    failed = [a for a in attempts if a.chosen is None]
    tools.note("repair/none_verified", sum(not any(c.right for c in a.candidates) for a in failed))
    tools.note("repair/none_passed", sum(any(c.right for c in a.candidates) for a in failed))
    tools.note("repair/identical", sum(c.refused == "identical" for c in candidates))
    for reason, count in sorted(Counter(c.refused for c in candidates if c.right and c.refused).items()):
        tools.note(f"repair/refused/{reason.replace(' ', '_')}", count)
    for a in attempts:
        text = None if a.chosen is None else a.candidates[a.chosen].located.text
        refused = [c.refused for c in a.candidates]
        rollouts.records[a.wrong]["repair"] = {"text": text, "edits_kept": len(a.edits), "refused": refused}
