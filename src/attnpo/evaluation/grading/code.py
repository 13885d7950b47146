"""Programs: the code of a final answer, run against the tests of its question in a sandbox.

A program is right if it passes every test. One that is too slow, too big or crashes is wrong, as every judge has it;
the limits are :class:`~attnpo.sandbox.sandbox.Limits`. Expected outputs are compared here, outside of the
sandbox: there is nothing in it that a program could print, raise or write to count as right, but the right output.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from attnpo.evaluation.grading.code_checks import CodeTest, read_test
from attnpo.evaluation.grading.graded import Graded
from attnpo.rewards.verdict import Verdict
from attnpo.sandbox.sandbox import End, Limits, Run, Sandbox

_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})[ \t]*(\S*).*$", re.MULTILINE)
PYTHON = ("python", "python3", "py")


@dataclass(frozen=True)
class CodeGrade(Graded):
    """The verdict on a program (`extracted` is its code).

    Attributes:
        failure: the first test that failed and how, for people; None where the program is right or there is none.
    """

    failure: str | None = None


def code_of(answer: str) -> str | None:
    """The last Python block of an answer, else its last block of any kind; None where there is none with text in it.

    A block that the answer ends in counts without its closing fence.

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
            continue  # a line inside of the block
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
    """The verdict on one answer: no_answer without code, unverifiable where the sandbox failed, not the program.

    Args:
        answer: the final answer of a response, without its thinking.
        tests: as :func:`~attnpo.evaluation.grading.code_checks.read_test` reads them; with none, the verdict is None.
        sandbox: to run in, with its limits. Without one, one is started for this call (a tenth of a second).
        timeout, memory_mb: seconds of CPU time and MB of memory for one test, in a sandbox started here.

    Raises:
        InputError: a test is not of the right form (names it), or programs cannot be confined on this system.
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
    """:func:`grade_code` of many (answer, tests), as many at a time as the sandbox has workers; in order."""
    with ThreadPoolExecutor(sandbox.workers) as threads:
        futures = [threads.submit(grade_code, answer, tests, sandbox=sandbox) for answer, tests in pairs]
        try:
            return [future.result() for future in futures]
        finally:  # after an interrupt, what has not started must not run
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
    said = run.error.splitlines()
    return f"{run.end}: {said[-1]}" if said else run.end.value
