"""The verifier on published traces and on the gold answers of benchmarks (the larger data; see `shared_dir`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnpo.rewards.pool import VerifierPool
from attnpo.steps.response import answer_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=2, timeout=30) as made:
        yield made


def rows_of(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def verdicts_on(pool: VerifierPool, path: Path) -> dict[str, str]:
    rows = rows_of(path)
    verdicts = pool.verify([(answer_of(row["response"]), row["reference"]) for row in rows])
    return {row["id"]: str(verdict) for row, verdict in zip(rows, verdicts, strict=True)}


def test_math_traces_are_all_right(pool: VerifierPool, shared_dir: Path) -> None:
    """Published as correct answers; four have no reference."""
    found = verdicts_on(pool, shared_dir / "data" / "traces" / "math_distill.jsonl")
    assert Counter(found.values()) == {"right": 396, "unverifiable": 4}


def test_gsm8k_traces(pool: VerifierPool, shared_dir: Path) -> None:
    """Read by hand: these ten differ from the reference, in value or because the question asks for two numbers."""
    found = verdicts_on(pool, shared_dir / "data" / "traces" / "gsm8k_three_models.jsonl")
    different = {5, 45, 47, 57, 175, 184, 270, 271, 272, 350}
    assert {name for name, verdict in found.items() if verdict != "right"} == {
        f"MiP-Overthinking-{i}" for i in different
    }
    assert Counter(found.values()) == {"right": 350, "wrong": 10}


def test_half_of_the_thought_anchors_are_wrong(pool: VerifierPool, shared_dir: Path) -> None:
    found = verdicts_on(pool, shared_dir / "data" / "traces" / "thought_anchors.jsonl")
    assert Counter(found.values()) == {"right": 20, "wrong": 20}


@pytest.mark.parametrize(
    ("name", "unreadable", "wrong"),
    [
        ("gsm8k_test", 0, 0),
        ("math500", 0, 0),
        ("aime24", 0, 0),
        ("amc23", 0, 0),
        ("minerva_math", 6, 0),
        ("olympiadbench", 2, 2),
    ],
)
def test_gold_answers_verify_against_themselves(
    pool: VerifierPool, shared_dir: Path, name: str, unreadable: int, wrong: int
) -> None:
    """The two wrong ones are sentences with formulas in them, which the box around them breaks."""
    golds = [str(row["answer"]) for row in rows_of(shared_dir / "data" / "bench" / f"{name}.jsonl")]
    assert len(pool.validate_references(golds)) == unreadable
    verdicts = Counter(map(str, pool.verify([(rf"The answer is \boxed{{{gold}}}", gold) for gold in golds])))
    expected = {"right": len(golds) - unreadable - wrong, "unverifiable": unreadable, "wrong": wrong}
    assert verdicts == {verdict: count for verdict, count in expected.items() if count}
