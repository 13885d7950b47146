"""A response: its text from the sampled ids or from a message, the end of its thinking and the start of its final
answer, and warnings about responses that do not end their thinking.

Special end and padding tokens are not part of the text. The rules are the same for all formats:

- An opening mark at the start of a response is not part of the thinking. If the prompt opens the thinking, the response
  has no opening mark.
- The first closing mark ends the thinking, even if it is nested or quoted; later ones are answer text. In a format of
  channels the mark that opens the answer ends it, and everything opened and closed before that mark is thinking.
- Without a closing mark, a mark that opens the answer, or another end of the format (a tool call), ends it.
- A response without any end is either thinking that was cut off, without an answer, or all answer (`answers_unmarked`).

A response that is read by the marks of another format raises no error but is misread: it is all thinking without an
answer, or, in formats whose unmarked responses are answers, all answer including the thinking, and may even be right.

A message has its thinking in the field ``reasoning_content`` (DeepSeek's API, vLLM before 0.16, Qwen3's template),
``reasoning`` (vLLM from 0.16, OpenRouter) or ``thinking`` (the templates of gpt-oss and LFM2.5), or as parts of the
content (``{"type": "thinking", "thinking": …}``, Mistral, Anthropic).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnpo.errors import InputError
from attnpo.steps.formats import AUTO, THINK, ByMarks, Form, ThinkingFormat, first_of, mark_tokens, recognise

OPEN_TAG, CLOSE_TAG = THINK.opening[0], THINK.closing[0]


@dataclass(frozen=True, slots=True)
class ResponseParts:
    """Character offsets into the response text.

    Attributes:
        thinking_start: 0, or the end of an opening mark at the start of the response.
        thinking_end: start of the mark that ends the thinking; the end of the text if there is none.
        answer_start: end of the marks that end the thinking and open the answer; None if there are none.
        answer_end: start of the mark that closes the answer; None if there is none: the answer ends with the text.
    """

    thinking_start: int
    thinking_end: int
    answer_start: int | None
    answer_end: int | None = None

    @property
    def has_close(self) -> bool:
        """Whether the response ended its thinking. Otherwise it has no final answer."""
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
    end = _channel_end(text, start, form) if form.channels else _thinking_end(text, start, form)
    if end is None:
        if opened is None and form.answers_unmarked:
            return _with_answer(text, 0, 0, 0, form)
        return ResponseParts(start, len(text), None)
    return _with_answer(text, start, *end, form)


def _thinking_end(text: str, start: int, form: ThinkingFormat) -> tuple[int, int] | None:
    """(end of the thinking, start of the answer); None if nothing ends it."""
    closing = first_of(form.closing, text, start)
    if closing is not None:
        next_text = closing[1] + len(text[closing[1] :]) - len(text[closing[1] :].lstrip())
        opening = first_of(form.answer_opening, text, closing[1])
        return closing[0], opening[1] if opening is not None and opening[0] == next_text else closing[1]
    ends = (first_of(form.answer_opening, text, start), _other_end(form, text, start))
    return min((end for end in ends if end is not None), default=None)


def _other_end(form: ThinkingFormat, text: str, start: int) -> tuple[int, int] | None:
    """Another end of the thinking (a tool call), which is itself part of the answer."""
    found = first_of(form.other_ends, text, start)
    return None if found is None else (found[0], found[0])


def _channel_end(text: str, start: int, form: ThinkingFormat) -> tuple[int, int] | None:
    """`_thinking_end` in a format of channels: the mark that opens the answer, with a closing mark right before it."""
    answer = first_of(form.answer_opening, text, start)
    if answer is None:
        return None
    thinking = text[start : answer[0]].rstrip()
    mark = max((mark for mark in form.closing if thinking.endswith(mark)), key=len, default=None)
    return (answer[0] if mark is None else start + len(thinking) - len(mark)), answer[1]


def _with_answer(text: str, start: int, end: int, answer: int, form: ThinkingFormat) -> ResponseParts:
    """The parts of a response whose answer begins at `answer`."""
    closing = first_of(form.answer_closing, text, answer)
    return ResponseParts(start, end, answer, None if closing is None else closing[0])


def thinking_of(text: str, form: Form = THINK) -> str:
    """The thinking text that step offsets refer to (the complete text if nothing ends the thinking)."""
    parts = split_response(text, form)
    return text[parts.thinking_start : parts.thinking_end]


def answer_of(text: str, form: Form = THINK) -> str | None:
    """The text of the answer, unchanged; None if nothing ends the thinking."""
    parts = split_response(text, form)
    return None if parts.answer_start is None else text[parts.answer_start : parts.answer_end]


_TAGS = re.compile(r"</[\w:]+>|\[/[A-Z_]+\]|<\|[^<>|\s]+\|>|<[a-z_]+\|>")
SHOWN_TAGS = 5


def finished_texts(responses: Iterable[tuple[str, bool]]) -> list[str]:
    """The texts, out of (text, cut off), that show whether a format fits: those not cut off, or all if all were."""
    responses = list(responses)
    return [text for text, cut_off in responses if not cut_off] or [text for text, _ in responses]


def never_closed(texts: Iterable[str], form: Form) -> str | None:
    """A warning if none of these responses ends its thinking, with the marks looked for and the marks found.

    None if one of them does, or if there are no responses. A response without marks that counts as an answer
    (`answers_unmarked`) ends it, unless it has a mark of another format.
    """
    texts = list(texts)
    if not texts or any(form.of(text).ends_in(text) for text in texts):
        return None
    own = form.otherwise if isinstance(form, ByMarks) else form
    others = _others(texts, form)
    if own.answers_unmarked and not others:
        return None
    looked = "those of every format" if isinstance(form, ByMarks) else " or ".join(own.ends) or "none"
    count = "the response does not end its" if len(texts) == 1 else f"none of {len(texts)} responses ends its"
    tags = Counter(tag for text in texts for tag in set(_TAGS.findall(text)))
    seen = ", ".join(f"{tag} ({n})" for tag, n in tags.most_common(SHOWN_TAGS)) or "none"
    name = AUTO if isinstance(form, ByMarks) else own.name
    found = f"{count} thinking: marks looked for: {looked} (thinking format {name}); marks seen, in responses: {seen}"
    if others:
        return f"{found}. They look like {_commonest(others)}: give thinking_format {_commonest(others)}"
    return (
        f"{found}. Either the responses are cut off before they end it (max_completion_length), or the format is "
        "another one (thinking_format; none: a model that does not think)"
    )


def other_format(texts: Sequence[str], form: ThinkingFormat) -> str | None:
    """The name of the other format whose marks end the thinking in at least half of these responses; None if there is
    none, or if the marks of `form` end it in some."""
    if any(form.ends_in(text) for text in texts):
        return None
    found = [other for text in texts if (other := _ended_by_another(text, form)) is not None]
    return _commonest(found) if found and 2 * len(found) >= len(texts) else None


class Unclosed:
    """Collects responses one after the other (`add`) for a warning about those that do not end their thinking."""

    def __init__(self, form: Form):
        self.form = form
        self._count = 0
        self._open: list[str] = []

    def add(self, text: str) -> None:
        """Add the next response."""
        self._count += 1
        if not self.form.of(text).ends_in(text):
            self._open.append(text)

    def message(self) -> str | None:
        """A warning if no response ends its thinking, or if some end it with the marks of another format than given."""
        if len(self._open) == self._count:
            return never_closed(self._open, self.form)
        if isinstance(self.form, ByMarks):
            return None
        others = [other for text in self._open if (other := _ended_by_another(text, self.form)) is not None]
        if not others:
            return None
        names = ", ".join(sorted({other.name for other in others}))
        return (
            f"{len(others)} of {self._count} responses end their thinking by the marks of another format ({names}) "
            f"than {self.form.name}, by which they are read: thinking format {AUTO} reads every response by its own"
        )


def unclosed_message(texts: Iterable[str], form: Form) -> str | None:
    """The message of `Unclosed` for a list of responses."""
    found = Unclosed(form)
    for text in texts:
        found.add(text)
    return found.message()


def _ended_by_another(text: str, form: ThinkingFormat) -> ThinkingFormat | None:
    other = recognise(text, form)
    return other if other is not None and other.name != form.name and other.ends_in(text) else None


def _others(texts: Iterable[str], form: Form) -> list[ThinkingFormat]:
    """The other format that each response shows, if any; empty if every response is read by its own marks."""
    if isinstance(form, ByMarks):
        return []
    return [found for text in texts if (found := recognise(text, form)) is not None and found.name != form.name]


def _commonest(forms: Iterable[ThinkingFormat]) -> str:
    return Counter(form.name for form in forms).most_common(1)[0][0]


THINKING_FIELDS = ("reasoning_content", "reasoning", "thinking")
THINKING_PARTS = ("thinking", "reasoning", "reasoning_text", "reasoning_content")


def message_parts(message: Mapping[str, Any]) -> tuple[str | None, str]:
    """(thinking, content) of a message; thinking is None if the message has no separate thinking.

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
    """The response in a message as one text, with the marks of a format around thinking in a separate field."""
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


def decode_completion(tokenizer: Any, ids: Sequence[int], form: ThinkingFormat = THINK) -> str:
    """The sampled text with special tokens, except end and padding tokens at its end."""
    ids = [int(token) for token in ids]
    ending = {tokenizer.eos_token_id, tokenizer.pad_token_id, *tokenizer.all_special_ids}
    ending -= mark_tokens(tokenizer, form)
    while ids and ids[-1] in ending:
        ids.pop()
    # Without clean-up, so that the text is the same as in steps/offsets.py, where the steps are found.
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
