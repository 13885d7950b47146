r"""What stands in a ``\boxed{…}``: the one place that reads boxes with their braces balanced.

Imports only the standard library: every verifying process loads it.
"""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*\{")
_BARE_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*([^\s{}$\\][^\s{}$]*|\\(?:frac|sqrt|pi)\S*)")
_BETWEEN_BOXES = re.compile(
    r"(?:[\s$,;&]|\\[()\[\],;:! ]|\\q?quad|\\text\s*\{[^{}]*\b(?:and|or)\s*\}|(?:\s[a-z]+)?\s(?:and|or)\s"
    # "\boxed{1} and $y_2 = \boxed{2}$"; without "and" or a comma it may be the same answer once more
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
    """Where the brace opened just before `start` closes; escaped braces do not count."""
    depth = 1
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return None


def final_box(text: str) -> tuple[int, str] | None:
    r"""Where the last box ends, and its content; boxes with nothing but separators between are one list.

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
