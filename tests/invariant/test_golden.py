"""Seeded runs give the numbers that they gave when tests/data/golden.json was written.

To the last digit where the versions and the processor in that file are those of this machine, else to 1e-4: matrix
products of another processor round differently (AMD EPYC against the Intel Xeon of the file: up to 5e-5, in SHAPE).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

import golden


def compare(found: Any, expected: Any, where: str, *, exact: bool) -> None:
    if isinstance(expected, float) and not exact:
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), where
    elif isinstance(expected, dict) and isinstance(found, dict):
        assert found.keys() == expected.keys(), where
        for name in expected:
            compare(found[name], expected[name], f"{where}/{name}", exact=exact)
    elif isinstance(expected, list) and isinstance(found, list):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            compare(one, other, f"{where}/{number}", exact=exact)
    else:
        assert found == expected, where


@pytest.mark.slow
def test_all_numbers_equal_the_golden_file(new_tiny_qwen2, tiny_tokenizer, tmp_path):
    expected = json.loads(golden.FILE.read_text(encoding="utf-8"))
    exact = expected.pop("versions") == golden.versions()
    compare(golden.compute(tmp_path, new_tiny_qwen2, tiny_tokenizer), expected, "", exact=exact)


def test_changed_digit_is_detected():
    expected = {"a": [0.1, {"b": 0.25}]}
    compare({"a": [0.1, {"b": 0.25}]}, expected, "", exact=True)
    for changed in ({"a": [0.1, {"b": 0.25 + 1e-15}]}, {"a": [0.1]}, {"a": [0.1, {"b": 0.25, "c": 1}]}):
        with pytest.raises(AssertionError):
            compare(changed, expected, "", exact=True)
    with pytest.raises(AssertionError):
        compare({"a": [0.1, {"b": 0.25 + 1e-4}]}, expected, "", exact=False)
