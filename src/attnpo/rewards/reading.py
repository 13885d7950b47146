r"""A normal form → its reading: a number, formula, words, list, set, tuple or interval, with its name and unit.

math-verify parses formulas (latex2sympy). This module divides a text into parts, so that none of them is dropped:
``30 mph, 40 mph`` is a list of two quantities, ``(2,5]`` two ends with their brackets, ``-2,-2`` two numbers.
Imports only the standard library, math-verify and sympy, because every verifying process loads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, latex2sympy, normalize_latex
from sympy.core.function import AppliedUndef

from attnpo.rewards.normal_form import normal_form, squeezed
from attnpo.rewards.units import split_unit


class UnreadableError(ValueError):
    """The text is not a formula that latex2sympy can parse."""


@dataclass(frozen=True)
class Reading:
    """The structure and value of a text.

    Attributes:
        text: its normal form, without the name, the unit and a per cent sign.
        kind: ``formula`` or ``words``; with several parts ``list`` (any order), ``set`` (no repetitions either) or
            ``tuple``.
        parts: the readings of the parts; empty for ``formula`` and ``words``.
        brackets: first and last character of a tuple, ``(]``.
        name: the text left of ``=`` or ``∈``.
        unit: ``mph``, ``$``, ``^\\circ``; "" for none.
        percent: whether there is a per cent sign.
        joint: the separator of the parts: ``,``, ``\\land`` or ``\\lor``.
    """

    text: str
    kind: str = "formula"
    parts: tuple[Reading, ...] = ()
    brackets: str = ""
    name: str = ""
    unit: str = ""
    percent: bool = False
    joint: str = ","

    @cached_property
    def number(self) -> sympy.Rational | None:
        """The exact value of digits, or of one fraction of digits; None for anything else."""
        if found := re.fullmatch(r"([+-]?)\s*(\d+(?:\.\d*)?|\.\d+)(?:\s*/\s*(\d+))?", self.text):
            below, above = found[3] or "1", found[2]
        elif found := re.fullmatch(r"([+-]?)\s*\\frac\s*(?:\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)(\d))", self.text):
            above, below = found[2] or found[4], found[3] or found[5]
        else:
            return None
        if int(below) == 0 or len(self.text) > MOST_DIGITS:
            return None
        return sympy.Rational(sympy.Rational(above), int(below)) * (-1 if found[1] == "-" else 1)

    @cached_property
    def value(self) -> Any:
        """`number`, or the sympy value from math-verify's parser; raises UnreadableError."""
        return self.number if self.number is not None else parse_formula(self.text)

    @cached_property
    def is_decimal(self) -> bool:
        """Whether the text is one decimal number such as ``-0.5``."""
        return re.fullmatch(r"[+-]?(?:\d*\.\d+)", self.text) is not None

    def is_readable(self) -> bool:
        """Whether the text is words, or it and all its parts can be parsed."""
        if self.kind == "words":
            return True
        if self.parts:
            return all(part.is_readable() for part in self.parts)
        try:
            return self.value is not None
        except UnreadableError:
            return False

    def words(self) -> str:
        """The text with name and unit, as `plain_words`."""
        return plain_words(f"{self.name} {self.text} {self.unit}")


MOST_DIGITS = 4000
REFERENCE = "single letters as units"
"""Name of the rule that is switched off for references."""

# -- formulas ----------------------------------------------------------------------------------------------------------

