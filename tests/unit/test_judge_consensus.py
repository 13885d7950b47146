"""Consensus and agreement of judges, by hand."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpo.labels.report import cohen_kappa, consensus, pairwise_agreement

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("votes", "quorum", "unanimous", "majority"),
    [
        ("EEE", 3, True, True),
        ("RRR", 3, False, False),
        ("EER", 3, None, True),
        ("ERR", 3, None, False),
        ("EE", 3, None, None),  # one judge gave no valid answer
        ("EE", 2, True, True),
        ("ER", 2, None, None),
        ("EERR", 1, None, None),
        ("E", 1, True, True),
        ("", 1, None, None),
    ],
)
def test_consensus(votes: str, quorum: int, unanimous: bool | None, majority: bool | None) -> None:
    single = [vote == "E" for vote in votes]
    assert consensus(single, "unanimous", quorum) is unanimous
    assert consensus(single, "majority", quorum) is majority


@given(st.lists(st.booleans(), max_size=7), st.integers(1, 7), st.randoms())
def test_consensus_is_fair(votes: list[bool], quorum: int, random) -> None:
    """Consensus does not depend on the order of judges or on the label; a unanimous vote is the majority."""
    shuffled = random.sample(votes, len(votes))
    for rule in ("unanimous", "majority"):
        label = consensus(votes, rule, quorum)
        assert consensus(shuffled, rule, quorum) is label
        assert consensus([not vote for vote in votes], rule, quorum) is (None if label is None else not label)
    if (label := consensus(votes, "unanimous", quorum)) is not None:
        assert consensus(votes, "majority", quorum) is label


def test_kappa_by_hand() -> None:
    # 20 both yes, 5 only the first, 10 only the second, 15 both no: observed 0.7, expected 0.5*0.6 + 0.5*0.4 = 0.5
    counts = {(True, True): 20, (True, False): 5, (False, True): 10, (False, False): 15}
    first, second = zip(*chain.from_iterable([pair] * count for pair, count in counts.items()), strict=True)
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert cohen_kappa([True, False], [True, False]) == 1
    assert cohen_kappa([True, False], [False, True]) == -1
    assert cohen_kappa([True, True], [True, False]) == 0  # a constant judge agrees by chance only
    assert cohen_kappa([True, True], [True, True]) is None
    assert cohen_kappa([], []) is None


@given(pairs)
def test_kappa_is_symmetric_in_judges_and_labels(votes: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in votes], [b for _, b in votes]
    kappa = cohen_kappa(first, second)
    turned = cohen_kappa([not a for a in first], [not b for b in second])
    if kappa is None:
        assert turned is None
        assert cohen_kappa(second, first) is None
        return
    assert -1 - 1e-9 <= kappa <= 1
    assert cohen_kappa(second, first) == pytest.approx(kappa)
    assert turned == pytest.approx(kappa)
    assert (kappa == 1) == (first == second)


def test_pairs_count_only_traces_that_both_judged() -> None:
    traces = [
        {"a": (True, False), "b": (True, True), "c": (True, False)},
        {"a": (False, False, True), "c": (False, True, True)},
        {"b": (True,)},
        {},
    ]
    ab, ac, bc = pairwise_agreement(["a", "b", "c"], traces)
    assert (ab.judges, ab.steps, ab.share) == (("a", "b"), 2, 0.5)
    assert (ac.judges, ac.steps, ac.share) == (("a", "c"), 5, 0.8)
    assert bc.steps == 2
    # a: TFFFT, c: TFFTT: observed 0.8, expected 0.4*0.6 + 0.6*0.4 = 0.48
    assert ac.kappa == pytest.approx((0.8 - 0.48) / 0.52)
    (none,) = pairwise_agreement(["a", "b"], [{"a": (True,)}])
    assert (none.steps, none.share, none.kappa) == (0, None, None)
