"""A response as text: where its thinking ends and its final answer begins.

Special end and padding tokens are not part of the text given here. The rules, one for all formats:

- An opening mark at the start of a response is no part of the thinking. Prompts that open the thinking themselves give
  responses without one.
- The first closing mark ends the thinking, nested, quoted or not; later ones are answer text. In a format of channels
  the mark that opens the answer ends it, and what is opened and closed before that is thinking.
- Where no closing mark comes, a mark that opens the answer, or another end of the format (a tool call), ends it.
- A response without any end is thinking that was cut off and has no answer, or all answer (`answers_unmarked`).
"""

from __future__ import annotations

from dataclasses import dataclass

from attnpo.steps.formats import THINK, Form, ThinkingFormat, first_of

OPEN_TAG, CLOSE_TAG = THINK.opening[0], THINK.closing[0]


@dataclass(frozen=True, slots=True)
class ResponseParts:
    """Character offsets into the response text.

    Attributes:
        thinking_start: 0, or just behind an opening mark at the start of the response.
        thinking_end: start of what ends the thinking; the end of the text where nothing does.
        answer_start: just behind what ends the thinking and opens the answer; None where nothing does.
        answer_end: start of the mark that closes the answer; None where nothing does: it goes to the end.
    """

    thinking_start: int
    thinking_end: int
    answer_start: int | None
    answer_end: int | None = None

    @property
    def has_close(self) -> bool:
        """Whether the response closed its thinking. Without that there is no final answer."""
        return self.answer_start is not None


def split_response(text: str, form: Form = THINK) -> ResponseParts:
    """Find thinking and final answer in a response.

    >>> from attnpo.steps.formats import BY_MARKS
    >>> split_response("[THINK]2 + 2[/THINK]4", BY_MARKS)
    ResponseParts(thinking_start=7, thinking_end=12, answer_start=20, answer_end=None)
    """
    form = form.of(text)
    opened = form.opened(text)
    start = opened or 0
    end = _channel_end(text, start, form) if form.channels else _end(text, start, form)
    if end is None:
        if opened is None and form.answers_unmarked:
            return _answered(text, 0, 0, 0, form)
        return ResponseParts(start, len(text), None)
    return _answered(text, start, *end, form)


def _end(text: str, start: int, form: ThinkingFormat) -> tuple[int, int] | None:
    """(end of the thinking, start of the answer), None where nothing ends it."""
    closing = first_of(form.closing, text, start)
    if closing is not None:
        behind = closing[1] + len(text[closing[1] :]) - len(text[closing[1] :].lstrip())
        opening = first_of(form.answer_opening, text, closing[1])
        return closing[0], opening[1] if opening is not None and opening[0] == behind else closing[1]
    ends = [end for end in (first_of(form.answer_opening, text, start), _kept(form, text, start)) if end is not None]
    return min(ends) if ends else None


def _kept(form: ThinkingFormat, text: str, start: int) -> tuple[int, int] | None:
    """Another end of the thinking, which is itself part of what follows."""
    found = first_of(form.other_ends, text, start)
    return None if found is None else (found[0], found[0])


def _channel_end(text: str, start: int, form: ThinkingFormat) -> tuple[int, int] | None:
    """The same where only the answer's own mark ends the thinking; a closing mark right before it goes with it."""
    answer = first_of(form.answer_opening, text, start)
    if answer is None:
        return None
    thinking = text[start : answer[0]].rstrip()
    mark = max((mark for mark in form.closing if thinking.endswith(mark)), key=len, default=None)
    return (answer[0] if mark is None else start + len(thinking) - len(mark)), answer[1]


def _answered(text: str, start: int, end: int, answer: int, form: ThinkingFormat) -> ResponseParts:
    closing = first_of(form.answer_closing, text, answer)
    return ResponseParts(start, end, answer, None if closing is None else closing[0])


def thinking_of(text: str, form: Form = THINK) -> str:
    """The thinking text that step offsets refer to (everything, where the closing mark is missing)."""
    parts = split_response(text, form)
    return text[parts.thinking_start : parts.thinking_end]


def answer_of(text: str, form: Form = THINK) -> str | None:
    """The text of the answer, as it stands; None where nothing ends the thinking."""
    parts = split_response(text, form)
    return None if parts.answer_start is None else text[parts.answer_start : parts.answer_end]
