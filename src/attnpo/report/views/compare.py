"""Runs and evaluated models against each other: length, accuracy, and both in one score."""

from __future__ import annotations

from attnpo.report.data.benchmarks import (
    benchmark_charts,
    benchmark_names,
    benchmark_table,
    mean_chart,
    mean_table,
    sampled_differently,
)
from attnpo.report.data.charts import Chart
from attnpo.report.data.evaluation import Evaluation
from attnpo.report.data.frontier import frontier_chart, run_points, runs_table
from attnpo.report.data.run import Run
from attnpo.report.views.elements import View, charts_html, nothing, notices_html, table_html
from attnpo.report.words import esc


def compare(runs: list[Run], evaluations: list[Evaluation]) -> View:
    """Held-out problems of the runs first, then every benchmark of the evaluations."""
    parts: list[str] = []
    charts: list[Chart] = []
    if runs:
        parts.append("<h2>Held-out problems of training</h2>\n")
        groups = {run.name: points for run in runs if (points := run_points(run))}
        if groups:
            chart = frontier_chart("frontier-runs", "Accuracy and length", groups)
            charts.append(chart)
            parts += [f'<div class="wide">{charts_html([chart])}</div>', table_html(runs_table(runs), "Runs")]
        else:
            parts.append(nothing("Nothing to compare: no evaluation recorded both accuracy and length."))
    parts.append(notices_html(sampled_differently(evaluations), "How the evaluations differ"))
    mean = mean_chart(evaluations)
    if mean is not None:
        charts.append(mean)
        parts.append(f'<h2>All benchmarks</h2>\n<div class="wide">{charts_html([mean])}</div>')
        parts.append(table_html(mean_table(evaluations), "All benchmarks"))
    for index, name in enumerate(benchmark_names(evaluations)):
        drawn = benchmark_charts(evaluations, name, index)
        charts += drawn
        table = table_html(benchmark_table(evaluations, name), f"{name}, numbers")
        parts.append(f'<h2>{esc(name)}</h2>\n{table}<div class="thirds">{charts_html(drawn)}</div>')
    return View("compare", "Compare", "".join(parts), charts)