_LATEX = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_FOR_THE_PARSER = (
    # An angle is not a product of letters: only its two end points may be swapped.
    (
        r"\\(?:angle|measuredangle|sphericalangle)\s*([A-Z])\s*([A-Z])\s*([A-Z])(?![A-Za-z_'^])",
        lambda found: rf"\mathcal{{A}}_{{angle{min(found[1], found[3])}{found[2]}{max(found[1], found[3])}}}".lower(),
    ),
    # gcd and lcm of letters become unknowns: sympy takes letters to be coprime.
    (
        r"\\(gcd|lcm)\s*\(([^()]*[A-Za-z][^()]*)\)",
        lambda found: rf"\text{{{found[1]}}}({','.join(sorted(part.strip() for part in found[2].split(',')))})",
    ),
    # latex2sympy ignores the case of letters and reads E and I as numbers; \mathcal keeps them apart.
    (
        r"\\(?:text|begin|end|mathcal|mathbb)\s*\{[^{}]*\}|\\[A-Za-z]+|([A-Z])(?![a-z]{2})",
        lambda found: rf"\mathcal{{{found[1]}}}" if found[1] else found[0],
    ),
    (r"(?<![A-Za-z\\])e(?=\s*_)", r"\\mathcal{e}"),
    # dv/dt becomes a separate unknown: sympy would differentiate the bare symbol v to 0.
    (
        r"\\frac\s*\{\s*(?:d|\\partial)\s*(?:\^\s*\{?\d\}?)?\s*(?:\\mathcal\{\w\}|\\?[A-Za-z]+)(?:_\{?\w+\}?)?\s*\}\s*\{\s*(?:d|\\partial)\s*[A-Za-z]\s*(?:\^\s*\{?\d\}?)?\s*\}",
        lambda found: rf"\Delta_{{{re.sub(r'[^A-Za-z0-9]', '', found[0])}}}",
    ),
    # Delta is not delta, and gamma is not a number; letters with an index or an argument are not changed.
    (
        r"\\(gamma|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega)(?![A-Za-z])(?!\s*[_(])",
        lambda found: rf"\mathcal{{G}}_{{{'small' * found[1].islower() + found[1].lower()}}}",
    ),
    (r"\\text\s*\{([^{}]*)\}", lambda found: rf"\text{{{found[1].strip().lower()}}}"),
)  # fmt: skip


_INDEX = re.compile(
    r"(\\(?:log|sum|prod|int|lim|limsup|liminf|sup|bigcup|bigcap)\s*)?_\s*(\{(?:[^{}]|\{[^{}]*\})*\}|\\[a-z]+|\w)"
)


def _plain_index(found: re.Match[str]) -> str:
    r"""An index without commands and capitals, which latex2sympy cannot read or drops: ``_{\max}``, ``_{AB}``."""
    if found[1]:
        return found[0]
    plain = re.sub(r"\\text|[\\{}\s]", "", found[2])
    return f"_{{{re.sub('[A-Z]', lambda capital: f'cap{capital[0].lower()}', plain)}}}"


@lru_cache(maxsize=4096)
def parse_formula(text: str) -> Any:
    """The sympy value of one formula.

    ``i`` is the imaginary unit, every other letter a symbol that may be complex.

    Raises:
        UnreadableError: latex2sympy cannot parse it.
    """
    latex = _INDEX.sub(_plain_index, text)
    for pattern, change in _FOR_THE_PARSER:
        latex = re.sub(pattern, change, latex)
    try:
        value = latex2sympy(
            normalize_latex(latex, _LATEX), is_real=True, convert_degrees=False, normalization_config=None
        )
    except Exception as error:  # latex2sympy raises nothing more specific
        raise UnreadableError(text) from error
    if not isinstance(value, sympy.Basic | sympy.MatrixBase) or value.has(sympy.zoo, sympy.nan):
        raise UnreadableError(text)
    return value


def with_imaginary_unit(value: Any) -> Any:
    """`value` with i for the symbol ``i``, exact decimals, and unknown functions as symbols."""
    if not isinstance(value, sympy.Basic):
        return value
    exchanged: dict[Any, Any] = {number: sympy.Rational(str(number)) for number in value.atoms(sympy.Float)}
    symbols: Any = value.free_symbols
    for symbol in symbols:
        exchanged[symbol] = sympy.I if symbol.name == "i" else sympy.Symbol(symbol.name)
    value = value.xreplace(exchanged)
    value = value.replace(lambda part: isinstance(part, _OPERATORS), _evaluated_or_unknown)
    applied = {call: sympy.Symbol(f"{call}") for call in value.atoms(AppliedUndef)}
    return value.xreplace(applied) if applied else value


_OPERATORS = (sympy.Derivative, sympy.Integral, sympy.Limit, sympy.Sum, sympy.Product)


