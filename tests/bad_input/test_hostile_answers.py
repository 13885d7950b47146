"""Answers that hang a computer algebra system, exhaust memory or are enormous: the rest of the batch is graded."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from attnpo.evaluation.grading import Grader
from attnpo.evaluation.samples import Question
from attnpo.rewards.verdict import Verdict

FIVE = Question(benchmark="math500", id="5", problem="2+3?", kind="math", reference="5")
POWER = Question(benchmark="minerva", id="p", problem="?", kind="math", reference="4.5e33", extra={"measured": True})
LETTER = Question(benchmark="mmlu", id="c", problem="?", kind="choice", reference="B", choices=("p", "q"))
TIMEOUT = 2.0

HANGS = [
    r"\boxed{9^{(9^9)}}",
    r"\boxed{9^{9^{9^{9}}}}",
    r"\boxed{((((9!)!)!)!)!}",
    r"\boxed{\sum_{k=1}^{10^{12}} k^{k}}",
    r"\boxed{\binom{10^{9}}{5 \cdot 10^8}}",
    r"\boxed{(a+b+c+d+e)^{300}}",
]
ENORMOUS = [
    "\\boxed{" + "(" * 100_000 + "1" + ")" * 100_000 + "}",
    "\\boxed{" + "{" * 50_000 + "1" + "}" * 50_000 + "}",
    "\\boxed{" * 100_000,
    "\\boxed{" + "9" * 100_000 + "}",
    "\\boxed{" + "\\sqrt{" * 3_000 + "2" + "}" * 3_000 + "}",
    "\\boxed{1e999}",
    "the answer is " * 8_000,
    "$" * 100_000,
    "\0\ud800\u202e" * 30_000,
]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=2, timeout=TIMEOUT) as made:
        yield made


def test_rest_is_graded_when_answers_hang(grader: Grader) -> None:
    assert grader.grade([(FIVE, r"\boxed{5}")])[0].verdict == Verdict.RIGHT  # the workers are warm
    pairs = [pair for answer in HANGS for pair in ((FIVE, answer), (FIVE, r"\boxed{5}"), (LETTER, "Answer: B"))]
    begun = time.monotonic()
    verdicts = [graded.verdict for graded in grader.grade(pairs)]
    took = time.monotonic() - begun
    assert verdicts[1::3] == verdicts[2::3] == [Verdict.RIGHT] * len(HANGS)
    assert set(verdicts[0::3]) <= {Verdict.TIMED_OUT, Verdict.UNVERIFIABLE, Verdict.WRONG}
    assert Verdict.TIMED_OUT in verdicts[0::3]
    assert took < 10 * len(HANGS) * TIMEOUT  # three seconds each with a fresh worker; the bound is for a busy machine


@pytest.mark.parametrize("question", [FIVE, POWER, LETTER], ids=["number", "measured", "choice"])
def test_enormous_answers_are_not_right(grader: Grader, question: Question) -> None:
    begun = time.monotonic()
    graded = grader.grade([(question, answer) for answer in ENORMOUS])
    assert time.monotonic() - begun < 10 * len(ENORMOUS) * TIMEOUT
    assert all(result.verdict != Verdict.RIGHT for result in graded)
    assert all(result.extracted is None or len(result.extracted) <= 500 for result in graded)


def test_right_answer_after_100_000_characters(grader: Grader) -> None:
    words = "words and more words\n" * 5_000
    answers = [(FIVE, words + r"\boxed{5}"), (LETTER, words + "Answer: B"), (FIVE, words), (LETTER, words)]
    verdicts = [graded.verdict for graded in grader.grade(answers)]
    assert verdicts == [Verdict.RIGHT, Verdict.RIGHT, Verdict.NO_ANSWER, Verdict.NO_ANSWER]


def test_number_beyond_all_floats_is_wrong(grader: Grader) -> None:
    assert grader.grade([(POWER, r"\boxed{1e999}")])[0].verdict == Verdict.WRONG


def test_items_without_reference_tests_or_answer(grader: Grader) -> None:
    nothing = Question(benchmark="math500", id="n", problem="?", kind="math", reference=None)
    untested = Question(benchmark="livecodebench", id="u", problem="?", kind="code", reference=None)
    graded = grader.grade([(nothing, r"\boxed{5}"), (untested, "```python\n1\n```"), (FIVE, None), (FIVE, " ")])
    assert [result.verdict for result in graded] == [None, None, Verdict.NO_ANSWER, Verdict.NO_ANSWER]
    assert grader.grade([]) == []


def test_programs_go_to_the_sandbox(grader: Grader) -> None:
    add = Question(
        benchmark="livecodebench",
        id="add",
        problem="Add one.",
        kind="code",
        reference=None,
        tests=({"kind": "stdin", "input": "1\n", "output": "2\n"},),
    )
    right, wrong = (f"```python\nprint(int(input()) + {step})\n```" for step in (1, 2))
    assert [g.verdict for g in grader.grade([(add, right), (FIVE, r"\boxed{5}"), (add, wrong), (add, "none")])] == [
        Verdict.RIGHT,
        Verdict.RIGHT,
        Verdict.WRONG,
        Verdict.NO_ANSWER,
    ]
