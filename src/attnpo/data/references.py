r"""Reference answers in the forms of data sets: after ``####``, in the ``\boxed{}`` of a solution, numbers, lists.

A reference is one text everywhere in this package. Several correct answers are a JSON list of texts,
``["1/2", "0.5"]``: a response is right if it equals one of them. This is the only module that reads the content of a
``\boxed{…}``, with balanced braces. Imports only the standard library, because every verifying process loads it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

MOST_WORDS = 20
"""Words of an answer; a longer text without a marked answer is a worked solution. The longest gold answer of the
benchmarks has 12 (a formula and the meaning of its letters)."""

_HASHES = re.compile(r"\s*####(?!#)\s*(\S.*)")
_TAG = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL | re.IGNORECASE)
HOPED_FORMULA = re.compile(r"final answer is:?\s*(?:\$([^$\n]+)\$|\\\((.+?)\\\))\.?\s*I hope", re.IGNORECASE)
_ANNOUNCED = re.compile(r"\banswer(?:\s+is\s*:?|\s*:)\s*(\S.*?)\s*$", re.IGNORECASE)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_FORMULA = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]", re.DOTALL)
_WRITTEN = "as written"


@dataclass(frozen=True)
class Reference:
    """An answer found in a cell. `how`: its place in the cell, in words."""

    text: str
    how: str = _WRITTEN

    @property
    def is_marked(self) -> bool:
        """Whether the cell marks this text as the answer."""
        return self.how != _WRITTEN


def read_reference(value: Any) -> Reference | None:
    r"""The answer in a cell of a data set; None where there is none.

    The cell may hold a text, a number, or a list of these. The answer in a text is what follows ``####`` on its last
    line, else the content of its last ``\boxed{}``, else of its last ``<answer>`` tag, else what follows "answer is"
    at its end, else the complete text, unless that is a worked solution (more than `MOST_WORDS` words).

    >>> read_reference("4*6 = <<4*6=24>>24\n#### 24"), read_reference("So $x = \\boxed{\\frac{1}{2}}$.")
    (Reference(text='24', how='after ####'), Reference(text='\\frac{1}{2}', how='in \\boxed{}'))
    >>> read_reference(7.0), read_reference(["1/2", 0.5]), read_reference(None)
    (Reference(text='7', how='as written'), Reference(text='["1/2", "0.5"]', how='in a list'), None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        number = _written(value)
        return None if number is None else Reference(number)
    if isinstance(value, str):
        listed = _json_texts(value)
        return _of_text(value) if listed is None else _of_list(listed)
    return _of_list(value) if isinstance(value, Sequence) and not isinstance(value, bytes) else None


def alternatives(reference: str) -> list[str]:
    """The correct answers that a reference lists, each without surrounding text; usually one.

    Empty for a worked solution without a marked answer.

    >>> alternatives("42"), alternatives('["1/2", "0.5"]'), alternatives("5 + 2 = 7\\n#### 7"), alternatives("[1, 2]")
    (['42'], ['1/2', '0.5'], ['7'], ['[1, 2]'])
    """
    read = read_reference(reference)
    if read is None:
        return []
    return _json_texts(read.text) or [read.text]


def is_solution(text: str) -> bool:
    """Whether a text has too many words for an answer; formulas do not count as words.

    >>> is_solution("$f(x) = ax$ for any $a$"), is_solution("First we add the two numbers and then we see. " * 3)
    (False, True)
    """
    return len(_WORD.findall(_FORMULA.sub(" ", text))) > MOST_WORDS


def _of_text(text: str) -> Reference | None:
    text = text.strip()
    last_line = text[text.rfind("\n") + 1 :]
    if hashes := _HASHES.match(last_line):  # on another line they are a heading
        return Reference(hashes[1], "after ####")
    # closed boxes only: a text with an open one, or one without braces, is left to the verifier
    if boxed_texts(text) and (box := final_box(text)) is not None:
        return Reference(box[1], "in \\boxed{}")
    if tags := [tag for tag in _TAG.findall(text) if tag]:
        return Reference(tags[-1], "in <answer>")
    if hoped := next(reversed(list(HOPED_FORMULA.finditer(text))), None):
        return Reference(hoped[1] or hoped[2], "after 'answer is'")
    if announced := _ANNOUNCED.search(last_line):
        return Reference(announced[1].strip("*").rstrip("."), "after 'answer is'")
    return Reference(text) if text and not is_solution(text) else None


def _of_list(values: Sequence[Any]) -> Reference | None:
    read = [read_reference(value) for value in values]
    texts = list(dict.fromkeys(one.text for one in read if one is not None))
    if not texts or None in read:
        return None
    return Reference(texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False), "in a list")


