"""Grades final answers of any kind; the processes it needs are started on first use."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from attnpo.evaluation.grading.choice import grade_choice
from attnpo.evaluation.grading.graded import Graded
from attnpo.evaluation.grading.math import rules_of
from attnpo.evaluation.records import Question
from attnpo.rewards.pool import VerifierPool
from attnpo.rewards.verdict import Verdict


class Grader:
    """Grades (question, final answer) pairs; a context manager.

    Args:
        workers: processes for mathematics and for code; default: as :class:`~attnpo.rewards.pool.VerifierPool`.
        timeout: seconds one mathematical answer may take.
        code_timeout: seconds one test of a program may take.
    """

    def __init__(self, *, workers: int | None = None, timeout: float = 10.0, code_timeout: float = 10.0) -> None:
        self.workers, self.timeout, self.code_timeout = workers, timeout, code_timeout
        self._pool: VerifierPool | None = None

    def grade(self, pairs: Sequence[tuple[Question, str | None]]) -> list[Graded]:
        """Verdicts in order. The text is a response's final answer, without its thinking; None: it has none.

        A question without a reference (code: without tests) gets the verdict None.
        """
        graded: list[Graded | None] = [None] * len(pairs)
        math: list[int] = []
        for index, (question, answer) in enumerate(pairs):
            if not checkable(question):
                graded[index] = Graded(None, None)
            elif answer is None or not answer.strip():
                graded[index] = Graded(Verdict.NO_ANSWER, None)
            elif question.kind == "math":
                math.append(index)
            elif question.kind == "choice":
                assert question.reference is not None
                graded[index] = grade_choice(answer, question.reference, question.choices)
            else:
                graded[index] = self._grade_code(question, answer)
        for index, result in zip(math, self._grade_math([pairs[index] for index in math]), strict=True):
            graded[index] = result
        return [result for result in graded if result is not None]

    def _grade_math(self, pairs: Sequence[tuple[Question, str | None]]) -> list[Graded]:
        if not pairs:
            return []
        if self._pool is None:
            self._pool = VerifierPool(self.workers, timeout=self.timeout)
        judged = self._pool.judge((answer, question.reference, rules_of(question)) for question, answer in pairs)
        return [Graded(judgement.verdict, judgement.extracted) for judgement in judged]

    def _grade_code(self, question: Question, answer: str) -> Graded:
        from attnpo.evaluation.grading.code import grade_code

        return grade_code(answer, question.tests, timeout=self.code_timeout)

    def close(self) -> None:
        """End the processes; the grader may be used again."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def checkable(question: Question) -> bool:
    """Whether there is anything to check an answer against."""
    return bool(question.tests) if question.kind == "code" else question.reference is not None
