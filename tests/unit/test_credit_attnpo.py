"""Golden numbers of the stepwise rescaling: every one can be redone by hand from the formula."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from attnpo.credit.attnpo import AttnPOCredit, spread_to_tokens, step_scales
from attnpo.credit.base import CreditInputs, assign_credit, get_credit, rescalable_rows
from attnpo.errors import InputError

EASY = {"group_accuracy": 1.0, "answer_tokens": 20, "total_tokens": 200, "step": 1}  # B = 0.1
HALF = {"group_accuracy": 0.5, "answer_tokens": 20, "total_tokens": 200}  # B = 0.25 * 0.1 = 0.025


def scales(scores: list[float], **options) -> list[float]:
    return step_scales(torch.tensor(scores, dtype=torch.float64), **options).tolist()


def test_redundant_step_is_attenuated() -> None:
    # γ = 1·0.04/0.1 + 1 − 1 = 0.4; the step at 0.15 is above the baseline
    assert scales([0.04, 0.15], advantage=0.3, **EASY) == pytest.approx([0.4, 1.0])


def test_essential_step_is_protected() -> None:
    assert scales([0.04, 0.15], advantage=-0.2, **EASY) == [1.0, 0.0]


def test_difficulty_softens_attenuation() -> None:
    # 0.25·(0.01/0.025) + 1 − 0.25 = 0.25·0.4 + 0.75
    assert scales([0.01], advantage=0.3, step=501, **HALF) == pytest.approx([0.85])


def test_default_dtype_keeps_the_goldens() -> None:
    found = step_scales(torch.tensor([0.04]), advantage=0.3, **EASY)
    assert found.dtype == torch.float32
    assert_close(found, torch.tensor([0.4]))
    assert_close(0.3 * found, torch.tensor([0.12]))


def test_half_precision_scores_are_computed_in_single() -> None:
    scores = torch.tensor([0.04, 0.2], dtype=torch.bfloat16)
    found = step_scales(scores, advantage=0.3, **EASY)
    assert found.dtype == torch.float32
    assert_close(found, torch.tensor([scores[0].item() / 0.1, 1.0]))


@pytest.mark.parametrize(("step", "expected"), [(1, 1.0), (499, 1.0), (500, 1.0), (501, 0.85), (10_000, 0.85)])
def test_delay_is_strict(step: int, expected: float) -> None:
    # T·(1 − p) = 500: attenuation starts at 501
    assert scales([0.01], advantage=0.3, step=step, **HALF) == pytest.approx([expected])


@pytest.mark.parametrize(("right", "group"), [(9, 10), (7, 10), (2, 3), (5, 6), (1, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_of_p_does_not_move_the_delay(right: int, group: int, dtype: torch.dtype) -> None:
    # 1000·(1 − 0.9) is 99.99999999999997 in double precision; step 100 must still be a tie.
    p, delay = right / group, 1000 * group
    threshold = 1000 * (group - right)
    options = {"group_accuracy": p, "answer_tokens": 20, "total_tokens": 200, "advantage": 0.3, "delay": delay}
    zero = torch.zeros(1, dtype=dtype)
    assert step_scales(zero, step=threshold, **options).item() == 1.0
    assert step_scales(zero, step=threshold + 1, **options).item() < 1.0


def test_delay_does_not_hold_back_protection() -> None:
    assert scales([0.03], advantage=-0.3, step=1, **HALF) == [0.0]


def test_delta_is_the_least_scale() -> None:
    # (1 − 0.2)·0.4 + 0.2 = 0.52;  S = 0 gives δ itself; δ = 1 changes nothing
    assert scales([0.04, 0.0], advantage=0.3, delta=0.2, **EASY) == pytest.approx([0.52, 0.2])
    assert scales([0.04, 0.0], advantage=0.3, delta=1.0, **EASY) == [1.0, 1.0]


def test_beta_and_lam_are_separate_powers() -> None:
    # β = 1: B = 0.05, λ = 3: 0.125·(0.01/0.05) + 0.875 = 0.9
    assert scales([0.01], advantage=0.3, step=501, beta=1, lam=3, **HALF) == pytest.approx([0.9])


def test_ablations() -> None:
    assert scales([0.04], advantage=0.3, positive=False, **EASY) == [1.0]
    assert scales([0.15], advantage=-0.3, negative=False, **EASY) == [1.0]
    # without difficulty B = 0.1 and no delay, whatever p is: 0.01/0.1
    assert scales([0.01], advantage=0.3, step=1, difficulty=False, **HALF) == pytest.approx([0.1])
    assert scales([0.01], advantage=0.3, step=0, difficulty=False, **HALF) == pytest.approx([0.1])


def test_ties_change_nothing() -> None:
    # B = 0.25·(16/64) = 0.0625 exactly
    tie = {"group_accuracy": 0.5, "answer_tokens": 16, "total_tokens": 64, "step": 5000}
    assert scales([0.0625], advantage=0.3, **tie) == [1.0]
    assert scales([0.0625], advantage=-0.3, **tie) == [1.0]
    assert scales([0.0, 0.0625, 1.0], advantage=0.0, **tie) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("zero", [{"group_accuracy": 0.0}, {"answer_tokens": 0}])
def test_zero_baseline(zero: dict) -> None:
    options = {**EASY, "step": 5000, **zero}
    assert scales([0.0, 0.04], advantage=0.3, **options) == [1.0, 1.0]
    assert scales([0.0, 0.04], advantage=-0.3, **options) == [1.0, 0.0]


def test_no_steps() -> None:
    assert scales([], advantage=0.3, **EASY) == []


def inputs_of(advantage: float, *, rescalable: bool = True, padding: float = 0.0) -> CreditInputs:
    """One response: steps of 2 and 3 tokens, closing tag, 2 answer tokens, 2 padding tokens; total 20, so B = 0.1."""
    return CreditInputs(
        advantages=torch.tensor([advantage]),
        correct=torch.tensor([True]),
        group_accuracy=torch.tensor([1.0]),
        answer_tokens=torch.tensor([2]),
        total_tokens=torch.tensor([20]),
        rescalable=torch.tensor([rescalable]),
        step_ids=torch.tensor([[0, 0, 1, 1, 1, 3, 3, 3, 3, 3]]),
        num_steps=torch.tensor([2]),
        completion_mask=torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1, 0, 0]]),
        step=1,
        signals={"attention": torch.tensor([[0.04, 0.15, padding]])},
    )


def test_token_advantages_by_hand() -> None:
    result = assign_credit(get_credit("attnpo"), inputs_of(0.3))
    assert_close(result.advantages, torch.tensor([[0.12, 0.12, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0, 0]]))
    assert_close(result.scales, torch.tensor([[0.4, 1.0, 1.0]]))
    assert_close(result.baseline, torch.tensor([0.1]))
    result = assign_credit(get_credit("attnpo"), inputs_of(-0.2))
    assert_close(result.advantages, torch.tensor([[-0.2, -0.2, 0, 0, 0, -0.2, -0.2, -0.2, 0, 0]]))


@pytest.mark.parametrize("padding", [float("nan"), float("inf"), -1.0, 0.9])
@pytest.mark.parametrize("advantage", [0.3, -0.2])
def test_scores_beyond_the_last_step_do_not_leak(padding: float, advantage: float) -> None:
    clean = assign_credit(AttnPOCredit(), inputs_of(advantage))
    dirty = assign_credit(AttnPOCredit(), inputs_of(advantage, padding=padding))
    assert_close(dirty.advantages, clean.advantages, rtol=0, atol=0)
    assert_close(dirty.scales, clean.scales, rtol=0, atol=0)


def test_response_that_may_not_be_rescaled_keeps_its_advantage() -> None:
    result = assign_credit(AttnPOCredit(), inputs_of(-0.2, rescalable=False))
    assert_close(result.advantages, torch.tensor([[-0.2] * 8 + [0.0] * 2]))
    assert_close(result.scales, torch.ones(1, 3))
    assert result.baseline is not None
    assert result.baseline.isnan().all()


def test_rescalable_rows_needs_all_three() -> None:
    correct = torch.tensor([True, False, True, True])
    has_answer = torch.tensor([True, True, False, True])
    num_steps = torch.tensor([2, 9, 9, 1])
    assert rescalable_rows(correct, has_answer, num_steps).tolist() == [True, False, False, False]


def test_nothing_is_read_back_from_the_device() -> None:
    """Meta tensors have no values: reading one back, as a device synchronisation would, raises."""
    inputs = inputs_of(0.3)
    on_meta = {
        key: value.to("meta") if isinstance(value, torch.Tensor) else value for key, value in vars(inputs).items()
    }
    on_meta["signals"] = {"attention": inputs.signals["attention"].to("meta")}
    result = assign_credit(AttnPOCredit(), CreditInputs(**on_meta))
    assert result.advantages.shape == (1, 10)


def test_spread_is_exactly_zero_on_padding_even_where_the_advantage_is_not_finite() -> None:
    mask = torch.tensor([[True, False]])
    spread = spread_to_tokens(torch.tensor([float("inf")]), torch.ones(1, 1), torch.tensor([[1, 1]]), mask)
    assert spread[0, 1].item() == 0.0


def three_steps(advantage: float, scores: list[float], p: float = 0.5) -> CreditInputs:
    """One response: steps of 1, 2 and 1 tokens, the closing tag, two answer tokens; |F|/|o| = 2/20 = 0.1."""
    return CreditInputs(
        advantages=torch.tensor([advantage], dtype=torch.float64),
        correct=torch.tensor([True]),
        group_accuracy=torch.tensor([p], dtype=torch.float64),
        answer_tokens=torch.tensor([2]),
        total_tokens=torch.tensor([20]),
        rescalable=torch.tensor([True]),
        step_ids=torch.tensor([[0, 1, 1, 2, 3, 3, 3]]),
        num_steps=torch.tensor([3]),
        completion_mask=torch.ones(1, 7),
        step=1,
        signals={"attention": torch.tensor([scores], dtype=torch.float64)},
    )


def test_threshold_raises_the_baseline() -> None:
    # B = 1.5 · 0.5⁰ · 0.1 = 0.15: γ = 0.25·(0.12/0.15) + 0.75 = 0.95; the paper's B = 0.025 would attenuate nothing
    method = AttnPOCredit(threshold=1.5, beta=0, delay=0)
    result = assign_credit(method, three_steps(0.4, [0.12, 0.3, 0.06]))
    assert result.baseline.tolist() == pytest.approx([0.15])
    assert result.scales[0].tolist() == pytest.approx([0.95, 1.0, 0.25 * 0.06 / 0.15 + 0.75])
    assert assign_credit(AttnPOCredit(delay=0), three_steps(0.4, [0.12, 0.3, 0.06])).scales[0].tolist() == [1, 1, 1]


def test_thinking_yardstick_is_the_mean_over_thinking_tokens() -> None:
    # (1·0.1 + 2·0.4 + 1·0.1) / 4 = 0.25, where |F|/|o| is 0.1
    method = AttnPOCredit(yardstick="thinking", beta=0, delay=0)
    protected = assign_credit(method, three_steps(-0.4, [0.1, 0.4, 0.1]))
    assert protected.baseline.tolist() == pytest.approx([0.25])
    assert protected.scales[0].tolist() == [1, 0, 1]


def test_a_sink_changes_nothing_under_the_thinking_yardstick() -> None:
    """Attention that all steps lose equally (to the first token) changes scales only with the paper's yardstick."""
    method, paper = AttnPOCredit(yardstick="thinking", beta=0, delay=0), AttnPOCredit(beta=0, delay=0)
    scores = [0.08, 0.2, 0.11]
    with_sink = [0.3 * score for score in scores]
    first, second = (assign_credit(method, three_steps(0.4, s)).scales for s in (scores, with_sink))
    assert_close(first, second)
    first, second = (assign_credit(paper, three_steps(0.4, s)).scales for s in (scores, with_sink))
    assert not torch.allclose(first, second)


