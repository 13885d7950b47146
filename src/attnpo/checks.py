"""Checks of options, shared by the methods: what is wrong is named, with what was found and what was expected."""

from __future__ import annotations

import math
from typing import Any

from attnpo.errors import InputError


def check_number(option: str, value: Any, *, low: float = -math.inf, high: float = math.inf) -> None:
    """Raises InputError naming `option` unless `value` is a finite number in [low, high]."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{option}: found {value!r}, expected a number in [{low:g}, {high:g}]")


def check_whole(option: str, value: Any, *, low: int) -> None:
    """Raises InputError naming `option` unless `value` is a whole number of at least `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(f"{option}: found {value!r}, expected a whole number of at least {low}")


def check_flag(option: str, value: Any) -> None:
    """Raises InputError naming `option` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{option}: found {value!r}, expected true or false")
