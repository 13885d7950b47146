"""The built-in task as rows: problems with their references and labelled over-thinking traces."""

from __future__ import annotations

import random
from collections.abc import Iterator

from attnpo.steps.segment import segment_steps
from attnpo.task.problems import DEFAULT_DIFFICULTY, check_options, sample_problem
from attnpo.task.traces import TraceStyle, write_trace


def iterate_rows(
    seed: int = 0,
    split: str = "train",
    difficulty: tuple[int, int] = DEFAULT_DIFFICULTY,
    style: TraceStyle | None = None,
) -> Iterator[dict]:
    """Endless labelled rows of a seed and split; row i is the same whatever came before or comes after.

    A row is a trace-file record (id, problem, response, reference, steps) with family, difficulty and split, and the
    writer's own label of each step in `role`.
    Raises InputError for an unknown split or a difficulty range outside 1 … 5.
    """
    check_options(split, difficulty)
    index = 0
    while True:
        yield _row(seed, index, split, difficulty, style)
        index += 1


def build_dataset(
    n: int, seed: int = 0, split: str = "train", difficulty: tuple[int, int] = DEFAULT_DIFFICULTY
) -> list[dict]:
    """The first n rows of `iterate_rows`, for `datasets.Dataset.from_list`; deterministic by all arguments."""
    rows = iterate_rows(seed, split, difficulty)
    return [next(rows) for _ in range(n)]


def _row(seed: int, index: int, split: str, difficulty: tuple[int, int], style: TraceStyle | None) -> dict:
    problem = sample_problem(seed, index, split, difficulty)
    trace = write_trace(problem, random.Random(f"trace/{problem.id}"), style)
    kinds = segment_steps(trace.thinking)
    assert [(s.start, s.end) for s in kinds] == [(s.start, s.end) for s in trace.steps], f"{problem.id}: steps differ"
    return {
        "id": problem.id,
        "problem": problem.text,
        "response": trace.response,
        "reference": str(problem.answer),
        "steps": [
            {"start": step.start, "end": step.end, "essential": step.essential, "kind": cut.kind, "role": step.role}
            for step, cut in zip(trace.steps, kinds, strict=True)
        ],
        "family": problem.family,
        "difficulty": problem.difficulty,
        "split": problem.split,
    }
