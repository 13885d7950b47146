"""The built-in task as rows: problems with their references and labelled over-thinking traces, or with repairs.

Repairs are corrected wrong responses: data for the cold start of the repair mode (credit/iop).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Any

from attnpo.errors import InputError
from attnpo.steps.segment import segment_steps
from attnpo.task.problems import DEFAULT_DIFFICULTY, Problem, check_options, sample_problem
from attnpo.task.traces import Trace, TraceStyle, write_trace, write_twins


def build_dataset(
    n: int,
    seed: int = 0,
    split: str = "train",
    difficulty: tuple[int, int] = DEFAULT_DIFFICULTY,
    style: TraceStyle | None = None,
) -> list[dict[str, Any]]:
    """n labelled rows, for `datasets.Dataset.from_list`; determined by seed, split, difficulty and style.

    A row is a trace-file record (id, problem, response, reference, steps) with family, difficulty and split; "role" of
    a step is the writer's own label. Row i does not depend on n.
    Raises InputError for n < 1, an unknown split or a difficulty range outside 1 … 5.
    """
    return list(iterate_dataset(n, seed, split, difficulty, style))


def iterate_dataset(
    n: int,
    seed: int = 0,
    split: str = "train",
    difficulty: tuple[int, int] = DEFAULT_DIFFICULTY,
    style: TraceStyle | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `build_dataset`; `style` changes how the traces over-think."""
    if n < 1:
        raise InputError(f"number of problems: found {n}, expected at least 1")
    check_options(split, difficulty)
    return (_row(seed, index, split, difficulty, style) for index in range(n))


def _row(seed: int, index: int, split: str, difficulty: tuple[int, int], style: TraceStyle | None) -> dict[str, Any]:
    problem = sample_problem(seed, index, split, difficulty)
    trace = write_trace(problem, random.Random(f"trace/{problem.id}"), style)
    cuts = segment_steps(trace.thinking)
    assert [(s.start, s.end) for s in cuts] == [(s.start, s.end) for s in trace.steps], f"{problem.id}: steps differ"
    return {
        "id": problem.id,
        "problem": problem.text,
        "response": trace.response,
        "reference": str(problem.answer),
        "steps": [
            {"start": step.start, "end": step.end, "essential": step.essential, "kind": cut.kind, "role": step.role}
            for step, cut in zip(trace.steps, cuts, strict=True)
        ],
        "family": problem.family,
        "difficulty": problem.difficulty,
        "split": problem.split,
    }


STYLE = TraceStyle(catch_all=False, error_rate=0.3)
"""More errors than in ordinary traces, so that fewer traces have to be thrown away."""


def iterate_repairs(
    n: int, seed: int = 0, split: str = "train", difficulty: tuple[int, int] = DEFAULT_DIFFICULTY
) -> Iterator[dict[str, Any]]:
    """Yield n rows: id, problem, reference, `wrong` (a response), `response` (its repair), `anchor` (a right response).

    Determined by seed, split and difficulty; row i does not depend on n. Problems are those of `build_dataset`.
    Raises InputError for n < 1, an unknown split or a difficulty range outside 1 … 5.
    """
    if n < 1:
        raise InputError(f"number of problems: found {n}, expected at least 1")
    check_options(split, difficulty)
    return (_repair_row(sample_problem(seed, index, split, difficulty)) for index in range(n))


def _repair_row(problem: Problem) -> dict[str, Any]:
    wrong, repaired = _wrong_and_repaired(problem)
    anchor = write_trace(problem, random.Random(f"anchor/{problem.id}"))
    return {
        "id": problem.id,
        "problem": problem.text,
        "reference": str(problem.answer),
        "wrong": wrong.response,
        "response": repaired.response,
        "anchor": anchor.response,
        "family": problem.family,
        "difficulty": problem.difficulty,
        "split": problem.split,
    }


def _wrong_and_repaired(problem: Problem) -> tuple[Trace, Trace]:
    """The first twins, of any number of attempts, whose unrepaired trace ends in a wrong answer."""
    for number in count():
        wrong, repaired = write_twins(problem, f"repair/{problem.id}/{number}", STYLE)
        if wrong.answer != problem.answer:
            return wrong, repaired
    raise AssertionError
