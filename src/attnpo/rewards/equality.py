r"""Comparison of two readings: parts by their structure, formulas by math-verify, numbers and equations exactly.

Imports only the standard library, math-verify and sympy, because every verifying process loads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import sympy
from math_verify import verify
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanFunction

from attnpo.rewards.normal_form import squeezed
from attnpo.rewards.reading import (
    Reading,
    UnreadableError,
    is_name,
    is_words,
    plain_words,
    read_parts,
    with_imaginary_unit,
)
from attnpo.rewards.values import (
    as_complex,
    constant_ratio,
    is_zero,
    minus,
    number_of,
    rounds_to,
    same_in_points,
    same_value,
    vanishes,
)
from attnpo.rewards.verdict import Rules

MEASURED_SHARE = 0.01
"""A measured quantity may be off by at most 1 %, however few digits its reference has."""
DECIMALS = 6
"""A decimal number and an exact one are equal if they agree when rounded to this many decimals."""

_RAISED_BY_PYTHON = ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError
COMPARISON_ERRORS = (*_RAISED_BY_PYTHON, NotImplementedError)
"""Exceptions that sympy raises on unusual expressions. Any other one ends the worker, which the pool detects."""


def tolerance_of(reference: str, rules: Rules) -> float:
    """Largest absolute difference between an answer and `reference`; 0: they must be equal.

    A whole number is exact. An answer to any other measured number may be off by half a unit of its last digit, or 1 %,
    whichever is less: 3.61e-10 by 0.005e-10, 0.5 by 0.005.
    """
    if "tolerance" in rules:
        return rules["tolerance"]
    number = re.fullmatch(r"[+-]?(\d*\.?\d+)(?:e([+-]?\d+))?", reference.strip(), re.IGNORECASE)
    if not rules.get("measured") or number is None or reference.strip().lstrip("+-").isdigit():
        return 0.0
    last_digit = 10.0 ** (int(number[2] or 0) - len(number[1].partition(".")[2]))
    return min(last_digit / 2, MEASURED_SHARE * abs(float(reference)))


class Comparison:
    """Compares readings under one set of rules.

    Args:
        tolerance: from :func:`tolerance_of`.
        off: names of rules not to apply, of :data:`RULE_NAMES`.

    Attributes:
        fired: names of the rules that decided a comparison.
        failed: whether sympy raised on a pair of formulas.
    """

    def __init__(self, tolerance: float = 0.0, off: frozenset[str] = frozenset()) -> None:
        self.tolerance, self.off = tolerance, off
        self.fired: list[str] = []
        self.failed = False

    def _by_rule(self, name: str, decided: Callable[[], bool | None]) -> bool | None:
        """The decision of the rule; None if it makes none, or is switched off."""
        if name in self.off:
            return None
        result = decided()
        if result is not None:
            self.fired.append(name)
        return result

    def same(self, gold: Reading, answer: Reading) -> bool:
        """Whether `answer` is right where `gold` is the reference."""
        if gold.name and answer.name:
            if _same_name(gold.name, answer.name):
                if self.same(replace(gold, name=""), replace(answer, name="")):
                    return True
                if is_name(gold.name):
                    return False
            if gold.parts or answer.parts or "words" in (gold.kind, answer.kind):
                return False
            return bool(self._by_rule("equations", lambda: self._same_equation(gold, answer)))
        if gold.name or answer.name:
            return bool(self._by_rule("names", lambda: self._without_name(gold, answer)))
        units = {one.unit or "%" * one.percent for one in (gold, answer)} - {""}
        if len(units) == 2 and not ("deg" in units and units <= {"deg", "C", "F"}):
            return False
        if squeezed(gold.text) == squeezed(answer.text) and gold.percent == answer.percent:
            return True
        if "words" in (gold.kind, answer.kind):
            return _same_words(gold.words(), answer.words())
        if (region := self._by_rule("regions", lambda: self._same_region(gold, answer))) is not None:
            return region
        if gold.parts or answer.parts:
            return self._same_parts(gold, answer)
        if (letters := _same_letters(squeezed(gold.text), squeezed(answer.text))) is not None:
            return letters
        return self._same_formula(gold, answer)

    # -- names ---------------------------------------------------------------------------------------------------------

    def _without_name(self, gold: Reading, answer: Reading) -> bool | None:
        """``x = 5`` and 5. The left side must be a name: 5 is not ``2x = 5``, nor 0 ``5x - 7y = 0``."""
        named, name = (gold, gold.name) if gold.name else (answer, answer.name)
        if not is_name(name, may_be_sum=not gold.name):
            left = read_parts(name)
            if left.parts or not left.is_readable() or getattr(left.value, "free_symbols", True):
                return None
            if not self.same(left, replace(named, name="")):  # 2+3 = 5 is 5, 2+3 = 6 is nothing
                return None
        return self.same(replace(gold, name=""), replace(answer, name="")) or None

    def _same_equation(self, gold: Reading, answer: Reading) -> bool | None:
        """Equations are equal if one is a multiple of the other, or both have the same solutions."""
        try:
            ours, theirs = ((read_parts(side.name).value, side.value) for side in (gold, answer))
            zeros = (with_imaginary_unit(left) - with_imaginary_unit(right) for left, right in (ours, theirs))
            first, second = map(_without_powers, zeros)
        except COMPARISON_ERRORS:
            return None
        if not first.free_symbols or first.free_symbols != second.free_symbols:
            return None
        return constant_ratio(first, second) is not None or None

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _same_parts(self, gold: Reading, answer: Reading) -> bool:
        ours, theirs = _other_commas(gold, answer, fewest_decimals=2), _other_commas(answer, gold)
        kinds = {ours.kind, theirs.kind}
        if ours.joint != theirs.joint and r"\lor" in (ours.joint, theirs.joint) and not _is_one_of_values(ours):
            return False
        if not (ours.parts or theirs.parts):
            return self._same_formula(ours, theirs)
        if not (ours.parts and theirs.parts):
            single, other = (ours, theirs) if theirs.parts else (theirs, ours)
            if "matrix" in single.text and "tuple" in kinds:
                return False
            return other.kind == "set" and len(other.parts) == 1 and self.same(single, other.parts[0])
        if "set" in kinds or {part.kind for part in ours.parts} == {"tuple"}:  # repeated solutions do not count
            ours, theirs = _without_repetitions(ours), _without_repetitions(theirs)
        if len(ours.parts) != len(theirs.parts):
            return False
        pairs = list(zip(ours.parts, theirs.parts, strict=True))
        if kinds == {"tuple"}:
            same_brackets = ours.brackets == theirs.brackets or len(ours.parts) > 2
            return same_brackets and all(self.same(*pair) for pair in pairs)
        if "tuple" in kinds:
            brackets = ours.brackets or theirs.brackets
            return "set" not in kinds and brackets == "()" and all(self.same(*pair) for pair in pairs)
        names = {part.name for part in ours.parts}, {part.name for part in theirs.parts}
        if (len(names[0]) == len(pairs) and names[1] == {""}) or (len(names[1]) == len(pairs) and names[0] == {""}):
            # One side names all its values, the other none: only the order tells which is which.
            return all(self.same(*pair) for pair in pairs)
        return _matched(ours.parts, theirs.parts, self.same)

    def _same_region(self, gold: Reading, answer: Reading) -> bool | None:
        """Inequalities, intervals and unions as sets of numbers; the name of the unknown must be the same."""
        if not (_is_region(gold) or _is_region(answer)):
            return None
        try:
            (ours, our_name), (theirs, their_name) = _region(gold), _region(answer)
            if our_name and their_name and our_name != their_name:
                return False
            if {ours, theirs} & {sympy.S.EmptySet, sympy.S.Reals} and our_name and their_name:
                return None  # two conditions that nothing meets, or everything, are not equal for that reason
            return ours == theirs or _same_set(ours, theirs)
        except COMPARISON_ERRORS:
            return None

    # -- formulas ------------------------------------------------------------------------------------------------------

    def _same_formula(self, gold: Reading, answer: Reading) -> bool:
        if re.search(r"\d:0\d", gold.text + " " + answer.text):
            return False  # a time of day, whose text was compared before
        if (decided := self._by_rule("bases", lambda: _same_base(gold.text, answer.text))) is not None:
            return decided
        for ours, theirs in self._interpretations(gold, answer):
            decided = self._same_numbers(ours, theirs)
            if decided is None:
                decided = self._same_values(ours, theirs)
            if decided:
                return True
        return False

    def _interpretations(self, gold: Reading, answer: Reading) -> list[tuple[Reading, Reading]]:
        """The pairs to compare. A per cent sign on one side only is 1/100; it is also tried without the sign if the
        sign is the reference's, or the reference is a number above 1: 0.5% is not 0.5.
        """
        if "deg" in (gold.unit, answer.unit) and gold.unit != answer.unit and r"\pi" in gold.text + answer.text:
            radians = [
                replace(one, text=rf"\frac{{\pi}}{{180}} \cdot ({one.text})", unit="") if one.unit else one
                for one in (gold, answer)
            ]
            return [(radians[0], radians[1])]
        if gold.percent == answer.percent or "per cent" in self.off:
            return [(gold, answer)]
        self.fired.append("per cent")
        hundredth = [
            replace(one, text=rf"\frac{{1}}{{100}} \cdot ({one.text})") if one.percent else one
            for one in (gold, answer)
        ]
        without_sign = [(gold, answer)] if gold.percent or _is_above_one(gold) else []
        return [*without_sign, (hundredth[0], hundredth[1])]

    def _same_numbers(self, gold: Reading, answer: Reading) -> bool | None:
        """Compare rational numbers exactly, decimals to the digits that both have; None for anything else."""
        ours, theirs = gold.number, answer.number
        if ours is None or theirs is None:
            return None
        if ours == theirs:
            return True
        if self.tolerance and abs(float(ours - theirs)) <= self.tolerance * (1 + 1e-9):
            return True
        if not gold.is_decimal and not answer.is_decimal:
            return False
        if gold.is_decimal and answer.is_decimal:
            decimals = min(len(one.text.partition(".")[2]) for one in (gold, answer))
            return decimals >= DECIMALS and rounds_to(ours, theirs, decimals)
        return not (ours.is_Integer or theirs.is_Integer) and rounds_to(ours, theirs, DECIMALS)

    def _same_values(self, gold: Reading, answer: Reading) -> bool:
        try:
            ours, theirs = gold.value, answer.value
        except UnreadableError:
            return False
        try:
            exact = self._by_rule("exact", lambda: self._exactly(ours, theirs, gold, answer))
            if exact is not None:
                return exact
            return verify(ours, theirs, timeout_seconds=None, raise_on_error=True)
        except COMPARISON_ERRORS:
            self.failed = True
            return False

    def _exactly(self, ours: Any, theirs: Any, gold: Reading, answer: Reading) -> bool | None:
        """Compare the values of the two formulas in the same points; None where they have none."""
        if not (isinstance(ours, sympy.Expr) and isinstance(theirs, sympy.Expr)):
            return None
        inexact = [
            side.is_decimal or bool(value.atoms(sympy.Float)) for side, value in ((gold, ours), (answer, theirs))
        ]
        first, second = with_imaginary_unit(ours), with_imaginary_unit(theirs)
        if first == second:
            return True
        if not first.free_symbols and not second.free_symbols:
            pair = number_of(first), number_of(second)
            if None in pair:
                return None
            if self.tolerance and abs(minus(*pair)) <= self.tolerance * (1 + 1e-9):
                return True
            if is_zero(minus(*pair), *pair):
                return any(inexact) or vanishes(first - second)
            return inexact[0] != inexact[1] and rounds_to(as_complex(pair[0]), as_complex(pair[1]), DECIMALS)
        if first.free_symbols != second.free_symbols:
            return same_in_points(first, second) or False
        return same_in_points(first, second)


def _without_powers(difference: Any) -> Any:
    """An expression with the zeros of `difference`: a polynomial without its denominator, every factor once."""
    above = sympy.numer(sympy.together(difference))
    return sympy.sqf_part(above) if above.is_polynomial(*above.free_symbols) and above.free_symbols else difference


RULE_NAMES = ("equations", "names", "regions", "bases", "per cent", "exact")


def _same_words(ours: str, theirs: str) -> bool:
    ours, theirs = plain_words(ours), plain_words(theirs)
    return (len(ours) > 1 and ours == theirs) or _run_together(ours) == _run_together(theirs) != ""


def _same_name(ours: str, theirs: str) -> bool:
    plain = [re.sub(r"\\text|[\\{}\s]", "", name) for name in (ours, theirs)]
    return plain[0] == plain[1] or (is_words(ours) and _same_words(ours, theirs))


def _run_together(words: str) -> str:
    """`words` without brackets and spaces, except spaces between digits: 2 3 is not 23."""
    return re.sub(r"(?<!\d) | (?!\d)", "", " ".join(re.sub(r"[()]", " ", words).split()))


def _is_above_one(reading: Reading) -> bool:
    """Whether `reading` is a number with an absolute value above 1."""
    try:
        value = with_imaginary_unit(reading.value)
        number = number_of(value) if isinstance(value, sympy.Expr) and not value.free_symbols else None
    except COMPARISON_ERRORS:
        return False
    return number is not None and abs(as_complex(number)) > 1


def _same_letters(ours: str, theirs: str) -> bool | None:
    """Whether letters in another order are equal: abc is bca, but eat is not tea, nor HHT HTH. None: not only letters,
    or no reordering that can be decided here."""
    texts = (ours, theirs)
    if ours == theirs or sorted(ours) != sorted(theirs) or not re.fullmatch(r"[A-Za-z]{3,}", ours):
        return None
    if ours.isupper() or len(set(ours)) < len(ours):
        return False
    return None if any(list(text) == sorted(text) for text in texts) or not re.search("[aeiou]", ours) else False


def _is_one_of_values(reading: Reading) -> bool:
    """Whether the parts are values of one unknown: 2 or 3, x = 2 and x = 3. "And" and "or" between them are equal."""
    names = {part.name for part in reading.parts}
    is_letter = re.compile(r"[A-Za-z]|\\[a-z]+\s*[A-Za-z]").fullmatch
    return len(names) <= 1 and not any(
        _is_region(part) or (not part.name and is_letter(part.text) and reading.joint != ",") for part in reading.parts
    )


def _matched(ours: Sequence[Any], theirs: Sequence[Any], same: Callable[[Any, Any], bool]) -> bool:
    """Whether the two have the same members, in any order."""
    left = list(theirs)
    for one in ours:
        index = next((index for index, other in enumerate(left) if same(one, other)), None)
        if index is None:
            return False
        left.pop(index)
    return not left


def _without_repetitions(reading: Reading) -> Reading:
    kept: list[Reading] = []
    for part in reading.parts:
        if not any(squeezed(part.text) == squeezed(other.text) and part.name == other.name for other in kept):
            kept.append(part)
    return replace(reading, parts=tuple(kept))


def _other_commas(one: Reading, other: Reading, fewest_decimals: int = 1) -> Reading:
    """``1,22`` is 1.22 if the other side is a decimal number. In a reference at least two digits must follow the comma:
    ``2,3`` is a list and not 2.3."""
    if (
        one.kind == "list"
        and other.is_decimal
        and re.fullmatch(rf"-?\d+,\d{{{fewest_decimals},}}", squeezed(one.text))
        and " " not in one.text
    ):
        return Reading(one.text.replace(",", "."))
    return one


def _same_base(ours: str, theirs: str) -> bool | None:
    """``52_8`` is ``52_{8}`` and 52, not ``52_9``; 52 is not ``52_8``. None where neither names a base."""
    pattern = re.compile(r"(\d[0-9A-Z]*)\s*_\s*\{?\s*(\d+)\s*\}?")
    bases = pattern.fullmatch(ours), pattern.fullmatch(theirs)
    if bases == (None, None):
        return None
    if bases[0] is None and bases[1] is not None and bases[1][2] != "10":
        return False
    digits = [base[1] if base else text for base, text in zip(bases, (ours, theirs), strict=True)]
    return digits[0] == digits[1] and (None in bases or bases[0][2] == bases[1][2])  # type: ignore[index]


# -- regions -----------------------------------------------------------------------------------------------------------


def _is_region(reading: Reading) -> bool:
    if reading.parts:
        return reading.kind != "tuple" and any(_is_region(part) for part in reading.parts)
    return re.search(r"[<>]|\\(?:le|ge|ne|cup|cap|setminus|mathbb)(?![a-z])", reading.text) is not None


def _region(reading: Reading) -> tuple[Any, str]:
    """The set of numbers that a reading describes, and the name of its unknown; raises UnreadableError."""
    if reading.kind == "tuple" and len(reading.parts) == 2:
        start, end = (part.value for part in reading.parts)
        return sympy.Interval(start, end, reading.brackets[0] == "(", reading.brackets[1] == ")"), reading.name
    if reading.parts:
        sets = [_region(part) for part in reading.parts]
        names = {name for _, name in sets if name}
        if len(names) > 1 or reading.kind == "tuple":
            raise UnreadableError(reading.text)
        joined = sympy.Union(*(one for one, _ in sets))
        if reading.joint != r"\lor":  # x > 1, x < 3; but x < 1, x > 3 is one or the other
            both = sympy.Intersection(*(one for one, _ in sets))
            joined = joined if reading.joint == "," and both.is_empty else both
        return joined, next(iter(names), "")
    value = reading.value
    if isinstance(value, sympy.Set):
        return value, reading.name
    if isinstance(value, Relational | BooleanFunction):
        value = with_function_symbols(value)
        if len(value.free_symbols) == 1:
            name = next(iter(value.free_symbols)).name
            return value.as_set(), name
        raise UnreadableError(reading.text)
    return sympy.FiniteSet(value), reading.name


def _same_set(ours: Any, theirs: Any) -> bool:
    """Compare intervals and finite sets by their exact ends and members, in any order; other sets by math-verify."""
    pieces = [list(side.args) if isinstance(side, sympy.Union) else [side] for side in (ours, theirs)]
    if not all(isinstance(piece, sympy.Interval | sympy.FiniteSet) for side in pieces for piece in side):
        return verify(ours, theirs, timeout_seconds=None, raise_on_error=True)

    def same(one: Any, other: Any) -> bool:
        if isinstance(one, sympy.FiniteSet) or isinstance(other, sympy.FiniteSet):
            return type(one) is type(other) and _matched(list(one), list(other), same_value)
        return (one.left_open, one.right_open) == (other.left_open, other.right_open) and all(
            end == other_end or (end.is_finite and other_end.is_finite and same_value(end, other_end))
            for end, other_end in ((one.start, other.start), (one.end, other.end))
        )

    return _matched(pieces[0], pieces[1], same)


def with_function_symbols(value: Any) -> Any:
    """`value` with a real symbol for every call of an unknown function."""
    from sympy.core.function import AppliedUndef

    applied = {call: sympy.Symbol(f"{call}", real=True) for call in value.atoms(AppliedUndef)}
    return value.xreplace(applied) if applied else value
