"""How references and answers are read. The worker's functions run in this process; the pool has tests of its own."""

from __future__ import annotations

import pytest

from attnpo.rewards.reading import read_reference
from attnpo.rewards.worker import LONGEST_ANSWER, answer_request
from attnpo.rewards.worker import judge as judge_and_extract


def judge(answer: str, reference: str) -> str:
    return judge_and_extract(answer, reference)[0]


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"\frac{1}{2}", r"so the result is \boxed{\frac12}."),
        (r"\frac{1}{2}", r"\(\boxed{0.5}\)"),
        (r"50\%", r"\boxed{50\%}"),
        (r"50\%", r"\boxed{50}"),
        (r"50%", r"\boxed{0.5}"),
        ("$12$", "The answer is 12."),
        ("12 units", r"\boxed{12}"),
        ("18 dollars", r"\boxed{\$18}"),
        ("7.6 Z", r"\boxed{7.6 Z}"),
        (r"\boxed{42}", r"\boxed{42}"),
        (r"240\text{ ways.}", r"\boxed{240}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{(3,\pi/2)}"),
        ("2k+2", r"\boxed{2(k+1)}"),
        ("1,000", r"\boxed{1000}"),
        (r"\dfrac{1}{29,\!322,\!216}", r"\boxed{\dfrac{1}{29322216}}"),
        ("180", r"**Answer:** Tom's restaurant makes **\$180** a week."),
        (r"\text{Evelyn}", r"\boxed{\text{Evelyn}}"),
        ("even", r"\boxed{\text{even}}"),
        ("even", r"\boxed{even}"),
        ("C", r"\boxed{\text{(C)}}"),
        (r"x \in [-2,7]", r"\boxed{[-2,7]}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}"),
        ("6-5i", r"\boxed{6 - 5i}"),
    ],
)
def test_right(reference: str, answer: str) -> None:
    assert judge(answer, reference) == "right"


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"\frac{1}{2}", r"\boxed{\frac{1}{3}}"),
        ("2k+2", r"\boxed{2}"),  # outside delimiters math-verify reads this reference as 2
        ("6-5i", r"\boxed{6}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{3}"),
        ("even", r"\boxed{neve}"),
        ("even", r"\boxed{odd}"),
        ("12 units", r"\boxed{13}"),
        ("5", r"First \boxed{5}, no: the final answer is 5. \boxed{6}"),
    ],
)
def test_wrong(reference: str, answer: str) -> None:
    assert judge(answer, reference) == "wrong"


@pytest.mark.parametrize("reference", ["", "  ", r"\frac{1}{", "x^", "$t(0,4]$", "np.arcsin(10/13)"])
def test_reference_that_cannot_be_read_is_unverifiable(reference: str) -> None:
    assert read_reference(reference) == []
    assert judge(r"\boxed{1}", reference) == "unverifiable"


@pytest.mark.parametrize("answer", ["I do not know.", "\\boxed{}", "…", "<|im_end|>"])
def test_nothing_to_extract_is_no_answer(answer: str) -> None:
    assert judge(answer, "5") == "no_answer"


def test_answer_that_python_refuses_to_parse_is_unverifiable() -> None:
    assert judge("9" * 10_000, "5") == "unverifiable"  # beyond the digits that int() takes


def test_of_a_very_long_answer_the_end_is_read() -> None:
    assert judge("\\[ x " * LONGEST_ANSWER + "\nso \\boxed{5}", "5") == "right"


def test_odd_characters() -> None:
    reply = answer_request({"id": 3, "answer": "\0\ud800 \\boxed{5}", "reference": "5"})
    assert reply == {"id": 3, "verdict": "right", "extracted": "5"}
    assert answer_request({"id": 4, "reference": "\udfff5"}).keys() == {"id", "readable"}
