"""Thinking formats: the marks by which the thinking of a response is told from its answer.

Built in (``formats.yaml``) or from a YAML file of the user's with the same fields. What the marks of a text mean is in
`attnpo.steps.response`; which format a tokenizer has, in `attnpo.steps.detect`. Decisions: docs/thinking-formats.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from attnpo.errors import InputError

AUTO = "auto"
Marks = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ThinkingFormat:
    """How a model marks its thinking.

    Attributes:
        name: what it is called on the command line; of a file, the file's name.
        opening: marks that open the thinking, at the start of a response or the end of a prompt.
        closing: marks that end it.
        answer_opening, answer_closing: marks around the answer, where it has any.
        other_ends: what else ends the thinking, and belongs to the text behind it.
        labels: text right behind an opening mark that is no thinking.
        channels: the thinking ends where the answer is opened, whatever is opened and closed before.
        unmarked: what a response without any mark is: "thinking" that was cut off, or the "answer" of a model that did
            not think.
        prompt_opens: whether the prompt leaves the thinking open; False: it closes it; None: it does neither.
        opening_ids, closing_ids: `opening` and `closing` as token ids of one tokenizer (`with_ids`); else empty.
    """

    name: str
    opening: Marks = ()
    closing: Marks = ()
    answer_opening: Marks = ()
    answer_closing: Marks = ()
    other_ends: Marks = ()
    labels: Marks = ()
    channels: bool = False
    unmarked: str = "thinking"
    prompt_opens: bool | None = None
    opening_ids: tuple[tuple[int, ...], ...] = ()
    closing_ids: tuple[tuple[int, ...], ...] = ()

    def of(self, text: str) -> ThinkingFormat:
        """The format of a response: this one (`ByMarks` has a choice)."""
        return self

    @property
    def ends(self) -> Marks:
        """Marks that end the thinking, or show that it has ended."""
        return self.answer_opening if self.channels else (*self.closing, *self.answer_opening, *self.other_ends)

    @property
    def answers_unmarked(self) -> bool:
        """Whether a response without any mark is an answer."""
        return not self.prompt_opens if self.unmarked == "answer" else self.prompt_opens is False

    @property
    def bridge(self) -> str:
        """What a model writes to end its thinking and begin an answer, shortest form."""
        return "".join((*self.closing[:1], *self.answer_opening[:1]))

    @property
    def opener(self) -> str:
        """What a model writes to begin its thinking, label included; empty where the format has no such mark."""
        return "".join((*self.opening[:1], *self.labels[:1]))

    @property
    def ending(self) -> str:
        """`bridge` as it stands behind a thinking text: on a line of its own, in channels right behind it."""
        return self.bridge if self.channels else f"\n{self.bridge}"

    def opened(self, text: str) -> int | None:
        """Where the thinking begins in a response that opens it, white space before it allowed; None: it does not."""
        at = len(text) - len(text.lstrip())
        found = [mark for mark in self.opening if text.startswith(mark, at)]
        return self._behind_label(text, at + max(map(len, found))) if found else None

    def _behind_label(self, text: str, at: int) -> int:
        return at + max((len(label) for label in self.labels if text.startswith(label, at)), default=0)

    def shows_in(self, text: str) -> bool:
        """Whether a mark of this format stands in a response."""
        return any(mark in text for mark in (*self.opening, *self.ends))

    def ends_in(self, text: str) -> bool:
        """Whether a response ends its thinking by a mark of this format."""
        return any(mark in text for mark in self.ends)

    def opened_by(self, prompt: str) -> bool | None:
        """Whether a prompt (the text behind the last user message) leaves the thinking open; False: closed; None:
        it has no mark."""
        opening = max((prompt.rfind(mark) for mark in self.opening), default=-1)
        closing = max((prompt.rfind(mark) for mark in self._answering), default=-1)
        return None if opening == closing == -1 else opening > closing

    def left_open_by(self, prompt: str) -> bool | None:
        """The same of a whole prompt, in which others may speak of marks: only one at its very end counts, and one that
        closes the thinking only at the start of a line."""
        bare = prompt.rstrip()
        if self.without_opening(bare) != bare:
            return True
        line = bare.rpartition("\n")[2].lstrip()
        return False if any(line == mark for mark in self._answering) else None

    @property
    def _answering(self) -> Marks:
        """Marks behind which a prompt leaves nothing but the answer. In channels a closing one ends any message."""
        return self.answer_opening if self.channels else (*self.closing, *self.answer_opening)

    def without_opening(self, prompt: str) -> str:
        """A prompt without the opening mark (and its label) that it ends with, for a response that brings its own."""
        bare = prompt.rstrip()
        for mark in self.opening:
            for label in ("", *(label.rstrip() for label in self.labels)):
                if bare.endswith(mark + label):
                    return bare.removesuffix(mark + label)
        return prompt

    def with_ids(self, tokenizer: Any) -> ThinkingFormat:
        """The same with the marks as token ids of a tokenizer."""
        ids = {
            mark: tuple(tokenizer(mark, add_special_tokens=False)["input_ids"])
            for mark in (*self.opening, *self.closing)
        }
        return replace(
            self,
            opening_ids=tuple(ids[mark] for mark in self.opening),
            closing_ids=tuple(ids[mark] for mark in self.closing),
        )

    def as_json(self) -> dict[str, Any]:
        """The fields that are set, as `from_json` takes them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        defaults = {field.name: field.default for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value != defaults[name]
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> ThinkingFormat:
        """What `as_json` has written. Raises InputError where it is no such thing."""
        marks = {name: value for name, value in given.items() if name in _FIELDS}
        return parse_format(str(given.get("name")), marks, "thinking_format")

    def __str__(self) -> str:
        """The name and the marks: ``mistral ([THINK] … [/THINK])``."""
        if not (self.opening or self.ends):
            return f"{self.name} (no marks: all of a response is its answer)"
        marks = [mark[0] for mark in (self.opening, self.closing, self.answer_opening) if mark]
        return f"{self.name} ({' … '.join(marks)})"


@dataclass(frozen=True)
class ByMarks:
    """The format of each response by the marks it shows; `otherwise` where it shows none of any format."""

    otherwise: ThinkingFormat

    def of(self, text: str) -> ThinkingFormat:
        """The format of a response."""
        return recognise(text, self.otherwise) or self.otherwise


Form = ThinkingFormat | ByMarks

_FIELDS = {field.name for field in fields(ThinkingFormat)} - {"name", "opening_ids", "closing_ids"}
_FLAGS = {"channels": (True, False), "prompt_opens": (True, False, None), "unmarked": ("thinking", "answer")}
_ABOUT = {"of", "aliases", "shown_by"}


def parse_format(name: str, given: Any, where: str) -> ThinkingFormat:
    """A format from its fields, as a YAML file has them.

    Raises:
        InputError: an unknown field, a mark that is no text, or no mark that ends the thinking; begins with `where`.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: found {type(given).__name__}, expected a mapping with fields such as opening")
    values: dict[str, Any] = {}
    for field, value in given.items():
        if field in _ABOUT:
            continue
        if field not in _FIELDS:
            raise InputError(f"{where}: found the field {field!r}, expected some of {', '.join(sorted(_FIELDS))}")
        if field in _FLAGS:
            if value not in _FLAGS[field]:
                raise InputError(f"{where}: field {field!r} is {value!r}, expected one of {_FLAGS[field]}")
            values[field] = value
            continue
        marks = [value] if isinstance(value, str) else value
        if not isinstance(marks, list) or not all(isinstance(mark, str) and mark.strip() for mark in marks):
            raise InputError(f"{where}: field {field!r} is {value!r}, expected a text or a list of texts")
        values[field] = tuple(marks)
    found = ThinkingFormat(name, **values)
    if found.channels and not found.answer_opening:
        raise InputError(f"{where}: channels is true, which needs marks in answer_opening")
    if found.unmarked == "thinking" and not found.ends:
        raise InputError(f"{where}: found no mark that ends the thinking, expected the field closing or answer_opening")
    return found


@lru_cache(maxsize=1)
def _data() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(files("attnpo.steps").joinpath("formats.yaml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def built_in() -> dict[str, ThinkingFormat]:
    """The formats that are built in, by name."""
    return {name: parse_format(name, given, f"formats.yaml, {name}") for name, given in _data().items()}


@lru_cache(maxsize=1)
def evidence() -> dict[str, Marks]:
    """By built-in format the strings that all stand in the template or among the added tokens of its models."""
    shown = {name: _data()[name].get("shown_by", form.closing[:1]) for name, form in built_in().items()}
    return {name: (strings,) if isinstance(strings, str) else tuple(strings) for name, strings in shown.items()}


def load_format(option: str) -> ThinkingFormat:
    """The format that `--thinking-format` names: a built-in one, or a YAML file.

    Raises:
        InputError: no such name, or a file that cannot be read or is malformed.
    """
    known = built_in()
    for name, given in _data().items():
        if option == name or option in given.get("aliases", ()):
            return known[name]
    path = Path(option)
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise InputError(
            f"--thinking-format: found {option!r}, expected {AUTO}, one of {', '.join(known)}, or a YAML file"
        )
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"--thinking-format {option}: cannot be read: {error}") from error
    return parse_format(path.stem, given, f"--thinking-format {option}")


THINK = load_format("deepseek_r1")
"""``<think> … </think>``: what is taken where nothing shows another format."""
BY_MARKS = ByMarks(THINK)


def format_of_rows(option: str) -> Form:
    """What `--thinking-format` means for rows of a file, where no model is at hand. Raises as `load_format`."""
    return BY_MARKS if option == AUTO else load_format(option)


def marks_of(form: Form) -> ThinkingFormat:
    """The format whose marks are put around thinking that a file keeps apart from the answer: `form`, where it says so
    and has marks; else ``<think>``."""
    return form if isinstance(form, ThinkingFormat) and form.bridge else THINK


def recorded_format(file: Path) -> Form:
    """The thinking format that an environment.json has; responses are read by their marks where it has none."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8")).get("thinking_format")
        return BY_MARKS if facts is None else ThinkingFormat.from_json(facts)
    except (OSError, ValueError, TypeError, AttributeError):  # of other tools and older versions
        return BY_MARKS


