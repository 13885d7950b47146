"""The phrases that open a new step, and the one compiled pattern that finds them.

Source: ATTNPO (arXiv 2602.09953) and its released scripts. Their lists are in ``lexicon.json``, this project's Chinese
ones in ``lexicon_zh.json``; models that write differently can use a file of the same form (`read_lexicon`). Lexicons
are joined by ``+``; ``paragraphs`` has no phrases and cuts at blank lines, in any language.

`phrase_counts` counts the phrases of each kind, for the metrics per 1,000 tokens.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from itertools import accumulate
from pathlib import Path

from attnpo.errors import InputError

LEXICONS = ("paper", "released")
"""The lexicons of the method. They never change."""

PARAGRAPHS = "paragraphs"
NAMES = (*LEXICONS, "zh", PARAGRAPHS)
PHRASE_KINDS = ("transition", "branch", "forward", "backward", "answer")

# The released script lacks a comma between these two list entries, so Python joins them into one phrase.
_MISSING_COMMA = ("No,", "Let me double-check")

# These cut only at the start of a line; the others cut wherever they occur.
LINE_START_KINDS = frozenset({"forward", "backward"})

WIDE = 3
"""English letters that a Chinese, Japanese or Korean character counts for, in lexicons with ``wide_characters``: the 80
characters below which a step is merged are about 15 English words, which correspond to about 27 Chinese characters."""

_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_SENTENCE_END = re.compile(r"(?:^|[\n。！？!?；;….])[\s“”\"'‘’（(「『*]*$")
_LONGEST_GAP = 12  # characters searched backwards for the end of the previous sentence
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*(?=\S)")


@dataclass(frozen=True, slots=True)
class Trigger:
    """A phrase that opens a step: its characters [start, end), and the list it is in; or the start of a paragraph."""

    start: int
    end: int
    list_name: str


@dataclass(frozen=True)
class Lexicon:
    """One set of phrase lists, or several joined.

    Attributes:
        name: ``paper``, ``released``, ``paper+zh``, the name of a file, …
        phrases: phrase -> list name (transition, branch, forward, backward, answer).
        pattern: finds the phrases, the longest first at each position; None where there are none.
        at_sentences: phrases of transition and branch that count only at the start of a sentence: in languages without
            capital letters nothing else shows that a "but" opens one.
        wide_characters: whether a Chinese, Japanese or Korean character counts as `WIDE` when short steps are merged.
        paragraphs: whether blank lines cut too.
    """

    name: str
    phrases: Mapping[str, str]
    pattern: re.Pattern[str] | None
    at_sentences: frozenset[str] = field(default_factory=frozenset)
    wide_characters: bool = False
    paragraphs: bool = False

    def triggers(self, thinking: str) -> Iterator[Trigger]:
        """The phrases of `thinking` that count, left to right, without overlap, and the starts of other paragraphs.

        A forward or backward phrase in the middle of a line is matched, but does not count.
        """
        if not self.paragraphs:
            yield from self._phrases_of(thinking)
            return
        found = list(self._phrases_of(thinking))
        taken = {trigger.start for trigger in found}
        starts = (match.end() for match in _PARAGRAPH.finditer(thinking))
        found += [Trigger(start, start, PARAGRAPHS) for start in starts if start not in taken]
        yield from sorted(found, key=lambda trigger: trigger.start)

    def _phrases_of(self, thinking: str) -> Iterator[Trigger]:
        if self.pattern is None:
            return
        for match in self.pattern.finditer(thinking):
            start, list_name = match.start(), self.phrases[match.group()]
            if list_name in LINE_START_KINDS and (start == 0 or thinking[start - 1] != "\n"):
                continue
            if match.group() in self.at_sentences and not _begins_sentence(thinking, start):
                continue
            yield Trigger(start, match.end(), list_name)

    def widths(self, thinking: str) -> list[int] | None:
        """The width of the text before each character, with one more entry for the end. Steps are merged by width.

        None without `wide_characters`: every character has width 1.
        """
        if not self.wide_characters:
            return None
        return list(accumulate((WIDE if _WIDE.match(character) else 1 for character in thinking), initial=0))


def _begins_sentence(text: str, start: int) -> bool:
    return start == 0 or _SENTENCE_END.search(text[max(0, start - _LONGEST_GAP) : start]) is not None


@dataclass(frozen=True)
class _Lists:
    """The content of one lexicon: phrase -> list name, and its two switches."""

    phrases: dict[str, str]
    sentence_start: bool = False
    wide_characters: bool = False


def load_lexicon(name: str = "paper") -> Lexicon:
    """The lexicon called `name`: ``paper`` (default), ``released`` (with the missing comma of the released script),
    ``zh``, ``paragraphs``, a JSON file, or several joined by ``+``. A phrase in two of them has the list of the last.

    Raises:
        InputError: there is no lexicon of that name, or its file is malformed (list and phrase named).
    """
    parts = [name] if Path(name).is_file() else name.split("+")
    return _joined(name, tuple((part, _file_version(part)) for part in parts))


def _file_version(part: str) -> tuple[int, int] | None:
    """Time and size of a lexicon file, so that a changed file is read again; None for a lexicon of the package."""
    if part in NAMES:
        return None
    try:
        about = os.stat(part)
    except OSError as error:
        if part.endswith(".json") or os.sep in part:
            raise InputError(f"lexicon {part}: cannot be read ({error.strerror})") from error
        raise InputError(
            f"lexicon {part!r} does not exist; choose one of: {', '.join(NAMES)}, a JSON file, or several joined by +"
        ) from error
    return about.st_mtime_ns, about.st_size


@lru_cache(maxsize=32)
def _joined(name: str, parts: tuple[tuple[str, tuple[int, int] | None], ...]) -> Lexicon:
    phrases: dict[str, str] = {}
    at_sentences: set[str] = set()
    wide = False
    for part, version in parts:
        if part == PARAGRAPHS:
            wide = True
            continue
        lists = _packaged(part) if version is None else read_lexicon(part)
        phrases |= lists.phrases
        at_sentences -= lists.phrases.keys()
        if lists.sentence_start:
            at_sentences |= {phrase for phrase, kind in lists.phrases.items() if kind in ("transition", "branch")}
        wide |= lists.wide_characters
    longest_first = sorted(phrases, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first))) if phrases else None
    paragraphs = any(part == PARAGRAPHS for part, _ in parts)
    return Lexicon(name, phrases, pattern, frozenset(at_sentences), wide, paragraphs)


def _packaged(name: str) -> _Lists:
    if name == "zh":
        content = (files("attnpo.steps") / "lexicon_zh.json").read_text(encoding="utf-8")
        return _checked(json.loads(content), "lexicon_zh.json")
    lists: dict[str, list[str]] = json.loads((files("attnpo.steps") / "lexicon.json").read_text(encoding="utf-8"))
    phrases = {phrase: list_name for list_name, members in lists.items() for phrase in members}
    if name == "released":
        for phrase in _MISSING_COMMA:
            assert phrases.pop(phrase) == "transition"
        phrases["".join(_MISSING_COMMA)] = "transition"
    return _Lists(phrases)


def read_lexicon(path: str | os.PathLike[str]) -> _Lists:
    """The lists of a JSON file: an object with the five lists of texts (any may be absent), for languages without
    capital letters also ``"sentence_start": true``, and for Chinese, Japanese and Korean ``"wide_characters": true``.
    Names that begin with an underscore are notes.

    Raises:
        InputError: anything else; names the list and the position in it.
    """
    try:
        content = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"lexicon {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"lexicon {path}, byte {error.start + 1}: not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise InputError(f"lexicon {path}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    return _checked(content, os.fspath(path))


_SWITCHES = ("sentence_start", "wide_characters")


def _checked(content: object, path: str) -> _Lists:
    expected = f"an object with lists of texts: {', '.join(PHRASE_KINDS)}"
    if not isinstance(content, dict):
        raise InputError(f"lexicon {path}: found {type(content).__name__}, expected {expected}")
    phrases: dict[str, str] = {}
    for name, value in content.items():
        if name.startswith("_"):
            continue
        if name in _SWITCHES:
            if not isinstance(value, bool):
                raise InputError(f"lexicon {path}: {name} is {value!r}, expected true or false")
            continue
        if name not in PHRASE_KINDS:
            raise InputError(
                f"lexicon {path}: found a list {name!r}, expected {', '.join((*PHRASE_KINDS, *_SWITCHES))}"
            )
        if not isinstance(value, list):
            raise InputError(f"lexicon {path}: {name} is {value!r}, expected a list of texts")
        for row, phrase in enumerate(value, start=1):
            where = f"lexicon {path}: {name}, phrase {row}"
            if not isinstance(phrase, str) or not phrase.strip():
                raise InputError(f"{where} is {phrase!r}, expected a text")
            if "\n" in phrase:
                raise InputError(f"{where}, {phrase!r}, has a line break, expected the words that open a step")
            if phrase in phrases:
                raise InputError(f"{where}, {phrase!r}, is already in {phrases[phrase]}, expected it once")
            phrases[phrase] = name
    if not phrases:
        raise InputError(f"lexicon {path}: has no phrases, expected {expected}")
    return _Lists(phrases, content.get("sentence_start", False), content.get("wide_characters", False))


def phrase_counts(thinking: str, lexicon: str = "paper") -> dict[str, int]:
    """Number of counted triggers of each phrase list in `thinking`.

    All five kinds are present, with 0 if none was found. Merging short steps does not change the counts.

    Raises:
        InputError: unknown lexicon.

    >>> phrase_counts("Wait, no.\\nSo it is 4. But why?")
    {'transition': 2, 'branch': 0, 'forward': 0, 'backward': 1, 'answer': 0}
    """
    counts: dict[str, int] = dict.fromkeys(PHRASE_KINDS, 0)
    for trigger in load_lexicon(lexicon).triggers(thinking):
        if trigger.list_name in counts:
            counts[trigger.list_name] += 1
    return counts
