"""Length rewards compared with slow loops, and common properties: ranking, order, missing verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from attnpo.rewards.length import LengthInputs, get_length_reward, length_reward_names

LONGEST = 6000
OPTIONS: dict[str, dict[str, Any]] = {
    "laser": {"target": 700},
    "laser_d": {"low": 200, "interval": 300},
    "thinkprune": {"limits": [4000, 900, 500], "steps": 1},
    "overlong": {"cache": 2500},
    "kimi": {"weight": 1.9},
    "tlmre": {"alpha": 0.99},
    "l1_max": {"delta": 0.3},
}
SHORT_WRONG_ABOVE_LONG_RIGHT = {"l1_exact", "shorterbetter"}
"""The papers' rewards allow it (docs/methods.md); `test_rewards_of_papers_that_rank_wrong_above_right` has a case."""

response = st.tuples(st.integers(1, LONGEST), st.booleans(), st.sampled_from([True, True, True, False]))
groups = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(response, min_size=n, max_size=n), min_size=1, max_size=3)
)
Group = list[tuple[int, bool, bool]]


def make(rows: list[Group], targets: list[int], step: int = 2) -> LengthInputs:
    known = torch.tensor([[k for *_, k in row] for row in rows])
    return LengthInputs(
        lengths=torch.tensor([[n for n, *_ in row] for row in rows]),
        correct=torch.tensor([[c for _, c, _ in row] for row in rows]) & known,
        known=known,
        targets=torch.tensor(targets[: len(rows)]).float(),
        step=step,
        max_completion_length=LONGEST,
    )


def term(name: str, rows: list[Group], targets: list[int]) -> torch.Tensor:
    return get_length_reward(name, **OPTIONS.get(name, {}))(make(rows, targets))


# ---------------------------------------------------------------- slow loops: one group, (length, right) each


def slow_kimi(group: list[tuple[int, bool]], target: int) -> list[float]:
    low, high = min(n for n, _ in group), max(n for n, _ in group)
    if low == high:
        return [0.0] * len(group)
    merits = [0.5 - (n - low) / (high - low) for n, _ in group]
    return [1.9 * (merit if right else min(0.0, merit)) for merit, (_, right) in zip(merits, group, strict=True)]


def slow_l1_exact(group: list[tuple[int, bool]], target: int) -> list[float]:
    return [(1 - 0.0003 * abs(target - n) if right else -0.0003 * abs(target - n)) - right for n, right in group]


def slow_l1_max(group: list[tuple[int, bool]], target: int) -> list[float]:
    return [right * max(0.0, min(1.0, 0.0003 * (target - n) + 0.3)) - right for n, right in group]


def slow_shorterbetter(group: list[tuple[int, bool]], target: int) -> list[float]:
    rights = [n for n, right in group if right]
    sol = min(rights) if rights else statistics.fmean(n for n, _ in group)
    return [2 * right - 0.001 * abs(sol - n) - right for n, right in group]


def slow_overlong(group: list[tuple[int, bool]], target: int) -> list[float]:
    def punishment(n: int) -> float:
        if n <= LONGEST - 2500:
            return 0.0
        return (LONGEST - 2500 - n) / 2500 if n <= LONGEST else -1.0

    return [punishment(n) / 2 for n, _ in group]


SLOW: dict[str, Callable[..., list[float]]] = {
    "kimi": slow_kimi,
    "l1_exact": slow_l1_exact,
    "l1_max": slow_l1_max,
    "shorterbetter": slow_shorterbetter,
    "overlong": slow_overlong,
    "laser": lambda group, target: [0.5 * (right and n <= 700) for n, right in group],
    "thinkprune": lambda group, target: [-1.0 * (right and n > 900) for n, right in group],
}


