"""IOP-GSPO's credit, and the loss that TRL makes of its gates, against loops over tokens, on arbitrary batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpo.credit.base import CreditInputs, assign_credit
from attnpo.credit.iop import IopCredit, Role
from attnpo.training.batch import credit_inputs

LOW, HIGH = 0.2, 0.28
Row = dict


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A row of a few tokens: what it is there for, its open gates, log-probabilities now and when it was sampled."""
    tokens = draw(st.integers(1, 6))

    def numbers(low: float, high: float) -> list[float]:
        return draw(st.lists(st.floats(low, high, width=32), min_size=tokens, max_size=tokens))

    return {
        "role": draw(st.sampled_from(list(Role))),
        "gates": draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens)),
        "advantage": draw(st.sampled_from([0.0, 0.5, -0.25, 1.5, -1.0])),
        "weight": draw(st.sampled_from([0.0, 0.25, 1.0, 1.125])),
        "old": numbers(-6, 0),
        "change": numbers(-0.75, 0.75),
    }


@st.composite
def options(draw: st.DrawFn) -> IopCredit:
    sizes = st.sampled_from([0.0, 0.5, 1.0, 2.0])
    return IopCredit(wrong_weight=draw(sizes), repaired_weight=draw(sizes), lambda_rep=draw(sizes))


BATCH = st.lists(rows(), min_size=1, max_size=4)


def slow_advantage(row: Row, o: IopCredit) -> float:
    """Of a gated token: against what was wrong, for what repairs it; anchors have no row at all."""
    if row["role"] == Role.WRONG:
        size = -o.wrong_weight
    elif row["role"] == Role.REPAIRED:
        size = o.repaired_weight
    elif row["role"] == Role.CANDIDATE:
        size = o.lambda_rep * row["advantage"]
    elif row["role"] == Role.OUTCOME:
        size = row["advantage"]
    else:
        size = 0.0
    return size * row["weight"]


def slow_loss(row: Row, o: IopCredit) -> tuple[float, list[float]]:
    """−min(w·A, clip(w)·A) with w = exp(Σ g·log(π/π_old) / Σ g), and its derivative by every token's log π."""
    count, total = 0, 0.0
    for gate, change in zip(row["gates"], row["change"], strict=True):
        if gate:
            count += 1
            total += change
    if count == 0:
        return 0.0, [0.0] * len(row["gates"])
    w, a = math.exp(total / count), slow_advantage(row, o)
    clipped = min(max(w, 1 - LOW), 1 + HIGH)
    moves = w * a <= clipped * a  # else the clipped one counts, which does not depend on π
    return -min(w * a, clipped * a), [-a * w / count if gate and moves else 0.0 for gate in row["gates"]]


def padded(lists: list[list[Any]], fill: Any, padding: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    width = max(map(len, lists)) + padding
    return torch.tensor([row + [fill] * (width - len(row)) for row in lists], dtype=dtype)


def batch_of(found: list[Row], padding: int) -> dict[str, Any]:
    """Build a batch like the stage's output; gates and log-probabilities after a row's tokens are arbitrary."""
    count = len(found)
    mask = padded([[1] * len(row["gates"]) for row in found], 0, padding)
    advantages = torch.tensor([row["advantage"] for row in found], dtype=torch.float64)
    one = torch.ones(count, dtype=torch.long)
    return {
        "prompt_ids": torch.full((count, 2), 7),
        "prompt_mask": torch.ones(count, 2, dtype=torch.long),
        "completion_ids": torch.full_like(mask, 9),
        "completion_mask": mask,
        "outcome_advantages": advantages,
        "advantages": advantages,
        "old_per_token_logps": padded([row["old"] for row in found], -1.0, padding, torch.float64),
        "correct": one.bool(),
        "group_accuracy": one.double(),
        "has_answer": one.bool(),
        "answer_spans": torch.zeros(count, 2, dtype=torch.long),
        "total_tokens": one,
        "num_steps": one,
        "step_ids": torch.zeros_like(mask),
        "step_lengths": mask.sum(dim=1, keepdim=True),
        "prompts": [""] * count,
        "completions": [""] * count,
        "rewards": [0.0] * count,
        "rollout_rows": torch.full((count,), -1),
        "num_items_in_batch": mask.sum(),
        "signal/repair_role": torch.tensor([int(row["role"]) for row in found]),
        "signal/repair_gates": padded([row["gates"] for row in found], True, padding),
        "signal/repair_weight": torch.tensor([row["weight"] for row in found], dtype=torch.float64),
    }


def inputs_of(batch: dict[str, Any]) -> CreditInputs:
    signals = {name.removeprefix("signal/"): batch[name] for name in batch if name.startswith("signal/")}
    return credit_inputs(batch, step=1, signals=signals)


@settings(max_examples=150, deadline=None)
@given(BATCH, options(), st.integers(0, 2))
def test_credit_equals_the_slow_loop(found: list[Row], o: IopCredit, padding: int) -> None:
    result = assign_credit(o, inputs_of(batch_of(found, padding)))
    assert result.gates is not None
    for row, gates, tokens in zip(found, result.gates.tolist(), result.advantages.tolist(), strict=True):
        beyond = len(gates) - len(row["gates"])
        assert gates == row["gates"] + [False] * beyond
        expected = [slow_advantage(row, o) if gate else 0.0 for gate in row["gates"]]
        assert tokens == pytest.approx(expected + [0.0] * beyond, abs=1e-12)


@pytest.fixture(scope="module")
def trainer(trainer_kit, new_tiny_qwen2, tiny_tokenizer, tmp_path_factory):
    made = trainer_kit.make_trainer(
        new_tiny_qwen2(),
        tiny_tokenizer,
        tmp_path_factory.mktemp("iop"),
        credit="iop",
        length_reward="none",
        importance_sampling_level="sequence",
        loss_type="grpo",
        epsilon=LOW,
        epsilon_high=HIGH,
    )
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    return made


@settings(max_examples=150, deadline=None)
@given(BATCH, options(), st.integers(0, 2))
def test_loss_and_gradient_equal_the_slow_loop(trainer, found: list[Row], o: IopCredit, padding: int) -> None:
    """From the stage's signals through the credit and TRL's loss; given log-probabilities in the model's place."""
    batch = batch_of(found, padding)
    now = [[old + change for old, change in zip(row["old"], row["change"], strict=True)] for row in found]
    logps = padded(now, 5.0, padding, torch.float64).requires_grad_()
    trainer.credit = o
    with pytest.MonkeyPatch.context() as patch:
        given_logps = (logps, torch.zeros_like(logps).detach(), None)
        patch.setattr(trainer, "_get_per_token_logps_and_entropies", lambda *args, **kwargs: given_logps)
        trainer._give_credit(batch, {})
        loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    assert logps.grad is not None
    expected = [slow_loss(row, o) for row in found]
    assert loss.item() == pytest.approx(sum(value for value, _ in expected) / len(found), abs=1e-9)
    for (_, slopes), gradient in zip(expected, logps.grad.tolist(), strict=True):
        wanted = [slope / len(found) for slope in slopes]
        assert gradient == pytest.approx(wanted + [0.0] * (len(gradient) - len(wanted)), abs=1e-9)
