"""Wrong responses with their repairs: data for the cold start of the repair mode (credit/iop)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Any

from attnpo.errors import InputError
from attnpo.task.problems import DEFAULT_DIFFICULTY, Problem, check_options, sample_problem
from attnpo.task.traces import Trace, TraceStyle, write_trace, write_twins

STYLE = TraceStyle(catch_all=False, error_rate=0.3)
"""Errors more often than in ordinary traces: fewer of them have to be thrown away."""


def iterate_repairs(
    n: int, seed: int = 0, split: str = "train", difficulty: tuple[int, int] = DEFAULT_DIFFICULTY
) -> Iterator[dict[str, Any]]:
    """n rows: id, problem, reference, `wrong` (a response), `response` (its repair) and `anchor` (another right one).

    Deterministic by seed, split and difficulty; row i does not depend on n. Problems are those of `build_dataset`.
    Raises InputError for n < 1, an unknown split or a difficulty range outside 1 … 5.
    """
    if n < 1:
        raise InputError(f"number of problems: found {n}, expected at least 1")
    check_options(split, difficulty)
    return (_row(sample_problem(seed, index, split, difficulty)) for index in range(n))


def _row(problem: Problem) -> dict[str, Any]:
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
    """The first of endless tries that ends in a wrong answer."""
    for number in count():
        wrong, repaired = write_twins(problem, f"repair/{problem.id}/{number}", STYLE)
        if wrong.answer != problem.answer:
            return wrong, repaired
    raise AssertionError
