"""Rows of all sources become questions; the registry; prompts."""

from __future__ import annotations

import base64
import json
import pickle
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from attnpo.errors import InputError
from attnpo.evaluation.benchmarks import BENCHMARKS, get_benchmark, user_message
from attnpo.evaluation.load import load_all, load_file, load_questions
from attnpo.evaluation.samples import Question


def question(name: str, row: dict[str, Any]) -> Question:
    return get_benchmark(name).question(row, 1, "row 1")


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_every_hub_source_is_pinned_to_a_commit() -> None:
    for benchmark in BENCHMARKS.values():
        if benchmark.hub_id is not None:
            assert re.fullmatch(r"[0-9a-f]{40}", benchmark.hub_revision or ""), benchmark.name
            assert benchmark.hub_split or benchmark.hub_file, benchmark.name
        assert benchmark.samples == (16 if benchmark.name in ("amc23", "aime24", "aime25") else 4)
        assert benchmark.files


def test_hub_and_folder_rows_of_gsm8k_give_the_same_question() -> None:
    hub = question("gsm8k", {"question": "How much?", "answer": "16 - 3 = 13.\n#### 1,300"})
    folder = question("gsm8k", {"id": "0", "problem": "How much?", "answer": "1300", "solution": "…"})
    assert hub == folder
    assert (hub.id, hub.reference, hub.kind, hub.level) == ("0", "1300", "math", None)


@pytest.mark.parametrize("answer", [27.0, 27, "27", "27.0", "027", " 27 "])
def test_contest_answers_are_whole_numbers(answer: object) -> None:
    assert question("amc23", {"id": 3, "question": "?", "answer": answer}).reference == "27"


def test_olympiadbench_context_units_and_lists() -> None:
    row = {
        "id": 2592,
        "question": "Find it.",
        "context": "Let it be.",
        "final_answer": ["$69$,$84$"],
        "unit": "%",
        "answer_type": "Numerical",
        "error": "1e-1",
        "subfield": "Algebra",
    }
    found = question("olympiadbench", row)
    assert (found.problem, found.reference, found.level) == ("Let it be.\n\nFind it.", "69,84", "Algebra")
    assert found.extra == {"answer_type": "Numerical", "unit": "%", "tolerance": 0.1}
    assert (
        question("olympiadbench", {**row, "final_answer": "$t(0,4]$", "answer_type": "Interval"}).reference == "(0,4]"
    )
    sentence = "$f(x)=a x+b$, where $b$ is an integer"
    assert question("olympiadbench", {**row, "final_answer": sentence}).reference == "f(x)=a x+b"


def test_mmlu_index_and_letter_and_five_choices() -> None:
    choices = ["p", "q", "r", "s", "t"]
    assert question("mmlu", {"question": "?", "choices": choices, "answer": 4, "subject": "x"}).reference == "E"
    assert question("mmlu", {"problem": "?", "choices": choices[:4], "answer": "B"}).reference == "B"
    for answer in ("E", 4, True, None, "b"):
        with pytest.raises(InputError, match=r"row 1: field 'answer' is .*expected one of A, B, C, D"):
            question("mmlu", {"problem": "?", "choices": choices[:4], "answer": answer})


def test_gpqa_choices_are_shuffled_the_same_way_every_time() -> None:
    row = {"Question": "Why?", "Correct Answer": "yes\n", **{f"Incorrect Answer {i}": f"no {i}" for i in (1, 2, 3)}}
    found = question("gpqa_diamond", row)
    assert found == question("gpqa_diamond", row)
    assert found.choices["ABCD".index(str(found.reference))] == "yes"
    letters = {question("gpqa_diamond", {**row, "Question": f"Why {i}?"}).reference for i in range(40)}
    assert letters == set("ABCD")


def packed(cases: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(cases))).decode()


def test_livecodebench_tests_as_published() -> None:
    public = json.dumps([{"input": "1\n", "output": "2", "testtype": "stdin"}])
    private = json.dumps([{"input": "3", "output": "4", "testtype": "stdin"}])
    row = {
        "question_id": "a1",
        "question_content": "Add one.",
        "starter_code": "",
        "difficulty": "easy",
        "metadata": "{}",
    }
    found = question("livecodebench", {**row, "public_test_cases": public, "private_test_cases": packed(private)})
    assert [test["output"] for test in found.tests] == ["2", "4"]
    assert (found.kind, found.reference, found.level) == ("code", None, "easy")
    call = {**row, "public_test_cases": public, "metadata": '{"func_name": "add"}', "starter_code": "class Solution:"}
    assert question("livecodebench", call).tests[0]["function"] == "add"
    assert question("livecodebench", row).tests == ()


def test_malformed_tests_are_reported_before_sampling() -> None:
    for test, message in (("x", "found str"), ({"kind": "stdin", "input": "1"}, "expected two texts")):
        with pytest.raises(InputError, match=f"row 1, test 2: .*{message}"):
            question("livecodebench", {"problem": "?", "tests": [{"kind": "stdin", "input": "", "output": ""}, test]})


