r"""The grader against the gold answers: each must be right for its own question, and wrong for another.

Three kinds of response are made of gold answers. The gold itself, in the forms a model would write it in (a box in a
sentence, a displayed box; a letter for choices); the gold of the next question that has a different one; and the gold
with its last digit raised by one. The first must all be graded right. The other two must be wrong, and those accepted
are listed: a few are equal in value (``x=5`` and ``5``), any other is a parser that drops part of what it reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from attnpo.evaluation.grading import Graded, Grader
from attnpo.evaluation.grading.grader import checkable
from attnpo.evaluation.samples import Question, letter_of
from attnpo.rewards.verdict import Verdict

MATH_FORMS: tuple[str, ...] = (r"So the answer is $\boxed{%s}$.", "Therefore:\n\n\\[\n\\boxed{%s}\n\\]")
CHOICE_FORMS: tuple[str, ...] = ("Answer: %s", r"\boxed{%s}", "The correct answer is **(%s)**.", r"\boxed{\text{(%s)}}")

LAST_DIGIT = re.compile(r"\d(?=\D*$)")


@dataclass(frozen=True)
class GoldCheck:
    """What came of one file or data set.

    Attributes:
        rows: questions read.
        right: questions whose gold was graded right in every form.
        failed: "ID: what happened", for every question whose gold was not.
        unchecked: reason → ids of the questions that have nothing to check.
        others, altered: foreign and altered golds that were graded.
        accepted: those of them that were graded right.
    """

    rows: int
    right: int
    failed: list[str]
    unchecked: dict[str, list[str]] = field(default_factory=dict)
    others: int = 0
    altered: int = 0
    accepted: list[str] = field(default_factory=list)


def check_gold(
    questions: Sequence[Question], grader: Grader, told: Callable[[int, int], None] | None = None
) -> GoldCheck:
    """Grade the gold answers of `questions`; `told` hears (done, of how many) questions."""
    checked = [question for question in questions if checkable(question) and question.reference is not None]
    unchecked: dict[str, list[str]] = {}
    for question in questions:
        if not checkable(question):
            unchecked.setdefault("no tests" if question.kind == "code" else "no answer", []).append(question.id)
        elif question.reference is None:
            unchecked.setdefault("tests, but no program to try them on", []).append(question.id)
    failed, accepted = [], []
    counts = {"other": 0, "altered": 0}
    for start in range(0, len(checked), CHUNK):
        chunk = checked[start : start + CHUNK]
        own = [(question, response) for question in chunk for response in _responses(question)]
        wrong = [item for index, question in enumerate(chunk, start) for item in _wrong(question, index, checked)]
        graded = grader.grade([*own, *((question, response) for question, response, _ in wrong)])
        failed += _failures(own, graded[: len(own)])
        for (question, _, kind), result in zip(wrong, graded[len(own) :], strict=True):
            counts[kind] += 1
            if result.verdict == Verdict.RIGHT:
                accepted.append(f"{question.id}: gold {question.reference!r}, accepted {result.extracted!r} ({kind})")
        if told:
            told(start + len(chunk), len(checked))
    return GoldCheck(
        rows=len(questions),
        right=len(checked) - len(failed),
        failed=failed,
        unchecked=unchecked,
        others=counts["other"],
        altered=counts["altered"],
        accepted=accepted,
    )


CHUNK = 1000
"""Questions graded at a time: often enough for a progress bar; the pool grades equal pairs of one call once."""


def _responses(question: Question) -> list[str]:
    gold = question.reference
    forms = list(CHOICE_FORMS if question.kind == "choice" else MATH_FORMS)
    responses = [form.replace("%s", str(gold)) for form in forms]
    if question.kind == "choice":
        responses.append(f"So the right one is\n({gold}) {question.choices[ord(str(gold)) - ord('A')]}")
    elif str(gold).isdigit():
        responses.append(f"The answer is {gold}.")
    return responses


def _failures(pairs: Sequence[tuple[Question, str]], graded: Sequence[Graded]) -> list[str]:
    first: dict[str, str] = {}
    for (question, response), result in zip(pairs, graded, strict=True):
        if result.verdict != Verdict.RIGHT:
            first.setdefault(
                question.id, f"{question.id}: {response!r} is {result.verdict}, gold {question.reference!r}"
            )
    return list(first.values())


def _wrong(question: Question, index: int, all_questions: Sequence[Question]) -> list[tuple[Question, str, str]]:
    """Responses to `question` that must not be right, each with its kind."""
    assert question.reference is not None
    if question.kind == "choice":
        others = [letter_of(i) for i in range(len(question.choices)) if letter_of(i) != question.reference]
        return [(question, CHOICE_FORMS[0].replace("%s", letter), "other") for letter in others]
    found = []
    for step in range(1, len(all_questions)):
        other = all_questions[(index + step) % len(all_questions)].reference
        if other is not None and _squeezed(other) != _squeezed(question.reference):
            found.append((question, MATH_FORMS[0].replace("%s", other), "other"))
            break
    altered = LAST_DIGIT.sub(lambda digit: str((int(digit[0]) + 1) % 10), question.reference)
    if altered != question.reference:
        found.append((question, MATH_FORMS[0].replace("%s", altered), "altered"))
    return found


def _squeezed(gold: str) -> str:
    return re.sub(r"\s|\\[!,; ]", "", gold)
