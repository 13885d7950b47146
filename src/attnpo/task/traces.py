"""A writer of over-thinking traces, with every step labelled essential or redundant by construction.

Essential: the computation of every event, and a check that catches an error (it contains the corrected equation).
Redundant: restatements, plans, false starts, a computation that is corrected later, checks that find nothing,
alternatives, remarks, recaps. Whether a computation is checked does not depend on whether it is wrong, so a
writer who checks less at random loses answers; only `catch_all` traces are guaranteed to be right.

`TraceStyle.redundancy` sets the mean number of redundant steps: the rates of the style give some of them; further steps
of the same kinds are added in Poisson numbers before the first event, after every event and after the last one, with
means scaled by the trace's verbosity. A further check never concerns a slip that the check right after the computation
missed. So the number of slips caught, and with it the value of a check, is the same at every setting.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

from attnpo.checks import check_number
from attnpo.errors import InputError
from attnpo.steps.formats import THINK
from attnpo.task import phrases
from attnpo.task.problems import Operation, Problem, apply_operation

CLOSING = f"\n{THINK.bridge}\n\n"


@dataclass(frozen=True)
class TraceStyle:
    """How a trace over-thinks. Probabilities are per computation or per trace, before `verbosity` scales them.

    verbosity: (low, high), drawn once per trace; it makes some traces of a problem much longer than others.
    redundancy: mean number of redundant steps per trace; None: the number that results from the rates.
    sentences: "few" or "many" templates per kind.

    Raises:
        InputError: a redundancy that is not a finite number of at least 0, or an unknown set of sentences.
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
    redundancy: float | None = None
    sentences: Literal["few", "many"] = "few"

    def __post_init__(self) -> None:
        if self.redundancy is not None:
            check_number("redundancy", self.redundancy, low=0)
        if self.sentences not in phrases.SENTENCES:
            raise InputError(f"sentences: found {self.sentences!r}, expected one of {', '.join(phrases.SENTENCES)}")

    def for_events(self, events: int) -> tuple[TraceStyle, float]:
        """The style whose rates give at most `redundancy` redundant steps in a story with `events` events, and the mean
        number of further steps that a trace of mean verbosity needs. Optional kinds are reduced before checks, which
        have a use.
        """
        wanted = self.redundancy
        if wanted is None:
            return self, 0.0
        style = replace(self, least_redundant=min(self.least_redundant, int(wanted / 2)))
        verbosity = fmean(style.verbosity)
        slip, check = style.error_rate, min(1.0, style.check_rate * verbosity)
        unseen = 0.0 if style.catch_all else slip * (1 - check)
        # A check that finds nothing, or the slip that it catches.
        checks = events * (check + (slip * (1 - check) if style.catch_all else 0.0))
        once = style.restatement_rate + style.plan_rate + style.false_start_rate + style.recap_rate + style.closing_rate
        optional = verbosity * (once + events * (style.alternative_rate * (1 - unseen) + style.remark_rate))
        if wanted >= checks + optional:
            return style, wanted - checks - optional
        fewer = max(0.0, wanted - checks) / max(optional, 1e-9)
        optional_rates = {name: getattr(style, name) * fewer for name in OPTIONAL_RATES}
        check_rate = style.check_rate * min(1.0, wanted / max(checks, 1e-9))
        return replace(style, **optional_rates, check_rate=check_rate), 0.0


def redundant_style(redundancy: float | None, sentences: Literal["few", "many"] | None = None) -> TraceStyle:
    """The style for a mean number of redundant steps, with many sentences per kind; None: the default style."""
    return TraceStyle(redundancy=redundancy, sentences=sentences or ("few" if redundancy is None else "many"))


