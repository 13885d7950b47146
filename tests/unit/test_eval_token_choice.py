"""Sampling tokens with separate random numbers per response."""

from __future__ import annotations

import pytest
import torch
from transformers import TopPLogitsWarper

from attnpo.evaluation.engines.transformers_engine import SeededChoice, TopP, Uniforms, choose


def test_choice_by_hand():
    # Cumulative probabilities 0.2, 0.2, 0.5, 1: the second token cannot be drawn.
    scores = torch.tensor([0.2, 0.0, 0.3, 0.5]).log().expand(6, 4)
    uniforms = torch.tensor([0.0, 0.19, 0.21, 0.49, 0.51, 1 - 2**-53], dtype=torch.float64)
    assert choose(scores, uniforms).tolist() == [0, 0, 2, 2, 3, 3]


def test_the_last_number_draws_a_possible_token():
    scores = torch.full((1, 50), -torch.inf)
    scores[0, 3:11] = torch.randn(8, generator=torch.Generator().manual_seed(0))
    assert choose(scores, torch.tensor([1 - 2**-53], dtype=torch.float64)).item() == 10
    assert choose(scores, torch.tensor([0.0], dtype=torch.float64)).item() == 3


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    drawn = choose(probabilities.log().expand(4000, 4), Uniforms(range(4000)).at(0))
    shares = drawn.bincount(minlength=4) / 4000
    torch.testing.assert_close(shares, probabilities, atol=0.025, rtol=0)  # three standard errors of 0.4


def test_numbers_depend_on_seed_and_step_alone():
    both, alone = Uniforms([5, 9]), Uniforms([9])
    steps = (0, 1, 127, 128, 400)
    later = {step: alone.at(step).item() for step in reversed(steps)}
    assert [both.at(step)[1].item() for step in steps] == [later[step] for step in steps]
    assert len(set(later.values())) == len(steps)
    both.keep([1])
    assert both.at(128).item() == later[128]
    assert both.at(600).item() == alone.at(600).item()


def test_one_token_is_left():
    processor = SeededChoice(Uniforms([1, 2]), prompt_width=3)
    left = processor(torch.zeros(2, 4, dtype=torch.long), torch.randn(2, 7))
    assert (left > -torch.inf).sum(dim=1).tolist() == [1, 1]


@pytest.mark.parametrize("spread", [0.01, 0.1, 3.0, 20.0])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.95, 0.9999])
def test_top_p_is_that_of_transformers(spread: float, top_p: float):
    # Flat rows need the whole vocabulary, steep ones a few tokens; both kinds in one batch.
    noise = torch.randn(6, 2000, generator=torch.Generator().manual_seed(1))
    scores = noise * torch.tensor([[spread], [5.0], [10.0], [1.0], [spread], [8.0]])
    expected = TopPLogitsWarper(top_p)(torch.zeros(6, 1, dtype=torch.long), scores)  # type: ignore[arg-type]
    found = TopP(top_p)(torch.zeros(6, 1, dtype=torch.long), scores)
    kept, wanted = found > -torch.inf, expected > -torch.inf
    # Rounding may decide otherwise about the one token at the edge.
    assert ((kept ^ wanted).sum(dim=1) <= 1).all()
    assert torch.equal(found[kept & wanted], scores[kept & wanted])


def test_top_p_keeps_the_likeliest_token():
    scores = torch.tensor([[10.0, 0.0, 0.0]])
    assert TopP(0.5)(torch.zeros(1, 1, dtype=torch.long), scores).tolist() == [[10.0, -torch.inf, -torch.inf]]
