"""The bootstrap over problems, against draws made one by one."""

from __future__ import annotations

import pytest
import torch

from attnpo import bootstrap
from attnpo.bootstrap import bootstrap_over_problems, number_problems

NAN = torch.nan


def by_hand(values: list[float], groups: list[int], draws: int, seed: int) -> tuple[float, float]:
    count = max(groups) + 1
    picks = torch.randint(count, (draws, count), generator=torch.Generator().manual_seed(seed)).tolist()
    means = []
    for drawn in picks:
        found = [v for g in drawn for v, h in zip(values, groups, strict=True) if h == g and v == v]
        if found:
            means.append(sum(found) / len(found))
    low, high = torch.quantile(torch.tensor(means).double(), torch.tensor([0.025, 0.975]).double()).tolist()
    return low, high


def test_problems_are_drawn_with_all_their_traces():
    groups = torch.tensor([0, 0, 1, 2, 3, 3, 3])
    columns = [[1.0, 0.0, 1.0, NAN, 1.0, 0.0, 0.5], [0.25, 0.5, 0.75, 1.0, 0.0, 0.0, 0.0], [NAN] * 6 + [0.5]]
    low, high = bootstrap_over_problems(torch.tensor(columns).T, groups, draws=500, seed=3)
    for k, column in enumerate(columns):
        assert (float(low[k]), float(high[k])) == pytest.approx(by_hand(column, groups.tolist(), 500, 3))


def test_a_column_without_numbers_has_no_interval():
    low, high = bootstrap_over_problems(torch.tensor([[NAN, 1.0], [NAN, 0.0]]), torch.tensor([0, 1]), draws=50)
    assert low.isnan().tolist() == high.isnan().tolist() == [True, False]


def test_columns_in_parts_equal_one_call(monkeypatch):
    values, groups = torch.rand(9, 7, generator=torch.Generator().manual_seed(0)), torch.arange(9) // 2
    whole = bootstrap_over_problems(values, groups, draws=64)
    monkeypatch.setattr(bootstrap, "CHUNK", 3)
    torch.testing.assert_close(bootstrap_over_problems(values, groups, draws=64), whole)


def test_problems_are_numbered_as_they_appear():
    assert number_problems(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
