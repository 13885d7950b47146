r"""A number with its unit, written in words or symbols that math-verify takes for a product of letters.

``3 dollars``, ``5 km/h``, ``£5``, ``5 m^2``, ``12 000``, ``\text{5 apples}``, ``\approx 5``. Asked only where the
reference is a number and the answer, read as a formula, is not it: ``5 m`` may be five times m.
Imports only the standard library: every verifying process loads it.
"""

from __future__ import annotations

import re

_TEXT = re.compile(r"\\(?:text|textrm|mathrm|mbox|textbf|mathbf)\s*\{([^{}]*)\}")
_SPACE = re.compile(r"\\[,;:! ]|~|\\q?quad\b")
_ROUGHLY = re.compile(r"^(?:\\approx|≈|~|approximately|about|roughly|exactly)\s*", re.IGNORECASE)
_NAME = re.compile(r"^[A-Za-z]\w*\s*(?:=|\\approx|≈)\s*")
_AMOUNT = re.compile(
    r"^(?:\\?[$€£¥]|(?:USD|EUR|GBP)\b)?\s*"
    r"(?P<number>[+-]?(?:\d{1,3}(?:[ ,]\d{3})+|\d+)(?:\.\d+)?)"
    r"\s*(?P<unit>.*?)\s*[.;,]*$"
)
_SHORT_UNIT = (
    r"(?:[mck]?m|in|ft|yd|mi|h|hr|hrs|s|ms|min|[mk]?g|lb|oz|[m]?l|L|mL|J|kJ|N|W|kW|V|A|K|C|F|Hz|Pa|mol|km|"
    r"kmh|mph|\\?[$€£¥%]|USD|EUR|°|°C|°F|\^\s*\{?\\circ\}?[CFK]?)"
)
_UNIT = re.compile(rf"^(?:(?:{_SHORT_UNIT}|[A-Za-z]{{3,}})(?:\s*\^\s*\{{?-?\d\}}?|[²³])?(?:\s*(?:/|per\b|\s)\s*|$))+$")
_NO_UNIT = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|half|and|or|over|plus|minus|times|squared|cubed|factorial|"
    r"sqrt|sin|cos|tan|log|mod)s?\b",
    re.IGNORECASE,
)
LONGEST = 100
"""Characters of an answer that can be a number and its unit."""


def bare_number(text: str) -> str | None:
    r"""The number in an answer that is nothing but a number and its unit; None for anything else.

    >>> bare_number(r"v = 5\,\text{km/h}"), bare_number("£1,200"), bare_number("5x"), bare_number("5 million")
    ('5', '1200', None, None)
    """
    if len(text) > LONGEST:
        return None
    plain = _SPACE.sub(" ", _TEXT.sub(r" \1 ", text)).strip()
    plain = _ROUGHLY.sub("", _NAME.sub("", plain))
    amount = _AMOUNT.match(plain)
    if amount is None:
        return None
    unit = amount["unit"]
    if unit and (_NO_UNIT.search(unit) or not _UNIT.match(unit)):
        return None
    return re.sub(r"[ ,]", "", amount["number"])
