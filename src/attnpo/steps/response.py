"""A response as text: where its thinking ends and its final answer begins.

Special end and padding tokens are not part of the text given here.
"""

from __future__ import annotations

from dataclasses import dataclass

OPEN_TAG = "<think>"
CLOSE_TAG = "</think>"


@dataclass(frozen=True, slots=True)
class ResponseParts:
    """Character offsets into the response text.

    Attributes:
        thinking_start: 0, or just behind an opening tag at the start of the response.
        thinking_end: start of the first closing tag; the end of the text where there is none.
        answer_start: just behind the first closing tag; None where there is none.
    """

    thinking_start: int
    thinking_end: int
    answer_start: int | None

    @property
    def has_close(self) -> bool:
        """Whether the response closed its thinking. Without a closing tag there is no final answer."""
        return self.answer_start is not None


def split_response(text: str) -> ResponseParts:
    """Find thinking and final answer in a response.

    An opening ``<think>`` at the start (whitespace before it allowed) is not part of the thinking; prompts that open
    it themselves give responses without one. The first ``</think>`` ends the thinking; later ones are answer text.
    """
    opening = len(text) - len(text.lstrip())
    thinking_start = opening + len(OPEN_TAG) if text.startswith(OPEN_TAG, opening) else 0
    close = text.find(CLOSE_TAG)
    if close < 0:
        return ResponseParts(thinking_start, len(text), None)
    return ResponseParts(thinking_start, close, close + len(CLOSE_TAG))


def thinking_of(text: str) -> str:
    """The thinking text that step offsets refer to (everything, where the closing tag is missing)."""
    parts = split_response(text)
    return text[parts.thinking_start : parts.thinking_end]


def answer_of(text: str) -> str | None:
    """The text behind the first closing tag, as it stands; None where there is no closing tag."""
    parts = split_response(text)
    return None if parts.answer_start is None else text[parts.answer_start :]
