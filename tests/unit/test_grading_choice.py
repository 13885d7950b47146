"""The letter that a response chooses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpo.evaluation.grading.grader import choice_of, grade_choice
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
        ("Not A, but C.", "C"),
        ("C — because it is hot", "C"),
        ("The letter is C.", "C"),
        ("The answer to the question is C.", "C"),
        ("Clearly C", "C"),
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
        ("The answer is for sure D, it can't be A or B", "D"),
        ("The answer: D, it doesn't make sense for it to be A or B", "D"),
        ("thinking about it I think the correct answer is C", "C"),
        ("Let's think step by step. It's not A because it doesn't make sense, therefore I think it's B", "B"),
        ("D. it can't be A or B", "D"),
        ("réponse est C non A", "C"),
        ("B。 不是 A", "B"),
        ("B。不是 A", "B"),
        ("B不是 A", "B"),
        ("Therefore, C.", "C"),
        ("Therefore C", "C"),
        ("Thus, C", "C"),
        ("So C.", "C"),
        ("I think C", "C"),
        ("I think it's C.", "C"),
        ("I think C.", "C"),
        ("I believe C is the answer", "C"),
        ("I'd go with C", "C"),
        ("I say C.", "C"),
        ("My answer: C", "C"),
        ("My pick is C", "C"),
        ("Hence (C)", "C"),
        ("Therefore, the answer is C, not A.", "C"),
        ("Not A, so C.", "C"),
        ("I cannot choose A, so I choose B.", "B"),
        ("It can't be A; it must be B.", "B"),
        ("The right answer is C", "C"),
        ("The correct option is: C", "C"),
        ("正确答案是C", "C"),
        ("正确答案是 C。", "C"),
        ("正确答案为C", "C"),
        ("答案：C", "C"),
        ("答案是选项C", "C"),
        ("答案选C", "C"),
        ("所以选C", "C"),
        ("故选C。", "C"),
        ("因此，选择C", "C"),
        ("我选择C", "C"),
        ("正确选项是C", "C"),
        ("应该选 C", "C"),
        ("Die richtige Antwort ist C", "C"),
        ("Die richtige Antwort lautet C.", "C"),
        ("Die korrekte Antwort ist C)", "C"),
        ("Antwort C ist richtig.", "C"),
        ("Antwort: C", "C"),
        ("Richtig ist C.", "C"),
        ("Die Lösung ist C", "C"),
        ("La bonne réponse est C", "C"),
        ("La bonne réponse est la C.", "C"),
        ("La réponse correcte est C.", "C"),
        ("La réponse correcte est : C", "C"),
        ("Réponse : C", "C"),
        ("C est la bonne réponse", "C"),
        ("La respuesta correcta es C", "C"),
        ("La respuesta correcta es la C.", "C"),
        ("La opción correcta es la C", "C"),
        ("La opción correcta es C)", "C"),
        ("Respuesta: C", "C"),
        ("La respuesta es la opción C.", "C"),
        ("Por lo tanto, C.", "C"),
        ("Donc, C.", "C"),
        ("因此，C。", "C"),
        ("La risposta corretta è C", "C"),
        ("A resposta correta é C", "C"),
        ("Правильный ответ: C", "C"),
        ("正解はC", "C"),
        ("正解はCです", "C"),
        ("정답은 C", "C"),
        ("Answer: A, because C is too hot", "A"),
        ("The answer is A, since B, C are wrong", "A"),
        ("The answer is A, not C", "A"),
        ("Answer: A (not C)", "A"),
        ("The answer is A. B is too hot.", "A"),
        ("I choose A", "A"),
        ("I would choose C", "C"),
        ("The best answer is C", "C"),
        ("C is correct", "C"),
        ("So A", "A"),
        ("The answer is C, although A was tempting.", "C"),
        ("The answer is A; possibly because of heat", "A"),
        ("The answer is A, possibly due to heat", "A"),
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
        r"The answer is not \boxed{A}",
        "Answer: A, B",
        "Answer: (A) and (B)",
        r"\boxed{A, B}",
        r"\boxed{\text{A or B}}",
        "(A), (B)",
        "An answer is Always hard",
        "A, possibly C",
        "Answer: A, possibly C",
        "The answer is A, possibly C.",
        "The answer is A, maybe C",
        "The answer is A or maybe C",
        "The answer is A (or C)",
        "The answer is probably A, but perhaps C.",
        "A or C",
        "It is either A or C.",
        "The answer is A/C",
        "A and C",
        r"\boxed{A, possibly C}",
        r"\boxed{A \text{ or } C}",
        "Answer: A (possibly B)",
        "The answer is A, but it could be C",
        "I can't choose A",
        "I cannot choose A.",
        "I would not pick A.",
        "I don't think it is A",
        "I do not choose A",
        "It can't be A.",
        "I don't think A is correct.",
        "The answer is not (A).",
        "The answer is not A.",
        "It isn't A.",
        "A is not correct",
        "A is wrong",
        "I never choose A.",
        "I refuse to choose A",
        "Neither A nor B",
        "Not A",
        "(A) is wrong",
        "I doubt the answer is A",
        "The answer can't be A",
        "No one would choose A",
        "If A is correct, then B is wrong.",
        "Is the answer A?",
        "Therefore A planet is needed",
        "I think A planet is needed",
        "So I think so",
        "So a planet is right",
        "I think a lot",
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
    assert choice_of("It is\n(D) (E) I, II, and III", ("x", "y", "z", "(E) I, II, and III")) == "D"
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
