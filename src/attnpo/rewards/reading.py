r"""Answers and references as text → values that can be compared, by math-verify and a few repairs of what it misreads.

Imports only the standard library and math-verify: every verifying process loads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse
from sympy import And, Ge, Gt, Le, Lt

# A box is what these models are taught to answer in: it comes before "the final answer is".
LATEX = LatexExtractionConfig(boxed_match_priority=0)
EXPRESSION = ExprExtractionConfig()

INEQUALITY = (Ge, Gt, Le, Lt)

PARSER_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What parsing and comparing odd expressions raises. Anything else ends the worker, which the pool can tell as well."""

HAS_BOX = re.compile(r"\\boxed\{(?!\s*\})")
HAS_DELIMITERS = re.compile(r"\\boxed|\\\(|\\\[|(?<!\\)\$")
NUMBER_AND_UNIT = re.compile(r"""^[+-]?[$€£]?\s*(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+)?\s+[A-Za-z][A-Za-z .]*$""")
WORDS = re.compile(r"^[A-Za-z][A-Za-z' -]+[A-Za-z]\.?$")

REPAIRS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # Boxes in another spelling: \boxed {5}, \boxed5, \fbox{5}.
    (re.compile(r"\\(?:f?boxed|fbox)\s*(?=\{)"), r"\\boxed"),
    (re.compile(r"\\f?boxed\s*(\d)"), r"\\boxed{\1}"),
    # Separated thousands inside a command: \frac{1}{29,\!322}.
    (re.compile(r"(?<=\d)(?:,\\!|\{,\})\s?(?=\d{3})"), ""),
    # An escaped dollar sign before an amount in running text: **\$180**.
    (re.compile(r"\\\$\s?(?=[\d.])"), ""),
    # 4.5e33 is a number, not 4.5·e·33.
    (re.compile(r"(?<![\w.\\])(\d+(?:\.\d*)?|\.\d+)[eE]([+-]?\d{1,3})(?![\w.^])"), r"\1 \\times 10^{\2}"),
    # A number that ends in a point: \boxed{33.}, 1./3.
    (re.compile(r"(?<=\d)\.(?=\s*(?:[/}$]|\\[)\]]))"), ""),
    # E with an index is a name (an energy), not Euler's number.
    (re.compile(r"(?<![A-Za-z\\])E(?=\s*_)"), r"\\mathcal{E}"),
    # dv/dt is an unknown of its own; sympy would differentiate the bare symbol v, to 0.
    (
        re.compile(
            r"\\frac\s*\{\s*d\s*(?P<order>\^\s*\{?\d\}?)?\s*(?P<name>\\?[A-Za-z]+(?:_\{?\w+\}?)?)\s*\}"
            r"\s*\{\s*d\s*(?P<by>[A-Za-z])\s*(?:\^\s*\{?\d\}?)?\s*\}"
        ),
        lambda found: rf"\Delta_{{{re.sub(r'[^A-Za-z0-9]', '', found[0])}}}",
    ),
    # Commands in an index: m_{\max}, L_{\odot}.
    (re.compile(r"_\s*(?:\{\s*\\(max|min|odot)\s*\}|\\(max|min|odot)\b)"), r"_{\1\2}"),
)
"""What math-verify stumbles over, and how to write it instead."""


def extract(text: str) -> list[Any]:
    """Everything math-verify reads in `text`: sympy expressions, then the string it read them from; [] for nothing."""
    for pattern, replacement in REPAIRS:
        text = pattern.sub(replacement, text)
    # Where the formula in a box cannot be read, its last number is no answer: only text without a box is searched for
    # bare numbers.
    targets = (LATEX,) if HAS_BOX.search(text) else (LATEX, EXPRESSION)
    found = parse(text, extraction_config=targets, parsing_timeout=None, raise_on_error=True)  # type: ignore[arg-type]
    return [_as_interval(value) for value in found]


def _as_interval(value: Any) -> Any:
    """The interval (0, 4] for 0 < t ≤ 4, [4, ∞) for 4 ≤ t; anything else unchanged."""
    bound = isinstance(value, INEQUALITY) and {value.lhs.is_Symbol, value.rhs.is_Symbol} == {True, False}
    if not (bound or isinstance(value, And)) or len(value.free_symbols) != 1:
        return value
    try:
        return value.as_set()
    except PARSER_ERRORS:
        return value


@lru_cache(maxsize=8192)
def read_reference(reference: str) -> list[Any]:
    r"""The values a reference stands for; [] if it cannot be read.

    References come bare (``\frac{1}{2}``, ``50\%``, ``(3, \pi)``), delimited (``$12$``, ``\boxed{…}``), with a unit
    (``12 units``) or as words (``even``). Bare ones are boxed: outside delimiters math-verify sees only digits, and
    would read ``2k+2`` as 2.
    """
    text = reference.strip()
    if not text:
        return []
    boxed = rf"\boxed{{{text}}}"
    values: list[Any] = []
    if HAS_DELIMITERS.search(text):
        forms = [text]
    elif NUMBER_AND_UNIT.match(text):
        forms = [text, boxed]
    elif WORDS.match(text):
        # Without \text, math-verify reads a word as a product of letters and forgets their order: compare as text.
        word = text.rstrip(".")
        forms = [rf"\boxed{{\text{{{word}}}}}"]
        values.extend(dict.fromkeys([word, word.lower(), word.capitalize()]))
    else:
        forms = [boxed]
    for form in forms:
        try:
            values.extend(extract(form))
        except PARSER_ERRORS:
            return []
    # A string alone means that parsing failed: only a letter-for-letter copy would be right, anything else "wrong".
    return values if any(not isinstance(value, str) for value in values) else []
