"""IOP's training rows, and the weight of each of their tokens in the loss, compared with a plain loop.

The stage runs whole, on arbitrary responses and repairs of a few tokens; what samples and judges is replaced.
"""

from __future__ import annotations

from itertools import cycle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpo.credit.base import assign_credit
from attnpo.credit.iop import IopCredit, Role
from attnpo.credit.iop.repairs import align, graft, masks
from attnpo.steps.formats import THINK
from attnpo.steps.spans import locate_steps
from attnpo.training.batch import GenerationBatch, StepTensors, credit_inputs, stage_signals
from attnpo.training.policy import Policy
from attnpo.training.stages.repairs import Repairs
from slow_levenshtein import fewest_edits

GROUP = 3
PIECES = ("a", "b", "c", "</think>")


def judged(ids: list[int], key: int) -> bool | None:
    """Any rule by which right and wrong are mixed, and differ from problem to problem."""
    total = (sum(ids) + 3 * len(ids) + key) % 7
    return None if total == 6 else total % 2 == 0


def passes(text: str) -> bool:
    return len(text) % 3 != 0


class CannedTools(Policy):
    """Repairs out of a list, in turn; nothing of a model."""

    max_positions = None

    def note(self, name, value): ...

    def __init__(self, trainer: Any, repairs: list[list[int]]) -> None:
        super().__init__(trainer)
        self.repairs = cycle(repairs)

    def prompt_ids(self, prompts):
        return [self.tokenizer(prompt)["input_ids"] for prompt in prompts]

    def sample(self, prefixes, count, *, max_new_tokens):
        return [[next(self.repairs) for _ in range(count)] for _ in prefixes]

    def judge(self, rows, completion_ids):
        return [judged(ids, row["key"]) for row, ids in zip(rows, completion_ids, strict=True)]


