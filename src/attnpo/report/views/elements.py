"""Tables, charts and notices as HTML."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from attnpo.report.data.charts import Chart, Key, Table
from attnpo.report.words import esc

INTERVAL = re.compile(r" (\[[^\[\]]*\])")


@dataclass(frozen=True)
class View:
    """One tab of the page; without `html` there is nothing to show and no tab."""

    id: str
    title: str
    html: str
    charts: list[Chart] = field(default_factory=list)


def table_html(table: Table, label: str, classes: str = "") -> str:
    """A table that scrolls in its own box where it is wider or longer than that; intervals stand smaller."""
    head = "".join(f'<th scope="col">{esc(name)}</th>' if name else "<td></td>" for name in table.columns)
    body = "".join(
        f'<tr><th scope="row">{esc(first)}</th>' + "".join(f"<td>{_cell(cell)}</td>" for cell in rest) + "</tr>\n"
        for first, *rest in table.rows
    )
    caption = f'<p class="aside">{esc(table.caption)}</p>' if table.caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(label)}"><table class="{classes}">'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>{caption}\n"
    )


def _cell(text: str) -> str:
    return INTERVAL.sub(r" <small>\1</small>", esc(text))


def charts_html(charts: list[Chart]) -> str:
    return '<div class="charts">' + "".join(chart_html(chart) for chart in charts) + "</div>\n" if charts else ""


def chart_html(chart: Chart) -> str:
    """The plot's place, its legend, and its numbers as a table."""
    legend = "".join(_key(key) for key in chart.legend)
    title = esc(chart.title)
    numbers = ""
    if chart.table is not None:
        table = table_html(chart.table, f"{chart.title}, numbers", "numbers")
        numbers = f"<details><summary>{title} as a table</summary>{table}</details>"
    described = "the numbers are in the table below" if numbers else "its numbers are in a table of this view"
    return (
        f'<figure id="{chart.id}"><figcaption><h3>{title}</h3><p>{esc(chart.explained)}</p></figcaption>'
        f'<ul class="legend">{legend}</ul><div class="plot" id="plot-{chart.id}" role="img" aria-label="{title}; '
        f'{described}" style="--height: {chart.layout.get("height", 270)}px"></div>{numbers}</figure>\n'
    )


def _key(key: Key) -> str:
    shape = "points" if key.mark else f"{key.dash} thin" if key.faint else key.dash
    drawn = f'<span class="key {shape}" style="--colour: var({key.colour})" aria-hidden="true">{key.mark}</span>'
    return f"<li>{drawn}{esc(key.label)}</li>"


def notices_html(notices: list[str], label: str = "What is missing") -> str:
    items = "".join(f"<li>{esc(notice)}</li>" for notice in notices)
    return f'<ul class="notice" role="note" aria-label="{esc(label)}">{items}</ul>\n' if items else ""


def nothing(text: str) -> str:
    return f'<p class="notice">{esc(text)}</p>\n'


def facts_html(facts: list[tuple[str, str]]) -> str:
    listed = "".join(f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{listed}</dl>\n' if listed else ""
