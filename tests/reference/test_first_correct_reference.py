"""Scales before and after the first right answer compared with a loop written from the rule, on arbitrary batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpo.credit.base import CreditInputs, assign_credit
from attnpo.credit.first_correct import FirstCorrectCredit, first_answer_scales
from credit_batch import credit_inputs

Row = dict


@st.composite
def responses(draw: st.DrawFn) -> Row:
    """Steps by their lengths in tokens, and whether each states the answer; an opening tag, and an ending."""
    lengths = draw(st.lists(st.integers(0, 4), max_size=6))
    return {
        "lengths": lengths,
        "states": [draw(st.sampled_from([False, False, True])) for _ in lengths],
        "opening": draw(st.integers(0, 1)),
        "ending": draw(st.integers(1, 4)),
        "advantage": draw(st.sampled_from([0.0, 0.3, -0.2, 1.5, -1.0])),
        "rescalable": draw(st.sampled_from([True, True, False])),
    }


@st.composite
def options(draw: st.DrawFn) -> FirstCorrectCredit:
    keep = draw(st.sampled_from([0.0, 0.25, 1.0]))
    return FirstCorrectCredit(keep=keep, positive=draw(st.booleans()), negative=draw(st.booleans()))


BATCH = st.lists(responses(), min_size=1, max_size=5)


def slow_scales(row: Row, o: FirstCorrectCredit) -> list[float]:
    """γ of every step, step by step."""
    scales, stated = [], False
    for states in row["states"]:
        gamma = 1.0
        if any(row["states"]):
            if row["advantage"] > 0 and stated and o.positive:  # an earlier step states the answer: redundant
                gamma = o.keep
            if row["advantage"] < 0 and not stated and o.negative:  # up to the one that finds it: essential
                gamma = 0.0
        scales.append(gamma)
        stated = stated or states
    return scales


def slow_tokens(row: Row, o: FirstCorrectCredit) -> list[float]:
    scales = slow_scales(row, o) if row["rescalable"] else [1.0] * len(row["lengths"])
    tokens = [row["advantage"]] * row["opening"]
    for length, gamma in zip(row["lengths"], scales, strict=True):
        tokens += [gamma * row["advantage"]] * length
    return tokens + [row["advantage"]] * row["ending"]


def table(rows: list[Row], garbage: bool) -> torch.Tensor:
    """Which steps state the answer; `garbage` beyond a row's own."""
    most = max(1, *(len(row["states"]) for row in rows))
    return torch.tensor([row["states"] + [garbage] * (most - len(row["states"])) for row in rows])


def batch(rows: list[Row], garbage: bool, padding: int) -> CreditInputs:
    states = table(rows, garbage)
    most = states.shape[1]
    ids = []
    for row in rows:
        inside = [k for k, length in enumerate(row["lengths"]) for _ in range(length)]
        ids.append([most] * row["opening"] + inside + [most] * row["ending"])
    width = max(map(len, ids)) + padding
    return credit_inputs(
        [row["advantage"] for row in rows],
        torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
        {"states_answer": states},
        rescalable=torch.tensor([row["rescalable"] for row in rows]),
        step_ids=torch.tensor([row + [most] * (width - len(row)) for row in ids]),
        num_steps=torch.tensor([len(row["lengths"]) for row in rows]),
    )


@settings(max_examples=150, deadline=None)
@given(BATCH, options(), st.booleans())
def test_scales_equal_the_slow_loop(rows: list[Row], o: FirstCorrectCredit, garbage: bool) -> None:
    states = table(rows, garbage)
    steps = torch.tensor([len(row["states"]) for row in rows])
    advantages = torch.tensor([row["advantage"] for row in rows], dtype=torch.float64)
    found = first_answer_scales(states, steps, advantages, o).tolist()
    for row, scales in zip(rows, found, strict=True):
        expected = slow_scales(row, o)
        assert scales == expected + [1.0] * (len(scales) - len(expected))


@settings(max_examples=150, deadline=None)
@given(BATCH, options(), st.booleans(), st.integers(0, 3))
def test_credit_equals_the_slow_loop(rows: list[Row], o: FirstCorrectCredit, garbage: bool, padding: int) -> None:
    result = assign_credit(o, batch(rows, garbage, padding))
    assert result.scales is not None
    for row, tokens, scales in zip(rows, result.advantages.tolist(), result.scales.tolist(), strict=True):
        expected = slow_tokens(row, o)
        assert tokens == pytest.approx(expected + [0.0] * (len(tokens) - len(expected)), abs=1e-12)
        if not row["rescalable"]:
            assert set(scales) == {1.0}


@settings(max_examples=60, deadline=None)
@given(BATCH, options(), st.randoms())
def test_rows_are_independent(rows: list[Row], o: FirstCorrectCredit, random) -> None:
    """Any order and any split of the batch gives the same numbers."""
    whole = assign_credit(o, batch(rows, False, 0)).advantages
    order = list(range(len(rows)))
    random.shuffle(order)
    assert torch.equal(assign_credit(o, batch([rows[i] for i in order], False, 0)).advantages, whole[order])
    for i, row in enumerate(rows):
        alone = assign_credit(o, batch([row], True, 0)).advantages[0]
        assert torch.equal(alone, whole[i, : len(alone)])
