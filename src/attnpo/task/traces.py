"""A writer of traces that think too long, with every step labelled essential or redundant by construction.

Essential: the computation of every event, and a check that catches an error (it holds the corrected equation).
Redundant: restatements, plans, false starts, a computation that is corrected later, checks that find nothing,
alternatives, remarks, recaps. Whether a computation is checked does not depend on whether it is wrong, so a
writer who checks less at random loses answers; only `catch_all` traces are guaranteed to be right.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from attnpo.task import phrases
from attnpo.task.problems import Operation, Problem, apply_operation

CLOSING = "\n</think>\n\n"


@dataclass(frozen=True)
class TraceStyle:
    """How a trace over-thinks. Probabilities are per computation or per trace, before `verbosity` scales them.

    verbosity: (low, high), drawn once per trace; it makes some traces of a problem much longer than others.
    """

    error_rate: float = 0.15
    check_rate: float = 0.65
    catch_all: bool = True
    alternative_rate: float = 0.2
    remark_rate: float = 0.25
    restatement_rate: float = 0.6
    plan_rate: float = 0.35
    false_start_rate: float = 0.4
    recap_rate: float = 0.55
    closing_rate: float = 0.5
    verbosity: tuple[float, float] = (0.5, 1.4)
    least_redundant: int = 2


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One step: `text` without the blank line after it; start and end cover that blank line too."""

    start: int
    end: int
    essential: bool
    role: str


@dataclass(frozen=True, slots=True)
class Trace:
    """`response` is thinking, closing tag, answer; steps tile the thinking; `answer` is what the response boxes."""

    response: str
    steps: tuple[TraceStep, ...]
    answer: int

    @property
    def thinking(self) -> str:
        return self.response[: self.steps[-1].end]


def equation(count: int, operation: Operation, result: int) -> str:
    return f"{count} {operation.symbol} {operation.operand} = {result}"


def write_trace(problem: Problem, rng: random.Random, style: TraceStyle | None = None) -> Trace:
    """One over-thinking trace of a problem. Right for sure when `style.catch_all`."""
    return _Writer(problem, rng, style or TraceStyle()).write()


def write_twins(problem: Problem, seed: str, style: TraceStyle) -> tuple[Trace, Trace]:
    """A trace whose slips may stay, and its repair: the same words, without the slips that no check catches.

    The repair is right for sure; both are the same where nothing slipped through.
    """
    first, second = (_Writer(problem, random.Random(seed), style, seed=seed, repaired=r).write() for r in (False, True))
    return first, second


