"""An assistant's message as thinking and content: what servers and templates make of a response.

Thinking stands under ``reasoning_content`` (DeepSeek's API, vLLM before 0.16, Qwen3's template), ``reasoning`` (vLLM
from 0.16, OpenRouter) or ``thinking`` (the templates of gpt-oss and LFM2.5), or as parts of the content
(``{"type": "thinking", "thinking": …}``, Mistral, Anthropic).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attnpo.errors import InputError
from attnpo.steps.formats import THINK, ThinkingFormat

THINKING_FIELDS = ("reasoning_content", "reasoning", "thinking")
THINKING_PARTS = ("thinking", "reasoning", "reasoning_text", "reasoning_content")


def message_parts(message: Mapping[str, Any]) -> tuple[str | None, str]:
    """(thinking, content) of a message; thinking None where the message does not keep it apart.

    Raises:
        InputError: content or thinking is neither a text nor a list of parts.
    """
    content = message.get("content") or ""
    thinking = next((message[field] for field in THINKING_FIELDS if message.get(field) is not None), None)
    thoughts = [] if thinking is None else [_text(thinking, "thinking")]
    if isinstance(content, str):
        return (thoughts[0] if thoughts else None), content
    texts = []
    for part in _parts(content, "content"):
        kind = part.get("type")
        if kind in THINKING_PARTS:
            inner = next((part[name] for name in (kind, *THINKING_FIELDS, "text", "content") if part.get(name)), "")
            thoughts.append(_text(inner, "thinking"))
        else:
            texts.append(_text(part.get("text") or "", "content"))
    return ("".join(thoughts) if thoughts else None), "".join(texts)


def message_text(message: Mapping[str, Any], form: ThinkingFormat = THINK) -> str:
    """The response that a message stands for, with the marks of a format around thinking that it keeps apart."""
    thinking, content = message_parts(message)
    if thinking is None:
        return content
    return f"{form.opener}{thinking}{form.bridge}{content}"


def _parts(value: Any, field: str) -> Sequence[Mapping[str, Any]]:
    if isinstance(value, Sequence) and all(isinstance(part, Mapping) for part in value):
        return value
    raise InputError(f"message: field {field!r} is {value!r:.80}, expected a text or a list of parts")


def _text(value: Any, field: str) -> str:
    return value if isinstance(value, str) else "".join(str(part.get("text") or "") for part in _parts(value, field))
