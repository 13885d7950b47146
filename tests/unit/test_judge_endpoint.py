"""Parsing of an endpoint's reply, which need not be a completion."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from attnpo.judges.client import estimated_tokens, request_answer
from attnpo.judges.config import Judge


def read(text: str) -> Any:
    """The answer that `request_answer` reads from this body of a reply."""

    async def create(**_: Any) -> Any:
        return SimpleNamespace(http_response=SimpleNamespace(text=text))

    raw = SimpleNamespace(create=create)
    completions = SimpleNamespace(with_raw_response=raw)
    client: Any = SimpleNamespace(chat=SimpleNamespace(completions=completions), api_key="")
    return asyncio.run(request_answer(client, Judge("m", "http://host/v1", "m"), "prompt"))


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ('{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}', "a3"),
        ('{"choices": [{"message": {"content": "a"}}]}', "a"),
        ('{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": 3}}', "a"),
        ('{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": -3, "completion_tokens": 1}}', "a"),
        ('{"choices": [{"message": {"content": null}}]}', ""),
        ('{"choices": [{"message": {"content": [{"text": "a"}]}}]}', ""),
        ('{"choices": [{"message": null}]}', ""),
        ('{"choices": [{}]}', ""),
        ('{"choices": []}', ""),
        ('{"choices": {"0": 1}}', ""),
        ('{"error": "busy"}', ""),
        ('{"choices": [', ""),
        ("[1]", ""),
        ("null", ""),
        ("", ""),
        ("<html>", ""),
        ("[" * 100_000, ""),
    ],
)
def test_reply(body: str, answer: str) -> None:
    text, tokens = read(body)
    assert text == (answer[:1] or None)
    assert tokens == ((3, 1) if answer[1:] else None)


def test_tokens_are_rounded_up() -> None:
    assert [estimated_tokens(n) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
