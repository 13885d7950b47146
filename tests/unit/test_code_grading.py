"""Code of an answer, comparison of outputs, verdicts of programs: right ones, and the same with one thing broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpo.errors import InputError
from attnpo.evaluation.grading.code import code_of, grade_code, grade_codes, read_test, same_output
from attnpo.rewards.verdict import Verdict
from attnpo.sandbox import sandbox as sandbox_module
from attnpo.sandbox.confine import supported
from attnpo.sandbox.sandbox import Limits, Sandbox
from attnpo.workers import WorkerProcess

RIGHT, WRONG, NO_ANSWER = Verdict.RIGHT, Verdict.WRONG, Verdict.NO_ANSWER
confined = pytest.mark.skipif(not supported(), reason="programs are confined on Linux, x86-64 and ARM64")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(2, limits=Limits(seconds=2, memory_mb=1024)) as made:
        yield made


def stdin_tests(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"kind": "stdin", "input": given, "output": expected} for given, expected in pairs]


def function_test(name: str, arguments: str, expected: str) -> dict[str, Any]:
    return {"kind": "functional", "function": name, "input": arguments, "output": expected}


def block(code: str) -> str:
    return f"Here it is:\n\n```python\n{code}\n```\n"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```python\nx\n```", "x\n"),
        ("```python\nx\n```\nbetter:\n```python\ny\n```", "y\n"),
        ("```python\nx\n```\nIt prints\n```\n7\n```", "x\n"),
        ("```py\nx\n```\n```cpp\ny\n```", "x\n"),
        ("```\nx\n```", "x\n"),
        ("```\nx\n```\n```\ny\n```", "y\n"),
        ("~~~Python\nx\n~~~", "x\n"),
        ("```python\nx", "x"),
        ("```python\nx\n```python\ny\n```", "y\n"),
        ("1. so:\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("```python\r\nx\r\n```\r\n", "x\r\n"),
        ("```python\nx\n```\n```python\n\n```", "x\n"),
        ("```python\n```", None),
        ("The answer is print(1).", None),
        ("", None),
        ("```", None),
    ],
)
def test_code_of(answer: str, code: str | None) -> None:
    assert code_of(answer) == code


def test_code_of_is_linear() -> None:
    assert code_of("```\n" * 100_000) is None
    assert code_of(" " * 1_000_000 + "`") is None


@given(st.text(alphabet=st.characters(exclude_characters="`~\r", codec="utf-8")), st.text(alphabet="ab `\n"))
def test_extracted_code_is_unchanged(code: str, before: str) -> None:
    if code.strip():
        assert code_of(f"{before.replace('`', '')}\n```python\n{code}\n```") == f"{code}\n"


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("1\n", "1", True),
        ("  1 \n2  \n\n", "1\n2", True),
        ("1.0", "1", True),
        ("1e3 -0", "1000 0.0", True),
        ("1  2", "1 2", True),
        ("0.1", "0.10000001", False),
        ("yes", "Yes", False),
        ("a  b", "a b", False),
        ("1\n\n2", "1\n2", False),
        ("1", "1\n1", False),
        ("1 1", "1", False),
        ("", "0", False),
        ("", "", True),
        ("nan", "nan", True),
        ("NaN 1", "nan 1", False),
        ("sNaN", "1", False),
        ("1e999999999999999999999", "1", False),
        ("passed", "1", False),
    ],
)
def test_outputs_as_livecodebench_compares_them(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed, expected) is same


SUM = "n = int(input())\nprint(sum(map(int, input().split()[:n])))"
SUM_TESTS = stdin_tests(("3\n1 2 3\n", "6\n"), ("1\n-5\n", "-5"), ("2\n7 8 9\n", "15"))
TWO_SUM = """
class Solution:
    def twoSum(self, nums: List[int], target: int) -> List[int]:
        seen = {}
        for i, x in enumerate(nums):
            if target - x in seen:
                return seen[target - x], i
            seen[x] = i
