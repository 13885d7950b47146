"""Which letter a response settles on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpo.evaluation.grading.choice import choice_of, grade_choice
from attnpo.rewards.verdict import Verdict

PLANETS = ("Mars", "the Moon", "Venus", "All of the above")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        (r"\boxed{C}", "C"),
        (r"\boxed{\text{(B)}}", "B"),
        (r"\boxed{\textbf{D.}}", "D"),
        (r"\boxed{B. the Moon}", "B"),
        (r"\boxed{\text{Venus}}", "C"),
        (r"Not \boxed{A}, but \boxed{B}", "B"),
        (r"Answer: A. I checked: \boxed{B}", "B"),  # a box comes first
        ("Answer: C", "C"),
        ("**Answer: C**", "C"),
        ("**Answer:** (C)", "C"),
        ("The correct answer is (D).", "D"),
        ("so the answer is **B**.", "B"),
        ("The answer is option A", "A"),
        ("The correct choice is: B", "B"),
        ("Answer: the Moon", "B"),
        ("Answer: A\n\nWait. Answer: D", "D"),
        ("(A)", "A"),
        ("It orbits the Earth.\n\nB) the Moon", "B"),
        ("C.", "C"),
        ("B", "B"),
        ("Of these (A) is too far and (C) too hot, which leaves (B), I would say", "B"),
        ("If it is red the answer is (A), but it is not, so the answer is (B).", "B"),
        ("The answer is not A; the answer is B", "B"),
        ("(A) is too far, (C) too hot, so (B).", "B"),
        ("Answer: b", "B"),
        (r"\boxed{(c)}", "C"),
        ("Answer: A, as (B) is no planet", "A"),
        ("Answer: E", "E"),  # beyond the last choice: read, and wrong
    ],
)
def test_letter(answer: str, letter: str) -> None:
    assert choice_of(answer, PLANETS) == letter


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "A planet is what I was asked for.",
        "I think so",
        "A\nB\nI cannot decide",
        r"\boxed{}",
        "The answer is unclear",
        "Answer: All",
        "Answer: A, B",
        "Answer: (A) and (B)",
        r"\boxed{A, B}",
        r"\boxed{\text{A or B}}",
        "(A), (B)",
        "An answer is Always hard",
    ],
)
def test_no_letter(answer: str) -> None:
    assert choice_of(answer, PLANETS) is None
    assert grade_choice(answer, "A", PLANETS).verdict == Verdict.NO_ANSWER


def test_verdicts() -> None:
    assert grade_choice("Answer: B", "B", PLANETS).verdict == Verdict.RIGHT
    assert grade_choice("Answer: A", "B", PLANETS).verdict == Verdict.WRONG
    assert grade_choice("Answer: E", "B", PLANETS).verdict == Verdict.WRONG
    assert grade_choice("Answer: B", "B", PLANETS).extracted == "B"


def test_a_choice_that_names_another_one() -> None:
    assert choice_of("It is\n(C) Both (A) and (B)", ("x", "y", "Both (A) and (B)")) == "C"
    assert choice_of("It is\n(A) O(D)", ("O(D)", "O(N)")) == "A"


def test_text_of_two_equal_choices_names_none() -> None:
    assert choice_of(r"\boxed{same}", ("same", "same", "other")) is None


def test_only_the_end_of_a_long_answer_is_read() -> None:
    assert choice_of("Answer: A\n" + "word " * 10_000 + "\nAnswer: B", PLANETS) == "B"
    assert choice_of(r"\boxed{" * 100_000, PLANETS) is None
    assert choice_of("(" * 100_000 + "Answer: " * 20_000 + "nothing", PLANETS) is None


@given(st.text(), st.sampled_from("ABCD"))
def test_a_final_box_decides_whatever_comes_before(before: str, letter: str) -> None:
    assert choice_of(before.replace("boxed", "") + "\n\\boxed{" + letter + "}", PLANETS) == letter
