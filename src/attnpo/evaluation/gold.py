r"""Check of the grader on the gold answers: every spelling of a gold must be right, and nothing else.

From every gold are made responses that must be right (:func:`~attnpo.evaluation.variants.respellings`; for choices the
forms below) and responses that must be wrong: near-misses, and the gold of the next question that has a different one.
Golds of other questions that are accepted are listed: a few are equal in value (``x=5`` and ``5``). Responses to which
a rule of the verifier was applied are graded again without that rule: a rule is useful if it makes respellings right,
and harmful if it makes a near-miss right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from attnpo.evaluation.grading import Graded, Grader
from attnpo.evaluation.grading.grader import checkable
from attnpo.evaluation.samples import Question, letter_of
from attnpo.evaluation.variants import OWN_FORMS, boxed, near_misses, respellings
from attnpo.rewards.verdict import Verdict

CHOICE_FORMS: tuple[str, ...] = ("Answer: %s", r"\boxed{%s}", "The correct answer is **(%s)**.", r"\boxed{\text{(%s)}}")


@dataclass
class Tally:
    """Verdicts on responses made in one way: their number, and the number of correct ones."""

    tried: int = 0
    good: int = 0


@dataclass
class RuleTally:
    """Verdicts that one rule of the verifier changes, by kind of response; `tried`: graded again without the rule."""

    tried: int = 0
    golds: int = 0
    respellings: int = 0
    near_misses: int = 0
    harmful: list[str] = field(default_factory=list)
    """Near-misses that are right with the rule and wrong without it."""


@dataclass
class GoldCheck:
    """The result for one file or data set.

    Attributes:
        rows: questions read.
        right: questions whose gold was graded right in its own forms (a box in a sentence, a displayed box).
        failed: "ID: reason", for every question whose gold was not.
        unchecked: reason → ids of the questions that have nothing to check.
        ways: way of spelling → tally of the golds' respellings; misread: those that were not right.
        misses: kind of near-miss → tally; accepted: near-misses that were right.
        others: golds of other questions that were graded; foreign: those of them that were right.
        rules: rule → verdicts it changes.
    """

    rows: int
    right: int = 0
    failed: list[str] = field(default_factory=list)
    unchecked: dict[str, list[str]] = field(default_factory=dict)
    ways: dict[str, Tally] = field(default_factory=dict)
    misread: list[str] = field(default_factory=list)
    misses: dict[str, Tally] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    others: int = 0
    foreign: list[str] = field(default_factory=list)
    rules: dict[str, RuleTally] = field(default_factory=dict)


@dataclass(frozen=True)
class _Try:
    """One response to a question. `way`: of spelling, kind of near-miss, or "other"; `must`: it must be right."""

    question: Question
    response: str
    way: str
    must: bool


def check_gold(
    questions: Sequence[Question],
    grader: Grader,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    with_rules: bool = True,
) -> GoldCheck:
    """Grade responses made from the gold answers of `questions`; `on_progress` takes (done, total) golds.

    Questions that share gold, choices and tolerance are graded once. `with_rules`: count what each rule changes, which
    doubles the time.
    """
    check = GoldCheck(len(questions))
    groups: dict[str, list[Question]] = {}
    for question in questions:
        if not checkable(question):
            check.unchecked.setdefault("no tests" if question.kind == "code" else "no answer", []).append(question.id)
        elif question.reference is None:
            check.unchecked.setdefault("tests, but no program to try them on", []).append(question.id)
        else:
            extra = {name: question.extra.get(name) for name in ("unit", "tolerance", "measured")}
            key = json.dumps([question.kind, question.reference, question.choices, extra], default=str)
            groups.setdefault(key, []).append(question)
    distinct = [group[0] for group in groups.values()]
    failed: dict[str, str] = {}
    for start in range(0, len(distinct), CHUNK):
        chunk = distinct[start : start + CHUNK]
        tries = [made for index, question in enumerate(chunk, start) for made in _tries(question, index, distinct)]
        graded = grader.grade([(one.question, one.response) for one in tries])
        for one, result in zip(tries, graded, strict=True):
            _count(check, failed, one, result)
        if with_rules:
            _count_rules(check, grader, tries, graded)
        if on_progress:
            on_progress(start + len(chunk), len(distinct))
    for group in groups.values():
        reason = failed.get(group[0].id)
        check.right += len(group) if reason is None else 0
        check.failed += [] if reason is None else [f"{question.id}: {reason}" for question in group]
    return check


def _count(check: GoldCheck, failed: dict[str, str], one: _Try, result: Graded) -> None:
    question, is_right = one.question, result.verdict == Verdict.RIGHT
    reason = f"{one.response!r} is {result.verdict}, gold {question.reference!r}"
    if one.way == "other":
        check.others += 1
        if is_right:
            check.foreign.append(f"{question.id}: gold {question.reference!r}, accepted {result.extracted!r}")
        return
    tally = (check.ways if one.must else check.misses).setdefault(one.way, Tally())
    tally.tried += 1
    tally.good += is_right == one.must
    if is_right == one.must:
        return
    (check.misread if one.must else check.accepted).append(f"{question.id} ({one.way}): {reason}")
    if one.way in OWN_FORMS:
        failed.setdefault(question.id, reason)


def _count_rules(check: GoldCheck, grader: Grader, tries: Sequence[_Try], graded: Sequence[Graded]) -> None:
    """Grade every response again without each rule that was applied to it."""
    for rule in sorted({rule for result in graded for rule in result.fired}):
        tally = check.rules.setdefault(rule, RuleTally())
        used = [(one, before) for one, before in zip(tries, graded, strict=True) if rule in before.fired]
        used = used[:: max(1, len(used) // MOST_PER_RULE)]
        tally.tried += len(used)
        again = grader.grade([(one.question, one.response) for one, _ in used], off=(rule,))
        for (one, before), after in zip(used, again, strict=True):
            if (before.verdict == Verdict.RIGHT) == (after.verdict == Verdict.RIGHT) or one.way == "other":
                continue
            if not one.must:
                tally.near_misses += 1
                if before.verdict == Verdict.RIGHT:
                    tally.harmful.append(f"{one.question.reference!r}: {one.response!r}")
            elif one.way in OWN_FORMS:
                tally.golds += 1
            else:
                tally.respellings += 1


MOST_PER_RULE = 300
"""Responses of one chunk graded again without a rule, evenly spread: without "exact" one can take seconds."""

CHUNK = 1000
"""Questions per call of the grader: small enough for a progress bar; the pool grades equal pairs of one call once."""


def _tries(question: Question, index: int, all_questions: Sequence[Question]) -> list[_Try]:
    gold = question.reference
    assert gold is not None
    if question.kind == "choice":
        forms = [*(form.replace("%s", gold) for form in CHOICE_FORMS)]
        forms.append(f"So the right one is\n({gold}) {question.choices[ord(gold) - ord('A')]}")
        others = [letter_of(i) for i in range(len(question.choices)) if letter_of(i) != gold]
        wrong = [CHOICE_FORMS[0].replace("%s", letter) for letter in others]
        return [_Try(question, form, "box", True) for form in forms] + [
            _Try(question, form, "another letter", False) for form in wrong
        ]
    found = [_Try(question, response, way, True) for way, response in respellings(gold)]
    found += [_Try(question, response, way, False) for way, response in near_misses(gold, _tolerance(question))]
    for step in range(1, len(all_questions)):
        other = all_questions[(index + step) % len(all_questions)].reference
        if other is not None and _squeezed(other) != _squeezed(gold):
            return [*found, _Try(question, boxed(other), "other", False)]
    return found


def _tolerance(question: Question) -> float:
    return float(question.extra.get("tolerance") or 0)


def _squeezed(gold: str) -> str:
    return re.sub(r"\s|\\[!,; ]", "", gold)
