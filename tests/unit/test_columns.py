"""Rows of data sets of many origins: the columns that are read, messages and errors."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from attnpo.data.columns import cell, find_columns, has_cell
from attnpo.data.messages import read_messages, split_conversation
from attnpo.data.problems import load_rows, make_prompts, to_problems
from attnpo.errors import InputError

PENS = "How much are 7 pens at 3 euros?"
WORKED = "Seven pens at three euros each cost seven times three euros, as we see when we count them one by one here. "
USER = {"role": "user", "content": PENS}
SYSTEM = {"role": "system", "content": "Think in <think> tags."}
SPOKEN = [{"from": "human", "value": PENS}, {"from": "gpt", "value": f"<think>{WORKED}</think>It is \\boxed{{21}}."}]

# name: (row, messages before the problem, what is said)
ROWS = {
    "own": (
        {"problem": PENS, "reference": "21"},
        [],
        "problem from 'problem', reference from 'reference' (as written)",
    ),
    "gsm8k": (
        {"question": PENS, "answer": f"{WORKED}\n7*3=<<7*3=21>>21\n#### 21"},
        [],
        "problem from 'question', reference from 'answer' (after ####)",
    ),
    "MATH": (
        {"problem": PENS, "level": "Level 1", "type": "Prealgebra", "solution": f"{WORKED} $\\boxed{{21}}$"},
        [],
        "problem from 'problem', reference from 'solution' (in \\boxed{})",
    ),
    "open-r1": (
        {"problem": PENS, "solution": WORKED, "answer": "21", "messages": [USER], "generations": ["…"]},
        [],
        "problem from 'problem', reference from 'answer' (as written)",
    ),
    "worked answer, short solution": (
        {"problem": PENS, "answer": WORKED * 2, "solution": "21"},
        [],
        "problem from 'problem', reference from 'solution' (as written)",
    ),
    "OpenThoughts": (
        {"system": SYSTEM["content"], "conversations": SPOKEN},
        [SYSTEM],
        "problem from 'conversations' (messages, with those of system before), reference from 'conversations' "
        "(in \\boxed{})",
    ),
    "OpenThoughts metadata": (
        {"problem": PENS, "deepseek_solution": "…", "ground_truth_solution": f"{WORKED} \\boxed{{21}}", "source": "x"},
        [],
        "problem from 'problem', reference from 'ground_truth_solution' (in \\boxed{})",
    ),
    "verl": (
        {
            "data_source": "own",
            "prompt": [USER],
            "reward_model": {"style": "rule", "ground_truth": "21"},
            "extra_info": {"index": 0},
        },
        [],
        "problem from 'prompt' (messages), reference from 'reward_model.ground_truth' (as written)",
    ),
    "Skywork-OR1": (
        {"prompt": [SYSTEM, USER], "reward_model": {"ground_truth": '["21"]'}},
        [SYSTEM],
        "problem from 'prompt' (messages, with those of system before), reference from 'reward_model.ground_truth' "
        "(in a list)",
    ),
    "DAPO, processed": (
        {"prompt": PENS, "solution": "21", "reward_model": {"ground_truth": "21"}},
        [],
        "problem from 'prompt', reference from 'reward_model.ground_truth' (as written)",
    ),
    "objects as texts": (
        {"prompt": json.dumps([USER]), "reward_model": '{"ground_truth": "21"}'},
        [],
        "problem from 'prompt' (messages), reference from 'reward_model.ground_truth' (as written)",
    ),
    "old datasets": (
        {"prompt": {"role": ["system", "user"], "content": [SYSTEM["content"], PENS]}, "solution": "21"},
        [SYSTEM],
        "problem from 'prompt' (messages, with those of system before), reference from 'solution' (as written)",
    ),
    "Tülu RLVR": (
        {"messages": [USER], "ground_truth": "21", "dataset": "gsm8k"},
        [],
        "problem from 'messages' (messages), reference from 'ground_truth' (as written)",
    ),
    "DeepMath": (
        {"question": PENS, "final_answer": 21},
        [],
        "problem from 'question', reference from 'final_answer' (as written)",
    ),
    "OlympiadBench": (
        {"question": PENS, "final_answer": ["21"]},
        [],
        "problem from 'question', reference from 'final_answer' (in a list)",
    ),
    "OpenMathReasoning": (
        {"problem": PENS, "expected_answer": "21", "generated_solution": "…"},
        [],
        "problem from 'problem', reference from 'expected_answer' (as written)",
    ),
    "MetaMathQA": (
        {"query": PENS, "response": f"{WORKED}\nThe answer is: 21"},
        [],
        "problem from 'query', reference from 'response' (after 'answer is')",
    ),
    "NuminaMath messages": (
        {"messages": [USER, {"role": "assistant", "content": f"{WORKED} $\\boxed{{21}}$"}]},
        [],
        "problem from 'messages' (messages), reference from 'messages' (in \\boxed{})",
    ),
    "capitals": ({"Problem": PENS, "Answer": 21.0}, [], "problem from 'Problem', reference from 'Answer' (as written)"),
    "content parts": (
        {"prompt": [{"role": "user", "content": [{"type": "text", "text": PENS}]}], "answer": "21"},
        [],
        "problem from 'prompt' (messages), reference from 'answer' (as written)",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_recognised(name):
    row, turns, said = ROWS[name]
    found = to_problems([row], "rows.jsonl")
    expected = {"id": "1", "problem": PENS, "reference": "21"} | ({"turns": turns} if turns else {})
    assert found.rows == [expected]
    assert found.recognised == said


NESTED = {"a": [{"text": PENS}, {"gold": {"value": ["21"]}}]}


def test_asked_columns():
    found = to_problems([NESTED], "x.json", problem_column="a.0.text", reference_column="a.1.gold.value")
    assert found.rows == [{"id": "1", "problem": PENS, "reference": "21"}]
    literal = to_problems([{"a.b": PENS, "c": 21}], "x", problem_column="a.b", reference_column="c")
    assert literal.rows[0]["problem"] == PENS


def test_mixed_cells_are_counted():
    rows = [{"problem": PENS, "solution": text} for text in ("#### 1", "\\boxed{2}", "\\boxed{3}", "\\boxed{4}")]
    found = to_problems(rows, "x")
    assert found.recognised.endswith("reference from 'solution' (in \\boxed{} 75%, after #### 25%)")
    assert [row["reference"] for row in found.rows] == ["1", "2", "3", "4"]


def test_worked_solutions_are_left_to_the_verifier():
    """One that marks no answer is left out and counted there, not an error of the whole data set."""
    rows = [{"problem": PENS, "solution": "\\boxed{21}"}, {"problem": PENS, "solution": WORKED * 3}]
    assert [row["reference"] for row in to_problems(rows, "x").rows] == ["21", WORKED * 3]


BAD = {
    "object": (
        {"problem": PENS, "answer": {"value": "21", "aliases": []}},
        {},
        "x.jsonl, row 1: column 'answer' is an object, expected an answer: a text, a number, or a list of these. It "
        "has the fields value, aliases: name one with --reference_column answer.value",
    ),
    "list with a hole": ({"problem": PENS, "answer": ["1", None]}, {}, "row 1: column 'answer' is a list, expected an"),
    "null": ({"problem": PENS, "answer": None}, {}, "row 1: column 'answer' is None, expected an answer"),
    "not a number": (
        {"problem": PENS, "answer": float("nan")},
        {},
        "row 1: column 'answer' is nan, expected an",
    ),
    "messages without a user": (
        {"prompt": [SYSTEM], "answer": "1"},
        {},
        "row 1, column 'prompt': found messages of system, expected a message of the user with a text",
    ),
    "an image": (
        {"prompt": [{"role": "user", "content": [{"type": "image_url"}]}], "answer": "1"},
        {},
        "row 1, column 'prompt', message 1: its content has a part of type 'image_url', expected text only",
    ),
    "a list that is no conversation": (
        {"problem": [1, 2], "answer": "1"},
        {},
        'row 1: column \'problem\' is a list, expected a text or a list of messages such as [{"role": "user"',
    ),
    "asked and absent": (
        {"problem": PENS, "reward_model": {"style": "rule"}, "answer": "1"},
        {"reference_column": "reward_model.ground_truth"},
        "no reference column; expected 'reward_model.ground_truth', found problem, reward_model (style), answer. Name "
        "it with --reference_column (a.b for the field b of a column a)",
    ),
    "only unmarked replies": (
        {"messages": [USER, {"role": "assistant", "content": "Twenty-one, I think."}]},
        {},
        "no reference column; expected 'reference' or 'answer'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows(name):
    row, columns, message = BAD[name]
    with pytest.raises(InputError) as error:
        to_problems([row], "x.jsonl", **columns)
    assert message in str(error.value)


def test_row_with_a_missing_value_is_named():
    rows = [{"prompt": [USER], "reward_model": {"ground_truth": "21"}}, {"prompt": [USER], "reward_model": {}}]
    with pytest.raises(InputError, match=r"x, row 2: column 'reward_model.ground_truth' is None, expected an answer"):
        to_problems(rows, "x")


def test_cells():
    row = {"a": {"b": [{"c": None}]}, "d.e": 1}
    assert has_cell(row, "a.b.0.c")
    assert cell(row, "a.b.0.c") is None
    assert cell(row, "d.e") == 1
    for path in ("a.b.1", "a.b.x", "a.b.0.c.d", "x", "a.x.y"):
        assert not has_cell(row, path)
        assert cell(row, path) is None


def test_the_question_is_the_last_of_the_user():
    talk = [SYSTEM, {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}, USER]
    reply = {"role": "assistant", "content": "21"}
    assert split_conversation([*talk, reply, reply], "x") == (talk[:3], PENS, "21\n\n21")
    assert split_conversation(talk, "x") == (talk[:3], PENS, None)


def test_roles():
    given = [{"from": name, "value": "a"} for name in ("system", "human", "gpt", "user", "Assistant", "tool")]
    roles = [message["role"] for message in read_messages(given, "x")]
    assert roles == ["system", "user", "assistant", "user", "assistant", "tool"]


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_files(tmp_path, ending):
    """verl's rows come out the same from every kind of file."""
    row, turns, _ = ROWS["Skywork-OR1"]
    rows = [row, {**row, "prompt": [USER]}]
    path = tmp_path / f"data.{ending}"
    if ending == "parquet":
        Dataset.from_list(rows).to_parquet(path)
    else:
        path.write_text(json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)))
    found = to_problems(load_rows(str(path)), str(path)).rows
    assert found == [
        {"id": "1", "problem": PENS, "reference": "21", "turns": turns},
        {"id": "2", "problem": PENS, "reference": "21"},
    ]


