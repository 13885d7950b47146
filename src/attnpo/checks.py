"""Checks of options, shared by the methods. Errors name the option, the value found and the value expected."""

from __future__ import annotations

import math
import re
from typing import Any

from attnpo.errors import InputError


def check_number(option: str, value: Any, *, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise InputError naming `option` unless `value` is a finite number in [low, high]."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{option}: found {value!r}, expected a number in [{low:g}, {high:g}]")


def check_whole(option: str, value: Any, *, low: int) -> None:
    """Raise InputError naming `option` unless `value` is an integer of at least `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(f"{option}: found {value!r}, expected a whole number of at least {low}")


def check_flag(option: str, value: Any) -> None:
    """Raise InputError naming `option` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{option}: found {value!r}, expected true or false")


_LATEX_IN_N = (
    "nabla natural ne nearrow neg neq newline nexists ngeq ni nleq nmid nolimits not notin nsubseteq nu nwarrow"
)
_BREAK = re.compile(rf"\\(?!(?:{_LATEX_IN_N.replace(' ', '|')})(?![a-zA-Z]))n")


def read_escapes(text: str) -> str:
    r"""Replace each \n in `text` by a line break, for prompts given on a command line.

    LaTeX commands (\neq, \nu) and everything else after a backslash stay unchanged.

    >>> print(read_escapes(r"Problem: {problem}\nPut it into \boxed{}.\n<think>\n"), end="")
    Problem: {problem}
    Put it into \boxed{}.
    <think>
    >>> read_escapes(r"\neq") == r"\neq"
    True
    """
    return _BREAK.sub("\n", text)


def parse_range(text: str, option: str, noun: str) -> tuple[int, int]:
    """Read the lowest and the highest number of "2" or "1-3".

    Raises InputError, naming the option, for anything else.
    """
    found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    if found is None:
        raise InputError(f"option {option}: found {text!r}, expected one {noun} such as 2, or a range such as 1-3")
    return int(found[1]), int(found[2] or found[1])
