"""Tests of LiveCodeBench problems, as published → the list that `attnpo.evaluation.grading.code` runs.

A test is {"input", "output", "kind": "stdin" | "functional"} and, for a function, "function": its name.
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

LARGEST = 2**29
"""Bytes of one problem's private tests, unpacked; what is published stays far below."""

# Whatever a damaged or hostile pickle can raise on its way to a text.
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
    """Public and private tests of a row; none where it has none.

    Raises:
        InputError: the tests are there and cannot be read; names row and field.
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
    """Private tests are a pickled text; a pickle that asks for any class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} in a pickle that should hold a text")


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
