r"""The contents of ``\boxed{…}``."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*\{")


def boxed_texts(text: str) -> list[str]:
    r"""Contents of every closed box, in order, braces balanced. Linear in the length of the text.

    >>> boxed_texts(r"\boxed{1}, so \boxed{\frac{1}{2}} and \boxed{3")
    ['1', '\\frac{1}{2}']
    """
    found, start = [], 0
    while box := _BOX.search(text, start):
        end = _closing(text, box.end())
        if end is None:
            break
        found.append(text[box.end() : end].strip())
        start = end
    return found


def _closing(text: str, start: int) -> int | None:
    """Where the brace opened just before `start` closes; escaped braces do not count."""
    depth = 1
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return None
