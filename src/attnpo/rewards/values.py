"""Values of formulas, exact or with many digits: numbers, and formulas with letters evaluated in the same points.

Imports only the standard library, mpmath and sympy, because every verifying process loads it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from typing import Any

import mpmath
import sympy

SMALL_NUMBERS = 1e-4
"""Rounded numbers must also agree within this share of their size; it decides where rounding leaves few digits."""
STEPPED = (sympy.floor, sympy.ceiling, sympy.Mod, sympy.factorial, sympy.binomial)
"""Functions of whole numbers, and functions that are constant or periodic between jumps."""
STEPPED_TO = 40
"""Formulas with such functions are compared on the whole numbers from 1 to this."""
DIGITS = 40
"""Digits of the evaluations that show two formulas to differ."""
MOST_DIGITS = 300
"""Digits of the evaluations that show two exact values to be equal."""

_MP = mpmath.MPContext()
_MP.dps = DIGITS


def rounds_to(ours: Any, theirs: Any, decimals: int) -> bool:
    """Whether the two are equal to `decimals` decimals and within a share of `SMALL_NUMBERS` of their size."""
    difference = abs(ours - theirs)
    largest = max(abs(ours), abs(theirs))
    return bool(difference < 0.6 / 10**decimals and difference <= SMALL_NUMBERS * largest)


def number_of(value: Any) -> Any:
    """`value` as an exact rational, or a complex number of `DIGITS` digits; None if it is not a finite number."""
    if not value.is_Rational:
        value = value.doit()
    if value.is_Rational:
        return Fraction(int(value.p), int(value.q))
    value = value.evalf(DIGITS, maxn=1000)
    if not value.is_number or value.is_finite is not True:
        return None
    parts = value.as_real_imag()
    if not all(part.is_Rational or part.is_Float for part in parts):
        return None
    return _MP.mpc(*(_MP.mpf(part.p) / part.q if part.is_Rational else _MP.mpf(part._mpf_) for part in parts))


def minus(ours: Any, theirs: Any) -> Any:
    """`ours` − `theirs`: exact if both are fractions, else a complex number."""
    if isinstance(ours, Fraction) and isinstance(theirs, Fraction):
        return ours - theirs
    return as_complex(ours) - as_complex(theirs)


def as_complex(value: Any) -> Any:
    """A fraction as a complex number of `DIGITS` digits; complex numbers unchanged."""
    return _MP.mpc(_MP.mpf(value.numerator) / value.denominator) if isinstance(value, Fraction) else value


def is_zero(difference: Any, *sizes: Any) -> bool:
    """Whether a difference is 0: a fraction exactly, another within 10^(10 − `DIGITS`) of the largest of `sizes`."""
    if isinstance(difference, Fraction):
        return difference == 0
    return bool(abs(difference) <= _MP.mpf(10) ** (10 - DIGITS) * max(abs(as_complex(size)) for size in sizes))


def vanishes(difference: Any) -> bool:
    """Whether a difference that is 0 in `DIGITS` digits also is in `MOST_DIGITS`; True untested where that is slow."""
    if difference.is_Rational or difference.has(*_SLOW):
        return difference == 0 or not difference.is_Rational
    value = difference.evalf(MOST_DIGITS // 3, maxn=MOST_DIGITS)  # log(1 + x) is 0 in fewer digits than x has zeros
    # precision 1 is sympy's mark of a sum that cancels in all digits tried
    return all(part == 0 or not part.is_Float or part._prec == 1 for part in value.as_real_imag())


_SLOW = (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit)


def _whole_letters(value: Any) -> set[Any]:
    """The letters that stand for whole numbers: all with a function of `STEPPED`, else those in the limits of a sum."""
    if value.has(*STEPPED):
        return value.free_symbols
    limits = [limit for part in value.atoms(sympy.Sum, sympy.Product) for limit in part.limits]
    return set().union(*(bound.free_symbols for _, *bounds in limits for bound in bounds)) & value.free_symbols


def _steps_of_whole_numbers(first: Any, second: Any) -> bool:
    """Whether an argument of floor or ceiling is whole for whole numbers, so that its letters must be real numbers."""
    whole = {symbol: sympy.Symbol(symbol.name, integer=True) for symbol in first.free_symbols | second.free_symbols}
    calls = first.atoms(sympy.floor, sympy.ceiling) | second.atoms(sympy.floor, sympy.ceiling)
    return any(call.args[0].xreplace(whole).is_integer for call in calls)


def _points(first: Any, second: Any) -> list[dict[Any, Any]]:
    """The points in which two formulas are evaluated: fixed irregular values of either sign, and whole numbers.

    Formulas that are constant between jumps agree on small irregular values and differ at the jumps: the first letter
    that stands for whole numbers takes all values from 1 to `STEPPED_TO`.
    """
    draw = random.Random(17)
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    whole = [symbol for symbol in symbols if symbol in _whole_letters(first) | _whole_letters(second)]
    signs = ((1, 1), (1, 1), (-1, 1), (-1, -1), (1, -1), (1, 1), (-1, 1), (1, 1))
    points = [
        {symbol: sympy.Rational(draw.randint(300, 2900), 997) * pair[n % 2] for n, symbol in enumerate(symbols)}
        for pair in signs
    ]
    stepped = [
        points[count % len(points)]
        | {letter: sympy.Integer(draw.randint(1, STEPPED_TO)) for letter in whole}
        | {letter: sympy.Integer(count) for letter in whole[:1]}
        for count in range(1, STEPPED_TO + 1)
    ]
    if not whole:
        return points
    return stepped + points if _steps_of_whole_numbers(first, second) else stepped


def _values(first: Any, second: Any) -> Iterator[tuple[dict[Any, Any], Any, Any]]:
    """Points, and the values of both formulas in them; None for a value that is not a finite number."""
    for point in _points(first, second):
        yield point, number_of(first.xreplace(point)), number_of(second.xreplace(point))


def same_in_points(first: Any, second: Any) -> bool | None:
    """Whether two formulas have the same values; None where they have values in too few points."""
    stepped = _whole_letters(first) or _whole_letters(second)
    exact = not (first.has(sympy.Float) or second.has(sympy.Float))
    enough = STEPPED_TO // 2 if stepped else 4
    seen = 0
    for point, ours, theirs in _values(first, second):
        if ours is None and theirs is None:
            continue
        if ours is None or theirs is None:
            return None
        if not is_zero(minus(ours, theirs), ours, theirs):
            return False
        if not seen and exact and not vanishes((first - second).xreplace(point)):
            return False
        seen += 1
        if seen == enough and not stepped:
            return True
    return True if seen >= enough else None


def same_value(ours: Any, theirs: Any) -> bool:
    """Whether two sympy expressions, with or without letters, have the same value."""
    if not ours.free_symbols and not theirs.free_symbols:
        pair = number_of(ours), number_of(theirs)
        return None not in pair and is_zero(minus(*pair), *pair) and vanishes(ours - theirs)
    return bool(same_in_points(ours, theirs))


def constant_ratio(first: Any, second: Any) -> Any:
    """The number c with first = c · second in all points evaluated; None if there is none."""
    ratios = []
    for _, ours, theirs in _values(first, second):
        if ours is None or theirs is None:
            continue
        if is_zero(theirs, Fraction(1)) or is_zero(ours, Fraction(1)):
            return None
        ratios.append(as_complex(ours) / as_complex(theirs))
        if len(ratios) == 3:
            break
    if len(ratios) < 2 or any(not is_zero(minus(one, other), one, other) for one, other in combinations(ratios, 2)):
        return None
    return ratios[0].real if abs(ratios[0].imag) <= 1e-30 * abs(ratios[0]) else None
