"""Benchmarks whose answers are numbers or expressions, and the built-in task.

The instruction is commonly used to evaluate reasoning models; the built-in task has none, as in training on it
(data/problems.py, `make_prompts` without a template).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from attnpo.data.references import read_reference
from attnpo.errors import InputError
from attnpo.evaluation.benchmarks.base import (
    ANSWER,
    CONTEST_SAMPLES,
    PROBLEM,
    Benchmark,
    Row,
    answer_of,
    field_of,
    text_of,
)
from attnpo.evaluation.samples import Question

TASK_ROWS = 200
MATH = "Please reason step by step, and put your final answer within \\boxed{}."


def ask_mathematics(question: Question) -> str:
    """The problem and the instruction."""
    return f"{question.problem.rstrip()}\n\n{MATH}"


def _bare(question: Question) -> str:
    return question.problem


def _task_rows() -> Iterable[Row]:
    from attnpo.task.dataset import iterate_dataset

    return iterate_dataset(TASK_ROWS, seed=0, split="test")


def read_mathematics(row: Row, where: str) -> dict[str, Any]:
    """Read problem and gold answer of a row."""
    return {"problem": text_of(row, PROBLEM, where), "reference": answer_of(row, where)}


def _gsm8k(row: Row, where: str) -> dict[str, Any]:
    """Read a row of GSM8K; the Hub's answer is the worked solution, with the number after `####`."""
    fields = read_mathematics(row, where)
    read = read_reference(fields["reference"])
    return {**fields, "reference": (fields["reference"] if read is None else read.text).replace(",", "")}


def _contest(row: Row, where: str) -> dict[str, Any]:
    """Read a row of AMC or AIME; the answers are whole numbers, which some sources write as 27.0 or 033."""
    fields = read_mathematics(row, where)
    whole = re.fullmatch(r"0*(\d+)(?:\.0+)?", fields["reference"])
    return {**fields, "reference": whole[1]} if whole else fields


def _olympiadbench(row: Row, where: str) -> dict[str, Any]:
    """Read a row of OlympiadBench; some problems have a context, and the Hub's answers are lists of one text, which may
    contain several answers.
    """
    answer = field_of(row, ANSWER, where)
    if isinstance(answer, list) and len(answer) == 1:
        row = {**row, "answer": answer[0]}
    problem, context = text_of(row, PROBLEM, where), row.get("context")
    reference = answer_of(row, where).replace("$", "").strip().rstrip(".")
    # "f(x)=a x+b, where b is an arbitrary integer …": the formula is the answer, the text after it is dropped.
    reference = re.split(r",?\s*\bwhere\b", reference)[0]
    if row.get("answer_type") == "Interval":
        reference = re.sub(r"^[a-z](?=[\[(])", "", reference)  # t(0,4] for the values of t
    return {
        "problem": f"{context}\n\n{problem}" if isinstance(context, str) and context.strip() else problem,
        "reference": reference,
        "extra": {
            "answer_type": row.get("answer_type"),
            "unit": row.get("unit") or None,
            "tolerance": _tolerance(row, where),
        },
    }


def _tolerance(row: Row, where: str) -> float | None:
    value = row.get("error") or None
    try:
        return None if value is None else float(value)
    except ValueError as error:
        raise InputError(f"{where}: field 'error' is {value!r}, expected a number") from error


def _minerva(row: Row, where: str) -> dict[str, Any]:
    """Read a row of Minerva Math; answers are quantities computed from data, as LaTeX; one is a line of NumPy, one a
    formula split in two.
    """
    fields = read_mathematics(row, where)
    reference = fields["reference"].replace("$", "").replace("np.", "\\").strip()
    return {**fields, "reference": reference, "extra": {"measured": True}}


BENCHMARKS = (
    Benchmark(
        name="gsm8k",
        title="GSM8K",
        kind="math",
        read=_gsm8k,
        message=ask_mathematics,
        rows=1319,
        licence="MIT",
        files=("gsm8k", "gsm8k_test"),
        also=("gsm8k_train",),
        hub_id="openai/gsm8k",
        hub_config="main",
        hub_split="test",
        hub_revision="740312add88f781978c0658806c59bc2815b9866",
    ),
    Benchmark(
        name="math500",
        title="MATH-500",
        kind="math",
        read=read_mathematics,
        message=ask_mathematics,
        level="level",
        rows=500,
        licence="MIT",
        files=("math500",),
        hub_id="HuggingFaceH4/MATH-500",
        hub_split="test",
        hub_revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
    ),
    Benchmark(
        name="amc23",
        title="AMC 2023",
        kind="math",
        read=_contest,
        message=ask_mathematics,
        rows=40,
        licence="© MAA",
        files=("amc23",),
        hub_id="math-ai/amc23",
        hub_split="test",
        hub_revision="80815d37005feb82cd7f8fbc6901d5d3eff43057",
        samples=CONTEST_SAMPLES,
    ),
    Benchmark(
        name="olympiadbench",
        title="OlympiadBench",
        kind="math",
        read=_olympiadbench,
        message=ask_mathematics,
        level="subfield",
        rows=674,  # open-ended, text only, mathematics, English, competitions; Qwen's copy of it has 675
        licence="Apache-2.0",
        files=("olympiadbench",),
        hub_id="Hothan/OlympiadBench",
        hub_config="OE_TO_maths_en_COMP",
        hub_split="train",
        hub_revision="91184b52131e7fc9455fef848035173aea8cc01a",
    ),
    Benchmark(
        name="aime24",
        title="AIME 2024",
        kind="math",
        read=_contest,
        message=ask_mathematics,
        rows=30,
        licence="© MAA",
        files=("aime24",),
        hub_id="HuggingFaceH4/aime_2024",
        hub_split="train",
        hub_revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        samples=CONTEST_SAMPLES,
    ),
    Benchmark(
        name="aime25",
        title="AIME 2025",
        kind="math",
        read=_contest,
        message=ask_mathematics,
        rows=30,
        licence="© MAA",
        files=("aime25",),
        hub_id="math-ai/aime25",
        hub_split="test",
        hub_revision="563bb8404243c5f09de6ec262f2db674fe5bce9b",
        samples=CONTEST_SAMPLES,
    ),
    Benchmark(
        name="minerva",
        title="Minerva Math",
        kind="math",
        read=_minerva,
        message=ask_mathematics,
        level="type",
        rows=272,
        licence="not stated",
        files=("minerva", "minerva_math"),
        hub_id="math-ai/minervamath",
        hub_split="test",
        hub_revision="ee46ddc498933b1977577953250ca5c66be64f96",
    ),
    Benchmark(
        name="task",
        title="Built-in task",
        kind="math",
        read=read_mathematics,
        message=_bare,
        level="difficulty",
        rows=TASK_ROWS,
        licence="Apache-2.0",
        files=("task",),
        make=_task_rows,
    ),
)
