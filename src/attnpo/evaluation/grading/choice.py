r"""Multiple choice: which letter a response settles on.

The first of these that the text has, and within it the last occurrence:

1. ``\boxed{C}``, ``\boxed{\text{(C)}}``, ``\boxed{C. some text}``; or the text of exactly one choice in the box;
2. ``Answer: C``, ``the answer is (C)``, ``the correct choice is **C**``; or the text of exactly one choice there;
3. a last line that is a letter (``(C)``, ``**C.**``, ``C) some text``) with no other in brackets, but in a choice;
4. the last letter in brackets, ``(C)``.

An "A" or "I" in running prose is never taken for a choice; nor are several letters (``A, B``). In 1 and 2 a small
letter that stands alone will do. A letter beyond the last choice is an answer, and wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attnpo.evaluation.grading.graded import Graded
from attnpo.rewards.extraction import boxed_texts
from attnpo.rewards.verdict import Verdict

LONGEST_ANSWER = 20_000
"""Characters; of a longer answer the end is read."""

_WRAPPING = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boldsymbol|mbox)\b|\\[()\[\],;! ]|[*_`${}~]")
_AND_ANOTHER = r"\)?(?:\s*(?:[,;/&]|and\b|or\b))+\s*\(?[A-Z]\)?\s*(?:[.,;/&]|and\b|or\b|$)"
_LETTER = re.compile(rf"\(?\s*([A-Z])(?!{_AND_ANOTHER})\s*(?:\)|[.:,)](?=\s|$)|$)")
_SMALL_LETTER = re.compile(r"\(?([a-z])\)?\.?")
_ANNOUNCED = re.compile(
    r"(?:\banswer|\bchoice|\boption)\s*(?:is|:|=)\s*(?:(?:the\s+)?(?:choice|option|letter)\s*)?:?\s*(?=(?P<rest>\S[^\n]*))",
    re.IGNORECASE,
)
_IN_BRACKETS = re.compile(r"\(([A-Z])\)")
_SEVERAL_IN_BRACKETS = re.compile(r"\([A-Z]\)(?:(?:\s*(?:[,;/&]|and\b|or\b))+\s*\([A-Z]\))+")


def grade_choice(answer: str, reference: str, choices: Sequence[str]) -> Graded:
    """The verdict on a final answer; `reference` is a letter."""
    letter = choice_of(answer, choices)
    if letter is None:
        return Graded(Verdict.NO_ANSWER, None)
    return Graded(Verdict.RIGHT if letter == reference.strip().upper() else Verdict.WRONG, letter)


def choice_of(answer: str, choices: Sequence[str]) -> str | None:
    """The letter that `answer` settles on; None if it names none."""
    answer = answer[-LONGEST_ANSWER:]
    for text in reversed(boxed_texts(answer)):
        if letter := _letter_or_text(text, choices):
            return letter
    plain = _WRAPPING.sub("", answer)
    for found in reversed(list(_ANNOUNCED.finditer(plain))):
        if letter := _letter_or_text(found["rest"], choices):
            return letter
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    if lines and (found := _LETTER.match(lines[-1])):
        rest = lines[-1][found.end() :]
        # "(A) is wrong, so (B)" begins with a letter, but does not settle on it; a choice's own text may hold another.
        if not _IN_BRACKETS.search(rest) or _plain(rest) in map(_plain, choices):
            return found[1]
    bracketed = _IN_BRACKETS.findall(_SEVERAL_IN_BRACKETS.sub("", plain))
    return bracketed[-1] if bracketed else None


def _letter_or_text(text: str, choices: Sequence[str]) -> str | None:
    plain = _WRAPPING.sub("", text).strip()
    if found := _LETTER.match(plain):
        return found[1]
    same = [index for index, choice in enumerate(choices) if _plain(choice) == _plain(plain)]
    if same:
        return chr(ord("A") + same[0]) if len(same) == 1 else None
    small = _SMALL_LETTER.fullmatch(plain)
    return small[1].upper() if small else None


def _plain(text: str) -> str:
    return " ".join(_WRAPPING.sub("", text).casefold().split()).rstrip(" .")