def test_prompts_keep_earlier_messages(tiny_tokenizer):
    problems = to_problems([ROWS["Skywork-OR1"][0], {"prompt": [USER], "reward_model": {"ground_truth": "1"}}], "x")
    assert (len(problems), problems[-1], list(problems)) == (2, problems.rows[1], problems.rows)
    dataset = make_prompts(tiny_tokenizer, problems, "{problem} Be brief.")
    asked = {"role": "user", "content": f"{PENS} Be brief."}
    assert dataset["prompt"] == [[SYSTEM, asked], [asked]]
    assert set(dataset.column_names) == {"id", "problem", "reference", "prompt"}


def test_earlier_messages_that_cannot_be_kept_are_refused(tiny_tokenizer, monkeypatch):
    problems = to_problems([ROWS["Skywork-OR1"][0]], "x")
    plain = type("Tokenizer", (), {"chat_template": None})()
    with pytest.raises(InputError, match=r"problem 1: its prompt has messages of system before the prob.*no chat"):
        make_prompts(plain, problems, "{problem}")
    monkeypatch.setattr(tiny_tokenizer, "chat_template", "{{ raise_exception('System role not supported') }}")
    with pytest.raises(InputError, match=r"chat template refuses \(System role not supported\)"):
        make_prompts(tiny_tokenizer, problems, None)


def test_columns_of_the_first_rows():
    """The first known column that can be read wins over one that is there but empty."""
    rows = [{"problem": PENS, "answer": None, "solution": "\\boxed{21}"}] * 3
    assert find_columns(rows, "x").reference == "solution"
