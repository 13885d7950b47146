"""Numbers and texts as the page shows them. Everything that reaches the page as text goes through `esc`."""

from __future__ import annotations

import html
import json
from typing import Any

NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
# A control character has no glyph and some end the parsing of a page: show its picture instead (U+2400 …).
_CONTROLS: dict[int, int | str] = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}
_CONTROLS[0x7F] = 0x2421
# Embeddings, overrides and isolates reverse what follows them: show their names instead.
_CONTROLS |= {code: f"⟨U+{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def visible(text: str) -> str:
    """`text` with a visible sign for each character that has none and acts on the text around it."""
    return text.translate(_CONTROLS)


def esc(value: object) -> str:
    """`value` as HTML text or attribute value; never markup."""
    return html.escape(visible(str(value)), quote=True)


def embedded_json(value: Any) -> str:
    """JSON that can stand inside a <script> element: no `</`, no `<!--`, no NaN."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def percent(share: float | None, digits: int = 0) -> str:
    return "–" if share is None else f"{_signed(100 * share, digits)}{NBSP}%"


def points(share: float) -> str:
    """A difference of two shares, in percentage points, with its sign."""
    return f"{_plus(100 * share, 1)}{NBSP}points"


def change(before: float, after: float) -> str:
    """The relative change from `before` to `after`, with its sign."""
    return "–" if not before else f"{_plus(100 * (after - before) / before, 0)}{NBSP}%"


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def small(value: float | None, signed: bool = False, digits: int = 3) -> str:
    """A few significant digits, without an exponent for the sizes that occur here."""
    if value is None:
        return "–"
    text = f"{abs(value):.{digits}g}"
    sign = MINUS if value < 0 else "+" if signed and value > 0 else ""
    return sign + text


def score(value: float | None) -> str:
    """An accuracy–efficiency score: two decimals and its sign."""
    return "–" if value is None else _plus(value, 2)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f}{NBSP}s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f}{NBSP}min"
    return f"{seconds / 3600:.1f}{NBSP}h"


def plural(number: float, noun: str) -> str:
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"


def _signed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("-")


def _plus(value: float, digits: int) -> str:
    text = _signed(value, digits)
    return text if text.startswith(MINUS) or not float(text) else f"+{text}"
