"""Grade programs: run the code of a final answer against the tests of its question in a sandbox.

A program is right if it passes every test, with outputs compared as in LiveCodeBench. One that is too slow, uses too
much memory or crashes is wrong, as on contest sites; the limits are :class:`~attnpo.sandbox.sandbox.Limits`. Outputs
are compared outside of the sandbox, so that a program can only pass by printing or returning the expected output.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from attnpo.errors import InputError
from attnpo.evaluation.samples import Graded
from attnpo.rewards.verdict import Verdict
from attnpo.sandbox.sandbox import End, Limits, Run, Sandbox


@dataclass(frozen=True)
class StdinTest:
    """Test of a program that reads `stdin` and prints `expected`."""

    stdin: str
    expected: str

    def run(self, sandbox: Sandbox, program: str) -> Run:
        return sandbox.run(program, self.stdin)

    def mistake(self, run: Run) -> str | None:
        """The error in the output of a finished run; None if it is correct."""
        if same_output(run.output, self.expected):
            return None
        return f"printed {_short(run.output)}, expected {_short(self.expected)}"


@dataclass(frozen=True)
class FunctionTest:
    """Test of a function that, called with `arguments`, returns `expected` (JSON values)."""

    function: str
    arguments: list[Any]
    expected: Any

    def run(self, sandbox: Sandbox, program: str) -> Run:
        return sandbox.call(program, self.function, self.arguments)

    def mistake(self, run: Run) -> str | None:
        """The error in the returned value of a finished run; None if it is correct."""
        if run.result is None:
            return f"{self.function} did not return"
        try:
            if json.loads(run.result) == self.expected:
                return None
        except (ValueError, RecursionError):  # the program wrote to the result's descriptor, or the value is too deep
            return f"returned {_short(run.result)}, which is no JSON value"
        return f"returned {_short(run.result)}, expected {_short(json.dumps(self.expected))}"


CodeTest = StdinTest | FunctionTest


def read_test(test: Mapping[str, Any], where: str) -> CodeTest:
    """Read a test of a question: {"kind": "stdin" | "functional", "input", "output"}, the latter with "function".

    Input and output of a functional test are JSON texts, with one argument per line of the input; or a list of
    arguments and a value.

    Raises:
        InputError: another format; names the field.
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
    """Whether outputs are equal line by line, ignoring space around lines and texts; numbers are compared by value.

    Values are compared exactly, as decimals: 1.0 is 1, and 0.333 is not 1/3.

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


_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})[ \t]*(\S*).*$", re.MULTILINE)
PYTHON = ("python", "python3", "py")


@dataclass(frozen=True)
class CodeGrade(Graded):
    """The verdict on a program (`extracted` is its code).

    Attributes:
        failure: the first failed test and the reason, for display; None if the program is right or was not run.
    """

    failure: str | None = None


def code_of(answer: str) -> str | None:
    """The last Python block of an answer, else its last block of any kind; None if all are empty or there is none.

    A block at the end of the answer needs no closing fence.

    >>> code_of("So:\\n```python\\nprint(1)\\n```\\nIt prints:\\n```\\n1\\n```")
    'print(1)\\n'
    """
    last: str | None = None
    last_python: str | None = None
    opened: re.Match[str] | None = None
    for fence in [*_FENCE.finditer(answer), None]:
        if opened is None:
            opened = fence
            continue
        starts_anew = fence is not None and fence[3].lower() in PYTHON
        if fence is not None and not starts_anew and (fence[3] or not fence[2].startswith(opened[2])):
            continue  # a line inside the block
        code = answer[opened.end() + 1 : len(answer) if fence is None else fence.start()]
        if code.strip():
            code = textwrap.dedent(code) if opened[1] else code
            last = code
            if opened[3].lower() in PYTHON:
                last_python = code
        opened = fence if starts_anew else None
    return last if last_python is None else last_python


def grade_code(
    answer: str,
    tests: Sequence[Mapping[str, Any]],
    *,
    sandbox: Sandbox | None = None,
    timeout: float = Limits.seconds,
    memory_mb: int = Limits.memory_mb,
) -> CodeGrade:
    """Grade one answer: no_answer without code, unverifiable if the sandbox failed and not the program.

    Args:
        answer: the final answer of a response, without its thinking.
        tests: as :func:`~attnpo.evaluation.grading.code.read_test` reads them; without tests the verdict is None.
        sandbox: to run in, with its limits. None: one is started for this call (a tenth of a second).
        timeout, memory_mb: seconds of CPU time and MB of memory per test, if the sandbox is started here.

    Raises:
        InputError: a test has the wrong format (names it), or programs cannot be confined on this system.
        RunError: the sandbox is closed or does not start.
    """
    code = code_of(answer)
    if not tests:
        return CodeGrade(None, code)
    if code is None:
        return CodeGrade(Verdict.NO_ANSWER, None, "no code block")
    read = [read_test(test, f"test {number}") for number, test in enumerate(tests, start=1)]
    if sandbox is not None:
        return _run_tests(code, read, sandbox)
    with Sandbox(1, limits=Limits(seconds=timeout, memory_mb=memory_mb)) as own:
        return _run_tests(code, read, own)


def grade_codes(pairs: Iterable[tuple[str, Sequence[Mapping[str, Any]]]], sandbox: Sandbox) -> list[CodeGrade]:
    """:func:`grade_code` for many (answer, tests), in order; as many in parallel as the sandbox has workers."""
    with ThreadPoolExecutor(sandbox.workers) as threads:
        futures = [threads.submit(grade_code, answer, tests, sandbox=sandbox) for answer, tests in pairs]
        try:
            return [future.result() for future in futures]
        finally:  # after an interrupt, waiting answers must not be run
            for future in futures:
                future.cancel()


def _run_tests(code: str, tests: Sequence[CodeTest], sandbox: Sandbox) -> CodeGrade:
    for number, test in enumerate(tests, start=1):
        run = test.run(sandbox, code)
        if failure := _failure(test, run, sandbox):
            verdict = Verdict.WRONG if run.end.is_the_programs_doing else Verdict.UNVERIFIABLE
            return CodeGrade(verdict, code, f"test {number} of {len(tests)}: {failure}")
    return CodeGrade(Verdict.RIGHT, code)


def _failure(test: CodeTest, run: Run, sandbox: Sandbox) -> str | None:
    if run.end is End.FINISHED:
        return test.mistake(run)
    if run.end is End.TOO_SLOW:
        return f"too slow: {run.seconds:.1f} s of processor time, limit {sandbox.limits.seconds:g} s"
    lines = run.error.splitlines()
    return f"{run.end}: {lines[-1]}" if lines else run.end.value