def formats_found(texts: Iterable[str], form: Form) -> str:
    """One line for the screen: the formats that these responses are read by."""
    return f"thinking format: {', '.join(sorted({str(form.of(text)) for text in texts}))}"


def recognise(text: str, first: ThinkingFormat = THINK) -> ThinkingFormat | None:
    """The built-in format (or `first`) whose marks a response shows; None where it shows none.

    In this order: one that opens and ends it; `first` or ``<think>`` if it ends it; one that opens it; the one whose
    end comes first.
    """
    forms = (first, *built_in().values())
    opens = [form for form in forms if form.opened(text) is not None]
    ends = {form.name: at for form in forms if (at := first_of(form.ends, text, 0)) is not None}
    whole = [form for form in opens if form.name in ends]
    plain = [form for form in (first, THINK) if form.name in ends]
    earliest = sorted((form for form in forms if form.name in ends), key=lambda form: ends[form.name][0])
    return next(iter((*whole, *plain, *opens, *earliest)), None)


def first_of(marks: Sequence[str], text: str, start: int) -> tuple[int, int] | None:
    """[start, end) of the first of these marks behind `start`, the longest of those that begin there."""
    found = [(at, -len(mark)) for mark in marks if (at := text.find(mark, start)) >= 0]
    if not found:
        return None
    at, length = min(found)
    return at, at - length


_PIECE = re.compile(r"<[^<>\s]+>")


@lru_cache(maxsize=64)
def _pieces(form: ThinkingFormat) -> frozenset[str]:
    marks = (*form.ends, *form.closing, *form.answer_closing)
    return frozenset(marks) | {piece for mark in (*marks, *form.opening) for piece in _PIECE.findall(mark)}


@lru_cache(maxsize=1)
def known_marks() -> frozenset[str]:
    """Marks of all built-in formats, and the pieces of those that are made of several: what shows a thinking format."""
    marks = {mark for form in built_in().values() for mark in (*form.opening, *form.ends)}
    return frozenset(marks | {piece for mark in marks for piece in _PIECE.findall(mark)})


def mark_tokens(tokenizer: Any, form: ThinkingFormat) -> frozenset[int]:
    """Tokens of a tokenizer that are a mark, or a piece of one: special or not, they are text.

    Its end, padding and unknown tokens are not among them.
    """
    ids = {tokenizer.convert_tokens_to_ids(piece) for piece in _pieces(form)}
    return frozenset(
        ids - {None, tokenizer.eos_token_id, tokenizer.pad_token_id, getattr(tokenizer, "unk_token_id", None)}
    )
