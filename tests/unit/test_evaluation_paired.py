"""AES, paired differences and the frontier, against numbers that can be redone by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpo.errors import InputError
from attnpo.evaluation.aes import Weights, aes
from attnpo.evaluation.frontier import pareto
from attnpo.evaluation.paired import EXACT, against, macro_average, sign_flip_p


def table(*rows: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("accuracy", "tokens", "expected"), [(47.78, 4000, 0.74), (45.83, 3975, 0.62)])
def test_aes_of_the_paper(accuracy, tokens, expected):
    assert round(aes(accuracy, tokens, 45.21, 9340), 2) == expected


def test_aes_by_hand():
    assert aes(0.4, 500, 0.5, 1000) == pytest.approx(0.5 - 5 * 0.2)
    assert aes(0.6, 500, 0.5, 1000) == pytest.approx(0.5 + 3 * 0.2)
    assert aes(0.5, 1500, 0.5, 1000) == pytest.approx(-0.5)
    assert aes(0.6, 500, 0.5, 1000, Weights(length=2, gain=1, loss=7)) == pytest.approx(1.2)


@given(st.floats(0.01, 1), st.floats(1, 1e5))
def test_a_model_against_itself_scores_nothing(accuracy, tokens):
    assert aes(accuracy, tokens, accuracy, tokens) == 0


def test_a_base_without_a_right_answer_has_no_aes():
    assert math.isnan(aes(0.5, 100, 0.0, 100))


def test_weights_are_checked():
    with pytest.raises(InputError, match="AES weight loss: found -1"):
        Weights(loss=-1)


def by_enumeration(differences: list[float]) -> float:
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in signs_of(len(differences))]
    return sum(abs(total) >= abs(sum(differences)) - 1e-9 for total in sums) / len(sums)


def signs_of(n: int) -> list[tuple[int, ...]]:
    return list(itertools.product((1, -1), repeat=n))


@settings(max_examples=50)
@given(st.lists(st.sampled_from([-1, -0.5, -0.25, 0, 0.25, 0.5, 1]), min_size=1, max_size=8))
def test_the_sign_flip_test_goes_through_all_signs(differences):
    assert sign_flip_p(torch.tensor(differences).double()) == pytest.approx(by_enumeration(differences))


def test_with_one_sample_per_problem_it_is_mcnemars_exact_test():
    """8 problems won, 2 lost: twice the chance of at most 2 heads in 10 throws, (1 + 10 + 45) / 1024."""
    differences = torch.tensor([1.0] * 8 + [-1.0] * 2 + [0.0] * 30).double()
    assert sign_flip_p(differences) == pytest.approx(2 * 56 / 1024)


def test_many_problems_are_drawn_close_to_the_exact_value():
    """15 won and 5 lost of 20: 2 · Σ_{i ≤ 5} C(20, i) / 2^20."""
    differences = torch.tensor([1.0] * 15 + [-1.0] * 5).double()
    exact = 2 * sum(math.comb(20, i) for i in range(6)) / 2**20
    assert len(differences) > EXACT
    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.005)


def test_no_difference_and_no_problem():
    assert sign_flip_p(torch.zeros(5).double()) == 1
    assert sign_flip_p(torch.tensor([math.nan]).double()) is None


def test_differences_by_hand():
    base, model = table((0.5, 100), (1.0, 300)), table((1.0, 50), (1.0, 150))
    found = against({"b": model}, {"b": base}, Weights())
    assert (found.accuracy.value, found.tokens.value) == (0.25, -100)
    assert (found.accuracy.low, found.accuracy.high) == (0, 0.5)  # of one problem or the other drawn twice
    assert found.accuracy.p == 1  # one problem that differs: either sign is as likely
    assert found.tokens.p == 0.5  # of four assignments of signs two are as far from 0
    assert found.aes.value == pytest.approx(0.5 + 3 * (1.0 - 0.75) / 0.75)


def test_pairs_with_a_missing_grade_count_for_neither():
    base, model = table((0.0, 100), (1.0, 100)), table((math.nan, 100), (1.0, 100))
    found = against({"b": model}, {"b": base}, Weights())
    assert (found.accuracy.value, found.accuracy.problems, found.tokens.problems) == (0, 1, 2)
    assert found.aes.value == 0


def test_the_pairs_make_the_interval_narrow():
    """Problems differ much, the model is 10 tokens shorter on each: of that there is no doubt."""
    base = torch.stack([torch.ones(30), torch.arange(30) * 100.0], dim=1).double()
    model = base - torch.tensor([0.0, 10.0])
    found = against({"b": model}, {"b": base}, Weights())
    assert (found.tokens.low, found.tokens.high) == pytest.approx((-10, -10))
    assert found.tokens.p < 0.001


def test_benchmarks_count_the_same_however_long():
    small = {"b": table((1.0, 10), (1.0, 10)), "a": table(*[(0.0, 30)] * 50)}
    zero = {name: values * 0 for name, values in small.items()}
    found = against(small, zero, Weights())
    assert (found.accuracy.value, found.tokens.value) == (0.5, 20)
    average = macro_average({"b": {"accuracy": [1.0, 1.0], "pass@8": [1.0, 1.0]}, "a": {"accuracy": [0.0] * 50}})
    assert list(average) == ["accuracy"]
    assert (average["accuracy"].value, average["accuracy"].problems) == (0.5, 52)


def test_pareto_by_hand():
    points = {"base": (1000, 0.6), "short": (500, 0.6), "worse": (600, 0.5), "best": (1200, 0.7), "twin": (500, 0.6)}
    assert pareto(points) == ["short", "twin", "best"]


POINTS = st.dictionaries(st.text(min_size=1, max_size=3), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1)


@given(POINTS)
def test_runs_off_the_frontier_are_dominated(points):
    line = pareto(points)
    for name, (tokens, accuracy) in points.items():
        beaten = any(points[o][0] <= tokens and points[o][1] >= accuracy and points[o] != points[name] for o in line)
        assert beaten != (name in line)
