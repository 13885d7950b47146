"""SHAPE's tensors against a plain loop written from the formulas, on arbitrary batches."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpo.credit.base import CreditInputs, assign_credit
from attnpo.credit.mrt import MRTCredit
from attnpo.credit.segments import SegmentOptions, cut_points, segment_ids
from attnpo.credit.shape import ShapeCredit
from credit_batch import credit_inputs

SEGMENTS = 4
Row = dict


@st.composite
def responses(draw: st.DrawFn) -> Row:
    """Segments of one response (lengths ≥ 1), entropies of their tokens, and a potential where each begins."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=SEGMENTS))
    eighths = st.one_of(st.none(), st.integers(0, 8).map(lambda n: n / 8))
    return {
        "lengths": lengths,
        "entropy": [draw(st.sampled_from([0.0, 0.1, 0.5, 3.0])) for _ in range(sum(lengths))],
        "potential": [draw(eighths) for _ in lengths],
        "outcome": draw(st.sampled_from([0.0, 1.0])),
        "advantage": draw(st.sampled_from([0.0, 0.6, -1.2])),
        "mean": draw(st.sampled_from([1.0, 3.3, 40.0])),
    }


@st.composite
def shape_options(draw: st.DrawFn) -> dict:
    return {
        "alpha": draw(st.sampled_from([0.0, 0.3, 0.5])),
        "gamma_min": draw(st.sampled_from([0.0, 0.7, 0.9, 1.0])),
        "reference_length": draw(st.sampled_from([None, 2, 7.5])),
        "fixed_discount": draw(st.booleans()),
        "token_weights": draw(st.booleans()),
        "beta": draw(st.sampled_from([0.0, 0.2, 3.0])),
    }


def slow_shape(row: Row, o: ShapeCredit) -> list[float]:
    ends = [*row["potential"], row["outcome"]]
    tokens, start = [], 0
    for k, length in enumerate(row["lengths"]):
        reference = o.reference_length or row["mean"]
        gamma = o.gamma_min if o.fixed_discount else max(o.gamma_min, 1 - length / reference * (1 - o.gamma_min))
        a = row["advantage"]
        if ends[k] is not None and ends[k + 1] is not None:
            a += o.alpha * (gamma * ends[k + 1] - ends[k])
        inside = row["entropy"][start : start + length]
        mean, std = statistics.fmean(inside), statistics.pstdev(inside)
        for entropy in inside:
            z = (entropy - mean) / std if len(set(inside)) > 1 else 0.0
            w = min(max(1 + o.beta * z, o.weight_min), o.weight_max) if o.token_weights else 1.0
            tokens.append(a * w)
        start += length
    return tokens


def slow_mrt(row: Row, o: MRTCredit) -> list[float]:
    ends = [*row["potential"], row["outcome"]]
    tokens = []
    for k, length in enumerate(row["lengths"]):
        after = ends[k + 1] if o.progress == "segment" else row["outcome"]
        known = ends[k] is not None and after is not None
        tokens += [row["advantage"] + (o.alpha * (after - ends[k]) if known else 0.0)] * length
    return tokens


def batch(rows: list[Row], garbage: float) -> CreditInputs:
    lengths = [sum(row["lengths"]) for row in rows]
    width = max(lengths) + 2
    cuts = [[sum(row["lengths"][: k + 1]) for k in range(len(row["lengths"]) - 1)] for row in rows]
    table = [
        [math.nan if phi is None else phi for phi in row["potential"]]
        + [row["outcome"]] * (SEGMENTS + 1 - len(row["potential"]))
        for row in rows
    ]
    return credit_inputs(
        [row["advantage"] for row in rows],
        (torch.arange(width) < torch.tensor(lengths)[:, None]).long(),
        {
            "segments": segment_ids(cuts, lengths, width, SEGMENTS),
            "potential": torch.tensor(table, dtype=torch.float64),
            "mean_segment": torch.tensor([row["mean"] for row in rows], dtype=torch.float64),
            "entropy": torch.tensor(
                [row["entropy"] + [garbage] * (width - len(row["entropy"])) for row in rows], dtype=torch.float64
            ),
        },
    )


@settings(max_examples=150, deadline=None)
@given(
    st.lists(responses(), min_size=1, max_size=5),
    shape_options(),
    st.sampled_from(["segment", "rest"]),
    st.sampled_from([0.0, 1e9, math.nan]),
)
def test_credit_equals_the_slow_loop(rows: list[Row], options: dict, progress: str, garbage: float) -> None:
    inputs = batch(rows, garbage)
    shape, mrt = ShapeCredit(**options), MRTCredit(progress=progress)
    for method, slow in ((shape, slow_shape), (mrt, slow_mrt)):
        found = assign_credit(method, inputs).advantages
        for row, tokens in zip(rows, found.tolist(), strict=True):
            expected = slow(row, method)
            assert tokens == pytest.approx(expected + [0.0] * (len(tokens) - len(expected)), abs=1e-9)
            assert not any(tokens[len(expected) :])


@settings(max_examples=60, deadline=None)
@given(st.lists(responses(), min_size=2, max_size=6), shape_options(), st.randoms())
def test_rows_are_independent(rows: list[Row], options: dict, random) -> None:
    """Any order, any split of the batch and any padding give the same numbers."""
    method = ShapeCredit(**options)
    whole = assign_credit(method, batch(rows, 0.0)).advantages
    order = list(range(len(rows)))
    random.shuffle(order)
    assert torch.equal(assign_credit(method, batch([rows[i] for i in order], 0.0)).advantages, whole[order])
    for i, row in enumerate(rows):
        alone = assign_credit(method, batch([row], 7.0)).advantages[0]
        assert torch.allclose(alone, whole[i, : len(alone)], rtol=0, atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.2, 1.0, 2.5]), max_size=30),
    st.integers(0, 4),
    st.integers(1, 8),
    st.sampled_from(["entropy", "even", "steps"]),
    st.one_of(st.none(), st.sampled_from([0.0, 0.5, 2.0])),
    st.floats(0, 1, width=32),
)
def test_cuts_lie_in_the_thinking(
    entropy: list[float], tag: int, segments: int, cuts: str, threshold: float | None, quantile: float
) -> None:
    options = SegmentOptions(segments=segments, cuts=cuts, threshold=threshold, quantile=quantile)
    first, last = min(tag, len(entropy)), len(entropy)
    steps = list(range(first, last, 3))
    values = torch.tensor(entropy)
    found = cut_points(options, (first, last), entropy=values, steps=steps)
    assert found == sorted(set(found))
    assert len(found) < segments
    assert all(first < cut < last for cut in found)
    if cuts == "entropy" and found:
        limit = values[first:].quantile(options.quantile).item() if threshold is None else threshold
        above = [t for t in range(first + 1, last) if values[t] > limit]
        assert set(found) <= set(above)
        assert len(found) == min(segments - 1, len(above))
    if cuts == "steps":
        assert set(found) <= set(steps)
