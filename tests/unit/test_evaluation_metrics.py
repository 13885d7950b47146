"""Metrics of one model on one benchmark, against numbers that can be redone by hand."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpo.bootstrap import bootstrap_over_problems
from attnpo.errors import InputError
from attnpo.evaluation.folder import sample_from_json
from attnpo.evaluation.metrics import (
    KS,
    Measure,
    accuracy,
    by_problem,
    columns,
    is_right,
    known_budgets,
    measure,
    median_tokens,
    pass_at_k,
    reached_ks,
    widen,
)
from attnpo.evaluation.options import read_budgets
from attnpo.evaluation.results import by_level, histogram
from attnpo.evaluation.samples import Sample
from example_evaluation import sample_row


def make(id: str = "p0", sample: int = 0, tokens: int = 100, verdict: str | None = "right", **changes) -> Sample:
    return sample_from_json(sample_row("math500", id, sample, tokens, verdict, **changes), "row")


def problem(verdicts: str, tokens: list[int] | None = None, id: str = "p0") -> list[Sample]:
    """One sample per letter: r(ight), w(rong), n(o answer), t(imed out), u(nverifiable), - (no verdict)."""
    words = dict(zip("rwntu-", ("right", "wrong", "no_answer", "timed_out", "unverifiable", None), strict=True))
    lengths = tokens or [100] * len(verdicts)
    return [make(id, i, lengths[i], words[letter]) for i, letter in enumerate(verdicts)]


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [(4, 1, 2, 1 / 2), (4, 2, 2, 5 / 6), (5, 0, 5, 0.0), (5, 5, 1, 1.0), (3, 2, 2, 1.0), (10, 3, 1, 0.3)],
)
def test_pass_at_k_by_hand(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(numbers):
    n, c, k = numbers
    subsets = list(itertools.combinations([i < c for i in range(n)], k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_pass_at_k_grows_with_k_and_stays_a_share(numbers):
    n, c = numbers
    values = [pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(c / n)
    assert all(0 <= value <= 1 for value in values)


def test_pass_at_k_of_many_samples_does_not_overflow():
    assert pass_at_k(100_000, 1, 128) == pytest.approx(128 / 100_000)


def test_verdicts_without_a_reward_are_neither_right_nor_wrong():
    assert [is_right(sample) for sample in problem("rwntu-")] == [True, False, False, None, None, None]
    assert accuracy(problem("rwtt")) == 1 / 2
    assert math.isnan(accuracy(problem("tu-")))


def test_a_problem_counts_once_however_often_it_was_sampled():
    problems = [problem("rrrr"), problem("w")]
    assert measure(columns(problems))["accuracy"].value == 1 / 2  # and not 4 of 5


def test_problems_without_a_grade_are_left_out_and_counted():
    found = measure(columns([problem("rw"), problem("tt"), problem("rr")]))
    assert (found["accuracy"].value, found["accuracy"].problems) == (0.75, 2)
    assert found["tokens"].problems == 3


def test_nothing_graded_has_no_accuracy():
    found = measure(columns([problem("t"), problem("u")]))["accuracy"]
    assert (found.value, found.low, found.high, found.problems) == (None, None, None, 0)


def test_one_problem_has_no_interval():
    found = measure(columns([problem("rw")]))["accuracy"]
    assert (found.value, found.low, found.high, found.problems) == (0.5, None, None, 1)


def test_equal_problems_have_an_empty_interval():
    found = measure(columns([problem("rw", [10, 30]) for _ in range(7)]))
    assert (found["accuracy"].low, found["accuracy"].high) == pytest.approx((0.5, 0.5))
    assert (found["tokens"].low, found["tokens"].value, found["tokens"].high) == pytest.approx((20, 20, 20))


def test_k_reaches_as_far_as_half_of_the_problems():
    assert reached_ks([problem("rwwwr"), problem("rwww"), problem("r")]) == [1, 2, 4]
    assert reached_ks([problem("rwww"), problem("r")]) == [1, 2, 4]
    assert reached_ks([problem("rwww"), problem("r"), problem("w")]) == [1]
    assert reached_ks([problem("tttt")]) == []
    found = measure(columns([problem("rwww"), problem("rrww"), problem("rwwt")]))
    assert found["pass@4"].problems == 2  # the third has three grades
    assert found["pass@2"].value == pytest.approx((1 / 2 + 5 / 6 + 2 / 3) / 3)


def test_accuracy_under_a_budget_counts_longer_responses_as_wrong():
    one = problem("rrwr", [100, 200, 50, 300])
    assert [accuracy(one, budget) for budget in (99, 100, 200, 299, 300)] == [0, 0.25, 0.5, 0.5, 0.75]
    assert accuracy(problem("rt", [100, 900]), 500) == 1.0  # not graded: in no budget


@given(st.lists(st.tuples(st.sampled_from("rwnt"), st.integers(1, 5000)), min_size=1, max_size=12))
def test_accuracy_grows_with_the_budget_up_to_the_accuracy(rows):
    one = problem("".join(letter for letter, _ in rows), [tokens for _, tokens in rows])
    values = [accuracy(one, budget) for budget in (1, 10, 100, 1000, 5000)]
    if not math.isnan(values[-1]):
        assert values == sorted(values)
        assert values[-1] == accuracy(one)


def test_budgets_beyond_a_cut_off_response_are_not_known():
    cut = make("p1", tokens=4096, verdict="no_answer", truncated=True)
    assert known_budgets([problem("rr"), [cut]], [8192, 2048, 4096]) == [2048, 4096]
    assert known_budgets([problem("rr")], [8192, 2048]) == [2048, 8192]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=4), min_size=1, max_size=6))
def test_the_median_is_that_of_all_responses(lengths):
    problems = [problem("r" * len(part), part, f"p{i}") for i, part in enumerate(lengths)]
    found = median_tokens(problems)
    assert found.value == statistics.median(itertools.chain(*lengths))
    if len(problems) > 1:
        assert min(map(min, lengths)) <= found.low <= found.value <= found.high <= max(map(max, lengths))


def test_the_median_resamples_whole_problems():
    """Two problems: each draw has one of them twice or both, so the interval is that of the two medians."""
    found = median_tokens([problem("rrr", [10, 20, 30]), problem("rrr", [100, 110, 120], "p1")])
    assert (found.low, found.value, found.high) == (20, 65, 110)


def test_the_order_of_arrival_changes_nothing():
    rng = random.Random(0)
    samples = [
        make(f"p{i}", j, rng.randint(1, 999), rng.choice(["right", "wrong"])) for i in range(9) for j in range(3)
    ]
    shuffled = rng.sample(samples, len(samples))
    assert measure(columns(by_problem(shuffled))) == measure(columns(by_problem(samples)))
    assert median_tokens(by_problem(shuffled)) == median_tokens(by_problem(samples))


def test_coverage_of_intervals():
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(300):
        values = torch.rand(40, 1, generator=generator)
        low, high = bootstrap_over_problems(values, torch.arange(40), draws=300)
        hits += bool(low[0] <= 0.5 <= high[0])
    assert 0.90 <= hits / 300 <= 0.98


def test_levels_come_in_their_order():
    rows = [make(f"p{i}", level=level) for i, level in enumerate(["10", "2", "hard", None, "easy", "2"])]
    found = by_level(by_problem(rows))
    assert {level: len(part) for level, part in found.items()} == {"2": 2, "10": 1, "easy": 1, "hard": 1}
    assert list(found) == ["2", "10", "easy", "hard"]


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=50))
def test_the_histogram_counts_every_response_in_its_range(tokens):
    found = histogram(tokens, bins=6)
    edges = found["edges"]
    assert sum(found["counts"]) == len(tokens)
    for low, high, count in zip(edges, edges[1:], found["counts"], strict=False):
        assert count == sum(low <= t < high or (t == high == edges[-1]) for t in tokens)


@pytest.mark.parametrize("text", ["", "0", "-4", "1.5", "2048,,4096", "many"])
def test_budgets_are_whole_numbers(text):
    with pytest.raises(InputError, match="--budgets: found"):
        read_budgets(text)


def test_budgets_are_read():
    assert read_budgets("4096, 512") == [512, 4096]
    assert tuple(2**i for i in range(8)) == KS


def test_shares_that_all_agree_have_the_exact_interval():
    """Three problems: 0.025^(1/3) = 0.2924 (Clopper–Pearson for 3 of 3 is [0.292, 1]); lengths have no such bound."""
    nan = math.nan
    found = measure(
        {
            "accuracy": [1, 1, 1],
            "truncated": [0, 0, 0],
            "pass@2": [1, nan, 1],
            "tokens": [1, 1, 1],
            "budget@9": [0, 1, 1],
        }
    )
    ends = {name: (value.low, value.high) for name, value in found.items()}
    assert ends["accuracy"] == pytest.approx((0.2924, 1), abs=1e-4)
    assert ends["truncated"] == pytest.approx((0, 1 - 0.2924), abs=1e-4)
    assert ends["pass@2"] == pytest.approx((0.1581, 1), abs=1e-4)  # √0.025, of the two problems it has
    assert ends["tokens"] == (1, 1)
    assert ends["budget@9"] == (0, 1)
    assert widen(Measure(1.0, None, None, 1)) == Measure(1.0, None, None, 1)