def rollouts_of(responses: list[list[int]], tokenizer: Any) -> GenerationBatch:
    rows = [{"prompt": f"P{i // GROUP}?", "key": i // GROUP} for i in range(len(responses))]
    return GenerationBatch(
        rows=rows,
        prompt_ids=[tokenizer(row["prompt"])["input_ids"] for row in rows],
        completion_ids=responses,
        located=[locate_steps(tokenizer, ids) for ids in responses],
        verdicts=[judged(ids, row["key"]) for row, ids in zip(rows, responses, strict=True)],
        group_size=GROUP,
        records=[{} for _ in rows],
    )


def run_stage(
    o: IopCredit, rollouts: GenerationBatch, advantages: list[float], repairs: Any, splits: int, tokenizer: Any
):
    """The batch that the stage makes, with a number of rows that `splits` divides."""
    count = len(advantages)
    one = torch.ones(count, dtype=torch.long)
    batch = {
        "outcome_advantages": torch.tensor(advantages),
        "group_accuracy": one.float(),
        **dict.fromkeys(("correct", "total_tokens"), one),
        "rewards": [0.0] * count,
        "rollout_rows": torch.arange(count),
        "prompts": [row["prompt"] for row in rollouts.rows],
        **StepTensors.pack(rollouts.located, max(map(len, rollouts.completion_ids))).as_batch(),
    }
    accelerator = SimpleNamespace(device="cpu", num_processes=1, gather=lambda tensor: tensor)
    sizes = {"per_device_train_batch_size": count // splits, "steps_per_generation": splits}
    args = SimpleNamespace(**sizes, advantage="rloo", lexicon="paper", credit="iop")
    trainer = SimpleNamespace(accelerator=accelerator, args=args, _tokenizer=tokenizer, num_generations=GROUP)
    trainer.use_vllm = trainer.is_fsdp_enabled = trainer.is_deepspeed_enabled = False
    trainer.max_completion_length, trainer.pad_to_multiple_of, trainer.form = 9, None, THINK
    stage = Repairs(o, CannedTools(trainer, repairs))
    stage.audit = lambda cases: [None if passes(case.repaired) else "no" for case in cases]
    return stage(batch, rollouts)


def slow_rows(
    o: IopCredit, rollouts: GenerationBatch, advantages: list[float], repairs: Any, tokenizer: Any
) -> list[tuple]:
    """Role, prompt, tokens, gates and A·share of every row of the loss Σ / N."""
    ids, verdicts, supply = rollouts.completion_ids, rollouts.verdicts, cycle(repairs)
    rows, repair_mode = [], []
    for first in range(0, len(ids), GROUP):
        group, key, asked = range(first, first + GROUP), first // GROUP, f"P{first // GROUP}?"
        original = tokenizer(asked)["input_ids"]
        right, wrong = ([i for i in group if verdicts[i] is verdict] for verdict in (True, False))
        if not right or not wrong:
            rows += [(Role.OUTCOME, original, ids[i], [True] * len(ids[i]), advantages[i]) for i in group]
            continue
        anchor = rollouts.located[min(right, key=lambda i: len(ids[i]))].text
        for i in wrong[: o.max_repairs]:
            shown = f"{asked}\n\nWrong: {rollouts.located[i].text}\n\nRight: {anchor}\n\nRepair:\n\n{asked}"
            prompt = tokenizer(shown)["input_ids"]
            if o.max_prompt_tokens is not None and len(prompt) > o.max_prompt_tokens:
                continue
            candidates = [next(supply) for _ in range(o.candidates)]
            scores, chosen, most = [], None, -1.0
            for candidate in candidates:
                verdict = judged(candidate, key)
                usable = verdict and candidate != ids[i] and passes(locate_steps(tokenizer, candidate).text)
                distance = fewest_edits(ids[i], candidate) / max(len(ids[i]), len(candidate))
                value = 1 - o.lambda_edit * distance if usable else 0.0
                scores.append(None if verdict is None else value)
                if usable and value > most:
                    chosen, most = candidate, value
            if chosen is not None:
                edits = align(ids[i], chosen)
                kept = len(edits)
                for fewer in (2 * o.truncate, o.truncate):  # the smaller one counts if both verify
                    if fewer < len(edits) and judged(graft(ids[i], chosen, edits[:fewer]), key):
                        kept = fewer
                gates = masks(edits[:kept], len(ids[i]), len(chosen))
                rows.append((Role.WRONG, original, ids[i], gates[0], -o.wrong_weight))
                rows.append((Role.REPAIRED, original, chosen, gates[1], o.repaired_weight))
            known = [value for value in scores if value is not None]
            if len(set(known)) > 1:
                among = [0.0 if v is None else v - (sum(known) - v) / (len(known) - 1) for v in scores]
                share = o.lambda_rep / len(candidates)
                repair_mode.append(
                    [
                        (Role.CANDIDATE, prompt, c, [True] * len(c), share * a)
                        for c, a in zip(candidates, among, strict=True)
                    ]
                )
    rows = [row for row in rows if any(row[3]) and row[4] != 0]
    for attempt in repair_mode if o.lambda_rep > 0 else []:
        if len(rows) + len(attempt) <= o.row_limit * len(ids):
            rows += attempt
    return rows


TOKENS = st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=6)
OPTIONS = st.builds(
    IopCredit,
    prompt=st.just("brief"),
    candidates=st.integers(1, 6),
    max_repairs=st.sampled_from([None, None, 1]),
    max_prompt_tokens=st.sampled_from([None, None, 41]),
    truncate=st.integers(1, 2),
    lambda_edit=st.sampled_from([0.0, 0.5, 1.0]),
    lambda_rep=st.sampled_from([0.0, 0.5, 1.0]),
    wrong_weight=st.sampled_from([0.5, 1.0]),
)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 3).flatmap(lambda n: st.lists(TOKENS, min_size=GROUP * n, max_size=GROUP * n)),
    st.lists(TOKENS, min_size=1, max_size=20),
    OPTIONS,
    st.sampled_from([1, GROUP]),
)
def test_rows_equal_the_slow_loop(tiny_tokenizer, responses, repairs, o, splits) -> None:
    token = tiny_tokenizer.convert_tokens_to_ids(list(PIECES))
    responses, repairs = ([[token[i] for i in row] for row in rows] for rows in (responses, repairs))
    rollouts = rollouts_of(responses, tiny_tokenizer)
    advantages = [0.25 * (i % 4) - 0.25 for i in range(len(responses))]
    batch = run_stage(o, rollouts, advantages, repairs, splits, tiny_tokenizer)
    expected = slow_rows(o, rollouts, advantages, repairs, tiny_tokenizer)
    result = assign_credit(o, credit_inputs(batch, step=1, signals=stage_signals(batch)))
    assert result.gates is not None
    total = len(result.gates)
    assert total == splits * -(-max(1, len(expected)) // splits)
    for i, role in enumerate(batch["signal/repair_role"].tolist()):
        prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist()
        mask = batch["completion_mask"][i].bool()
        # TRL divides a row by the number of rows; the loss is over the responses sampled.
        weights = (result.advantages[i] * len(responses) / total).tolist()
        if role == Role.FILLER:
            assert not any(weights)
            assert not result.gates[i].any()
            continue
        row = [role, prompt, batch["completion_ids"][i][mask].tolist(), result.gates[i][mask].tolist()]
        found = pytest.approx(weights[: len(row[3])], abs=1e-6)
        same = [k for k, (*other, a) in enumerate(expected) if row == other and [a * gate for gate in row[3]] == found]
        assert same, (row, weights)
        del expected[same[0]]
    assert expected == []
