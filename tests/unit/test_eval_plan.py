"""The plan of an evaluation is fixed before sampling."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from attnpo.evaluation.samples import Question, fingerprint, make_plan, sample_seed


def question(name: str, length: int = 1, benchmark: str = "math500") -> Question:
    """Its prompt has `length` tokens."""
    return Question(benchmark=benchmark, id=name, problem="x" * length, kind="math", reference="1")


def plan(questions: dict[str, list[Question]], **options: Any):
    usual = {"samples": dict.fromkeys(questions, 2), "seed": 0, "max_tokens": 5, "context": 20, "batch_size": 3}
    return make_plan(questions, lambda asked: [7] * len(asked.problem), **{**usual, **options})


def test_longest_prompts_first_in_batches_of_one_benchmark():
    found = plan({"a": [question("1", 2, "a"), question("2", 4, "a")], "b": [question("3", 9, "b")]})
    assert [[request.key for request in batch] for batch in found.batches] == [
        [("a", "2", 0), ("a", "2", 1), ("a", "1", 0)],
        [("a", "1", 1)],
        [("b", "3", 0), ("b", "3", 1)],
    ]
    assert found.size == 6
    assert dict(found.problems) == {"a": 2, "b": 1}


def test_token_limit_is_the_remaining_context():
    questions = {"a": [question(str(n), n, "a") for n in (10, 16, 19, 20, 25)]}
    found = plan(questions, samples={"a": 1})
    assert [(len(request.prompt), request.room) for request in found.requests] == [(19, 1), (16, 4), (10, 5)]
    assert found.left_out == {
        "a": [
            "a, problem 20: a prompt of 20 tokens, expected less than 20, the model's context",
            "a, problem 25: a prompt of 25 tokens, expected less than 20, the model's context",
        ]
    }
    unlimited = plan(questions, samples={"a": 1}, context=None)
    assert {request.room for request in unlimited.requests} == {5}


def test_seeds_are_pinned():
    # A changed derivation would silently give other samples, and break folders that are to be continued.
    assert sample_seed(0, ("math500", "test/algebra/1.json", 0)) == 73245568007588
    assert sample_seed(0, ("math500", "test/algebra/1.json", 1)) == 277684717049670


@given(st.integers(), st.text(), st.text(), st.integers(0, 10**6))
def test_seeds_fit_everywhere(run_seed: int, benchmark: str, name: str, sample: int):
    key = (benchmark, name, sample)
    assert 0 <= sample_seed(run_seed, key) < 2**48
    assert sample_seed(run_seed, key) != sample_seed(run_seed, (benchmark, name, sample + 1))
    assert sample_seed(run_seed, key) != sample_seed(run_seed + 1, key)


@given(st.lists(st.integers(1, 15), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 7), st.randoms())
def test_requests_do_not_depend_on_batches_or_order(lengths: list[int], samples: int, size: int, rng: random.Random):
    questions = [question(str(index), length, "a") for index, length in enumerate(lengths)]
    mixed = rng.sample(questions, len(questions))
    one, other = (
        plan({"a": part}, samples={"a": samples}, batch_size=batch) for part, batch in ((questions, size), (mixed, 64))
    )
    assert all(len(batch) <= size for batch in one.batches)
    assert {request.key: request for request in one.requests} == {request.key: request for request in other.requests}
    assert one.size == len(lengths) * samples


def test_fingerprint_sees_every_change():
    first = [question("1"), question("2")]
    changed = [first[0], Question(benchmark="math500", id="2", problem="x", kind="math", reference="2")]
    assert fingerprint(first) == fingerprint(list(first))
    assert len({fingerprint(part) for part in (first, changed, first[:1], first[::-1])}) == 4