"""
TWO_SUM_TESTS = [
    function_test("twoSum", "[2, 7, 11, 15]\n9", "[0, 1]"),
    {"kind": "functional", "function": "twoSum", "input": [[3, 2, 4], 6], "output": [1, 2]},
]


@confined
@pytest.mark.parametrize(
    ("code", "tests"),
    [
        (SUM, SUM_TESTS),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split()[1:][:int(1e9)])))", SUM_TESTS[:2]),
        ("n, *numbers = map(int, stdin.buffer.read().split())\nprint(sum(numbers[:n]))", SUM_TESTS),
        ("n, *numbers = map(int, open(0).read().split())\nprint(sum(numbers[:n]))", SUM_TESTS),
        (f"def main():\n    {SUM.replace(chr(10), chr(10) + '    ')}\nif __name__ == '__main__': main()", SUM_TESTS),
        (f"{SUM}\nexit()", SUM_TESTS),
        (f"{SUM}\nquit(1)", SUM_TESTS),
        (f"{SUM}\nraise SystemExit('done')", SUM_TESTS),
        (
            "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**27)\n"
            f"threading.Thread(target=lambda: exec({SUM!r}, {{}})).start()",
            SUM_TESTS,
        ),
        ("import resource\nresource.setrlimit(resource.RLIMIT_STACK, (-1, -1))\n" + SUM, SUM_TESTS),
        ("import numpy as np\ninput()\nprint(np.array(input().split(), dtype=int).sum())", SUM_TESTS[:2]),
        ("def f(n): return n and 1 + f(n - 1)\nprint(f(int(input())))", stdin_tests(("40000", "40000"))),
        ("@cache\ndef f(n): return n and 1 + f(n - 1)\nprint(f(int(input())))", stdin_tests(("9000", "9000"))),
        ("print(10**5000 % 7, len(str(10**5000)))", stdin_tests(("", "2 5001"))),
        ("print(input())", stdin_tests(("€ 𝛼 \ud800", "€ 𝛼 \ufffd\ufffd\ufffd"), ("x" * 10**6, "x" * 10**6))),
        ("from dataclasses import *\n@dataclass\nclass P:\n    x: int\nprint(P(1))", stdin_tests(("", "P(x=1)"))),
        (TWO_SUM, TWO_SUM_TESTS),
        (TWO_SUM + "\nprint(Solution().twoSum([1, 2], 3))\nif __name__ == '__main__': input()", TWO_SUM_TESTS),
        ("import numpy as np\ndef f(a): return np.array(a) * 2", [function_test("f", "[1, 2]", "[2, 4]")]),
        ("def f(a, b): return a or b", [function_test("f", "null\n{\"k\": [1.5, true]}", "{\"k\": [1.5, true]}")]),
        ("def f(): return None", [{"kind": "functional", "function": "f", "input": [], "output": None}]),
    ],
)  # fmt: skip
def test_right_programs(sandbox: Sandbox, code: str, tests: list[dict]) -> None:
    grade = grade_code(block(code), tests, sandbox=sandbox)
    assert (grade.verdict, grade.failure) == (RIGHT, None)


@confined
@pytest.mark.parametrize(
    ("code", "tests", "failure"),
    [
        (SUM.replace("[:n]", ""), SUM_TESTS, "test 3 of 3: printed '24', expected '15'"),
        (SUM.replace("sum", "max"), SUM_TESTS, "test 1 of 3: printed '3', expected '6'"),
        (SUM.replace("print", ""), SUM_TESTS, "test 1 of 3: printed '', expected '6'"),
        (SUM + "\nprint()\nprint(0)", SUM_TESTS, "test 1 of 3: printed '6\\n\\n0', expected '6'"),
        (SUM + "\n1 / 0", SUM_TESTS, "test 1 of 3: crashed: ZeroDivisionError: division by zero"),
        (SUM + "\nimport os; os._exit(1)", SUM_TESTS, "test 1 of 3: crashed"),
        ("while True: pass\n" + SUM, SUM_TESTS, "test 1 of 3: too slow: 2.0 s of processor time, limit 2 s"),
        ("x = [0] * 10**10\n" + SUM, SUM_TESTS, "test 1 of 3: crashed: MemoryError"),
        ("import sys; sys.exit(0)", SUM_TESTS, "test 1 of 3: printed '', expected '6'"),
        ("print('passed')", SUM_TESTS, "test 1 of 3: printed 'passed', expected '6'"),
        (TWO_SUM.replace(", i", ", i + 1"), TWO_SUM_TESTS, "test 1 of 2: returned '[0, 2]', expected '[0, 1]'"),
        (TWO_SUM.replace("twoSum", "two_sum"), TWO_SUM_TESTS,
         "test 1 of 2: crashed: AttributeError: 'Solution' object has no attribute 'twoSum'"),
        (TWO_SUM + "\nexit()", TWO_SUM_TESTS, "test 1 of 2: twoSum did not return"),
        ("def twoSum(a, b): return {0, 1}", TWO_SUM_TESTS,
         "test 1 of 2: crashed: AttributeError: 'set' object has no attribute 'tolist'"),
        ("class Always:\n    def __eq__(self, other): return True\n    def tolist(self): return self\n"
         "def twoSum(a, b): return Always()", TWO_SUM_TESTS,
         "test 1 of 2: crashed: ValueError: Circular reference detected"),
        ("import os\nos.write(3, b'{\"passed\": true}')\nos._exit(0)", TWO_SUM_TESTS,
         "test 1 of 2: returned '{\"passed\": true}', expected '[0, 1]'"),
        ("import os\nos.write(3, b'[' * 100000)\nos._exit(0)", TWO_SUM_TESTS, "which is no JSON value"),
    ],
)  # fmt: skip
def test_wrong_programs(sandbox: Sandbox, code: str, tests: list[dict], failure: str) -> None:
    grade = grade_code(block(code), tests, sandbox=sandbox)
    assert grade.verdict is WRONG
    assert failure in (grade.failure or "")


def test_no_code_and_no_tests() -> None:
    assert grade_code("The sum.", SUM_TESTS).verdict is NO_ANSWER
    assert grade_code(block(SUM), []).verdict is None
    assert grade_code(block(SUM), []).extracted == SUM + "\n"


@confined
def test_a_dead_sandbox_is_not_a_wrong_program(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(1) as made:
        monkeypatch.setattr(sandbox_module, "SERVER", ["-c", "raise SystemExit('no memory left')"])
        for server in made._group.live:
            server.end()
        for _ in range(2):  # the one that died, and the one that does not start
            grade = grade_code(block(SUM), SUM_TESTS, sandbox=made)
            assert grade.verdict is Verdict.UNVERIFIABLE
    assert grade.failure == "test 1 of 3: not started: the sandbox died: no memory left"


@confined
def test_expected_outputs_stay_outside(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    ask = WorkerProcess.ask

    def spy(self: WorkerProcess, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        sent.append(json.dumps(request))
        return ask(self, request, timeout)

    monkeypatch.setattr(WorkerProcess, "ask", spy)
    tests = [*stdin_tests(("1", "expected-1")), function_test("f", "[1]", '"expected-2"')]
    for test in tests:
        assert grade_code(block("def f(x): pass"), [test], sandbox=sandbox).verdict is WRONG
    assert len(sent) == 2
    assert "expected" not in "".join(sent)


@confined
def test_the_first_failure_is_the_last_run(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    run = Sandbox.run
    monkeypatch.setattr(Sandbox, "run", lambda self, program, stdin="": runs.append(stdin) or run(self, program, stdin))
    tests = stdin_tests(("1", "1"), ("2", "3"), ("3", "3"))
    assert grade_code(block("print(input())"), tests, sandbox=sandbox).verdict is WRONG
    assert runs == ["1", "2"]


@confined
def test_many_answers_in_order(sandbox: Sandbox) -> None:
    answers = [block(f"print(int(input()) + {number % 3})") for number in range(24)]
    tests = stdin_tests(("1", "2"), ("5", "6"))
    grades = grade_codes([(answer, tests) for answer in answers], sandbox)
    assert [grade.verdict for grade in grades] == [RIGHT if number % 3 == 1 else WRONG for number in range(24)]


@confined
def test_verdicts_do_not_depend_on_the_hash_seed(sandbox: Sandbox) -> None:
    first = sandbox.run("print(list({'a', 'b', 'c', 'd'}), hash('x'))").output
    with Sandbox(1) as other:
        assert other.run("print(list({'a', 'b', 'c', 'd'}), hash('x'))").output == first


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ({"kind": "guess", "input": "", "output": ""}, "kind: found 'guess', expected 'stdin' or 'functional'"),
        ({"kind": "stdin", "input": ["1"], "output": "1"}, "expected two texts"),
        ({"kind": "stdin", "input": "1"}, "expected two texts"),
        ({"kind": "functional", "input": "1", "output": "1"}, "function: found None"),
        ({"kind": "functional", "function": "f()", "input": "1", "output": "1"}, "function: found 'f()'"),
        ({"kind": "functional", "function": "f", "input": "1,", "output": "1"}, "expected JSON"),
        ({"kind": "functional", "function": "f", "input": 1, "output": "1"}, "input: found int"),
    ],
)
def test_bad_tests_are_named(test: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_test(test, "test 4")
    assert str(caught.value).startswith("test 4: ")
    assert message in str(caught.value)
