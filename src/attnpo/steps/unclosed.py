"""Responses that do not end their thinking as their format has it: what to tell of them, and of the marks they show.

Read by the marks of another format a response is not refused, only misread: all of it is thinking without an answer, or
(formats whose unmarked responses are answers) all of it is answer, thinking included, and may even be right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from attnpo.steps.formats import AUTO, ByMarks, Form, ThinkingFormat, recognise

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
