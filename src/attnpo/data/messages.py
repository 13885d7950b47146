"""Conversations in the forms of data sets and servers: OpenAI's role and content, ShareGPT's from and value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attnpo.data.jsonl import type_name
from attnpo.errors import InputError

Message = dict[str, str]
"""{"role": "system", "user" or "assistant" (or another), "content": text}."""

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant"}
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value")
EXPECTED = 'a list of messages such as [{"role": "user", "content": "…"}]'


def is_conversation(value: Any) -> bool:
    """Whether a cell holds messages: a list of objects with a role, or (older `datasets`) an object of two lists."""
    if isinstance(value, Mapping):
        return _key(value, _ROLE_KEYS) is not None and all(isinstance(column, list) for column in value.values())
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and len(value) > 0
        and all(isinstance(message, Mapping) and _key(message, _ROLE_KEYS) is not None for message in value)
    )


def read_messages(value: Any, where: str) -> list[Message]:
    """The messages of a cell in OpenAI's form; contents that are lists of text parts are joined.

    Raises:
        InputError: it is not a list of messages, or a content is not text; `where` names the cell.

    >>> read_messages([{"from": "human", "value": "2 + 3?"}], "row 1")
    [{'role': 'user', 'content': '2 + 3?'}]
    """
    if not is_conversation(value):
        found = "no message" if value == [] else type_name(value)
        raise InputError(f"{where}: found {found}, expected {EXPECTED}")
    if isinstance(value, Mapping):
        value = [dict(zip(value, cells, strict=False)) for cells in zip(*value.values(), strict=False)]
    messages = []
    for index, message in enumerate(value):
        role, content = message[_key(message, _ROLE_KEYS)], message.get(_key(message, _CONTENT_KEYS) or "content")
        text = content_text(content, f"{where}, message {index + 1}")
        messages.append({"role": _ROLES.get(str(role).lower(), str(role).lower()), "content": text})
    return messages


def content_text(content: Any, where: str) -> str:
    """The text of a message's content: a text, or a list of parts of the type text; empty for null.

    Raises:
        InputError: anything else, for example an image.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, str) and not (isinstance(part, Mapping) and isinstance(part.get("text"), str)):
                kind = part.get("type") if isinstance(part, Mapping) else type_name(part)
                raise InputError(f"{where}: its content has a part of type {kind!r}, expected text only")
        return "".join(part if isinstance(part, str) else part["text"] for part in content)
    raise InputError(f"{where}: its content is {type_name(content)}, expected a text or a list of text parts")


def split_conversation(messages: Sequence[Message], where: str) -> tuple[list[Message], str, str | None]:
    """The messages before the question, the question, and the reply to it.

    The question is the last message of the user; the reply is the text of the assistant's messages after it, None if
    there are none.

    Raises:
        InputError: no message of the user, or an empty one.
    """
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None or not messages[last]["content"].strip():
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(f"{where}: found messages of {roles}, expected a message of the user with a text")
    replies = [message["content"] for message in messages[last + 1 :] if message["role"] == "assistant"]
    return list(messages[:last]), messages[last]["content"], "\n\n".join(replies) if replies else None


def _key(message: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in message), None)
