"""Tests of LiveCodeBench problems as they are published: a text, or a text pickled, packed and encoded."""

from __future__ import annotations

import base64
import json
import pickle
import zlib

import pytest

from attnpo.errors import InputError
from attnpo.evaluation.benchmarks import code as code_tests
from attnpo.evaluation.benchmarks.code import read_tests

CASE = {"input": "1 2\n", "output": "3\n", "testtype": "stdin"}


def packed(content: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(content))).decode()


class Attack:
    def __reduce__(self):
        return (print, ("a pickle of the internet has run",))


def test_public_and_private():
    row = {"public_test_cases": json.dumps([CASE]), "private_test_cases": packed(json.dumps([CASE, CASE]))}
    assert read_tests(row, "row 1") == [{"input": "1 2\n", "output": "3\n", "kind": "stdin"}] * 3


def test_function():
    row = {
        "public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
        "metadata": '{"func_name": "add"}',
    }
    assert read_tests(row, "row 1") == [{"input": "1\n2", "output": "3", "kind": "functional", "function": "add"}]


def test_none():
    assert read_tests({"public_test_cases": ""}, "row 1") == []


@pytest.mark.parametrize(
    "private",
    [
        packed(Attack()),
        packed([CASE]),
        packed("{}")[:12],
        "not base64!",
        base64.b64encode(b"no zlib").decode(),
        base64.b64encode(zlib.compress(b"")).decode(),  # the pickle ends before it begins
        base64.b64encode(zlib.compress(b"0.")).decode(),  # pops from an empty stack
        packed("no json"),
        packed('[{"input": "1"}]'),
        3,
    ],
)
def test_broken_tests_are_named_and_nothing_is_run(private, capsys):
    with pytest.raises(InputError, match="row 7: field 'private_test_cases' cannot be read as tests"):
        read_tests({"private_test_cases": private}, "row 7")
    assert capsys.readouterr().out == ""


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(code_tests, "LARGEST", 1000)
    with pytest.raises(InputError, match="private_test_cases"):
        read_tests({"private_test_cases": packed("x" * 10_000)}, "row 7")
