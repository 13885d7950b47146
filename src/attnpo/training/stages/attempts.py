"""Attempts to repair wrong responses: candidates are sampled, verified, audited, scored; the best is cut to size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from attnpo.credit.iop import IopCredit
from attnpo.credit.iop.audit import Audit, Case
from attnpo.credit.iop.edits import Edit, align, truncate
from attnpo.credit.iop.repairs import best, edit_distance, repair_prompt, score
from attnpo.steps.spans import LocatedSteps, locate_steps
from attnpo.training.batch import GenerationBatch
from attnpo.training.policy import Policy
from attnpo.training.records import prompt_text


@dataclass(frozen=True)
class Candidate:
    """One repair. `right` None: nobody could say. `refused`: why it is not usable; None: it is. `score`: NaN where
    nobody could say."""

    ids: list[int]
    located: LocatedSteps
    right: bool | None
    refused: str | None
    distance: float
    score: float


@dataclass(frozen=True)
class Attempt:
    """A wrong response, its candidates, the number of the chosen one (None: there is none), the edits to it kept."""

    wrong: int
    anchor: int
    prompt_ids: list[int]
    candidates: list[Candidate]
    chosen: int | None
    edits: list[Edit]


def try_repairs(
    pairs: Sequence[tuple[int, int]], rollouts: GenerationBatch, method: IopCredit, audit: Audit, tools: Policy
) -> list[Attempt]:
    """One attempt per (wrong, anchor) whose repair prompt is not too long; everything that happens is counted."""
    prompts = [_prompt(wrong, anchor, rollouts, method.prompt) for wrong, anchor in pairs]
    asked = list(zip(pairs, tools.prompt_ids(prompts), strict=True))
    new_tokens = method.max_new_tokens or tools.max_completion_length
    limit = method.max_prompt_tokens or math.inf
    if tools.max_positions is not None and new_tokens is not None:
        limit = min(limit, tools.max_positions - new_tokens)
    fitting = [(pair, ids) for pair, ids in asked if len(ids) <= limit]
    sampled = tools.sample([ids for _, ids in fitting], method.candidates, max_new_tokens=new_tokens)
    owners = [wrong for ((wrong, _), _), group in zip(fitting, sampled, strict=True) for _ in group]
    verdicts = _verify(owners, [ids for group in sampled for ids in group], rollouts, tools)
    attempts = []
    for i, (((wrong, anchor), ids), group) in enumerate(zip(fitting, sampled, strict=True)):
        rights = verdicts[i * method.candidates : (i + 1) * method.candidates]
        candidates = [_candidate(rollouts, wrong, *one, tools) for one in zip(group, rights, strict=True)]
        attempts.append(Attempt(wrong, anchor, ids, candidates, None, []))
    attempts = _choose(_audited(attempts, rollouts, method, audit), rollouts, method, tools)
    _count(attempts, rollouts, tools)
    tools.note("repair/too_long", len(asked) - len(fitting))
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
    """Whether each completion, to the problem of response `owners[i]`, is right."""
    return tools.judge([rollouts.rows[i] for i in owners], completions)


def _candidate(rollouts: GenerationBatch, wrong: int, ids: list[int], right: bool | None, tools: Policy) -> Candidate:
    own = rollouts.completion_ids[wrong]
    refused = None if right else "not verified"
    if ids == own:
        refused = "identical"
    located = locate_steps(tools.tokenizer, ids, tools.args.lexicon)
    return Candidate(ids, located, right, refused, edit_distance(own, ids), score=float("nan"))


def _audited(attempts: list[Attempt], rollouts: GenerationBatch, method: IopCredit, audit: Audit) -> list[Attempt]:
    """All candidates that verify are audited at once; then every candidate has its score."""
    texts = rollouts.located
    open_ones = [(a, c) for a in attempts for c in a.candidates if c.refused is None]
    cases = [
        Case(
            problem=prompt_text(rollouts.rows[a.wrong]["prompt"]),
            wrong=texts[a.wrong].text,
            repaired=c.located.text,
            anchor=texts[a.anchor].text,
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
    """The best candidate of each attempt, and how many of its edits are kept."""
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
    """Metrics of the step, and the repairs in the records of the wrong responses."""
    candidates = [candidate for attempt in attempts for candidate in attempt.candidates]
    tools.note("repair/tried", len(attempts))
    tools.note("repair/candidates", len(candidates))
    tools.note("repair/verified", sum(c.right is True for c in candidates))
    tools.note("repair/passed", sum(c.refused is None for c in candidates))
    tools.note("repair/chosen", sum(a.chosen is not None for a in attempts))
    # Why wrong responses got no repair: nothing was right, everything right was refused by the audit.
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
