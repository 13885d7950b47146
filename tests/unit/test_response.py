"""The boundary between the thinking and the answer of a response."""

from __future__ import annotations

import pytest

from attnpo.steps.response import ResponseParts, answer_of, split_response, thinking_of


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("3 + 4 = 7</think>7", "3 + 4 = 7", "7"),
        ("<think>3 + 4</think>7", "3 + 4", "7"),
        ("<think>\nOkay</think>\n\n7", "\nOkay", "\n\n7"),
        (" \n<think>a</think>7", "a", "7"),
        ("a <think>b</think>7", "a <think>b", "7"),
        ("a</think>b</think>c", "a", "b</think>c"),
        ("</think>7", "", "7"),
        ("<think></think>", "", ""),
        ("</think><think>a", "", "<think>a"),
        ("<think>cut short", "cut short", None),
        ("cut short </thin", "cut short </thin", None),
        ("", "", None),
        (" \n", " \n", None),
        ("<think>", "", None),
        ("日本</think>é", "日本", "é"),
    ],
)
def test_parts(text: str, thinking: str, answer: str | None):
    parts = split_response(text)
    assert thinking_of(text) == text[parts.thinking_start : parts.thinking_end] == thinking
    assert answer_of(text) == answer
    assert parts.has_close == (answer is not None) == (parts.answer_start is not None)


def test_offsets_are_those_of_the_text():
    assert split_response(" <think>ab</think>c") == ResponseParts(thinking_start=8, thinking_end=10, answer_start=18)
    assert split_response("ab") == ResponseParts(thinking_start=0, thinking_end=2, answer_start=None)
