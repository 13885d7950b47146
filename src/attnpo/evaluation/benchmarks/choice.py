"""Multiple-choice benchmarks."""

from __future__ import annotations

import random
from typing import Any

from attnpo.data.jsonl import type_name
from attnpo.errors import InputError
from attnpo.evaluation.benchmarks.base import ANSWER, PROBLEM, Benchmark, Row, field_of, text_of
from attnpo.evaluation.samples import Question, letter_of

CHOICE = (
    'Please reason step by step, and end with a line of the form "Answer: X", where X is the letter of the right '
    "choice."
)


def ask_choice(question: Question) -> str:
    """The problem, its choices, and the instruction."""
    listing = "\n".join(f"({letter_of(index)}) {choice}" for index, choice in enumerate(question.choices))
    return f"{question.problem.rstrip()}\n\n{listing}\n\n{CHOICE}"


def _mmlu(row: Row, where: str) -> dict[str, Any]:
    """Read a row of MMLU; the answer is an index on the Hub, a letter in most files."""
    choices, answer = row.get("choices"), field_of(row, ANSWER, where)
    if not isinstance(choices, list) or len(choices) < 2:
        raise InputError(f"{where}: field 'choices' is {type_name(choices)}, expected a list of at least two")
    letters = [letter_of(index) for index in range(len(choices))]
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        answer = letters[answer]
    if answer not in letters:
        raise InputError(f"{where}: field 'answer' is {answer!r}, expected one of {', '.join(letters)}")
    return {
        "problem": text_of(row, PROBLEM, where),
        "reference": answer,
        "choices": tuple(str(choice) for choice in choices),
    }


def _gpqa(row: Row, where: str) -> dict[str, Any]:
    """Read a row of GPQA; the right answer comes first on the Hub, so the choices are shuffled with a fixed seed."""
    if "choices" in row:
        return _mmlu(row, where)
    problem = text_of(row, PROBLEM, where)
    right = text_of(row, ("Correct Answer",), where).strip()
    wrong = [text_of(row, (f"Incorrect Answer {number}",), where).strip() for number in (1, 2, 3)]
    order = [right, *wrong]
    random.Random(f"gpqa/{problem}").shuffle(order)
    return {"problem": problem, "reference": "ABCD"[order.index(right)], "choices": tuple(order)}


BENCHMARKS = (
    Benchmark(
        name="gpqa_diamond",
        title="GPQA-Diamond",
        kind="choice",
        read=_gpqa,
        message=ask_choice,
        level="High-level domain",
        rows=198,
        licence="CC-BY-4.0",
        files=("gpqa_diamond",),
        hub_id="Idavidrein/gpqa",
        hub_config="gpqa_diamond",
        hub_split="train",
        hub_revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        gated=True,
    ),
    Benchmark(
        name="mmlu",
        title="MMLU",
        kind="choice",
        read=_mmlu,
        message=ask_choice,
        level="subject",
        rows=14042,
        licence="MIT",
        files=("mmlu", "mmlu_test", "mmlu_stem_test"),
        also=("mmlu_stem_test", "mmlu_dev"),
        hub_id="cais/mmlu",
        hub_config="all",
        hub_split="test",
        hub_revision="c30699e8356da336a370243923dbaf21066bb9fe",
    ),
)
