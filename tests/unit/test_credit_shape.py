"""SHAPE and MRT on numbers that can be redone by hand, and what SHAPE's paper proves of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attnpo.credit.advantages import KINDS, outcome_advantages
from attnpo.credit.base import CreditInputs, assign_credit, get_credit
from attnpo.credit.segments import segment_advantages
from attnpo.credit.shape import length_discounts

NAN = math.nan


def inputs_of(potential: list[float], *, advantage: float = 0.5, entropy: list[float] | None = None) -> CreditInputs:
    """One response of ten tokens in segments of four and six, then two of padding; L_ref is 5, K is 3."""
    return CreditInputs(
        advantages=torch.tensor([advantage]),
        correct=torch.tensor([True]),
        group_accuracy=torch.tensor([0.5]),
        answer_tokens=torch.tensor([2]),
        total_tokens=torch.tensor([20]),
        rescalable=torch.tensor([True]),
        step_ids=torch.zeros(1, 12, dtype=torch.long),
        num_steps=torch.tensor([1]),
        completion_mask=torch.tensor([[1] * 10 + [0] * 2]),
        step=1,
        signals={
            "segments": torch.tensor([[0] * 4 + [1] * 6 + [3] * 2]),
            "potential": torch.tensor([potential]),
            "mean_segment": torch.tensor([5.0]),
            "entropy": torch.tensor([entropy or [1.0] * 12]),
        },
    )


def credit(name: str, inputs: CreditInputs, **options: object) -> list[float]:
    return assign_credit(get_credit(name, **options), inputs).advantages[0].tolist()


TWO = [0.25, 0.75, 1.0, 1.0]  # Φ at the prompt, at the cut, the outcome, and the outcome again for an absent segment


def test_two_segments() -> None:
    # γ = 1 - 4/5·0.1 = 0.92 and max(0.9, 1 - 6/5·0.1) = 0.9
    # A = 0.5 + 0.3·(0.92·0.75 - 0.25) = 0.632 and 0.5 + 0.3·(0.9·1 - 0.75) = 0.545
    assert credit("shape", inputs_of(TWO)) == pytest.approx([0.632] * 4 + [0.545] * 6 + [0.0] * 2)


def test_fixed_discount() -> None:
    # 0.5 + 0.3·(0.9·0.75 - 0.25) = 0.6275
    assert credit("shape", inputs_of(TWO), fixed_discount=True) == pytest.approx([0.6275] * 4 + [0.545] * 6 + [0.0] * 2)


def test_given_reference_length() -> None:
    # γ = 1 - 4/40·0.1 = 0.99 and 0.985
    first, second = 0.5 + 0.3 * (0.99 * 0.75 - 0.25), 0.5 + 0.3 * (0.985 - 0.75)
    found = credit("shape", inputs_of(TWO), reference_length=40)
    assert found == pytest.approx([first] * 4 + [second] * 6 + [0.0] * 2)


def test_token_weights() -> None:
    # First segment: mean 1, std 1, z = ∓1, w = 1 ∓ 0.2. Second: one token of 6 among zeros: mean 1, std √5,
    # z = √5 and -1/√5; w = 1 + 0.2·√5 and 1 - 0.2/√5.
    entropy = [0.0, 2.0, 0.0, 2.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 99.0, NAN]
    root = math.sqrt(5)
    weights = [0.8, 1.2, 0.8, 1.2, 1 + 0.2 * root, *[1 - 0.2 / root] * 5, 0.0, 0.0]
    plain = [0.632] * 4 + [0.545] * 6 + [0.0] * 2
    expected = [w * a for w, a in zip(weights, plain, strict=True)]
    assert credit("shape", inputs_of(TWO, entropy=entropy)) == pytest.approx(expected)
    assert credit("shape", inputs_of(TWO, entropy=entropy), token_weights=False) == pytest.approx(plain)


def test_weights_are_clipped() -> None:
    entropy = [0.0, 2.0, 0.0, 2.0, *[1.0] * 8]
    found = credit("shape", inputs_of(TWO, entropy=entropy), beta=10.0)
    assert found == pytest.approx([0.316, 1.264, 0.316, 1.264] + [0.545] * 6 + [0.0] * 2)  # × 0.5 and × 2


def test_equal_entropies_have_no_weight() -> None:
    assert credit("shape", inputs_of(TWO, entropy=[0.3] * 12)) == credit("shape", inputs_of(TWO), token_weights=False)


def test_unknown_potential_leaves_both_adjacent_segments_unchanged() -> None:
    assert credit("shape", inputs_of([0.25, NAN, 1.0, 1.0])) == pytest.approx([0.5] * 10 + [0.0] * 2)
    assert credit("shape", inputs_of([NAN, 0.75, 1.0, 1.0])) == pytest.approx([0.5] * 4 + [0.545] * 6 + [0.0] * 2)
    assert credit("shape", inputs_of([NAN] * 4, advantage=0.0)) == [0.0] * 12


def test_single_segment_is_rewarded_from_prompt_to_outcome() -> None:
    inputs = inputs_of([0.25, 1.0, 1.0, 1.0])
    inputs = replace(inputs, signals={**inputs.signals, "segments": torch.tensor([[0] * 10 + [3] * 2])})
    # γ = max(0.9, 1 - 10/5·0.1) = 0.9: 0.5 + 0.3·(0.9 - 0.25) = 0.695
    assert credit("shape", inputs) == pytest.approx([0.695] * 10 + [0.0] * 2)


def test_group_of_equal_rewards_is_shaped_all_the_same() -> None:
    # All right: R = 0 and Φ = 1 throughout, so what is left is the tax: 0.3·(γ - 1).
    found = credit("shape", inputs_of([1.0] * 4, advantage=0.0))
    assert found == pytest.approx([-0.024] * 4 + [-0.03] * 6 + [0.0] * 2)
    # All wrong and never solved: nothing.
    assert credit("shape", inputs_of([0.0] * 4, advantage=0.0)) == [0.0] * 12


def test_mrt_rewards_progress_or_the_remainder_to_the_outcome() -> None:
    assert credit("mrt", inputs_of(TWO)) == pytest.approx([1.0] * 4 + [0.75] * 6 + [0.0] * 2)
    assert credit("mrt", inputs_of(TWO), progress="rest") == pytest.approx([1.25] * 4 + [0.75] * 6 + [0.0] * 2)


def test_losing_and_regaining_potential_is_rewarded_in_mrt_rest_only() -> None:
    fall_and_rise = [0.75, 0.25, 1.0, 1.0]
    rest = credit("mrt", inputs_of(fall_and_rise, advantage=0.0), progress="rest")
    assert rest[0] > 0  # the falling segment
    for name in ("mrt", "shape"):
        assert credit(name, inputs_of(fall_and_rise, advantage=0.0))[0] < 0


def test_shaping_is_progress_minus_a_length_term() -> None:
    torch.manual_seed(0)
    before, after = torch.rand(2, 50, 3, dtype=torch.float64)
    for gamma in (0.7, 0.9, 0.999):
        found = segment_advantages(torch.zeros(50).double(), before, after, alpha=1.0, discounts=gamma)
        change = after - before
        assert torch.allclose(found, gamma * change - (1 - gamma) * before)
        # the paper's approximate form is off by (1 - γ)·Δ
        assert (found - (change - (1 - gamma) * before)).abs().max() <= 1 - gamma


Response = tuple[bool, float, float]
"""Right or wrong; Φ where its two segments begin."""


def group_of(responses: list[Response], kind: str) -> CreditInputs:
    """Responses to one prompt, cut as in `inputs_of`; rewards are 1 and 0."""
    rewards = torch.tensor([[float(right) for right, *_ in responses]])
    advantages = outcome_advantages(rewards, kind)[0].tolist()
    rows = [
        vars(inputs_of([first, second, float(right), float(right)], advantage=advantage))
        for (right, first, second), advantage in zip(responses, advantages, strict=True)
    ]
    tensors = {key: torch.cat([row[key] for row in rows]) for key in rows[0] if torch.is_tensor(rows[0][key])}
    signals = {key: torch.cat([row["signals"][key] for row in rows]) for key in rows[0]["signals"]}
    return CreditInputs(**tensors, signals=signals, step=1)


PHI = st.one_of(st.sampled_from([0.0, 1.0, NAN]), st.floats(0, 1))
RIGHT, WRONG = st.tuples(st.just(True), PHI, PHI), st.tuples(st.just(False), PHI, PHI)
FALL_AND_RISE = [(True, 1.0, 0.0), (False, 0.0, 1.0)]


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.lists(RIGHT, min_size=1, max_size=7), st.lists(WRONG, min_size=1, max_size=7)).map(
        lambda two: two[0] + two[1]
    ),
    st.sampled_from(KINDS),
    st.floats(0, 0.4999),
    st.floats(0, 1),
    st.sampled_from([None, 1, 40.0]),
)
@example(FALL_AND_RISE, "dr_grpo", 0.4999, 1.0, None)
def test_below_one_half_right_stays_above_wrong(responses, kind, alpha, gamma_min, reference) -> None:
    """Every segment of a right response, wherever Φ falls, against every one of a wrong one, wherever it rises."""
    inputs = group_of(responses, kind)
    method = get_credit("shape", alpha=alpha, gamma_min=gamma_min, reference_length=reference, token_weights=False)
    tokens = assign_credit(method, inputs).advantages[:, :10]
    right = torch.tensor([right for right, *_ in responses])
    assert tokens[right].min() > tokens[~right].max()


@pytest.mark.parametrize(("alpha", "above"), [(0.49, True), (0.51, False)])
def test_one_half_is_the_limit(alpha: float, above: bool) -> None:
    """dr_grpo's gap between right and wrong is 1: 0.5 + α·(0 - 1) against -0.5 + α·(1 - 0), undiscounted."""
    method = get_credit("shape", alpha=alpha, gamma_min=1, token_weights=False)
    right, wrong = assign_credit(method, group_of(FALL_AND_RISE, "dr_grpo")).advantages[:, 0].tolist()
    assert (right, wrong) == pytest.approx((0.5 - alpha, alpha - 0.5))
    assert (right > wrong) == above


def test_least_discount_and_a_true_step() -> None:
    # From 7/8 to 1 with m = 8: 0.7 - 0.875 < 0 < 0.9 - 0.875.
    long = torch.tensor([[100.0]])
    for least, sign in ((0.7, -1), (0.9, 1)):
        gamma = length_discounts(long, torch.tensor([10.0]), least)
        assert gamma.item() == pytest.approx(least)
        shaping = segment_advantages(
            torch.zeros(1), torch.tensor([[7 / 8]]), torch.ones(1, 1), alpha=1, discounts=gamma
        )
        assert shaping.sign().item() == sign
