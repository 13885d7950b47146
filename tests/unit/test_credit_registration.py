"""A credit method registered from outside the package, and errors if its inputs or results do not fit the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch.testing import assert_close

from attnpo.checks import check_number
from attnpo.credit import base
from attnpo.credit.base import (
    CreditInputs,
    CreditMethod,
    CreditResult,
    assign_credit,
    credit_names,
    credit_options,
    get_credit,
    mask_padding,
    register_credit,
)
from attnpo.errors import InputError, RunError


@pytest.fixture(autouse=True)
def toy() -> Iterator[type]:
    """The whole of a new method: every token weighted by its share of the response's entropy."""

    @register_credit("toy")
    @dataclass(frozen=True)
    class ToyCredit:
        strength: float = 1.0
        name: ClassVar[str]
        signals: ClassVar[frozenset[str]] = frozenset({"entropy"})

        def __post_init__(self) -> None:
            check_number("strength", self.strength, low=0)

        def __call__(self, inputs: CreditInputs) -> CreditResult:
            entropy = mask_padding(inputs.signals["entropy"], inputs.completion_mask)
            weight = 1 + self.strength * (entropy - entropy.mean(dim=1, keepdim=True))
            return CreditResult(advantages=mask_padding(weight * inputs.advantages[:, None], inputs.completion_mask))

    yield ToyCredit
    base._METHODS.forget("toy")


@pytest.fixture
def inputs() -> CreditInputs:
    return CreditInputs(
        advantages=torch.tensor([0.5, -0.5]),
        correct=torch.tensor([True, False]),
        group_accuracy=torch.tensor([0.5, 0.5]),
        answer_tokens=torch.tensor([1, 0]),
        total_tokens=torch.tensor([8, 9]),
        rescalable=torch.tensor([True, False]),
        step_ids=torch.tensor([[0, 1, 2], [0, 0, 0]]),
        num_steps=torch.tensor([2, 1]),
        completion_mask=torch.tensor([[1, 1, 1], [1, 1, 0]]),
        step=3,
        signals={"entropy": torch.tensor([[0.0, 1.0, 2.0], [1.0, 2.0, 9.0]]), "attention": torch.rand(2, 2)},
    )


def test_registered_method_runs(inputs: CreditInputs) -> None:
    method = get_credit("toy", strength=1.0)
    assert isinstance(method, CreditMethod)
    assert method.name == "toy"
    assert {"attnpo", "outcome", "toy"} <= set(credit_names())
    assert credit_options("toy") == {"strength": 1.0}
    # entropies minus their mean 1: weights 0, 1, 2; second row: (1, 2, 0) − 1 = 0, 1, padding
    assert_close(assign_credit(method, inputs).advantages, torch.tensor([[0, 0.5, 1.0], [-0.5, -1.0, 0]]))


def test_outcome_credit_spreads_the_advantage(inputs: CreditInputs) -> None:
    result = assign_credit(get_credit("outcome"), inputs)
    assert_close(result.advantages, torch.tensor([[0.5, 0.5, 0.5], [-0.5, -0.5, 0]]))
    assert result.scales is None
    assert result.baseline is None


def test_unknown_names_are_listed() -> None:
    with pytest.raises(InputError, match=r"credit: found 'shap', expected one of attnpo, .*; did you mean shape\?"):
        get_credit("shap")
    with pytest.raises(InputError, match=r"gamma: credit 'attnpo' has no such option; it has: beta \(2.0\), lam"):
        get_credit("attnpo", gamma=1)
    with pytest.raises(InputError, match=r"beta: credit 'outcome' has no such option; it has: none"):
        get_credit("outcome", beta=1)


def test_name_is_taken() -> None:
    with pytest.raises(InputError, match="'outcome' is already registered"):

        @register_credit("outcome")
        class Other:
            signals: ClassVar[frozenset[str]] = frozenset()


def test_signals_must_be_declared() -> None:
    with pytest.raises(InputError, match="'silent': `signals` must be a frozenset"):

        @register_credit("silent")
        class Silent:
            pass


def test_missing_signal_names_method_and_signal(inputs: CreditInputs) -> None:
    with pytest.raises(RunError, match=r"'toy' needs the signals entropy; the trainer gave: none"):
        assign_credit(get_credit("toy"), replace(inputs, signals={}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"advantages": torch.zeros(3)}, r"'toy': input advantages has shape \[3\], expected \[B=2\]"),
        ({"completion_mask": torch.ones(2, 4)}, r"input completion_mask has shape \[2, 4\], expected \[B=2, C=3\]"),
        ({"signals": {"entropy": torch.zeros(2, 5)}}, r"signal 'entropy' has shape \[2, 5\], expected \[B=2, C=3\]"),
    ],
)
def test_misaligned_inputs(inputs: CreditInputs, change: dict, message: str) -> None:
    with pytest.raises(RunError, match=message):
        assign_credit(get_credit("toy"), replace(inputs, **change))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (CreditResult(advantages=torch.zeros(2)), r"'bad': result advantages has shape \[2\], expected \[B=2, C=3\]"),
        (CreditResult(advantages=torch.zeros(2, 4)), r"shape \[2, 4\], expected \[B=2, C=3\]"),
        (CreditResult(advantages=torch.zeros(2, 3, dtype=torch.long)), r"are torch.int64, expected floats"),
        (CreditResult(advantages=torch.zeros(2, 3), scales=torch.ones(2, 3)), r"scales has shape \[2, 3\].*S=2\]"),
        (CreditResult(advantages=torch.zeros(2, 3), baseline=torch.ones(3)), r"baseline has shape \[3\], expected"),
        (torch.zeros(2, 3), r"'bad' returned a Tensor, expected a CreditResult"),
        (CreditResult(advantages=[0.0]), r"result advantages has a list, expected \[B=2, C=3\]"),  # type: ignore[arg-type]
    ],
)
def test_misaligned_results_name_method_and_shapes(inputs: CreditInputs, returned: object, message: str) -> None:
    class Bad:
        name = "bad"
        signals: ClassVar[frozenset[str]] = frozenset()

        def __call__(self, inputs: CreditInputs) -> CreditResult:
            return returned  # type: ignore[return-value]

    with pytest.raises(RunError, match=message):
        assign_credit(Bad(), inputs)  # type: ignore[arg-type]


def test_signal_of_a_later_method_needs_only_rows(inputs: CreditInputs) -> None:
    """Potentials at segment boundaries, say, have a shape of their own; only the rows must be the batch's."""

    class Potential:
        name = "later"
        signals: ClassVar[frozenset[str]] = frozenset({"later"})

        def __call__(self, inputs: CreditInputs) -> CreditResult:
            return CreditResult(advantages=torch.zeros(2, 3))

    assign_credit(Potential(), replace(inputs, signals={"later": torch.zeros(2, 9, 7)}))  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"signal 'later' has shape \[3, 9\]"):
        assign_credit(Potential(), replace(inputs, signals={"later": torch.zeros(3, 9)}))  # type: ignore[arg-type]