def _evaluated_or_unknown(part: Any) -> Any:
    """A derivative, evaluated, or another operator with its bound letters renamed; a separate unknown if it contains
    unknown functions or sequences."""
    if isinstance(part, sympy.Derivative):
        is_constant = not set(part.variables) <= part.expr.free_symbols
        return sympy.Symbol(f"{part}") if is_constant or part.atoms(AppliedUndef) else part.doit()
    is_unknown = bool(part.atoms(AppliedUndef))
    depth = len(part.atoms(*_OPERATORS))
    letters: Any = [part.args[1]] if isinstance(part, sympy.Limit) else part.bound_symbols
    for n, letter in enumerate(letters):
        bound = sympy.Symbol(f"bound{depth}by{n}")  # the name of a bound letter does not matter
        part = part.xreplace({letter: bound})
        index = re.compile(rf"(_.*?)(?<![A-Za-z0-9]){re.escape(letter.name)}(?![A-Za-z0-9])")
        symbols: Any = part.free_symbols
        for symbol in symbols:
            name = index.sub(rf"\1{bound.name}", symbol.name)
            if name != symbol.name:
                part, is_unknown = part.xreplace({symbol: sympy.Symbol(name)}), True
    return sympy.Symbol(f"{part}") if is_unknown else part


# -- words -------------------------------------------------------------------------------------------------------------

_SHORT_WORDS = (
    "yes", "no", "odd", "even", "all", "any", "none", "one", "east", "west", "north", "south", "true", "false", "both",
    "red", "blue",
)  # fmt: skip
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_FUNCTION = re.compile(r"\b(?:sin|cos|tan|cot|sec|csc|log|ln|lim|max|min|det|exp|mod|gcd|lcm|sqrt|frac|deg|arg)\b")


