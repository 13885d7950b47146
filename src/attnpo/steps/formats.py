"""Thinking formats: the marks that separate the thinking of a response from its answer.

Formats are built in (``formats.yaml``) or come from a user's YAML file with the same fields. `attnpo.steps.response`
applies the marks to a text, `attnpo.steps.detect` finds the format of a tokenizer. Decisions: docs/thinking-formats.md.
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
    """The marks with which a model separates its thinking from its answer.

    Attributes:
        name: the name on the command line; for a file, the file's name.
        opening: marks that open the thinking, at the start of a response or the end of a prompt.
        closing: marks that end it.
        answer_opening, answer_closing: marks around the answer, if it has any.
        other_ends: other texts that end the thinking and belong to the text after it.
        labels: text right after an opening mark that is not thinking.
        channels: the thinking ends where the answer is opened, whatever is opened and closed before.
        unmarked: the meaning of a response without any mark: "thinking" that was cut off, or the "answer" of a model
            that did not think.
        prompt_opens: True if the prompt leaves the thinking open, False if it closes it, None if it does neither.
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
        """The format of a response: always this one (`ByMarks` chooses by the text)."""
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
        """The shortest text with which a model ends its thinking and begins an answer."""
        return "".join((*self.closing[:1], *self.answer_opening[:1]))

    @property
    def opener(self) -> str:
        """The text with which a model begins its thinking, label included; empty if the format has no such mark."""
        return "".join((*self.opening[:1], *self.labels[:1]))

    @property
    def ending(self) -> str:
        """`bridge` as it follows a thinking text: on a new line, or directly in a format of channels."""
        return self.bridge if self.channels else f"\n{self.bridge}"

    def opened(self, text: str) -> int | None:
        """Start of the thinking in a response that opens it (white space may precede the mark), else None."""
        at = len(text) - len(text.lstrip())
        found = [mark for mark in self.opening if text.startswith(mark, at)]
        return self._after_label(text, at + max(map(len, found))) if found else None

    def _after_label(self, text: str, at: int) -> int:
        return at + max((len(label) for label in self.labels if text.startswith(label, at)), default=0)

    def shows_in(self, text: str) -> bool:
        """Whether a response contains a mark of this format."""
        return any(mark in text for mark in (*self.opening, *self.ends))

    def ends_in(self, text: str) -> bool:
        """Whether a response contains a mark of this format that ends the thinking."""
        return any(mark in text for mark in self.ends)

    def opened_by(self, prompt: str) -> bool | None:
        """Whether a prompt (the text after the last user message) leaves the thinking open; False: it closes it; None:
        it has no mark."""
        opening = max((prompt.rfind(mark) for mark in self.opening), default=-1)
        closing = max((prompt.rfind(mark) for mark in self._ends_in_prompt), default=-1)
        return None if opening == closing == -1 else opening > closing

    def left_open_by(self, prompt: str) -> bool | None:
        """`opened_by` for a complete prompt, whose messages may quote marks: only a mark at its very end counts, and
        one that closes the thinking only if it is the last line."""
        bare = prompt.rstrip()
        if self.without_opening(bare) != bare:
            return True
        line = bare.rpartition("\n")[2].lstrip()
        return False if any(line == mark for mark in self._ends_in_prompt) else None

    @property
    def _ends_in_prompt(self) -> Marks:
        """Marks in a prompt after which only the answer follows. In channels a closing mark ends any message."""
        return self.answer_opening if self.channels else (*self.closing, *self.answer_opening)

    def without_opening(self, prompt: str) -> str:
        """A prompt without the opening mark (and label) at its end, for a response that has the mark itself."""
        bare = prompt.rstrip()
        for mark in self.opening:
            for label in ("", *(label.rstrip() for label in self.labels)):
                if bare.endswith(mark + label):
                    return bare.removesuffix(mark + label)
        return prompt

    def with_ids(self, tokenizer: Any) -> ThinkingFormat:
        """This format with the marks also as token ids of a tokenizer."""
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
        """The fields that differ from their defaults, for `from_json`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        defaults = {field.name: field.default for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value != defaults[name]
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> ThinkingFormat:
        """The format from the result of `as_json`. Raises InputError for anything else."""
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
    """Chooses the format of each response by the marks in it; `otherwise` if it has no mark of any format."""

    otherwise: ThinkingFormat

    def of(self, text: str) -> ThinkingFormat:
        """The format of a response."""
        return recognise(text, self.otherwise) or self.otherwise


Form = ThinkingFormat | ByMarks

_FIELDS = {field.name for field in fields(ThinkingFormat)} - {"name", "opening_ids", "closing_ids"}
_FLAGS = {"channels": (True, False), "prompt_opens": (True, False, None), "unmarked": ("thinking", "answer")}
_ABOUT = {"of", "aliases", "shown_by"}


def parse_format(name: str, given: Any, where: str) -> ThinkingFormat:
    """A format from the fields of a YAML file.

    Raises:
        InputError: an unknown field, a mark that is not a text, or no mark that ends the thinking; the message begins
            with `where`.
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
    """The built-in formats by name."""
    return {name: parse_format(name, given, f"formats.yaml, {name}") for name, given in _data().items()}


