"""How close an answer must come to its reference where "equal" is too much to ask: measured quantities, units.

Imports only the standard library: every verifying process loads it.
"""

from __future__ import annotations

import math
import re
from typing import Any, TypedDict

MEASURED_SHARE = 0.01
"""A measured quantity may be off by 1 % at most, however few digits its reference has."""

SIX_DECIMALS = 1e-6
SMALL_NUMBERS = 1e-4
"""Numbers that differ by less than the first must also agree within this share of their size."""

_BASE = re.compile(r"^\W*[0-9A-Z]+_\s*\{?\s*(\d+)\s*\}?\W*$")
_NUMBER = re.compile(r"[+-]?(?P<digits>\d*\.?\d+)(?:e(?P<exponent>[+-]?\d+))?$", re.IGNORECASE)


class Rules(TypedDict, total=False):
    """Options of one comparison.

    Attributes:
        tolerance: largest absolute difference.
        measured: the reference was computed from data and rounded; half a unit of its last digit is allowed.
        unit: what the reference is counted in, as the data set writes it; an answer may name it.
    """

    tolerance: float
    measured: bool
    unit: str


def tolerance_of(reference: str, rules: Rules) -> float:
    """Largest absolute difference between an answer and `reference`; 0: they must be equal.

    A whole number is exact. Any other measured number may be off by half a unit of its last digit, or 1 %, whichever is
    less: 3.61e-10 by 0.005e-10, 0.5 by 0.005.
    """
    if "tolerance" in rules:
        return rules["tolerance"]
    number = _NUMBER.match(reference.strip())
    if not rules.get("measured") or number is None or reference.strip().lstrip("+-").isdigit():
        return 0.0
    decimals = len(number["digits"].partition(".")[2])
    last_digit = 10.0 ** (int(number["exponent"] or 0) - decimals)
    return min(last_digit / 2, MEASURED_SHARE * abs(float(reference)))


def is_close(gold: Any, value: Any, tolerance: float) -> bool:
    """Whether two sympy numbers differ by at most `tolerance`; False for anything that is no real number."""
    if tolerance <= 0 or (pair := _as_floats(gold, value)) is None:
        return False
    # A hair more than the tolerance, which the rounding of decimal fractions eats.
    return math.isclose(*pair, rel_tol=0, abs_tol=tolerance * (1 + 1e-9))


def is_rounded_away(gold: Any, value: Any) -> bool:
    """Whether two different numbers look equal only because math-verify rounds to six decimals: 2e-19 and 3e-19."""
    if gold == value or (pair := _as_floats(gold, value)) is None:
        return False
    return abs(pair[0] - pair[1]) < SIX_DECIMALS and not math.isclose(*pair, rel_tol=SMALL_NUMBERS)


def _as_floats(gold: Any, value: Any) -> tuple[float, float] | None:
    """Both as floats; None unless both are real sympy numbers, and not beyond all floats."""
    for number in (gold, value):
        if not (getattr(number, "is_number", False) and getattr(number, "is_real", False)):
            return None
    try:
        return float(gold), float(value)
    except OverflowError:
        return None


def is_other_base(reference: str, read: str) -> bool:
    """Whether both name the base of a number, and not the same one: 52_8 and 52_9. math-verify drops the base."""
    ours, theirs = _BASE.search(reference), _BASE.search(read)
    return ours is not None and theirs is not None and ours[1] != theirs[1]


def without_unit(answer: str, rules: Rules) -> str:
    """`answer` without per cent signs where the reference counts per cents; other units are dropped by math-verify."""
    return re.sub(r"\\?%", "", answer) if rules.get("unit") == "%" else answer
