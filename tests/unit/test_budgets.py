"""`attnpo budget`: budgets by hand, what vLLM takes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpo.cli.main import main
from attnpo.errors import InputError
from attnpo.steps.formats import ThinkingFormat, load_format
from attnpo.trim.budgets import learn_budgets, quantile, reasoning_marks


def row(short: int, long: int = 100, response: str = "2 + 2.</think>4", **fields: Any) -> dict[str, Any]:
    return {"response": response, "trim": {"tokens": {"long": long, "short": short}}, **fields}


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_budgets_by_hand(tmp_path, capsys):
    # Difficulty 2 has 1 … 10: nine of ten are at most 9. Difficulty 10 has 50 and 60: 0.9 of two is more than one.
    rows = [row(short, difficulty=2) for short in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)]
    rows += [row(60, 200, difficulty=10), row(50, 300, difficulty=10)]
    target = tmp_path / "budgets.json"
    assert main(["budget", write(tmp_path / "in.jsonl", rows), "-o", str(target)]) == 0
    assert json.loads(target.read_text()) == {
        "reasoning_config": {"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"},
        "field": "difficulty",
        "quantile": 0.9,
        "all": {"thinking_token_budget": 50},  # of twelve, eleven
        "budgets": {"2": {"thinking_token_budget": 9}, "10": {"thinking_token_budget": 60}},  # 2 before 10
    }
    printed = capsys.readouterr().out
    assert "--reasoning-config" in printed
    table = learn_budgets(tmp_path / "in.jsonl").table
    assert table.rows == [("2", 10, 5, 9, 10, 100), ("10", 2, 50, 60, 60, 300), ("all", 12, 6, 50, 60, 200)]


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 100).map(lambda percent: percent / 100))
def test_a_budget_is_the_smallest_that_is_enough_for_the_share(lengths, share):
    lengths.sort()
    found = quantile(lengths, share)
    enough = [sum(other <= one for other in lengths) >= share * len(lengths) - 1e-9 for one in lengths]
    assert found == lengths[enough.index(True)]


def test_which_field_names_the_difficulty(tmp_path):
    source = write(tmp_path / "in", [row(1, level="easy", family="a"), row(2, level="hard", family="a")])
    assert [group.name for group in learn_budgets(source).groups] == ["easy", "hard"]
    assert [group.short for group in learn_budgets(source, by="family").groups] == [[1, 2]]
    without = learn_budgets(write(tmp_path / "none", [row(1), row(2)]))
    assert (without.field, without.groups, without.settings["all"]) == (None, [], {"thinking_token_budget": 2})


def test_marks_of_thinking_formats(tmp_path, capsys):
    assert reasoning_marks(load_format("mistral"), "x") == ("[THINK]", "[/THINK]")
    start, end = reasoning_marks(load_format("openai_gptoss"), "x")
    assert start == "<|channel|>analysis<|message|>"
    assert end == "<|end|><|start|>assistant<|channel|>final<|message|>"  # <|end|> alone may end a part of the thinking
    shown = write(tmp_path / "in", [row(1, response="[THINK]2[/THINK]4")])
    assert learn_budgets(shown).settings["reasoning_config"]["reasoning_end_str"] == "[/THINK]"
    # The command that is printed can be copied as it is: on one line, and its marks are no markup of the terminal's.
    assert main(["budget", shown]) == 0
    marks = '{"reasoning_start_str": "[THINK]", "reasoning_end_str": "[/THINK]"}'
    assert f"vllm serve MODEL --reasoning-config '{marks}'\n" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"x: thinking format .* no mark that opens the thinking and one that ends it"):
        reasoning_marks(ThinkingFormat("mine", opening=("<think>",), other_ends=("<tool_call>",)), "x")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([row(1)], {"share": 0.0}, "--quantile: found 0, expected a share"),
        ([row(1)], {"share": 1.5}, "--quantile: found 1.5"),
        ([row(1), {"response": "a</think>b"}], {}, "row 2: field 'trim' with its tokens is missing"),
        ([row(1), row(2, long=-1)], {}, "row 2: 'long' is -1"),
        ([row(1, difficulty=1), row(2)], {}, "row 2: field 'difficulty' is missing"),
        ([row(1), row(2, difficulty=1)], {}, "row 1: field 'difficulty' is missing"),
        ([row(1, difficulty=[1])], {}, "row 1: field 'difficulty' is a list, expected text or a number"),
        ([row(1)], {"by": "grade"}, "row 1: field 'grade' is missing"),
        ([row(1), row(1, response="[THINK]2[/THINK]4")], {}, r"row 2: its thinking is marked \[THINK\]"),
        ([row(1)], {"thinking_format": "none"}, "row 1: thinking format none .* no mark that opens the thinking"),
        ([], {}, "the file has no rows"),
    ],
)
def test_bad_input(rows, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        learn_budgets(write(tmp_path / "in", rows), **options)


def test_a_target_that_cannot_be_written(tmp_path, capsys):
    assert main(["budget", write(tmp_path / "in", [row(1)]), "-o", str(tmp_path / "no" / "o.json")]) == 2
    assert "o.json: the folder" in capsys.readouterr().err
    source = write(tmp_path / "in", [row(1)])
    before = Path(source).read_bytes()
    assert main(["budget", source, "-o", str(tmp_path / "." / "in")]) == 2
    assert "in: is the input file, which would be overwritten" in capsys.readouterr().err
    assert Path(source).read_bytes() == before
    assert main(["budget", source, "-o", str(tmp_path)]) == 2
    assert "is a folder, expected a file to write" in capsys.readouterr().err
