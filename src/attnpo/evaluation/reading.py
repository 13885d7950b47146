"""A sampled response, read: its text, its final answer, and how many tokens went into thinking and into the answer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnpo.rewards.accuracy import decode_completion
from attnpo.steps.response import CLOSE_TAG, OPEN_TAG, split_response
from attnpo.steps.spans import token_offsets


@dataclass(frozen=True)
class Reading:
    """`answer`: the text to be graded, None where the response has none. Thinking: tokens before the closing tag."""

    text: str
    answer: str | None
    thinking_tokens: int
    answer_tokens: int


def read_response(tokenizer: Any, ids: Sequence[int], thinks: bool | None) -> Reading:
    """Read a response by its sampled ids, end token included.

    Args:
        thinks: whether the model thinks; None: it does where the response holds a thinking tag.
    """
    text = decode_completion(tokenizer, ids)
    if thinks is False or (thinks is None and not has_tag(text)):
        return Reading(text, text, 0, len(ids))
    whole, starts = token_offsets(tokenizer, ids)  # with end and padding tokens, behind the text
    parts = split_response(whole)
    if parts.answer_start is None:
        return Reading(text, None, len(ids), 0)
    thinking, answer = bisect_left(starts, parts.thinking_end), bisect_left(starts, parts.answer_start)
    return Reading(text, text[parts.answer_start :], thinking, len(ids) - answer)


def has_tag(text: str) -> bool:
    """Whether a thinking tag stands in a response."""
    return OPEN_TAG in text or CLOSE_TAG in text
