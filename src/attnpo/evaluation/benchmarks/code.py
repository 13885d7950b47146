"""Benchmarks with programs as answers, which are run against tests.

A test is {"input", "output", "kind": "stdin" | "functional"} and, for a function, "function": its name;
`attnpo.evaluation.grading.code` runs them.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from typing import Any

from attnpo.data.jsonl import type_name
from attnpo.errors import InputError
from attnpo.evaluation.benchmarks.base import PROBLEM, Benchmark, Row, text_of
from attnpo.evaluation.grading.code import read_test
from attnpo.evaluation.samples import Question

STDIN = (
    "Write a Python program that reads from standard input and prints the answer to standard output. "
    "Put the whole program into one ```python code block."
)
FUNCTION = "Write your solution in Python, starting from this code. Put all of it into one ```python code block."

LARGEST = 2**29
"""Maximum size of one problem's unpacked private tests, in bytes; published ones are far smaller."""

# The exceptions that reading a damaged or hostile pickle can raise.
BROKEN = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    TypeError,
    ValueError,
    zlib.error,
    pickle.UnpicklingError,
)


def read_tests(row: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Public and private tests of a row; empty if it has none.

    Raises:
        InputError: the tests cannot be read; names row and field.
    """
    if "tests" in row and isinstance(row["tests"], list):
        return list(row["tests"])
    function = _metadata(row).get("func_name")
    tests = []
    for name in ("public_test_cases", "private_test_cases"):
        value = row.get(name)
        if not value:
            continue
        try:
            cases = json.loads(value) if value.lstrip().startswith("[") else json.loads(_unpack(value))
            for case in cases:
                test = {"input": case["input"], "output": case["output"], "kind": case["testtype"]}
                tests.append(test if function is None else {**test, "function": function})
        except BROKEN as error:
            raise InputError(f"{where}: field {name!r} cannot be read as tests ({type(error).__name__})") from error
    return tests


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    value = row.get("metadata") or {}
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        value = {}
    return value if isinstance(value, dict) else {}


class _TextUnpickler(pickle.Unpickler):
    """Unpickles private tests, which are a text; a pickle with any class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} in a pickle that should contain a text")


def _unpack(value: str) -> str:
    try:
        packed = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    unpacking = zlib.decompressobj()
    plain = unpacking.decompress(packed, LARGEST)
    if not unpacking.eof:
        raise ValueError(f"cut off, or more than {LARGEST} bytes")
    text = _TextUnpickler(io.BytesIO(plain)).load()
    if not isinstance(text, str):
        raise TypeError(type_name(text))
    return text


def ask_program(question: Question) -> str:
    """The problem, its starter code if there is any, and the instruction."""
    starter = question.extra.get("starter_code")
    task = f"{FUNCTION}\n\n```python\n{starter.rstrip()}\n```" if starter else STDIN
    return f"{question.problem.rstrip()}\n\n{task}"


def _livecodebench(row: Row, where: str) -> dict[str, Any]:
    tests = tuple(read_tests(row, where))
    for number, test in enumerate(tests, start=1):  # finds a malformed test now, not after hours of sampling
        read_test(test, f"{where}, test {number}")
    return {
        "problem": text_of(row, PROBLEM, where),
        "reference": None,
        "tests": tests,
        "extra": {"starter_code": row.get("starter_code") or "", "date": row.get("contest_date")},
    }


BENCHMARKS = (
    Benchmark(
        # "v6" is the 175 problems that release_v6 added, contests of January to April 2025 (papers with "2502-2505"
        # use the 131 of them from February on; "v5" is 2408-2502, 279 problems). The data set has a loading script,
        # which current versions of datasets do not run, so the release's file is read instead.
        name="livecodebench",
        title="LiveCodeBench v6",
        kind="code",
        read=_livecodebench,
        message=ask_program,
        level="difficulty",
        rows=175,
        licence="© contest sites",
        files=("livecodebench", "test6"),
        also=("livecodebench_279",),
        hub_id="livecodebench/code_generation_lite",
        hub_file="test6.jsonl",
        hub_revision="0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
    ),
)
