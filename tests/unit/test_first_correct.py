"""Steps after the first one that states the answer, and the definition of stating it."""

from __future__ import annotations

import pytest
import torch

from attnpo.credit.base import CreditInputs, assign_credit, get_credit
from attnpo.credit.first_correct import steps_with_answer
from attnpo.errors import InputError
from attnpo.steps.answers import final_answer, states_answer
from attnpo.steps.spans import locate_steps


def inputs_of(advantage: float, states: list[bool], *, rescalable: bool = True) -> CreditInputs:
    """Three steps of two, one and two tokens, the closing tag, the answer, one of padding."""
    return CreditInputs(
        advantages=torch.tensor([advantage]),
        correct=torch.tensor([True]),
        group_accuracy=torch.tensor([1.0]),
        answer_tokens=torch.tensor([1]),
        total_tokens=torch.tensor([10]),
        rescalable=torch.tensor([rescalable]),
        step_ids=torch.tensor([[0, 0, 1, 2, 2, 4, 4, 4]]),
        num_steps=torch.tensor([3]),
        completion_mask=torch.tensor([[1] * 7 + [0]]),
        step=1,
        signals={"states_answer": torch.tensor([states])},
    )


def scales(inputs: CreditInputs, **options: object) -> list[float]:
    result = assign_credit(get_credit("first_correct", **options), inputs)
    assert result.scales is not None
    return result.scales[0].tolist()


SECOND = [False, True, True, False]  # S is 4: another response of the batch has a step more


def test_redundant_steps_are_attenuated() -> None:
    assert scales(inputs_of(0.3, SECOND)) == [1, 1, 0, 1]
    assert scales(inputs_of(0.3, SECOND), keep=0.25) == [1, 1, 0.25, 1]
    tokens = assign_credit(get_credit("first_correct", keep=0.5), inputs_of(0.3, SECOND)).advantages[0]
    assert tokens.tolist() == pytest.approx([0.3, 0.3, 0.3, 0.15, 0.15, 0.3, 0.3, 0.0])


def test_essential_steps_are_protected() -> None:
    assert scales(inputs_of(-0.3, SECOND)) == [0, 0, 1, 1]


def test_responses_that_are_not_rescaled() -> None:
    for inputs in (
        inputs_of(0.3, [False] * 4),  # no step states the answer
        inputs_of(-0.3, [False] * 4),
        inputs_of(0.3, [False, False, False, True]),  # beyond its steps
        inputs_of(0.3, SECOND, rescalable=False),
        inputs_of(0.0, SECOND),
    ):
        assert scales(inputs) == [1] * 4
    assert scales(inputs_of(0.3, SECOND), positive=False) == [1] * 4
    assert scales(inputs_of(-0.3, SECOND), negative=False) == [1] * 4


def test_last_step_states_it_first() -> None:
    assert scales(inputs_of(0.3, [False, False, True, False])) == [1] * 4
    assert scales(inputs_of(-0.3, [False, False, True, False])) == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"beds 17, frost 5, \boxed{5}", "5"),
        (r"\boxed{3}, no: \boxed{\dfrac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1,234}", "1234"),
        (r"\boxed{\text{even}}", "even"),
        ("So it is 42 apples.", "42"),
        ("It is -2.5.", "-2.5"),
        (r"\boxed{7", None),
        ("No idea", None),
        ("", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("step", "answer", "places"),
    [
        ("17 - 12 = 5, so", "5", "result equation last anywhere"),
        ("12 minus 7 is 5.", "5", "result last anywhere"),
        ("add 5 to 12, that is 17", "5", "anywhere"),
        ("so we get $5$.", "5", "result last anywhere"),
        ("so $x = 5$", "5", "result equation last anywhere"),
        ("x = 5.0", "5", "result equation last anywhere"),
        ("it is 5/2", "5", ""),
        ("it is 15", "5", ""),
        ("it is 5.5", "5", ""),
        ("it is -5", "5", ""),
        ("it is five", "5", ""),
        ("x = 1,200", "1200", "result equation last anywhere"),
        (r"so it is $\dfrac{1}{2}$", r"\frac{1}{2}", "result anywhere"),
        (r"x = \frac12", r"\frac{1}{2}", ""),  # another way of writing it
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", "result equation anywhere"),
        ("the number is even", "even", "result anywhere"),
        ("This 5", "5", "last anywhere"),  # "is" inside a word
    ],
)
def test_where_an_answer_is_seen(step: str, answer: str, places: str) -> None:
    seen = [place for place in ("result", "equation", "last", "anywhere") if states_answer(step, answer, place)]
    assert seen == places.split()


def test_steps_of_a_sampled_response(trainer_kit, tiny_tokenizer) -> None:
    found = [
        steps_with_answer(locate_steps(tiny_tokenizer, response.ids(tiny_tokenizer)), "result")
        for response in (trainer_kit.LONG, trainer_kit.ENDLESS, trainer_kit.SILENT)
    ]
    # ADD contains "we have 42"; CHECK has no 42; OTHER only counts up to it; CONCLUDE contains "is 42".
    assert found == [[False, False, False, True], [False] * 3, [False] * 2]


def test_place_is_checked() -> None:
    with pytest.raises(InputError, match="place: found 'first', expected one of result, equation, last, anywhere"):
        get_credit("first_correct", place="first")


def test_training_with_first_correct(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, read_rollouts) -> None:
    kit = trainer_kit
    trainer = kit.make_trainer(
        tiny_qwen2,
        tiny_tokenizer,
        tmp_path,
        responses=kit.MIXED,
        credit="first_correct",
        credit_kwargs={"place": "last"},
    )
    trainer.train()
    long = read_rollouts(tmp_path, "train-000001")[0]
    assert long["advantage"] < 0
    # "last": ADD ends in 42 and is protected; what follows is penalised.
    assert [step["scale"] for step in long["steps"]] == [0, 1, 1, 1]
