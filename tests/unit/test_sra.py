"""Step ranking accuracy by hand."""

from __future__ import annotations

import pytest
import torch

from attnpo.errors import InputError
from attnpo.heads.table import mean_step_ranking_accuracy, step_ranking_accuracy

ESSENTIAL = torch.tensor([True, False, True, False])


def test_golden():
    scores = torch.tensor(
        [
            [0.4, 0.1, 0.3, 0.2],  # all four pairs in order
            [0.1, 0.4, 0.2, 0.3],  # none
            [0.4, 0.3, 0.2, 0.3],  # 0.4 beats both, 0.2 beats none: 2 of 4
            [0.2, 0.2, 0.2, 0.2],  # four ties
            [0.3, 0.3, 0.2, 0.1],  # tie, win, loss, win: 2.5 of 4
        ]
    )
    assert step_ranking_accuracy(scores, ESSENTIAL).tolist() == [1.0, 0.0, 0.5, 0.5, 0.625]


def test_mean_over_responses_counts_the_excluded():
    first = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.2, 0.2, 0.2, 0.2]])
    second = torch.tensor([[0.1, 0.2], [0.2, 0.1]])
    result = mean_step_ranking_accuracy(
        [
            (first, ESSENTIAL),
            (second, torch.tensor([True, True])),
            (second, torch.tensor([True, False])),
            (torch.zeros(2, 0), torch.zeros(0, dtype=torch.bool)),
        ]
    )
    assert result.accuracy.tolist() == [0.5, 0.75]
    assert (result.responses, result.excluded) == (2, 2)


@pytest.mark.parametrize("labels", [[True, True], [False, False], []])
def test_one_kind_of_step_is_refused(labels):
    with pytest.raises(InputError, match="expected both kinds"):
        step_ranking_accuracy(torch.zeros(1, len(labels)), torch.tensor(labels, dtype=torch.bool))


def test_shapes_and_no_usable_response_are_refused():
    with pytest.raises(InputError, match=r"\[H, S\]"):
        step_ranking_accuracy(torch.zeros(3), ESSENTIAL)
    with pytest.raises(InputError, match="none of 1 responses"):
        mean_step_ranking_accuracy([(torch.zeros(1, 2), torch.tensor([True, True]))])
