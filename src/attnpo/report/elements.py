"""Elements of the views: numbers as readable text, charts and tables, and the templates that turn them into HTML."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
# Control characters have no glyph, and some end the parsing of a page: replaced by their pictures (U+2400 …).
_CONTROLS: dict[int, int | str] = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}
_CONTROLS[0x7F] = 0x2421
# Embeddings, overrides and isolates reverse the text after them: replaced by their code points.
_CONTROLS |= {code: f"⟨U+{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def visible(text: str) -> str:
    """Return `text` with a visible sign in place of each invisible character that affects the text around it."""
    return text.translate(_CONTROLS)


def esc(value: object) -> Markup:
    """Return `value` escaped as HTML text or attribute value; Markup is returned unchanged."""
    return value if isinstance(value, Markup) else Markup(html.escape(visible(str(value)), quote=True))


def embedded_json(value: Any) -> str:
    """Return JSON that is safe inside a <script> element: no `</`, no `<!--`, no NaN."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def percent(share: float | None, digits: int = 0) -> str:
    return "–" if share is None else f"{_signed(100 * share, digits)}{NBSP}%"


def points(share: float) -> str:
    """Format a difference of two shares in percentage points, with its sign."""
    return f"{_plus(100 * share, 1)}{NBSP}points"


def change(before: float, after: float) -> str:
    """Format the relative change from `before` to `after`, with its sign."""
    return "–" if not before else f"{_plus(100 * (after - before) / before, 0)}{NBSP}%"


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def small(value: float | None, signed: bool = False, digits: int = 3) -> str:
    """Format with a few significant digits, without an exponent for the sizes that occur here."""
    if value is None:
        return "–"
    text = f"{abs(value):.{digits}g}"
    sign = MINUS if value < 0 else "+" if signed and value > 0 else ""
    return sign + text


def score(value: float | None) -> str:
    """Format an accuracy–efficiency score: two decimals and its sign."""
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


COLOURS = 6  # --run-0 … in colours.css: Okabe and Ito's, darkened or lightened until they are legible
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
MARKS = ("●", "■", "◆", "▲", "✚", "★")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a `mark` for points, else a line of the given `dash`."""

    label: str
    colour: str
    mark: str = ""
    dash: str = "solid"
    faint: bool = False


@dataclass(frozen=True)
class Table:
    """Cells as formatted text; the first cell of a row is its heading."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    caption: str = ""


@dataclass(frozen=True)
class Chart:
    """A titled plot; `layout` overrides the layout that all plots of the page share."""

    id: str
    title: str
    explained: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    legend: list[Key] = field(default_factory=list)
    table: Table | None = None

    def figure(self) -> dict[str, Any]:
        """Return the arguments that the page's script passes to plotly."""
        return {"id": f"plot-{self.id}", "traces": self.traces, "layout": self.layout}


def colour(index: int) -> str:
    return f"--run-{index % COLOURS}"


def symbol(index: int) -> str:
    return SYMBOLS[index % len(SYMBOLS)]


def mark(index: int) -> str:
    return MARKS[index % len(MARKS)]


def dash(index: int) -> str:
    return DASHES[index % len(DASHES)]


def short(value: float | None) -> float | None:
    """Round to six significant digits: more than a plot can show."""
    return None if value is None else float(f"{value:.6g}")


def error_bars(
    values: Sequence[float | None], low: Sequence[float | None], high: Sequence[float | None], colour: str
) -> dict[str, Any]:
    """Return plotly's error bars for intervals [low, high] around values."""
    return {
        "type": "data",
        "symmetric": False,
        "array": _differences(high, values),
        "arrayminus": _differences(values, low),
        "color": colour,
        "thickness": 1.5,
        "width": 4,
    }


def _differences(upper: Sequence[float | None], lower: Sequence[float | None]) -> list[float | None]:
    pairs = zip(upper, lower, strict=True)
    return [None if a is None or b is None else short(max(0.0, a - b)) for a, b in pairs]


INTERVAL = re.compile(r" (\[[^\[\]]*\])")


@dataclass(frozen=True)
class View:
    """One tab of the page; a view with empty `html` gets no tab."""

    id: str
    title: str
    html: Markup
    charts: list[Chart] = field(default_factory=list)


@cache
def _templates() -> Environment:
    """The environment of the templates. `esc` escapes every value they print; an undefined value is an error."""
    templates = Environment(
        loader=PackageLoader("attnpo.report"),
        autoescape=True,
        finalize=esc,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"cell": _cell, "small": small}
    return templates


def render(template: str, **values: Any) -> Markup:
    """Render a file of templates/ with `values`; surrounding whitespace is removed."""
    return Markup(_templates().get_template(template).render(values).strip())


def _cell(text: str) -> Markup:
    """Return the HTML of a table cell, with its interval in smaller type."""
    return Markup(INTERVAL.sub(r" <small>\1</small>", str(esc(text))))