@dataclass
class _Writer:
    problem: Problem
    rng: random.Random
    style: TraceStyle
    seed: str | None = None  # of a twin: every decision is drawn anew at its place, so that twins stay in step
    repaired: bool = False  # whether slips that no check catches are left out
    parts: list[tuple[str, bool, str]] = field(default_factory=list)  # (text, essential, role)

    def write(self) -> Trace:
        verbosity = self.rng.uniform(*self.style.verbosity)
        self._before(verbosity)
        lines, counts = self._work(verbosity)
        self._after(verbosity, counts)
        steps: list[TraceStep] = []
        thinking = ""
        for position, (text, essential, role) in enumerate(self.parts):
            start = len(thinking)
            thinking += text + ("\n\n" if position < len(self.parts) - 1 else CLOSING[:1])
            steps.append(TraceStep(start, len(thinking), essential, role))
        final = phrases.ANSWER_OPENING + "".join(lines) + phrases.ANSWER_CLOSING.format(answer=counts[-1])
        return Trace(thinking + CLOSING[1:] + final, tuple(steps), counts[-1])

    def _keep_step(self, place: str) -> None:
        if self.seed is not None:
            self.rng.seed(f"{self.seed}/{place}")

    def _add(self, templates: tuple[str, ...], role: str, essential: bool = False, **words: object) -> None:
        text = self.rng.choice(templates).format(name=self.problem.name, things=self.problem.things, **words)
        self.parts.append((text, essential, role))

    def _before(self, verbosity: float) -> None:
        openers: list[tuple[float, Callable[[], None]]] = [
            (self.style.restatement_rate, self._restate),
            (self.style.plan_rate, lambda: self._add(phrases.PLANS, "plan")),
            (self.style.false_start_rate, self._false_start),
        ]
        for rate, opener in openers:
            if self.rng.random() < rate * verbosity:
                opener()

    def _restate(self) -> None:
        numbers = [str(self.problem.start), *(str(op.operand) for op in self.problem.operations)]
        self._add(phrases.RESTATEMENTS, "restatement", numbers=", ".join(numbers[:-1]) + " and " + numbers[-1])

    def _false_start(self) -> None:
        first, second = self.problem.start, self.problem.operations[-1].operand
        self._add(phrases.FALSE_STARTS, "false_start", first=first, second=second, sum=first + second)

    def _work(self, verbosity: float) -> tuple[list[str], list[int]]:
        """The computations with their checks; returns the lines of the answer and the counts it went through."""
        counts, lines = [self.problem.start], []
        operations = self.problem.operations
        for position, operation in enumerate(operations):
            count = counts[-1]
            result = apply_operation(count, operation)
            assert result is not None
            wrong = None
            self._keep_step(f"slip {position}")
            if self.rng.random() < self.style.error_rate:
                wrong = self._slip(count, operation, result, operations[position + 1 :])
            self._keep_step(f"words {position}")
            kept = self._compute(count, operation, result, wrong, verbosity)
            if kept == result and self.rng.random() < self.style.alternative_rate * verbosity:
                self._add(
                    phrases.ALTERNATIVES,
                    "alternative",
                    count=count,
                    inverse=phrases.INVERSE[operation.symbol],
                    operand=operation.operand,
                    result=result,
                )
            if self.rng.random() < self.style.remark_rate * verbosity:
                self._add(phrases.REMARKS, "remark", result=kept, count=count)
            lines.append(phrases.ANSWER_LINE.format(tag=operation.tag, result=kept))
            counts.append(kept)
        return lines, counts

    def _compute(self, count: int, operation: Operation, result: int, wrong: int | None, verbosity: float) -> int:
        """One computation and perhaps its check; returns the count that the trace goes on with."""
        checked = self.rng.random() < self.style.check_rate * verbosity
        checked = checked or (wrong is not None and self.style.catch_all)
        if self.repaired and not checked:
            wrong = None
        caught = checked and wrong is not None
        written = equation(count, operation, result if wrong is None else wrong)
        templates = phrases.COMPUTATIONS[operation.symbol]
        self._add(templates, "slip" if caught else "computation", not caught, tag=operation.tag, equation=written)
        if checked:
            endings = phrases.CHECK_CATCHES if caught else phrases.CHECK_FINE
            template = self.rng.choice(phrases.CHECK_OPENINGS) + phrases.CHECK_BODY + self.rng.choice(endings)
            self._add(
                (template,),
                "catch" if caught else "check",
                caught,
                count=count,
                word=phrases.WORDS[operation.symbol],
                operand=operation.operand,
                result=result,
                wrong=wrong,
                tag=operation.tag,
                equation=equation(count, operation, result),
            )
        return result if caught or wrong is None else wrong

    def _slip(self, count: int, operation: Operation, result: int, rest: tuple[Operation, ...]) -> int | None:
        """A wrong result that the rest of the story can still be computed from; None where there is none."""
        near = [result + shift for shift in (-10, -2, -1, 1, 2, 10)]
        near += [int(str(result)[::-1]), result + operation.operand, result - operation.operand]
        possible = [wrong for wrong in near if wrong != result and wrong > 0 and _computable(wrong, rest)]
        return self.rng.choice(possible) if possible else None

    def _after(self, verbosity: float, counts: list[int]) -> None:
        self._keep_step("end")
        path = "from " + " to ".join(map(str, counts))
        recap: Callable[[], None] = lambda: self._add(phrases.RECAPS, "recap", path=path)  # noqa: E731
        remark: Callable[[], None] = lambda: self._add(phrases.CLOSING_REMARKS, "remark", result=counts[-1])  # noqa: E731
        for rate, closer in ((self.style.recap_rate, recap), (self.style.closing_rate, remark)):
            if self.rng.random() < rate * verbosity:
                closer()
        while sum(not essential for _, essential, _ in self.parts) < self.style.least_redundant:
            self.rng.choice((recap, remark))()


def _computable(count: int, operations: tuple[Operation, ...]) -> bool:
    for operation in operations:
        result = apply_operation(count, operation)
        if result is None:
            return False
        count = result
    return True
