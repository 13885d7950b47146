"""Options that name one whole number or a range of them."""

from __future__ import annotations

import re

from attnpo.errors import InputError


def parse_range(text: str, option: str, noun: str) -> tuple[int, int]:
    """Lowest and highest number out of "2" or "1-3".

    Raises InputError, naming the option, for anything else.
    """
    found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    if found is None:
        raise InputError(f"option {option}: found {text!r}, expected one {noun} such as 2, or a range such as 1-3")
    return int(found[1]), int(found[2] or found[1])
