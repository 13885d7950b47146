"""The batched tensors against plain Python written from the formulas, on arbitrary batches."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpo.credit.advantages import KINDS, outcome_advantages
from attnpo.credit.attnpo import AttnPOCredit, step_scales
from attnpo.credit.base import CreditInputs, assign_credit
from attnpo.rewards.length import tlmre_penalty, tlmre_rewards

GROUP = 8


@st.composite
def options(draw: st.DrawFn) -> dict:
    power = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0])
    return {
        "beta": draw(power),
        "lam": draw(power),
        "delta": draw(st.sampled_from([0.0, 0.25, 1.0])),
        "delay": draw(st.sampled_from([0, 10, 1000])),
        "positive": draw(st.booleans()),
        "negative": draw(st.booleans()),
        "difficulty": draw(st.booleans()),
        "yardstick": draw(st.sampled_from(["uniform", "uniform", "thinking", "median"])),
        "threshold": draw(st.sampled_from([1.0, 1.5, 0.5])),
        "sharp": draw(st.booleans()),
    }


@st.composite
def responses(draw: st.DrawFn) -> dict:
    """One response with its step lengths in tokens; padding follows in the batch."""
    lengths = draw(st.lists(st.integers(0, 4), max_size=5))
    answer = draw(st.integers(0, 5))
    return {
        "lengths": lengths,
        "scores": [draw(st.floats(0, 1, width=32)) for _ in lengths],
        "answer": answer,
        "total": draw(st.integers(1, 20)) + sum(lengths) + answer + 1,
        "advantage": draw(st.sampled_from([0.0, 0.3, -0.2, 1.0, -1.0])),
        "right": draw(st.integers(0, GROUP)),
        "rescalable": draw(st.booleans()),
    }


def slow_yardstick(row: dict, kind: str) -> float:
    if kind == "uniform":
        return row["answer"] / row["total"]
    if kind == "median":
        return sorted(row["scores"])[(len(row["scores"]) - 1) // 2]
    attention = sum(length * score for length, score in zip(row["lengths"], row["scores"], strict=True))
    return attention / sum(row["lengths"]) if any(row["lengths"]) else 0.0


def slow_scale(score: float, row: dict, step: int, o: dict) -> float:
    """γ of one step, branch by branch."""
    p = row["right"] / GROUP if o["difficulty"] else 1.0
    baseline = o["threshold"] * p ** o["beta"] * slow_yardstick(row, o["yardstick"])
    # in whole numbers: G·t > T·(G − right)
    started = not o["difficulty"] or GROUP * step > o["delay"] * (GROUP - row["right"])
    if row["advantage"] > 0 and score < baseline and o["positive"] and started:
        ratio = 0.0 if o["sharp"] else score / baseline
        return (1 - o["delta"]) * (p ** o["lam"] * ratio + 1 - p ** o["lam"]) + o["delta"]
    if row["advantage"] < 0 and score > baseline and o["negative"]:
        return 0.0
    return 1.0


def batch(rows: list[dict], step: int, garbage: float) -> CreditInputs:
    max_steps = max(1, *(len(row["lengths"]) for row in rows)) if rows else 1
    width = max(sum(row["lengths"]) + row["answer"] + 1 for row in rows) + 2
    ids, mask, scores = [], [], []
    for row in rows:
        real = [k for k, length in enumerate(row["lengths"]) for _ in range(length)]
        real += [max_steps] * (row["answer"] + 1)
        ids.append(real + [max_steps] * (width - len(real)))
        mask.append([1] * len(real) + [0] * (width - len(real)))
        scores.append(row["scores"] + [garbage] * (max_steps - len(row["scores"])))
    column = {key: [row[key] for row in rows] for key in ("advantage", "answer", "total", "rescalable")}
    return CreditInputs(
        advantages=torch.tensor(column["advantage"], dtype=torch.float64),
        correct=torch.ones(len(rows), dtype=torch.bool),
        group_accuracy=torch.tensor([row["right"] / GROUP for row in rows], dtype=torch.float64),
        answer_tokens=torch.tensor(column["answer"]),
        total_tokens=torch.tensor(column["total"]),
        rescalable=torch.tensor(column["rescalable"]),
        step_ids=torch.tensor(ids),
        num_steps=torch.tensor([len(row["lengths"]) for row in rows]),
        completion_mask=torch.tensor(mask),
        step=step,
        signals={"attention": torch.tensor(scores, dtype=torch.float64)},
    )


@settings(max_examples=150, deadline=None)
@given(
    st.lists(responses(), min_size=1, max_size=5),
    options(),
    st.sampled_from([0, 1, 5, 10, 500, 2000]),
    st.sampled_from([0.0, 1e9, math.nan, -1.0]),
)
def test_batched_credit_equals_the_slow_loop(rows: list[dict], o: dict, step: int, garbage: float) -> None:
    inputs = batch(rows, step, garbage)
    result = assign_credit(AttnPOCredit(**o), inputs)
    assert result.scales is not None
    for i, row in enumerate(rows):
        expected = [slow_scale(s, row, step, o) if row["rescalable"] else 1.0 for s in row["scores"]]
        beyond = result.scales.shape[1] - len(expected)
        assert result.scales[i].tolist() == pytest.approx(expected + [1.0] * beyond, abs=1e-12)
        tokens = [g * row["advantage"] for g, n in zip(expected, row["lengths"], strict=True) for _ in range(n)]
        tokens += [row["advantage"]] * (row["answer"] + 1)
        padding = inputs.step_ids.shape[1] - len(tokens)
        assert result.advantages[i].tolist() == pytest.approx(tokens + [0.0] * padding, abs=1e-12)
        if o["yardstick"] != "uniform" or o["threshold"] != 1 or o["sharp"]:
            continue  # `step_scales` has the paper's formula only
        paper = {name: value for name, value in o.items() if name not in ("yardstick", "threshold", "sharp")}
        single = step_scales(
            torch.tensor(row["scores"], dtype=torch.float64),
            advantage=row["advantage"],
            group_accuracy=row["right"] / GROUP,
            answer_tokens=row["answer"],
            total_tokens=row["total"],
            step=step,
            **paper,
        )
        if row["rescalable"]:
            assert single.tolist() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(responses(), min_size=2, max_size=6), options(), st.integers(0, 2000), st.randoms())
def test_rows_are_independent(rows: list[dict], o: dict, step: int, random) -> None:
    """Any order and any split of the batch gives the same numbers."""
    method = AttnPOCredit(**o)
    whole = assign_credit(method, batch(rows, step, 0.0)).advantages
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = assign_credit(method, batch([rows[i] for i in order], step, 0.0)).advantages
    assert torch.equal(shuffled, whole[order])
    for i, row in enumerate(rows):
        alone = assign_credit(method, batch([row], step, 0.0)).advantages[0]
        assert torch.equal(alone[: whole.shape[1]], whole[i, : alone.shape[0]])


reward = st.one_of(st.just(None), st.sampled_from([0.0, 1.0]), st.floats(-1, 1, width=32))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, 9).flatmap(lambda n: st.lists(st.lists(reward, min_size=n, max_size=n), min_size=1, max_size=3)),
    st.sampled_from(KINDS),
)
def test_advantages_equal_the_slow_loop(groups: list[list[float | None]], kind: str) -> None:
    table = torch.tensor([[math.nan if r is None else r for r in g] for g in groups], dtype=torch.float64)
    found = outcome_advantages(table, kind)
    for g, row in zip(groups, found.tolist(), strict=True):
        present = [r for r in g if r is not None]
        for i, (r, advantage) in enumerate(zip(g, row, strict=True)):
            if r is None or len(set(present)) < 2:
                assert advantage == 0.0
                continue
            others = [q for j, q in enumerate(g) if j != i and q is not None]
            expected = r - statistics.fmean(others if kind == "rloo" else present)
            if kind == "grpo":
                expected /= statistics.stdev(present) + 1e-4
            assert advantage == pytest.approx(expected, abs=1e-9)


response = st.tuples(st.integers(0, 20_000), st.booleans())


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 9).flatmap(lambda n: st.lists(st.lists(response, min_size=n, max_size=n), min_size=1, max_size=3)),
    st.floats(0, 0.99),
)
def test_length_reward_equals_the_slow_loop(groups: list[list[tuple[int, bool]]], alpha: float) -> None:
    lengths = torch.tensor([[n for n, _ in g] for g in groups])
    correct = torch.tensor([[c for _, c in g] for g in groups])
    rewards = tlmre_rewards(lengths, correct, alpha=alpha)
    assert torch.equal(rewards, correct.float() + tlmre_penalty(lengths, correct, alpha=alpha))
    for g, row in zip(groups, rewards.tolist(), strict=True):
        right = [n for n, c in g if c]
        for (n, c), found in zip(g, row, strict=True):
            if not c:
                assert found == 0.0
                continue
            std = statistics.pstdev(right)
            z = (n - statistics.fmean(right)) / std if std > 0 else 0.0
            assert found == pytest.approx(1 - alpha / (1 + math.exp(-z)), abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.lists(response, min_size=2, max_size=9), st.floats(0, 0.999))
def test_a_wrong_response_never_ranks_above_a_right_one(group: list[tuple[int, bool]], alpha: float) -> None:
    lengths, correct = torch.tensor([[n for n, _ in group]]), torch.tensor([[c for _, c in group]])
    rewards = tlmre_rewards(lengths, correct, alpha=alpha)[0]
    right, wrong = rewards[correct[0]], rewards[~correct[0]]
    if len(right) and len(wrong):
        assert right.min() > wrong.max()
    by_length = sorted((n, r) for (n, c), r in zip(group, rewards.tolist(), strict=True) if c)
    assert all(a[1] >= b[1] - 1e-6 for a, b in itertools.pairwise(by_length))
