"""One test of a code question: the run it asks for, and whether what came out is right, as LiveCodeBench decides it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from attnpo.errors import InputError
from attnpo.sandbox.sandbox import Run, Sandbox


@dataclass(frozen=True)
class StdinTest:
    """A program reads `stdin` and prints `expected`."""

    stdin: str
    expected: str

    def run(self, sandbox: Sandbox, program: str) -> Run:
        return sandbox.run(program, self.stdin)

    def mistake(self, run: Run) -> str | None:
        """What is wrong with the output of a run that finished; None: nothing."""
        if same_output(run.output, self.expected):
            return None
        return f"printed {_short(run.output)}, expected {_short(self.expected)}"


@dataclass(frozen=True)
class FunctionTest:
    """A function called with `arguments` returns `expected` (JSON values)."""

    function: str
    arguments: list[Any]
    expected: Any

    def run(self, sandbox: Sandbox, program: str) -> Run:
        return sandbox.call(program, self.function, self.arguments)

    def mistake(self, run: Run) -> str | None:
        """What is wrong with the value of a run that finished; None: nothing."""
        if run.result is None:
            return f"{self.function} did not return"
        try:
            if json.loads(run.result) == self.expected:
                return None
        except (ValueError, RecursionError):  # the program wrote to the result's descriptor itself, or nested too deep
            return f"returned {_short(run.result)}, which is no JSON value"
        return f"returned {_short(run.result)}, expected {_short(json.dumps(self.expected))}"


CodeTest = StdinTest | FunctionTest


def read_test(test: Mapping[str, Any], where: str) -> CodeTest:
    """A test as a question has it: {"kind": "stdin" | "functional", "input", "output"}, with "function" for the latter.

    A functional test has one argument per line of its input, and its output, as JSON; or a list and a value.

    Raises:
        InputError: not of that form; names the field.
    """
    if not isinstance(test, Mapping):
        raise InputError(f"{where}: found {type(test).__name__}, expected an object")
    kind, given, expected = test.get("kind"), test.get("input"), test.get("output")
    if kind == "stdin":
        if not isinstance(given, str) or not isinstance(expected, str):
            raise InputError(f"{where}: input and output of a stdin test: expected two texts")
        return StdinTest(given, expected)
    if kind != "functional":
        raise InputError(f"{where}: kind: found {kind!r}, expected 'stdin' or 'functional'")
    function = test.get("function")
    if not isinstance(function, str) or not function.isidentifier():
        raise InputError(f"{where}: function: found {function!r}, expected its name")
    try:
        arguments = [json.loads(line) for line in given.split("\n")] if isinstance(given, str) else given
        value = json.loads(expected) if isinstance(expected, str) else expected
    except ValueError as error:
        raise InputError(f"{where}: input or output of a functional test: expected JSON ({error})") from error
    if not isinstance(arguments, list):
        raise InputError(f"{where}: input: found {type(arguments).__name__}, expected a list of arguments")
    return FunctionTest(function, arguments, value)


def same_output(printed: str, expected: str) -> bool:
    """Equal line by line, without the space around lines and texts; lines of numbers may be equal as numbers.

    Numbers are compared exactly, as decimals: 1.0 is 1, and 0.333 is not 1/3.

    >>> same_output("1.50 2 \\n yes", "1.5  2.0\\nyes\\n")
    True
    >>> same_output("a  b", "a b")
    False
    """
    ours, theirs = _lines(printed), _lines(expected)
    return len(ours) == len(theirs) and all(
        mine == other or _same_numbers(mine, other) for mine, other in zip(ours, theirs, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_numbers(line: str, other: str) -> bool:
    try:
        return [Decimal(token) for token in line.split()] == [Decimal(token) for token in other.split()]
    except InvalidOperation:  # a token that is no number, or a signalling NaN
        return False


def _short(text: str, most: int = 80) -> str:
    text = text.strip()
    return repr(text if len(text) <= most else f"{text[:most]}…")