OPTIONAL_RATES = (
    "alternative_rate",
    "remark_rate",
    "restatement_rate",
    "plan_rate",
    "false_start_rate",
    "recap_rate",
    "closing_rate",
)
AT_AN_END = 0.5  # number of further steps before the first event, and after the last, relative to those after an event
# Role -> weight of further steps, by place. Kinds about one operation refer to the last one done.
BEFORE = {"restatement": 3, "plan": 3, "false_start": 2}
AFTER_EVENT = {"check": 3, "alternative": 2, "remark": 3, "restatement": 1, "plan": 1, "false_start": 1, "recap": 1}
AT_THE_END = {"closing": 3, "recap": 2, "check": 1, "alternative": 1, "restatement": 1}
OF_A_RIGHT_RESULT = ("check", "alternative")  # they state the true result as the one computed before
NOT_AGAIN = 3  # a further step uses none of the sentences of this many steps before it


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One step of the thinking: characters [start, end), which include the blank line after it."""

    start: int
    end: int
    essential: bool
    role: str


@dataclass(frozen=True, slots=True)
class Trace:
    """A response (thinking, closing tag, answer), the steps that tile its thinking, and its boxed answer."""

    response: str
    steps: tuple[TraceStep, ...]
    answer: int

    @property
    def thinking(self) -> str:
        return self.response[: self.steps[-1].end]


def equation(count: int, operation: Operation, result: int) -> str:
    return f"{count} {operation.symbol} {operation.operand} = {result}"


def write_trace(problem: Problem, rng: random.Random, style: TraceStyle | None = None) -> Trace:
    """One over-thinking trace of a problem. Guaranteed to be right with `style.catch_all`."""
    return _Writer(problem, rng, style or TraceStyle()).write()


def write_twins(problem: Problem, seed: str, style: TraceStyle) -> tuple[Trace, Trace]:
    """A trace that may contain slips, and its repair: the same words, without the slips that no check catches.

    The repair is guaranteed to be right; the two are equal if no slip remains.
    """
    first, second = (_Writer(problem, random.Random(seed), style, seed=seed, repaired=r).write() for r in (False, True))
    return first, second


@dataclass
class _Writer:
    problem: Problem
    rng: random.Random
    style: TraceStyle
    seed: str | None = None  # for twins: the generator is seeded again at every place, so that both draw alike
    repaired: bool = False  # whether slips that no check catches are left out
    parts: list[tuple[str, bool, str]] = field(default_factory=list)  # (text, essential, role)
    templates: list[str] = field(default_factory=list)  # the templates of the parts
    further: float = 0.0  # mean number of further steps after an event

    def __post_init__(self) -> None:
        events = len(self.problem.operations)
        mean_verbosity = fmean(self.style.verbosity)
        self.style, further = self.style.for_events(events)
        self.further = further / (events + 2 * AT_AN_END) / mean_verbosity if further else 0.0
        self.words = phrases.SENTENCES[self.style.sentences]

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

    def _seed_at(self, place: str) -> None:
        """Seed the generator for a place in the trace, if this is one of two twins."""
        if self.seed is not None:
            self.rng.seed(f"{self.seed}/{place}")

    def _add(self, templates: tuple[str, ...], role: str, essential: bool = False, **words: object) -> None:
        template = self.rng.choice(templates)
        text = template.format(name=self.problem.name, things=self.problem.things, **words)
        self.parts.append((text, essential, role))
        self.templates.append(template)

    def _add_further(self, mean: float, kinds: dict[str, int], words: dict[str, Any], *, right: bool = True) -> None:
        """Add a Poisson number of redundant steps of these kinds; `words` fill in the templates of all of them."""
        if not self.further:
            return
        weights = {role: weight for role, weight in kinds.items() if right or role not in OF_A_RIGHT_RESULT}
        for _ in range(_poisson(self.rng, mean)):
            (role,) = self.rng.choices(list(weights), list(weights.values()))
            templates = self._templates(role)
            if role != "check":  # checks combine openings and endings, and rarely repeat
                templates = tuple(t for t in templates if t not in self.templates[-NOT_AGAIN:]) or templates
            self._add(templates, "remark" if role == "closing" else role, **words)

    def _templates(self, role: str) -> tuple[str, ...]:
        if role == "check":
            ending = self.rng.choice(phrases.CHECK_FINE)
            return (self.rng.choice(self.words.check_openings) + phrases.CHECK_BODY + ending,)
        return {
            "alternative": self.words.alternatives,
            "remark": self.words.remarks,
            "restatement": self.words.restatements,
            "false_start": self.words.false_starts,
            "plan": self.words.plans,
            "recap": self.words.recaps,
            "closing": self.words.closing_remarks,
        }[role]

    def _before(self, verbosity: float) -> None:
        openers: list[tuple[float, Callable[[], None]]] = [
            (self.style.restatement_rate, self._restate),
            (self.style.plan_rate, lambda: self._add(self.words.plans, "plan")),
            (self.style.false_start_rate, lambda: self._add(self.words.false_starts, "false_start", **self._story())),
        ]
        for rate, opener in openers:
            if self.rng.random() < rate * verbosity:
                opener()
        self._add_further(AT_AN_END * self.further * verbosity, BEFORE, self._story())

    def _restate(self) -> None:
        self._add(self.words.restatements, "restatement", **self._story())

    def _story(self) -> dict[str, Any]:
        """The words for templates about the complete story."""
        numbers = [str(self.problem.start), *(str(op.operand) for op in self.problem.operations)]
        first, second = self.problem.start, self.problem.operations[-1].operand
        listed = ", ".join(numbers[:-1]) + " and " + numbers[-1]
        return {"numbers": listed, "first": first, "second": second, "sum": first + second}

    def _work(self, verbosity: float) -> tuple[list[str], list[int]]:
        """Add the computations with their checks; return the lines of the answer and all counts."""
        counts, lines = [self.problem.start], []
        operations = self.problem.operations
        for position, operation in enumerate(operations):
            count = counts[-1]
            result = apply_operation(count, operation)
            assert result is not None
            wrong = None
            self._seed_at(f"slip {position}")
            if self.rng.random() < self.style.error_rate:
                wrong = self._slip(operation, result, operations[position + 1 :])
            self._seed_at(f"words {position}")
            kept = self._compute(count, operation, result, wrong, verbosity)
            words = self._event(operation, count, kept)
            if kept == result and self.rng.random() < self.style.alternative_rate * verbosity:
                self._add(self.words.alternatives, "alternative", **words)
            if self.rng.random() < self.style.remark_rate * verbosity:
                self._add(self.words.remarks, "remark", **words)
            lines.append(phrases.ANSWER_LINE.format(tag=operation.tag, result=kept))
            counts.append(kept)
            words |= self._story() | {"path": _path(counts)}
            self._add_further(self.further * verbosity, AFTER_EVENT, words, right=kept == result)
        return lines, counts

    @staticmethod
    def _event(operation: Operation, count: int, result: int) -> dict[str, Any]:
        """The words for templates about one event."""
        numbers = {"count": count, "operand": operation.operand, "result": result}
        return numbers | {"word": phrases.WORDS[operation.symbol], "inverse": phrases.INVERSE[operation.symbol]}

    def _compute(self, count: int, operation: Operation, result: int, wrong: int | None, verbosity: float) -> int:
        """Add one computation and perhaps its check; return the count with which the trace continues."""
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
            template = self.rng.choice(self.words.check_openings) + phrases.CHECK_BODY + self.rng.choice(endings)
            self._add(
                (template,),
                "catch" if caught else "check",
                caught,
                **self._event(operation, count, result),
                wrong=wrong,
                tag=operation.tag,
                equation=equation(count, operation, result),
            )
        return result if caught or wrong is None else wrong

    def _slip(self, operation: Operation, result: int, rest: tuple[Operation, ...]) -> int | None:
        """A wrong result from which the rest of the story can still be computed; None if there is none."""
        near = [result + shift for shift in (-10, -2, -1, 1, 2, 10)]
        near += [int(str(result)[::-1]), result + operation.operand, result - operation.operand]
        possible = [wrong for wrong in near if wrong != result and wrong > 0 and _computable(wrong, rest)]
        return self.rng.choice(possible) if possible else None

    def _after(self, verbosity: float, counts: list[int]) -> None:
        self._seed_at("end")
        path = _path(counts)
        recap: Callable[[], None] = lambda: self._add(self.words.recaps, "recap", path=path)  # noqa: E731
        remark: Callable[[], None] = lambda: self._add(self.words.closing_remarks, "remark", result=counts[-1])  # noqa: E731
        for rate, closer in ((self.style.recap_rate, recap), (self.style.closing_rate, remark)):
            if self.rng.random() < rate * verbosity:
                closer()
        last = self.problem.operations[-1]
        words = self._story() | self._event(last, counts[-2], counts[-1]) | {"path": path}
        right = apply_operation(counts[-2], last) == counts[-1]
        self._add_further(AT_AN_END * self.further * verbosity, AT_THE_END, words, right=right)
        while sum(not essential for _, essential, _ in self.parts) < self.style.least_redundant:
            self.rng.choice((recap, remark))()


def _path(counts: list[int]) -> str:
    return "from " + " to ".join(map(str, counts))


def _poisson(rng: random.Random, mean: float) -> int:
    """A Poisson number: the number of unit-rate arrivals in [0, mean]."""
    number, time = 0, -math.log(1 - rng.random())
    while time < mean:
        number, time = number + 1, time - math.log(1 - rng.random())
    return number


def _computable(count: int, operations: tuple[Operation, ...]) -> bool:
    for operation in operations:
        result = apply_operation(count, operation)
        if result is None:
            return False
        count = result
    return True
