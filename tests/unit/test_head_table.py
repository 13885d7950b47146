"""The table of heads by hand, and against a slow bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attnpo.errors import InputError
from attnpo.heads.figures import draw_head_map
from attnpo.heads.table import ESSENTIAL, HeadTable, head_figures, separating, too_few


def table(accuracies, layers=(4, 5)) -> HeadTable:
    """accuracies[n][l][h]; essential and redundant means are 2 and 1 everywhere."""
    accuracy = torch.tensor(accuracies, dtype=torch.float64)
    ones = torch.ones_like(accuracy)
    return HeadTable(torch.stack([accuracy, 2 * ones, ones], dim=1), layers)


def test_figures_of_one_trace():
    scores = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.1, 0.1, 0.1, 0.1]])
    essential = torch.tensor([True, False, True, False])
    figures = head_figures(scores, essential, uniform=0.1)
    torch.testing.assert_close(
        figures, torch.tensor([[1.0, 0.5], [3.5, 1.0], [1.5, 1.0]], dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_means_and_best_heads_are_named_by_layer_and_head():
    found = table([[[0.9, 0.5], [0.7, 1.0]], [[0.7, 0.5], [0.9, 0.6]]])
    expected = {(4, 0): 0.8, (4, 1): 0.5, (5, 0): 0.8, (5, 1): 0.8}
    assert found.mean() == pytest.approx(expected)
    assert found.mean(ESSENTIAL) == dict.fromkeys(expected, 2.0)
    assert found.best(2) == [(4, 0), (5, 0)]  # a tie: the lower layer first
    with pytest.raises(InputError, match="found 5, expected 1 to 4"):
        found.best(5)


def test_held_out_accuracy_is_measured_on_the_traces_that_did_not_choose():
    # Even traces choose head (4, 0), which is 0.2 on odd ones; those choose (4, 1), which is 0.4 on even ones.
    found = table([[[1.0, 0.4]], [[0.2, 0.8]], [[1.0, 0.4]], [[0.2, 0.8]]], layers=(4,))
    assert found.held_out_accuracy(1) == pytest.approx((0.2 + 0.4) / 2)
    assert table([[[1.0, 0.4]]], layers=(4,)).held_out_accuracy(1) is None


def test_responses_to_one_problem_lie_in_one_half():
    # Problems a, b, a, b, c: the halves are {0, 2, 4} and {1, 3}, whatever the order of the traces.
    values = [[[1.0, 0.4]], [[0.2, 0.8]], [[0.7, 0.5]], [[0.4, 0.9]], [[0.7, 0.6]]]
    found = HeadTable(table(values, layers=(4,)).figures, (4,), ("a", "b", "a", "b", "c"))
    even, odd = found.halves()
    assert even.problems == ("a", "a", "c")
    assert odd.problems == ("b", "b")
    assert even.mean() == pytest.approx({(4, 0): 0.8, (4, 1): 0.5})
    # (4, 0) is chosen on the even ones and 0.3 on the odd, (4, 1) the other way round.
    assert found.held_out_accuracy(1) == pytest.approx((0.3 + 0.5) / 2)
    assert HeadTable(found.figures, (4,), ("a",) * 5).held_out_accuracy(1) is None


def test_interval_resamples_problems_not_responses():
    """Ten identical responses to each of four problems have the same interval as the four."""
    once = torch.tensor([[[0.2]], [[0.5]], [[0.6]], [[0.9]]], dtype=torch.float64)
    few = table(once.tolist(), layers=(0,)).interval()[0, 0]
    repeated = table(once.repeat_interleave(10, dim=0).tolist(), layers=(0,))
    grouped = HeadTable(repeated.figures, (0,), tuple("abcd"[i // 10] for i in range(40))).interval()[0, 0]
    assert grouped == pytest.approx(few)
    low, high = repeated.interval()[0, 0]
    assert high - low < 0.5 * (few[1] - few[0])


def test_interval_of_problems_of_different_size_is_that_of_a_loop():
    rng = np.random.default_rng(1)
    values, problems = rng.uniform(0.3, 1, size=30), rng.integers(8, size=30)
    found = HeadTable(table(values[:, None, None].tolist(), layers=(0,)).figures, (0,), tuple(problems.tolist()))
    names = list(dict.fromkeys(problems.tolist()))
    means = [
        np.concatenate([values[problems == name] for name in rng.choice(names, len(names))]).mean() for _ in range(4000)
    ]
    assert found.interval(draws=4000)[0, 0] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.015)


def test_interval_is_that_of_a_loop_over_resampled_traces():
    rng = np.random.default_rng(0)
    values = rng.uniform(0.3, 1, size=(40, 2, 3))
    found = table(values.tolist()).interval(draws=4000)
    means = np.stack([values[rng.integers(40, size=40)].mean(axis=0) for _ in range(4000)])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    for (layer, head), (mine_low, mine_high) in found.items():
        assert mine_low == pytest.approx(low[layer - 4, head], abs=0.01)
        assert mine_high == pytest.approx(high[layer - 4, head], abs=0.01)
    alone = table([[[0.25, 0.5]]], layers=(0,)).interval()
    assert alone == {(0, 0): (0.25, 0.25), (0, 1): (0.5, 0.5)}


def test_one_problem_separates_nothing_however_many_responses():
    values = [[[0.95]], [[1.0]]] * 10
    alone = HeadTable(table(values, layers=(0,)).figures, (0,), ("a",) * 20)
    assert alone.problem_count == 1
    assert separating(alone, [(0, 0)]) == []
    several = HeadTable(alone.figures, (0,), tuple("abcd" * 5))
    assert separating(several, [(0, 0)]) == [(0, 0)]
    assert too_few(several) == "the traces answer 4 problems, few to choose heads by (fewer than 8)"
    assert too_few(table(values)) is None
    assert too_few(table(values[:15])) == "15 traces are few to choose heads by (fewer than 16)"


def test_a_head_separates_when_it_is_good_and_surely_above_chance():
    sure = [[[0.9, 0.69, 1.0]], [[0.8, 0.69, 0.42]]]  # the last is 0.71 with an interval down to 0.42
    found = table(sure, layers=(0,))
    assert separating(found, found.best(3)) == [(0, 0)]


def test_map_of_heads(tmp_path):
    found = table([[[0.9, 0.5], [0.7, 1.0]]])
    draw_head_map(found, [(4, 0)], tmp_path / "map.png", title="a model")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match=r"--figure .*map\.docx: cannot be written"):
        draw_head_map(found, [(4, 0)], tmp_path / "map.docx", title="a model")
