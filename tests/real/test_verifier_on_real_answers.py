"""The verifier on published traces and on the gold answers of benchmarks (the larger data; see `shared_dir`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnpo.evaluation.benchmarks import get_benchmark
from attnpo.evaluation.contamination import find_overlaps
from attnpo.evaluation.gold import check_gold
from attnpo.evaluation.grading import Grader
from attnpo.evaluation.load import load_all, load_file
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


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=2, timeout=30) as made:
        yield made


@pytest.mark.parametrize(
    ("benchmark", "name", "rows"),
    [
        ("gsm8k", "gsm8k_test.jsonl", 1319),
        ("gsm8k", "gsm8k_train.jsonl", 7473),
        ("math500", "math500.jsonl", 500),
        ("amc23", "amc23.jsonl", 40),
        ("aime24", "aime24.jsonl", 30),
        ("olympiadbench", "olympiadbench.jsonl", 675),
        ("minerva", "minerva_math.jsonl", 272),
        ("mmlu", "mmlu_dev.jsonl", 285),
        ("mmlu", "mmlu_stem_test.jsonl", 3018),
    ],
)
def test_gold_answers_are_right_in_all_spellings_and_near_misses_wrong(
    grader: Grader, shared_dir: Path, benchmark: str, name: str, rows: int
) -> None:
    loaded = load_file(get_benchmark(benchmark), shared_dir / "data" / "bench" / name)
    assert loaded.left_out == []
    check = check_gold(loaded.questions, grader, with_rules=False)
    assert (check.rows, check.right, check.failed, check.unchecked) == (rows, rows, [], {})
    assert check.accepted == []
    for way, tally in check.ways.items():
        assert tally.good >= 0.995 * tally.tried, (way, check.misread)
    assert len(check.foreign) <= 1, check.foreign  # x=5 for 5


def test_statements_without_tests_are_loaded_and_not_checked(grader: Grader, shared_dir: Path) -> None:
    path = shared_dir / "data" / "bench" / "livecodebench_279.jsonl"
    check = check_gold(load_file(get_benchmark("livecodebench"), path).questions, grader)
    assert (check.rows, check.right, check.failed) == (279, 0, [])
    assert {reason: len(ids) for reason, ids in check.unchecked.items()} == {"no tests": 279}


def test_overlap_of_real_splits(shared_dir: Path) -> None:
    """One story of GSM8K's test split is in its training split twice, with a train for a plane and other numbers;
    one question of MMLU's development split is a problem of MATH-500, one (an index of "abc") resembles its test's."""
    bench = shared_dir / "data" / "bench"
    questions = [q for item in load_all(None, data_dir=bench).values() for q in item.questions]
    train = [(str(row["id"]), row["problem"], ()) for row in rows_of(bench / "gsm8k_train.jsonl")]
    found = {(o.question.benchmark, o.question.id, o.degree) for o in find_overlaps(train, questions)}
    assert found == {("gsm8k", "602", "near")}
    dev = [(row["id"], row["problem"], row["choices"]) for row in rows_of(bench / "mmlu_dev.jsonl")]
    assert {(o.question.benchmark, o.degree) for o in find_overlaps(dev, questions)} == {
        ("math500", "same"),
        ("mmlu", "near"),
    }
    test = [(row["id"], row["problem"], row["choices"]) for row in rows_of(bench / "mmlu_stem_test.jsonl")]
    same = [(o.question.benchmark, o.question.id) for o in find_overlaps(test, questions) if o.degree == "same"]
    assert len({id_ for benchmark, id_ in same if benchmark == "mmlu"}) == len(test) == 3018
    assert len({id_ for benchmark, id_ in same if benchmark == "math500"}) == 6