@lru_cache(maxsize=1)
def evidence() -> dict[str, Marks]:
    """Name of a built-in format -> strings that are all in the chat template or the added tokens of its models."""
    shown = {name: _data()[name].get("shown_by", form.closing[:1]) for name, form in built_in().items()}
    return {name: (strings,) if isinstance(strings, str) else tuple(strings) for name, strings in shown.items()}


def load_format(option: str) -> ThinkingFormat:
    """The format that `--thinking-format` names: a built-in one, or a YAML file.

    Raises:
        InputError: an unknown name, or a file that cannot be read or is malformed.
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
"""``<think> … </think>``, the default."""
BY_MARKS = ByMarks(THINK)


def format_of_rows(option: str) -> Form:
    """The meaning of `--thinking-format` for rows of a file, without a model. Raises as `load_format`."""
    return BY_MARKS if option == AUTO else load_format(option)


def marks_of(form: Form) -> ThinkingFormat:
    """The format whose marks are put around thinking from a separate field of a file: `form` if it is one format with
    marks, else ``<think>``."""
    return form if isinstance(form, ThinkingFormat) and form.bridge else THINK


def recorded_format(file: Path) -> Form:
    """The thinking format recorded in an environment.json; without one, responses are read by their own marks."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8")).get("thinking_format")
        return BY_MARKS if facts is None else ThinkingFormat.from_json(facts)
    except (OSError, ValueError, TypeError, AttributeError):  # files of other tools and of older versions
        return BY_MARKS


def format_of_trim(trim: Mapping[str, Any], where: str) -> Form:
    """The thinking format recorded in the field "trim" of a row of `attnpo trim`; responses of older files, which have
    none, are read by their own marks. Raises InputError, which begins with `where`, for anything but a format."""
    facts = trim.get("thinking_format")
    if facts is None:
        return BY_MARKS
    where = f"{where}: field 'thinking_format' of 'trim'"
    if not isinstance(facts, Mapping):
        raise InputError(f"{where} is {facts!r:.80}, expected an object with fields such as opening")
    try:
        return ThinkingFormat.from_json(facts)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def formats_found(texts: Iterable[str], form: Form) -> str:
    """One line for the screen: the formats with which these responses are read."""
    return f"thinking format: {', '.join(sorted({str(form.of(text)) for text in texts}))}"


def recognise(text: str, first: ThinkingFormat = THINK) -> ThinkingFormat | None:
    """The built-in format (or `first`) whose marks a response contains; None if it contains none.

    Preferred in this order: a format that opens and ends the thinking; `first` or ``<think>`` if it ends it; a format
    that opens it; the format whose end comes first.
    """
    forms = (first, *built_in().values())
    opens = [form for form in forms if form.opened(text) is not None]
    ends = {form.name: at for form in forms if (at := first_of(form.ends, text, 0)) is not None}
    opens_and_ends = [form for form in opens if form.name in ends]
    usual = [form for form in (first, THINK) if form.name in ends]
    earliest = sorted((form for form in forms if form.name in ends), key=lambda form: ends[form.name][0])
    return next(iter((*opens_and_ends, *usual, *opens, *earliest)), None)


def first_of(marks: Sequence[str], text: str, start: int) -> tuple[int, int] | None:
    """[start, end) of the first of these marks from `start` on, the longest of those that begin there; None without."""
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
    """The marks of all built-in formats, and the tag-like pieces of marks composed of several."""
    marks = {mark for form in built_in().values() for mark in (*form.opening, *form.ends)}
    return frozenset(marks | {piece for mark in marks for piece in _PIECE.findall(mark)})


def mark_tokens(tokenizer: Any, form: ThinkingFormat) -> frozenset[int]:
    """Token ids that are a mark, or a piece of one, and therefore text even if they are special tokens.

    The tokenizer's end, padding and unknown tokens are not among them.
    """
    ids = {tokenizer.convert_tokens_to_ids(piece) for piece in _pieces(form)}
    return frozenset(
        ids - {None, tokenizer.eos_token_id, tokenizer.pad_token_id, getattr(tokenizer, "unk_token_id", None)}
    )
