"""A small model of two other formats through segment, score, train and eval: every figure is the one of `<think>`."""

from __future__ import annotations

import format_table
import pytest


@pytest.mark.slow
def test_two_formats_through_all_commands(capsys) -> None:
    assert format_table.table(["openai_gptoss", "gemma4"])
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:]] == ["deepseek_r1", "openai_gptoss", "gemma4"]
    assert len({row.partition("| shown |")[2] for row in rows[2:]}) == 1
