"""Grades final answers of any kind; the processes it needs are started on first use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from attnpo.evaluation.grading.choice import grade_choice
from attnpo.evaluation.grading.code import grade_codes
from attnpo.evaluation.samples import Graded, Question
from attnpo.rewards.pool import VerifierPool
from attnpo.rewards.verdict import Rules, Verdict
from attnpo.sandbox.sandbox import Limits, Sandbox

if TYPE_CHECKING:
    from attnpo.judges.answers import AnswerJudge


def rules_of(question: Question, off: Sequence[str] = ()) -> Rules:
    """How close a number must come to the reference: exactly, unless the question says otherwise in `extra`."""
    extra, rules = question.extra, Rules()
    if extra.get("unit"):
        rules["unit"] = extra["unit"]
    if extra.get("tolerance"):
        rules["tolerance"] = extra["tolerance"]
    if extra.get("measured"):
        rules["measured"] = True
    if off:
        rules["off"] = list(off)
    return rules


class Grader:
    """Grades (question, final answer) pairs; a context manager.

    Args:
        workers: processes for mathematics, and as many for programs; default: the machine's cores, at most 8.
        timeout: seconds one mathematical answer may take. Telling two long formulas apart can take ten, and an answer
            that was not done in time is left out of the accuracy, so there is more room than in training.
        judge: asked about mathematical answers that the verifier cannot decide; default: none.
        limits: of the programs' sandbox; default: as :class:`~attnpo.sandbox.sandbox.Limits`.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        timeout: float = 30.0,
        limits: Limits | None = None,
        judge: AnswerJudge | None = None,
    ) -> None:
        self.workers, self.timeout, self.limits, self.judge = workers, timeout, limits, judge
        self._pool: VerifierPool | None = None
        self._sandbox: Sandbox | None = None

    def grade(self, pairs: Sequence[tuple[Question, str | None]], *, off: Sequence[str] = ()) -> list[Graded]:
        """Verdicts in order. The text is a response's final answer, without its thinking; None: it has none.

        `off`: names of the verifier's rules not to apply. A question without a reference (code: without tests) gets the
        verdict None.

        Raises:
            InputError: programs cannot be confined on this system, or a test is malformed.
            RunError: a verifier or the sandbox does not start.
        """
        graded: dict[int, Graded] = {}
        waiting: dict[str, list[tuple[int, Question, str]]] = {"math": [], "code": []}
        for index, (question, answer) in enumerate(pairs):
            if not checkable(question):
                graded[index] = Graded(None, None)
            elif answer is None or not answer.strip():
                graded[index] = Graded(Verdict.NO_ANSWER, None)
            elif question.kind == "choice":
                assert question.reference is not None
                graded[index] = grade_choice(answer, question.reference, question.choices)
            else:
                waiting[question.kind].append((index, question, answer))
        for kind, grade in (("math", partial(self._math, off=off)), ("code", self._code)):
            if items := waiting[kind]:
                graded.update(zip((index for index, _, _ in items), grade(items), strict=True))
        return [graded[index] for index in range(len(pairs))]

    def _math(self, items: list[tuple[int, Question, str]], off: Sequence[str] = ()) -> Sequence[Graded]:
        if self._pool is None:
            self._pool = VerifierPool(self.workers, timeout=self.timeout, judge=self.judge)
        asked = [(answer, question.reference, rules_of(question, off)) for _, question, answer in items]
        return [Graded(judged.verdict, judged.extracted, fired=judged.fired) for judged in self._pool.judge(asked)]

    def _code(self, items: list[tuple[int, Question, str]]) -> Sequence[Graded]:
        if self._sandbox is None:
            self._sandbox = Sandbox(self.workers, limits=self.limits)
        return grade_codes([(answer, question.tests) for _, question, answer in items], self._sandbox)

    def close(self) -> None:
        """End the processes; the grader may be used again."""
        if self._pool is not None:
            self._pool.close()
        if self._sandbox is not None:
            self._sandbox.close()
        self._pool = self._sandbox = None

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def checkable(question: Question) -> bool:
    """Whether there is anything to check an answer against."""
    return bool(question.tests) if question.kind == "code" else question.reference is not None
