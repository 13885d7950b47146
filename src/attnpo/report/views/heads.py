"""The attention heads that were read, and how good every head is."""

from __future__ import annotations

from attnpo.report.data.charts import Chart
from attnpo.report.data.heads import chosen_table, described, head_charts
from attnpo.report.data.run import Run
from attnpo.report.data.stability import Stability, stability_chart
from attnpo.report.views.elements import View, charts_html, table_html
from attnpo.report.words import esc


def heads(runs: list[Run], stabilities: list[Stability]) -> View:
    """A map, an order and a table per run that says which heads it used; then their stability, where measured."""
    parts: list[str] = []
    charts: list[Chart] = []
    for index, run in enumerate(runs):
        if run.heads:
            drawn = head_charts(run, index)
            charts += drawn
            title = f"<h2>{esc(run.name)}</h2>\n" if len(runs) > 1 else ""
            said = f'<p class="lead">{esc(described(run))}</p>\n' if drawn else ""
            parts.append(f"{title}{said}{charts_html(drawn)}{table_html(chosen_table(run), 'Chosen heads')}")
    for index, stability in enumerate(stabilities):
        chart = stability_chart(stability, index)
        charts.append(chart)
        title = f": {esc(stability.name)}" if len(stabilities) > 1 else ""
        parts.append(f'<h2>Along the run{title}</h2>\n<div class="wide">{charts_html([chart])}</div>')
    return View("heads", "Heads", "".join(parts), charts)