def _written(number: float) -> str | None:
    """The digits without an exponent; None for NaN and infinity. Whole numbers lose the .0 that pandas adds where their
    column has missing cells.

    >>> _written(72.0), _written(1e-05), _written(10**20), _written(float("nan"))
    ('72', '0.00001', '100000000000000000000', None)
    """
    if isinstance(number, int):
        return str(number)
    if not math.isfinite(number):
        return None
    return str(int(number)) if number.is_integer() else format(Decimal(repr(number)), "f")


def _json_texts(text: str) -> list[str] | None:
    """The texts of a JSON list of texts, as some data sets store lists; None for any other text."""
    text = text.strip()
    if not text.startswith("[") or not text.endswith("]") or '"' not in text:
        return None
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return values if values and all(isinstance(value, str) for value in values) else None


_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*\{")
_BARE_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*([^\s{}$\\][^\s{}$]*|\\(?:frac|sqrt|pi)\S*)")
_BETWEEN_BOXES = re.compile(
    r"(?:[\s$,;&]|\\[()\[\],;:! ]|\\q?quad|\\text\s*\{[^{}]*\b(?:and|or)\s*\}|(?:\s[a-z]+)?\s(?:and|or)\s"
    # "\boxed{1} and $y_2 = \boxed{2}$"; without "and" or a comma the second may repeat the first
    r"|(?:,|;|\b(?:and|or)\b)(?:[\s$]|\\[()])*[A-Za-z](?:_\w|_\{\w+\})?\s*=\s*)*"
)


def boxed_texts(text: str) -> list[str]:
    r"""Contents of every closed box, in order, braces balanced. Linear in the length of the text.

    >>> boxed_texts(r"\boxed{1}, so \boxed{\frac{1}{2}} and \boxed{3")
    ['1', '\\frac{1}{2}']
    """
    return [text[start:end].strip() for start, end in _boxes(text)]


def _boxes(text: str) -> list[tuple[int, int]]:
    found, start = [], 0
    while box := _BOX.search(text, start):
        end = closing(text, box.end())
        if end is None:
            break
        found.append((box.end(), end))
        start = end
    return found


def closing(text: str, start: int) -> int | None:
    """Index of the brace that closes the one opened just before `start`; escaped braces do not count."""
    depth = 1
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return None


def final_box(text: str) -> tuple[int, str] | None:
    r"""End and content of the last box; boxes with only separators between them are one list.

    >>> final_box(r"\boxed{1} is wrong. $\boxed{2}$, $\boxed{3}$")[1]
    '2, 3'
    """
    boxes = [(start, end) for start, end in _boxes(text) if text[start:end].strip()]
    bare = None if boxes else next(reversed(list(_BARE_BOX.finditer(text))), None)
    if bare is not None:
        return bare.end(), bare[1].rstrip(".,;")
    if not boxes:
        opened = text.rfind("\\boxed{")
        content = text[opened + 7 :].split("\n")[0].strip(" $.") if opened >= 0 else ""
        return (len(text), content) if content.strip("} ") else None
    first = len(boxes) - 1
    while first > 0:
        before = re.sub(r"\\(?:f?boxed|fbox)\s*\{$", "", text[boxes[first - 1][1] + 1 : boxes[first][0]])
        if not _BETWEEN_BOXES.fullmatch(before):
            break
        first -= 1
    contents = dict.fromkeys(text[start:end].strip() for start, end in boxes[first:])
    return boxes[-1][1], ", ".join(contents)