def test_pickle_that_wants_more_than_a_text_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "made",))

    row = {"question_content": "?", "private_test_cases": packed(Harmful())}
    with pytest.raises(InputError, match="row 1: field 'private_test_cases' cannot be read as tests"):
        question("livecodebench", row)
    assert not (tmp_path / "made").exists()


def test_bad_rows_are_named_and_the_rest_is_used(tmp_path: Path) -> None:
    good = {"id": "a", "problem": "1+1?", "answer": "2"}
    rows = [
        good,
        '{"id": "b", "problem": ',
        [1],
        {"id": "c", "problem": "?"},
        {"id": "d", "answer": "2"},
        {"id": "e", "problem": " ", "answer": "2"},
        {"id": "f", "problem": "?", "answer": None},
        good,
    ]
    loaded = load_file(get_benchmark("math500"), write_rows(tmp_path / "math500.jsonl", rows))
    assert [q.id for q in loaded.questions] == ["a"]
    expected = [
        "row 2",
        "row 3",
        "row 4: field 'answer' is missing",
        "row 5: field 'problem' is missing",
        "row 6: field 'problem' is empty",
        "row 7: field 'answer' is null",
        "row 8: id 'a' was seen",
    ]
    assert len(loaded.left_out) == len(expected)
    assert all(part in line for part, line in zip(expected, loaded.left_out, strict=True))
    assert all(line.startswith(str(tmp_path / "math500.jsonl")) for line in loaded.left_out)


def test_file_without_a_usable_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "aime24.jsonl", [{"id": "a", "text": "?"}])
    with pytest.raises(InputError, match=r"aime24.jsonl: none of 1 rows can be used.*'problem' is missing"):
        load_questions("aime24", data_dir=tmp_path)


def test_limit_takes_the_same_questions_every_time(tmp_path: Path) -> None:
    write_rows(tmp_path / "gsm8k_test.jsonl", [{"problem": f"{i}?", "answer": str(i)} for i in range(50)])
    few = load_questions("gsm8k", data_dir=tmp_path, limit=5).questions
    more = load_questions("gsm8k", data_dir=tmp_path, limit=20).questions
    assert few == load_questions("gsm8k", data_dir=tmp_path, limit=5).questions
    assert len(few) == 5
    assert {q.id for q in few} <= {q.id for q in more}
    assert [int(q.id) for q in more] == sorted(int(q.id) for q in more)
    assert len(load_questions("gsm8k", data_dir=tmp_path, limit=99).questions) == 50
    with pytest.raises(InputError, match="limit: found 0"):
        load_questions("gsm8k", data_dir=tmp_path, limit=0)


def test_missing_benchmarks_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"benchmark 'mmlu_pro': unknown, expected one of .*gsm8k, .*task"):
        get_benchmark("mmlu_pro")
    with pytest.raises(InputError, match="no such folder"):
        load_questions("gsm8k", data_dir=tmp_path / "none")
    with pytest.raises(InputError, match="no such folder"):  # rather than the built-in problems
        load_questions("task", data_dir=tmp_path / "none")
    with pytest.raises(InputError, match=r"no file for benchmark 'mmlu'; expected mmlu.jsonl or"):
        load_questions("mmlu", data_dir=tmp_path)
    with pytest.raises(InputError, match="no file of any benchmark"):
        load_all(None, data_dir=tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("attnpo.evaluation.load._token_on_disk", lambda: False)
    advice = r"gated.*accept its terms at https://huggingface.co/datasets/Idavidrein/gpqa.*HF_TOKEN.*--data-dir"
    with pytest.raises(InputError, match=advice):
        load_questions("gpqa_diamond", data_dir=None)


def test_hub_is_named_where_it_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"'aime25' cannot be loaded .*datasets/math-ai/aime25 must be reachable, or"):
        load_questions("aime25", data_dir=None)
    with pytest.raises(InputError, match=r"'livecodebench' cannot be downloaded .*--data-dir"):
        load_questions("livecodebench", data_dir=None)


def test_built_in_task_needs_no_file(tmp_path: Path) -> None:
    questions = load_questions("task", data_dir=tmp_path, limit=3).questions
    assert [q.benchmark for q in questions] == ["task"] * 3
    assert user_message(questions[0]) == questions[0].problem


def test_prompts() -> None:
    math = question("aime24", {"problem": "What is 1+1? ", "answer": "2"})
    assert (
        user_message(math) == "What is 1+1?\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    choice = user_message(question("mmlu", {"problem": "Which?", "choices": ["p", "q"], "answer": 0}))
    assert choice.startswith("Which?\n\n(A) p\n(B) q\n\n")
    assert '"Answer: X"' in choice
    program = question("livecodebench", {"problem": "Add.", "starter_code": ""})
    assert "standard input" in user_message(program)
    function = question(
        "livecodebench", {"problem": "Add.", "starter_code": "class Solution:\n    def f(self):\n        "}
    )
    assert "```python\nclass Solution:\n    def f(self):\n```" in user_message(function)
