"""How close an answer must come to its reference where "equal" is too much to ask: measured quantities, units.

Imports only the standard library: every verifying process loads it.
"""

from __future__ import annotations

import math
import re
from typing import Any, TypedDict

MEASURED_SHARE = 0.01
"""A measured quantity may be off by 1 % at most, however few digits its reference has."""

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
    if tolerance <= 0 or isinstance(gold, str) or isinstance(value, str):
        return False
    if not (getattr(gold, "is_number", False) and getattr(value, "is_number", False)):
        return False
    if not (gold.is_real and value.is_real):
        return False
    # A hair more than the tolerance, which the rounding of decimal fractions eats.
    return math.isclose(float(gold), float(value), rel_tol=0, abs_tol=tolerance * (1 + 1e-9))


def without_unit(answer: str, rules: Rules) -> str:
    """`answer` without per cent signs where the reference counts per cents; other units are dropped by math-verify."""
    return re.sub(r"\\?%", "", answer) if rules.get("unit") == "%" else answer
