"""The pure functions of benchmarks/real_labels.py: where sentences lie, rank correlations, neighbours, halves."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, repository: Path):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def statistics(load) -> ModuleType:
    return load("real_labels_statistics")


@pytest.fixture
def data(load) -> ModuleType:
    return load("real_labels_data")


def slow_ranks(values: list[float]) -> list[float]:
    return [sum(v < x for v in values) + (sum(v == x for v in values) - 1) / 2 for x in values]


def slow_pearson(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    squares = sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y)
    return products / squares**0.5


def test_chunks_are_found_in_order_with_the_space_before_them(data):
    thinking = "\nLet x = 1. So x\n= 1.  So x = 1.\n\nDone."
    spans = data.locate_chunks(thinking, ["Let x = 1.", "So x = 1.", "So x = 1.", "Done."])
    assert [thinking[a:b] for a, b in spans] == ["Let x = 1.", " So x\n= 1.", " So x = 1.", "Done."]


def test_a_chunk_that_is_missing_or_out_of_order_is_not_guessed(data):
    assert data.locate_chunks("One. Two.", ["One.", "Three."]) is None
    assert data.locate_chunks("One. Two.", ["Two.", "One."]) is None
    assert data.locate_chunks("One. Two.", ["One.", " "]) is None


def test_rows_are_taken_at_equal_distances(data):
    assert data.evenly_spaced(range(10), 4) == [0, 2, 5, 7]
    assert data.evenly_spaced(range(3), 4) == [0, 1, 2]


def test_ranks_of_equal_values_are_their_mean(statistics):
    assert statistics.ranks(torch.tensor([[5, 1, 5, 2], [1, 1, 1, 1]])).tolist() == [[2.5, 0, 2.5, 1], [1.5] * 4]


def test_rank_correlation_against_sums_written_out(statistics):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(6, (5, 12), generator=generator)
    labels = torch.randint(4, (12,), generator=generator)
    found = statistics.rank_correlation(scores, labels)
    expected = [slow_pearson(slow_ranks(row), slow_ranks(labels.tolist())) for row in scores.tolist()]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_partial_correlation_of_one_covariate_is_the_textbook_formula(statistics):
    generator = torch.Generator().manual_seed(1)
    scores, labels, third = (torch.rand(9, generator=generator).tolist() for _ in range(3))
    x, y, z = map(slow_ranks, (scores, labels, third))
    xy, xz, yz = slow_pearson(x, y), slow_pearson(x, z), slow_pearson(y, z)
    expected = (xy - xz * yz) / ((1 - xz**2) * (1 - yz**2)) ** 0.5
    found = statistics.rank_correlation(torch.tensor([scores]), torch.tensor(labels), torch.tensor([z]))
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_nothing_is_left_of_a_covariate_itself(statistics):
    place = torch.arange(8)
    labels = torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6])
    assert statistics.rank_correlation(torch.stack([place, -place, place * 0]), labels, place[None]).tolist() == [0] * 3


def test_redundant_steps_are_compared_with_their_neighbours_only(statistics):
    redundant = torch.tensor([False, True, True, False, False, True])
    scores = torch.tensor([[3.0, 2, 5, 4, 9, 1], [0, 1, 2, 3, 4, 5]])
    # Pairs (0, 1), (3, 2), (4, 5): two of three are right, then those whose redundant step comes first.
    assert statistics.neighbour_accuracy(scores, redundant).tolist() == pytest.approx([2 / 3, 1 / 3])
    assert statistics.neighbour_accuracy(torch.ones(1, 6), redundant).tolist() == [0.5]
    assert statistics.neighbour_accuracy(scores, torch.zeros(6, dtype=torch.bool)) is None


def test_no_problem_is_in_both_halves(statistics):
    first, second = statistics.halves_by_group(["a", "b", "c", "a", "b", "d"])
    assert first.tolist() == [True, False, True, True, False, False]
    assert second.tolist() == [not there for there in first.tolist()]


def test_the_interval_draws_whole_problems(statistics):
    values = torch.tensor([0.0, 0.0, 1.0, 1.0, torch.nan])
    assert statistics.interval(values, ["a", "a", "b", "b", "b"]) == [0, 1]  # two problems: one of them twice, often
    low, high = statistics.interval(values, ["a", "b", "b", "a", "a"])
    assert low == high == 0.5


def test_heads_that_follow_the_labels_are_found_on_the_other_half(load, data):
    script = load("real_labels")
    generator = torch.Generator().manual_seed(2)
    rows = []
    for number in range(12):
        scores, redundant = torch.rand(8, 10, generator=generator), torch.arange(10) % 3 == number % 3
        scores[2:5] -= redundant.float()
        rows.append(data.Scored(scores, torch.full((10,), 7), {"x": redundant.double()}, str(number)))
    found = script.compare(rows, {"SRA": script.ranking("x")}, [(0, head) for head in range(8)])["SRA"]
    assert found["chosen by SRA"]["mean"] == 1
    assert [sorted(heads) for heads in found["chosen by SRA"]["heads"]] == [[(0, 2), (0, 3), (0, 4)]] * 2
    assert found["controls"]["longer"]["mean"] == 0.5
    assert found["random sets"]["mean"] < 1
