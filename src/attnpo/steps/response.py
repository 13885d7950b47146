"""A response: its text from the sampled ids or from a message, where its thinking ends and its final answer begins, and
what to tell of responses that do not end their thinking.

Special end and padding tokens are not part of the text given here. The rules, one for all formats:

- An opening mark at the start of a response is no part of the thinking. Prompts that open the thinking themselves give
  responses without one.
- The first closing mark ends the thinking, nested, quoted or not; later ones are answer text. In a format of channels
  the mark that opens the answer ends it, and what is opened and closed before that is thinking.
- Where no closing mark comes, a mark that opens the answer, or another end of the format (a tool call), ends it.
- A response without any end is thinking that was cut off and has no answer, or all answer (`answers_unmarked`).

Read by the marks of another format a response is not refused, only misread: all of it is thinking without an answer, or
(formats whose unmarked responses are answers) all of it is answer, thinking included, and may even be right.

Of a message, thinking stands under ``reasoning_content`` (DeepSeek's API, vLLM before 0.16, Qwen3's template),
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


_TAGS = re.compile(r"</[\w:]+>|\[/[A-Z_]+\]|<\|[^<>|\s]+\|>|<[a-z_]+\|>")
SHOWN_TAGS = 5


def told_by(responses: Iterable[tuple[str, bool]]) -> list[str]:
    """The texts of (text, cut off) that say something about a format: those that were not cut off, unless all were."""
    responses = list(responses)
    return [text for text, cut_off in responses if not cut_off] or [text for text, _ in responses]


def never_closed(texts: Iterable[str], form: Form) -> str | None:
    """A warning where none of these responses ends its thinking: the marks looked for, and those that stand there.

    None where one of them does, and where there are no responses. A response that counts as an answer because it has
    no mark (`answers_unmarked`) ends it, unless it has a mark of another format.
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
    said = f"{count} thinking: marks looked for: {looked} (thinking format {name}); marks seen, in responses: {seen}"
    if others:
        return f"{said}. They look like {_commonest(others)}: give thinking_format {_commonest(others)}"
    return (
        f"{said}. Either the responses are cut off before they end it (max_completion_length), or the format is "
        "another one (thinking_format; none: a model that does not think)"
    )


def other_format(texts: Sequence[str], form: ThinkingFormat) -> str | None:
    """The name of the format by whose marks at least half of these responses end their thinking; None where there is
    no such, or some do by those of `form`."""
    if any(form.ends_in(text) for text in texts):
        return None
    found = [other for text in texts if (other := _ended_by_another(text, form)) is not None]
    return _commonest(found) if found and 2 * len(found) >= len(texts) else None


class Unclosed:
    """What to tell of the responses of a file, which go by one after the other (`add`)."""

    def __init__(self, form: Form):
        self.form = form
        self._count = 0
        self._open: list[str] = []

    def add(self, text: str) -> None:
        """The next response."""
        self._count += 1
        if not self.form.of(text).ends_in(text):
            self._open.append(text)

    def message(self) -> str | None:
        """A warning where no response ends its thinking, or some do by the marks of another format than was given."""
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
    """`Unclosed` of responses that are all at hand."""
    found = Unclosed(form)
    for text in texts:
        found.add(text)
    return found.message()


def _ended_by_another(text: str, form: ThinkingFormat) -> ThinkingFormat | None:
    other = recognise(text, form)
    return other if other is not None and other.name != form.name and other.ends_in(text) else None


def _others(texts: Iterable[str], form: Form) -> list[ThinkingFormat]:
    """The other formats that responses show, one each; none where every response is read by its own marks."""
    if isinstance(form, ByMarks):
        return []
    return [found for text in texts if (found := recognise(text, form)) is not None and found.name != form.name]


def _commonest(forms: Iterable[ThinkingFormat]) -> str:
    return Counter(form.name for form in forms).most_common(1)[0][0]


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


def decode_completion(tokenizer: Any, ids: Sequence[int], form: ThinkingFormat = THINK) -> str:
    """The sampled text with special tokens kept, but for end and padding tokens at its end."""
    ids = [int(token) for token in ids]
    ending = {tokenizer.eos_token_id, tokenizer.pad_token_id, *tokenizer.all_special_ids}
    ending -= mark_tokens(tokenizer, form)
    while ids and ids[-1] in ending:
        ids.pop()
    # Without clean-up, so that the text is the one that steps are found in (steps/offsets.py).
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
