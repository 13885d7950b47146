r"""Right answers as data sets have them: ####, \boxed{}, tags, numbers, lists, worked solutions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpo.data.references import MOST_WORDS, Reference, alternatives, is_solution, read_reference
from attnpo.rewards.accuracy import AccuracyReward

GSM8K = "4*6=<<4*6=24>>24 books at first.\n24-5=<<24-5=19>>19 are left.\n#### 19"
PROSE = "We add the first two numbers and then the third one, which gives us the sum that was asked for. " * 3

CELLS = [
    (GSM8K, "19", "after ####"),
    ("#### 1,200 ", "1,200", "after ####"),
    ("#### 3\nno, wait\n#### 4", "4", "after ####"),
    ("a #### 5", "a #### 5", "as written"),  # not at the start of a line
    ("#### Step 1\nAdd.\n#### Step 2\nSo $\\boxed{7}$.", "7", r"in \boxed{}"),  # headings
    (rf"{PROSE} So it is $\boxed{{\frac{{1}}{{2}}}}$.", r"\frac{1}{2}", r"in \boxed{}"),
    (r"\boxed{1} is not it, $\boxed{2}$ is.", "2", r"in \boxed{}"),
    (r"\boxed{1} and \boxed{2}", "1, 2", r"in \boxed{}"),  # one list, as in answers
    (f"<think>{PROSE}</think><answer> 36 </answer>", "36", "in <answer>"),
    (f"{PROSE}\nThe answer is: $42$.", "$42$", "after 'answer is'"),
    ("Answer: 27", "27", "after 'answer is'"),
    (" 42 ", "42", "as written"),
    ("the answer\nis long", "the answer\nis long", "as written"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "as written"),
    ("[1, 2]", "[1, 2]", "as written"),  # an interval or a list: one answer
    ('["6"]', "6", "in a list"),  # Skywork-OR1
    ('["1/2", "0.5"]', '["1/2", "0.5"]', "in a list"),
    (["6"], "6", "in a list"),
    (["1/2", 0.5, "1/2"], '["1/2", "0.5"]', "in a list"),
    ([GSM8K], "19", "in a list"),
    (72, "72", "as written"),
    (72.0, "72", "as written"),
    (-0.5, "-0.5", "as written"),
    (1e-05, "0.00001", "as written"),
]


@pytest.mark.parametrize(("value", "text", "how"), CELLS)
def test_cells(value, text, how):
    assert read_reference(value) == Reference(text, how)


@pytest.mark.parametrize("value", [None, "", "  ", PROSE, True, float("nan"), float("inf"), [], ["1", None], {"a": 1}])
def test_no_answer(value):
    assert read_reference(value) is None


def test_solutions_begin_where_answers_end():
    assert not is_solution("word " * MOST_WORDS)
    assert is_solution("word " * (MOST_WORDS + 1))
    assert not is_solution("$" + "word " * 50 + "$ " + r"\frac \sqrt \cdot \left \right " * 20)


@given(st.lists(st.text("0123456789/.", min_size=1, max_size=6), min_size=1, max_size=4, unique=True))
def test_a_list_comes_back(texts):
    """What a list is written as is read as the list again."""
    read = read_reference(texts)
    assert read is not None
    assert alternatives(read.text) == texts


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_their_value(number):
    read = read_reference(number)
    assert read is not None
    assert "e" not in read.text
    assert float(Fraction(read.text)) == number


def test_rewards(session_pool):
    """The verifier reads the same: raw cells are references for whoever uses the reward function alone."""
    reward = AccuracyReward(session_pool)
    answer = "</think>So it is \\boxed{0.5}."
    references = [
        "1/2",
        '["3", "1/2"]',
        ["3", "1/2"],
        0.5,
        "1 + 1 = 2 halves\n#### 1/2",
        r"\boxed{\frac12}",
        "3",
        PROSE,
    ]
    assert reward(completions=[answer] * 8, reference=references) == [1, 1, 1, 1, 1, 1, 0, None]


def test_readable(session_pool):
    assert session_pool.validate_references([GSM8K, '["1", "2"]', PROSE, '["1", "\\\\frac{1"]', "7"]) == [
        PROSE,
        '["1", "\\\\frac{1"]',
    ]


def test_gsm8k_of_the_hub():
    from attnpo.evaluation.benchmarks import get_benchmark

    question = get_benchmark("gsm8k").question({"question": "How many?", "answer": "1+1=2\n#### 1,200"}, 1, "row 1")
    assert question.reference == "1200"