def test_median_yardstick_is_the_middle_score() -> None:
    method = AttnPOCredit(yardstick="median", beta=0, lam=0, delay=0)
    result = assign_credit(method, three_steps(0.4, [0.1, 0.4, 0.2]))
    assert result.baseline.tolist() == pytest.approx([0.2])
    assert result.scales[0].tolist() == pytest.approx([0.5, 1, 1])


def test_yardsticks_of_a_response_without_scores_attenuate_nothing() -> None:
    for yardstick in ("thinking", "median"):
        nothing = [float("nan")] * 3
        result = assign_credit(AttnPOCredit(yardstick=yardstick, delay=0), three_steps(0.4, nothing))
        assert result.scales[0].tolist() == [1, 1, 1]
        assert result.baseline.tolist() == [0]


def test_sharp_attenuation_is_that_of_a_step_without_attention() -> None:
    # B = 0.1: both redundant steps get 1 − 0.5² = 0.75, whatever their scores
    method = AttnPOCredit(beta=0, delay=0, sharp=True)
    assert assign_credit(method, three_steps(0.4, [0.02, 0.3, 0.09])).scales[0].tolist() == pytest.approx(
        [0.75, 1, 0.75]
    )
    easy = assign_credit(method, three_steps(0.4, [0.02, 0.3, 0.09], p=1.0))
    assert easy.scales[0].tolist() == pytest.approx([0, 1, 0])


@pytest.mark.parametrize("options", [{"yardstick": "metre"}, {"threshold": -1.0}, {"threshold": float("inf")}])
def test_bad_yardsticks_are_refused(options) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))}: found"):
        AttnPOCredit(**options)
