"""The experiment on the law of redundancy: controls, records, statistics."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest
import torch

from attnpo.task.dataset import build_dataset
from attnpo.task.traces import TraceStyle


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, repository: Path):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module


def test_shuffling_permutes_the_scales_of_a_row(load) -> None:
    shuffle = load("law_credit").shuffle_steps
    scales = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 9.0, 9.5]])
    orders = set()
    for seed in range(50):
        found = shuffle(scales, torch.tensor([4, 2]), torch.Generator().manual_seed(seed)).tolist()
        assert sorted(found[0]) == pytest.approx([0.1, 0.2, 0.3, 0.4])
        assert sorted(found[1][:2]) == pytest.approx([0.5, 0.6])
        assert found[1][2:] == pytest.approx([9.0, 9.5])
        orders.add(tuple(found[0]))
    assert len(orders) > 10


def test_shuffling_does_not_use_the_rollouts_random_numbers(load) -> None:
    shuffle = load("law_credit").shuffle_steps
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    shuffle(torch.rand(2, 3, generator=torch.Generator()), torch.tensor([3, 3]), torch.Generator().manual_seed(1))
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("style", [TraceStyle(), TraceStyle(redundancy=30, sentences="many")])
def test_labels_of_written_steps_are_the_writers(load, style) -> None:
    written_labels = load("gold_labels").written_labels
    for row in build_dataset(60, 4, "test", (1, 4), style):
        texts = [row["response"][step["start"] : step["end"]] for step in row["steps"]]
        assert written_labels(texts) == [step["essential"] for step in row["steps"]]


def record(redundant: list[float], tokens: int = 100, right: float = 1.0) -> dict:
    """One update of 64 responses for each number."""
    return {
        "updates": [{"tokens": [tokens] * 64, "right": [right] * 64, "redundant": [value] * 64} for value in redundant]
    }


def test_samples_until_half_of_the_redundancy_is_gone(load) -> None:
    tables = load("law_tables")
    run = tables.Run(record([10, 8, 6, 4, 2]), start=10.0)
    # after the third update 0.6 is left, after the fourth 0.4: half way between 192 and 256 responses
    assert run.until(0.5) == (pytest.approx(224.0), True)
    assert run.until(0.5, "tokens") == (pytest.approx(22400.0), True)
    assert run.until(0.1) == (320.0, False)
    assert tables.Run(record([4, 4]), start=10.0).until(0.5) == (64.0, True)


def test_ratios_are_paired_by_seed(load) -> None:
    tables = load("law_tables")
    slow, fast = [10, 10, 8, 6, 4, 2], [10, 6, 4, 2, 2, 2]
    arm = {seed: tables.Run(record(fast), 10.0) for seed in (0, 1)}
    other = {seed: tables.Run(record(slow), 10.0) for seed in (0, 1, 2)}
    found = tables.samples_ratio(arm, other)
    assert found.middle == pytest.approx(160 / 288)
    assert found.low == pytest.approx(found.high)
    assert (found.seeds, found.reached, found.other_reached) == (2, True, True)
    never = tables.samples_ratio({0: tables.Run(record([10, 10, 10, 10, 10, 10]), 10.0)}, other)
    assert str(never).startswith("≥ ")


def test_accuracy_is_compared_where_lengths_overlap(load) -> None:
    tables = load("law_tables")

    def run(lengths: list[int], right: list[float]):
        updates = [record([1], n, r)["updates"][0] for n, r in zip(lengths, right, strict=True)]
        return tables.Run({"updates": updates}, 1.0)

    # from 200 to 300 tokens the one falls from 0.9 to 0.8 as it shortens, the other is at 0.7
    found = tables.accuracy_at_equal_length(run([300, 200], [0.9, 0.8]), run([400, 300, 200], [0.7, 0.7, 0.7]))
    assert found == pytest.approx(0.15)
    assert tables.accuracy_at_equal_length(run([300, 250], [1, 1]), run([200, 100], [1, 1])) is None


def test_mean_with_interval_by_hand(load) -> None:
    # mean 2, standard deviation 1, t(2) = 4.303: 4.303 / √3 = 2.484
    assert load("law_tables").mean_with_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, -0.4843, 4.4843), abs=1e-3)
    assert math.isnan(load("law_tables").mean_with_interval([1.0])[1])


def test_cells_and_rates(load) -> None:
    cell = load("law").Cell.parse("30-many-16")
    assert str(cell) == "30-many-16"
    assert cell.model == "30-many"
    assert cell.learning_rate == pytest.approx(1.5e-4 * math.sqrt(8))
    with pytest.raises(ValueError, match="unpack"):
        load("law").Cell.parse("30-many")