def plain_words(text: str) -> str:
    r"""`text` in lower case without commands: ``\text{No solution.}`` is ``no solution``."""
    text = re.sub(r"\\l(and|or)(?![a-z])", r"\1", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    # A point, comma or hyphen between digits is kept: 12.5 is not 125, nor 2-3 23.
    marks = r"\.(?!\d)|(?<=[^\W\d])\.|(?<!\d),|,(?!\d)|(?<=\w)-(?=[^\W\d])|(?<=[^\W\d])-(?=\w)"
    text = re.sub(rf"\\text(?![a-z])|[{{}}$\\\"“”!?]|{marks}", " ", text)
    return re.sub(r"^(?:an?|the) (?=\w)", "", " ".join(text.casefold().split()))


def is_words(text: str) -> bool:
    r"""Whether `text` is language: ``\text{even}``, ``Evelyn``, ``no solution``; not ``rst``, ``u - v``, ``ABC``."""
    bare = re.sub(r"\\l(and|or)(?![a-z])", r"\1", _TEXT.sub(r"\1", text)).strip()
    if not re.fullmatch(r"[A-Za-z][A-Za-z' .,-]*|\([A-Z]\)", bare) or _FUNCTION.search(bare):
        return not text.count("\\") and len(re.findall(r"[A-Za-z][a-z]{2,}", _FUNCTION.sub("", text))) > 1  # a sentence
    if _TEXT.fullmatch(text):
        return True
    tokens = re.findall(r"[A-Za-z']+", bare)
    if any(token.lower() in _SHORT_WORDS for token in tokens) or (len(tokens) > 2 and re.search("[a-z]{4}", bare)):
        return True
    # Letters in alphabetical order (abcd) or capitals (ABCD) are names of quantities.
    return any(
        len(token) >= 4 and not token.isupper() and list(token.lower()) != sorted(token.lower()) for token in tokens
    )


# -- parts -------------------------------------------------------------------------------------------------------------

_OPEN, _CLOSE = "([{", ")]}"
_BRACKETS = r"\\[{}]|\\(?:begin|end)\{\w*matrix\}|[()\[\]{}]"
_SEPARATORS = r"\\(?:land|lor)(?![A-Za-z])|[,;]"
_THOUSANDS = re.compile(r"(?<![\d,.])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|notin|to|approx|equiv|subset)(?![A-Za-z])")


def _cut(text: str, marks: str) -> tuple[list[str], list[str]]:
    """The pieces of `text` between `marks` (a pattern) outside brackets, and the marks found."""
    pieces, cuts, depth, start = [], [], 0, 0
    for found in re.finditer(f"{_BRACKETS}|{marks}", text):
        mark = found[0].lstrip("\\")
        if mark[0] in _OPEN or mark.startswith("begin"):
            depth += 1
        elif mark[0] in _CLOSE or mark.startswith("end"):
            depth -= 1
        elif depth <= 0:
            pieces.append(text[start : found.start()].strip(" ,"))
            start = found.end()
            cuts.append(found[0])
    return [*pieces, text[start:].strip(" ,")], cuts


def split_parts(text: str, keep_thousands: bool = True) -> tuple[list[str], str]:
    """The parts of `text` between separators outside brackets, and the separator: ``,``, ``\\land`` or ``\\lor``."""
    if keep_thousands and not re.search(r",\S", _THOUSANDS.sub("", re.sub(r"\([^()]*\)|\[[^\[\]]*\]", "", text))):
        outside = re.split(r"(\([^()]*\)|\[[^\[\]]*\])", text)
        outside[::2] = [_THOUSANDS.sub(lambda digits: digits[0].replace(",", ""), piece) for piece in outside[::2]]
        text = "".join(outside)
    parts, cuts = _cut(text, _SEPARATORS)
    return [part for part in parts if part] or [text], next((cut for cut in cuts[::-1] if cut.startswith("\\")), ",")


def _enclosed(text: str) -> bool:
    r"""Whether the first bracket of `text` closes at its end: ``(1,2)``, ``[3,4)``; not ``(1)(2)``, ``(1,2),(3,4)``."""
    depth = 0
    for found in re.finditer(r"[()\[\]]|\\?[{}]", text):
        depth += 1 if found[0][-1] in _OPEN else -1
        if depth == 0:
            return found.end() == len(text)
    return False


@lru_cache(maxsize=8192)
def read(text: str, declared_unit: str = "", off: frozenset[str] = frozenset()) -> tuple[Reading, tuple[str, ...]]:
    """The reading of `text`, and the rules of the normal form that changed it."""
    fired: list[str] = []
    return read_parts(normal_form(text, off, fired), declared_unit, off), tuple(dict.fromkeys(fired))


def read_parts(text: str, declared_unit: str = "", off: frozenset[str] = frozenset()) -> Reading:
    """The reading of a text that is in normal form already."""
    parts, joint = split_parts(text)
    if len(parts) > 1:
        read_each = [read_parts(part, declared_unit, off) for part in parts]
        if is_words(text) and not all(part.unit for part in read_each):
            return Reading(text, "words")
        either = _cut(text, r"\\lor(?![A-Za-z])")[0]
        if joint != "," and 1 < len(either) < len(parts) and r"\land" in text:  # "and" binds more closely
            read_either = tuple(read_parts(part, declared_unit, off) for part in either)
            return Reading(text, "list", read_either, joint=r"\lor")
        groups = [group for group in _cut(text, ";")[0] if group]
        if 1 < len(groups) < len(parts) and "," in text and not re.search(r"\),|\],", text):
            return Reading(text, "list", tuple(read_parts(group, declared_unit, off) for group in groups))
        return _as_list(read_each, text, joint)
    text = parts[0]
    if text.startswith("{") and text.endswith("}") and _enclosed(text):
        return read_parts(text[1:-1].strip(), declared_unit, off)
    if text.count("=") and (named := _read_named(text, declared_unit, off)) is not None:
        return named
    if found := re.fullmatch(r"([A-Za-z]|\\[a-z]+)\s*\\in(?![a-z])\s*(.+)", text):
        return replace(read_parts(found[2], declared_unit, off), name=squeezed(found[1]))
    if re.match(r"[(\[]|\\\{", text) and (_enclosed(text) or re.fullmatch(r"[\[(][^()\[\]]*,[^()\[\]]*[\])]", text)):
        return _read_enclosed(text, declared_unit, off)
    if re.search(r"\\pm(?![a-z])", text) and not _RELATION.search(text):
        plus, minus = (
            re.sub(r"\\([pm])[pm](?![a-z])", lambda sign, s=signs: s[sign[1]], text)
            for signs in ({"p": "+", "m": "-"}, {"p": "-", "m": "+"})
        )
        both = [read_parts(re.sub(r"^\s*\+", "", sign), declared_unit, off) for sign in (plus, minus)]
        return _as_list(both, text, ",")
    value, unit, percent = (
        split_unit(text, declared_unit, REFERENCE not in off) if "units" not in off else (text, "", False)
    )
    if value != text and value:
        inner = read_parts(value, "", off)
        return replace(inner, unit=inner.unit or unit, percent=percent or inner.percent)
    if is_words(text) and not _RELATION.search(text):
        return Reading(text, "words")
    return Reading(text)


def _as_list(parts: list[Reading], text: str, joint: str) -> Reading:
    """One list of `parts`; a name or unit written once applies to all of them (x = 1, 2; 3 or 4 apples)."""
    flat = [inner for part in parts for inner in (part.parts if part.kind == "list" and not part.name else (part,))]
    names, units = {part.name for part in flat}, {part.unit for part in flat if part.unit}
    if len(names - {""}) == 1 and flat[0].name:
        flat = [replace(part, name=flat[0].name) for part in flat]
    if len(units) == 1 and flat[-1].unit:
        flat = [replace(part, unit=flat[-1].unit) for part in flat]
    return Reading(text, "list", tuple(flat), joint=joint)


def _read_named(text: str, declared_unit: str, off: frozenset[str]) -> Reading | None:
    """The reading of ``name = value``; None if `text` is not of that form."""
    sides = _cut(text, "=")[0]  # the k=0 of a sum is inside braces
    if len(sides) < 2 or not all(sides) or _RELATION.search(text):
        return None
    if re.search(r"(?<![A-Za-z])(?:not|if|when|unless|except|where|for)(?![A-Za-z])", "=".join(sides[:-1])):
        return Reading(text, "words")
    values = [Reading(side).number for side in sides[1:]]
    if None not in values and any(_differ(one, values[-1]) for one in values):
        return Reading(text, "words")  # x = 6 = 5 gives two values
    name = next((side for side in sides[:-1] if is_name(side)), sides[0])
    return replace(read_parts(sides[-1], declared_unit, off), name=squeezed(name))


def _differ(one: Any, other: Any) -> bool:
    """Whether two numbers differ by more than rounding (1 %)."""
    return abs(one - other) > abs(other) / 100


def is_name(name: str, may_be_sum: bool = False) -> bool:
    r"""Whether `name` names a value: ``x``, ``f(2)``, ``(p,q)``, ``\angle ABC``; not ``2x``, ``x^2``, ``-x``."""
    if re.match(r"\s*(?:-|\\(?:sqrt|neg|lnot)(?![A-Za-z]))", name):
        return False
    bare = re.sub(
        r"_\{(?:[^{}]|\{[^{}]*\})*\}|_\w|\^\{?-1\}?(?=\()|\\text\{[^{}]*\}|\^\{?(?:\\prime)+\}?|(?<=[A-Za-z])\([^()]*\)|\\[A-Za-z]+",
        "",
        name,
    )
    return re.fullmatch(r"[A-Za-z|(){},\s:/']*" if not may_be_sum else r"[A-Za-z|(){},\s:/'+-]*", bare) is not None


def _read_enclosed(text: str, declared_unit: str, off: frozenset[str]) -> Reading:
    """The reading of a text in brackets: a set, tuple or interval, or the content of ``(…)``."""
    is_set = text.startswith(r"\{")
    inner = text[2:-2] if is_set else text[1:-1]
    parts, joint = split_parts(inner, keep_thousands=False)
    read_inner = tuple(read_parts(part, declared_unit, off) for part in parts)
    if is_set:
        return replace(_as_list(list(read_inner), text, joint), kind="set")
    if len(parts) == 1:
        return read_inner[0] if text[0] + text[-1] == "()" and not is_words(text) else Reading(text)
    return Reading(text, "tuple", read_inner, brackets=text[0] + text[-1])
