"""Answers of real data sets, extracted from their worked solutions."""

from __future__ import annotations

import pytest

from attnpo.data.problems import load_rows, to_problems

pytestmark = pytest.mark.slow


def test_gsm8k_solutions(shared_dir):
    """The text after #### is the published answer, in every row."""
    source = str(shared_dir / "data" / "bench" / "gsm8k_train.jsonl")
    rows = load_rows(source)
    found = to_problems([{"question": row["problem"], "answer": row["solution"]} for row in rows], source)
    assert len(found.rows) == 7473
    assert found.recognised == "problem from 'question', reference from 'answer' (after ####)"
    assert [row["reference"].replace(",", "") for row in found.rows] == [row["answer"] for row in rows]


@pytest.mark.parametrize("name", ["math500", "olympiadbench", "minerva_math", "aime24", "amc23"])
def test_answers_are_unchanged(shared_dir, name):
    source = str(shared_dir / "data" / "bench" / f"{name}.jsonl")
    rows = load_rows(source)
    assert [row["reference"] for row in to_problems(rows, source).rows] == [str(row["answer"]).strip() for row in rows]
