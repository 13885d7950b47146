"""IOP's formula on given roles, gates and weights, and its options."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from attnpo.credit.base import CreditInputs, assign_credit, get_credit
from attnpo.credit.iop import IopCredit, Role
from attnpo.errors import InputError


@pytest.fixture
def inputs() -> CreditInputs:
    """A fallback row, a wrong one, its repair, a candidate, a filler row; three tokens each, the repair only two."""
    gates = [[1, 1, 1], [0, 1, 0], [1, 0, 1], [1, 1, 1], [0, 0, 0]]
    return CreditInputs(
        advantages=torch.tensor([0.5, -0.9, 0.0, -0.4, 0.7]),
        correct=torch.tensor([True, False, True, False, True]),
        group_accuracy=torch.full((5,), 0.5),
        answer_tokens=torch.ones(5, dtype=torch.long),
        total_tokens=torch.full((5,), 8),
        rescalable=torch.zeros(5, dtype=torch.bool),
        step_ids=torch.zeros(5, 3, dtype=torch.long),
        num_steps=torch.ones(5, dtype=torch.long),
        completion_mask=torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]]),
        step=1,
        signals={
            "repair_role": torch.tensor([Role.OUTCOME, Role.WRONG, Role.REPAIRED, Role.CANDIDATE, Role.FILLER]),
            "repair_gates": torch.tensor(gates).bool(),
            "repair_weight": torch.tensor([1.25, 1.25, 1.25, 0.625, 0.0]),
        },
    )


def test_roles(inputs: CreditInputs) -> None:
    result = assign_credit(get_credit("iop", lambda_rep=0.5), inputs)
    assert result.gates is not None
    assert result.gates.tolist() == [[1, 1, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]]  # padding is closed
    expected = [
        [0.625, 0.625, 0.625],  # 1.25 · 0.5, the outcome advantage
        [0, -1.25, 0],  # −1, whatever the outcome advantage is
        [1.25, 0, 0],
        [-0.125, -0.125, -0.125],  # 0.625 · 0.5 · −0.4
        [0, 0, 0],
    ]
    assert_close(result.advantages, torch.tensor(expected))


def test_weights_of_the_sides(inputs: CreditInputs) -> None:
    advantages = assign_credit(get_credit("iop", wrong_weight=0.2, repaired_weight=0, lambda_rep=0), inputs).advantages
    assert_close(advantages[1:], torch.tensor([[0, -0.25, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]))


def test_order_padding_and_split_change_nothing(inputs: CreditInputs) -> None:
    method = IopCredit()
    whole = assign_credit(method, inputs).advantages

    def take(rows) -> CreditInputs:
        fields = {k: v[rows] for k, v in vars(inputs).items() if isinstance(v, torch.Tensor)}
        return replace(inputs, **fields, signals={k: v[rows] for k, v in inputs.signals.items()})

    order = torch.tensor([3, 0, 4, 2, 1])
    assert_close(assign_credit(method, take(order)).advantages, whole[order])
    parts = [assign_credit(method, take(slice(i, i + 1))).advantages for i in range(5)]
    assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("candidates", 0, "candidates: found 0, expected a whole number of at least 1"),
        ("candidates", 2.5, "candidates: found 2.5"),
        ("truncate", 0, "truncate: found 0"),
        ("max_repairs", 0, "max_repairs: found 0"),
        ("max_new_tokens", -1, "max_new_tokens: found -1"),
        ("lambda_edit", 1.5, r"lambda_edit: found 1.5, expected a number in \[0, 1\]"),
        ("lambda_rep", -0.1, "lambda_rep: found -0.1"),
        ("wrong_weight", float("nan"), "wrong_weight: found nan"),
        ("row_limit", 1, r"row_limit: found 1, expected a number in \[2, inf\]"),
        ("anchor", "longest", "anchor: found 'longest', expected shortest or nearest"),
        ("prompt", "Repair it", "prompt: found 'Repair it'"),
        ("audit", "strict", "audit: found 'strict'"),
        ("audit", "judge", "judge: none is given"),
        ("rounds", 2, "rounds: credit 'iop' has no such option"),
    ],
)
def test_bad_options(option, value, message) -> None:
    with pytest.raises(InputError, match=message):
        get_credit("iop", **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("importance_sampling_level", "token"),
        ("loss_type", "dapo"),
        ("beta", 0.04),
        ("mask_truncated_completions", True),
    ],
)
def test_options_of_trl_it_does_not_work_with(trainer_kit, tmp_path, option, value) -> None:
    given = {"importance_sampling_level": "sequence", "loss_type": "grpo", option: value}
    with pytest.raises(
        InputError, match=f"^option {option}: found {value!r}, expected .*: credit='iop' works only with this"
    ):
        trainer_kit.options(tmp_path, credit="iop", **given)