@pytest.mark.parametrize("name", SLOW)
@settings(max_examples=50, deadline=None)
@given(rows=groups, targets=st.lists(st.integers(100, 4000), min_size=3, max_size=3))
def test_equals_the_slow_loop(name: str, rows: list[Group], targets: list[int]) -> None:
    """The loop never sees responses without a verdict."""
    for row, found, target in zip(rows, term(name, rows, targets).tolist(), targets, strict=False):
        judged = [(n, c) for n, c, known in row if known]
        expected = iter(SLOW[name](judged, target) if judged else [])
        assert found == pytest.approx([next(expected) if known else 0.0 for *_, known in row], abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(rows=groups)
def test_laser_d_equals_the_slow_loop(rows: list[Group]) -> None:
    """Its first step: the targets are those of the batch itself."""
    lengths: dict[int, list[int]] = {0: [], 1: [], 2: []}
    bands = []
    for row in rows:
        judged = [(n, c) for n, c, known in row if known]
        share = statistics.fmean(c for _, c in judged) if judged else 1.0
        bands.append(0 if share >= 2 / 3 else 1 if share >= 1 / 3 else 2)
        lengths[bands[-1]] += [n for n, _ in judged]
    size = len(rows[0])
    targets = {}
    for band, least in enumerate((max(1, int(size * 2 / 3)), max(1, int(size / 3)), 1)):
        fitting = [
            candidate
            for candidate in range(200, LONGEST, 300)
            if lengths[band] and sum(n <= candidate for n in lengths[band]) * least / len(lengths[band]) >= 1 - 1e-12
        ]
        targets[band] = min([LONGEST, *fitting])
    found = term("laser_d", rows, [0] * 3).tolist()
    for row, band, terms in zip(rows, bands, found, strict=True):
        assert terms == [0.5 * (c and known and n <= targets[band]) for n, c, known in row]


# ---------------------------------------------------------------- what holds for all


@pytest.mark.parametrize("name", sorted(set(length_reward_names()) - SHORT_WRONG_ABOVE_LONG_RIGHT))
@settings(max_examples=60, deadline=None)
@given(rows=groups, targets=st.lists(st.integers(100, 4000), min_size=3, max_size=3))
def test_no_wrong_answer_above_a_right_one(name: str, rows: list[Group], targets: list[int]) -> None:
    inputs = make(rows, targets)
    rewards = inputs.correct.float() + term(name, rows, targets)
    for reward, right, known in zip(rewards, inputs.correct, inputs.known, strict=True):
        wrong = known & ~right
        if right.any() and wrong.any():
            assert reward[right].min() >= reward[wrong].max()


@pytest.mark.parametrize(("name", "target"), [("l1_exact", 100), ("shorterbetter", 0)])
def test_rewards_of_papers_that_rank_wrong_above_right(name: str, target: int) -> None:
    """Two right answers of 100 and 4100 tokens, a wrong one of 100: the long right one is worth less than the wrong."""
    rows = [[(100, True, True), (4100, True, True), (100, False, True)]]
    reward = make(rows, [target]).correct.float() + term(name, rows, [target])
    short_right, long_right, short_wrong = reward[0].tolist()
    assert short_right > short_wrong > long_right


@pytest.mark.parametrize("name", length_reward_names())
@settings(max_examples=12, deadline=None)
@given(rows=groups, targets=st.lists(st.integers(100, 4000), min_size=3, max_size=3), data=st.data())
def test_order_of_responses_does_not_matter(
    name: str, rows: list[Group], targets: list[int], data: st.DataObject
) -> None:
    order = torch.tensor(data.draw(st.permutations(range(len(rows[0])))))
    shuffled = [[row[i] for i in order.tolist()] for row in rows]
    assert_close(term(name, rows, targets)[:, order], term(name, shuffled, targets))
    backwards = term(name, rows[::-1], targets[: len(rows)][::-1]).flip(0)
    assert_close(term(name, rows, targets), backwards)


@pytest.mark.parametrize("name", sorted(set(length_reward_names()) - {"laser_d"}))  # its targets are the batch's
@settings(max_examples=12, deadline=None)
@given(rows=groups, targets=st.lists(st.integers(100, 4000), min_size=3, max_size=3))
def test_groups_are_independent(name: str, rows: list[Group], targets: list[int]) -> None:
    apart = [term(name, [row], [target]) for row, target in zip(rows, targets, strict=False)]
    assert_close(term(name, rows, targets), torch.cat(apart))


@pytest.mark.parametrize("name", length_reward_names())
@settings(max_examples=12, deadline=None)
@given(rows=groups, other=st.integers(1, LONGEST), targets=st.lists(st.integers(100, 4000), min_size=3, max_size=3))
def test_responses_without_verdict_have_no_influence(
    name: str, rows: list[Group], other: int, targets: list[int]
) -> None:
    """Another length of theirs changes nothing, and they get exactly 0."""
    changed = [[(n if known else other, c, known) for n, c, known in row] for row in rows]
    found = term(name, rows, targets)
    assert torch.equal(found, term(name, changed, targets))
    assert (found[~make(rows, targets).known] == 0).all()
    assert found.isfinite().all()
