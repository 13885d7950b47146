"""The stories of the built-in task: determinism, disjoint splits, answers checked by a second computation."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest

from attnpo.errors import InputError
from attnpo.task.problems import (
    FAMILIES,
    LEVELS,
    NAMES_A,
    NAMES_B,
    Operation,
    chain_counts,
    chain_split,
    sample_problem,
)

SPLITS = ("train", "test")


@pytest.fixture(scope="module")
def problems():
    return {split: [sample_problem(3, i, split, (1, 5)) for i in range(1500)] for split in SPLITS}


def test_golden_chain():
    operations = (Operation("*", 12, "crates"), Operation("+", 15, "delivery"), Operation("/", 9, "baskets"))
    assert chain_counts(4, operations) == (4, 48, 63, 7)


def test_same_arguments_same_problem():
    first = [sample_problem(5, i, "train", (2, 3)) for i in range(50)]
    assert first == [sample_problem(5, i, "train", (2, 3)) for i in range(50)]
    assert first != [sample_problem(6, i, "train", (2, 3)) for i in range(50)]


def test_answers_by_fractions(problems):
    """Exact rational arithmetic over the recorded operations gives the same answer, and every number is in the text."""
    for problem in [*problems["train"], *problems["test"]]:
        value = Fraction(problem.start)
        for operation in problem.operations:
            n = operation.operand
            value = {"+": value + n, "-": value - n, "*": value * n, "/": value / n}[operation.symbol]
            assert value.denominator == 1, problem
            assert value >= 1, problem
            assert value <= LEVELS[problem.difficulty][1], problem
        assert value == problem.answer, problem
        numbers = [int(number) for number in re.findall(r"\d+", problem.text)]
        assert numbers == [problem.start, *(operation.operand for operation in problem.operations)], problem


def test_difficulty_sets_the_number_of_operations(problems):
    for problem in problems["train"]:
        assert len(problem.operations) == LEVELS[problem.difficulty][0]
    assert {problem.difficulty for problem in problems["train"]} == set(LEVELS)
    assert {problem.difficulty for problem in (sample_problem(0, i, "train", (2, 2)) for i in range(20))} == {2}


def test_splits_share_words_but_neither_numbers_nor_surfaces(problems):
    chains, surfaces, words = {}, {}, {}
    for split in SPLITS:
        chains[split] = {(p.start, *((o.symbol, o.operand) for o in p.operations)) for p in problems[split]}
        surfaces[split] = {(p.name, p.things) for p in problems[split]}
        words[split] = {word for p in problems[split] for word in re.findall(r"[A-Za-z]+", p.text)}
    assert not chains["train"] & chains["test"]
    assert not surfaces["train"] & surfaces["test"]
    assert words["train"] == words["test"]
    assert all(chain_split(p.start, p.operations) == split for split in SPLITS for p in problems[split])


def test_every_event_has_its_tag_in_every_telling():
    """A solution names an event by its tag, so each way to tell the event must hold that word."""
    for family in FAMILIES:
        tags = [event.tag for event in (*family.products, *family.events)]
        assert len(set(tags)) == len(tags)
        for event in (*family.products, *family.events):
            for sentence in event.sentences:
                assert re.search(rf"\b{event.tag}\b", sentence), (event, sentence)
                assert sentence.count("{n}") == 1
    assert not set(NAMES_A) & set(NAMES_B)


@pytest.mark.parametrize(
    ("split", "difficulty"), [("dev", (1, 4)), ("train", (0, 3)), ("train", (4, 2)), ("test", (1, 6))]
)
def test_bad_options(split, difficulty):
    with pytest.raises(InputError, match="found"):
        sample_problem(0, 0, split, difficulty)
