"""The phrases that open a new step, and the one compiled pattern that finds them.

Source: ATTNPO (arXiv 2602.09953) and its released scripts. The lists are in ``lexicon.json``.

How often a response turns, goes forward or concludes: counts behind the per-1k-token metrics.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from attnpo.errors import InputError

LEXICONS = ("paper", "released")

# The released script lacks a comma between two neighbouring list entries, so Python joins them into one phrase.
_SLIP = ("No,", "Let me double-check")

# These cut only at the start of a line; the others cut wherever they occur.
LINE_START_KINDS = frozenset({"forward", "backward"})


@dataclass(frozen=True, slots=True)
class Trigger:
    """A phrase found in a text that opens a step: characters [start, end), and the list the phrase is in."""

    start: int
    end: int
    list_name: str


@dataclass(frozen=True)
class Lexicon:
    """One set of phrase lists.

    Attributes:
        name: ``paper`` or ``released``.
        phrases: phrase -> list name (transition, branch, forward, backward, answer).
        pattern: finds the phrases, the longest first at each position.
    """

    name: str
    phrases: Mapping[str, str]
    pattern: re.Pattern[str]

    def triggers(self, thinking: str) -> Iterator[Trigger]:
        """The phrases of `thinking` that count, left to right, without overlap.

        A forward or backward phrase in the middle of a line is scanned over, but does not count.
        """
        for match in self.pattern.finditer(thinking):
            start, list_name = match.start(), self.phrases[match.group()]
            if list_name in LINE_START_KINDS and (start == 0 or thinking[start - 1] != "\n"):
                continue
            yield Trigger(start, match.end(), list_name)


@lru_cache(maxsize=len(LEXICONS))
def load_lexicon(name: str = "paper") -> Lexicon:
    """The lexicon called `name`: ``paper`` (default) or ``released`` (with the slip of the released script).

    Raises:
        InputError: there is no lexicon of that name.
    """
    if name not in LEXICONS:
        raise InputError(f"lexicon {name!r} does not exist; choose one of: {', '.join(LEXICONS)}")
    lists: dict[str, list[str]] = json.loads((files("attnpo.steps") / "lexicon.json").read_text(encoding="utf-8"))
    phrases = {phrase: list_name for list_name, members in lists.items() for phrase in members}
    if name == "released":
        for phrase in _SLIP:
            assert phrases.pop(phrase) == "transition"
        phrases["".join(_SLIP)] = "transition"
    longest_first = sorted(phrases, key=len, reverse=True)
    return Lexicon(name, phrases, re.compile("|".join(map(re.escape, longest_first))))


PHRASE_KINDS = ("transition", "branch", "forward", "backward", "answer")


def phrase_counts(thinking: str, lexicon: str = "paper") -> dict[str, int]:
    """Number of counted triggers of each phrase list in `thinking`.

    All five kinds are present, with 0 where none was found. Merging of short steps does not change the counts.

    Raises:
        InputError: unknown lexicon.

    >>> phrase_counts("Wait, no.\\nSo it is 4. But why?")
    {'transition': 2, 'branch': 0, 'forward': 0, 'backward': 1, 'answer': 0}
    """
    counts: dict[str, int] = dict.fromkeys(PHRASE_KINDS, 0)
    for trigger in load_lexicon(lexicon).triggers(thinking):
        counts[trigger.list_name] += 1
    return counts
