"""Pairs of a wrong response and its repair, for a cold start."""

from __future__ import annotations

import json

import pytest
from measure_on_task import boxed_answer

from attnpo.cli.main import main
from attnpo.credit.iop.audit import Case, audit_by_rules
from attnpo.credit.iop.repairs import edit_distance
from attnpo.errors import InputError
from attnpo.task.dataset import build_dataset, iterate_repairs
from attnpo.task.traces import TraceStyle, write_twins

ROWS = list(iterate_repairs(60, seed=3))


def test_wrong_right_and_right() -> None:
    for row in ROWS:
        answer = int(row["reference"])
        assert boxed_answer(row["wrong"]) not in (answer, None)
        assert boxed_answer(row["response"]) == boxed_answer(row["anchor"]) == answer


def test_repairs_pass_the_audit_and_change_little() -> None:
    cases = [Case(row["problem"], row["wrong"], row["response"], row["anchor"]) for row in ROWS]
    assert audit_by_rules(cases) == [None] * len(cases)
    changed = [edit_distance(row["wrong"].split(), row["response"].split()) for row in ROWS]
    other = [edit_distance(row["wrong"].split(), row["anchor"].split()) for row in ROWS]
    assert sum(changed) / len(changed) < 0.2 < 0.5 < sum(other) / len(other)


def test_words_before_the_error_are_the_same() -> None:
    """Twins differ from the first slip that nobody caught, not before it."""
    for row in ROWS:
        wrong, repaired = row["wrong"].split("\n\n"), row["response"].split("\n\n")
        first = next(i for i, (a, b) in enumerate(zip(wrong, repaired, strict=False)) if a != b)
        assert "=" in wrong[first]  # a computation
        assert wrong[first].split(" = ")[0] == repaired[first].split(" = ")[0]


def test_without_slips_twins_are_the_same() -> None:
    from attnpo.task.problems import sample_problem

    problem = sample_problem(0, 0)
    wrong, repaired = write_twins(problem, "x", TraceStyle(error_rate=0, catch_all=False))
    assert wrong == repaired


def test_rows_are_those_of_the_task_and_do_not_depend_on_their_number() -> None:
    assert list(iterate_repairs(5, seed=3)) == ROWS[:5]
    assert [row["id"] for row in build_dataset(5, seed=3)] == [row["id"] for row in ROWS[:5]]
    assert list(iterate_repairs(3, seed=4)) != ROWS[:3]


@pytest.mark.parametrize(("n", "options"), [(0, {}), (1, {"split": "dev"}), (1, {"difficulty": (0, 2)})])
def test_bad_input(n, options) -> None:
    with pytest.raises(InputError):
        iterate_repairs(n, **options)


def test_command(tmp_path) -> None:
    out = tmp_path / "repairs.jsonl"
    assert main(["task", "--repairs", "--n", "4", "--seed", "3", "-o", str(out)]) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == ROWS[:4]
