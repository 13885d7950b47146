"""What happened, in plain language and in a handful of numbers and curves."""

from __future__ import annotations

from attnpo.report.data.curves import OVERVIEW, curves
from attnpo.report.data.evaluation import Evaluation
from attnpo.report.data.run import Run
from attnpo.report.data.summary import before_after, facts, findings, sentence
from attnpo.report.views.elements import View, charts_html, facts_html, nothing, notices_html, table_html
from attnpo.report.words import esc, plural


def overview(runs: list[Run], evaluations: list[Evaluation]) -> View:
    """The summary of every run, then the curves of all of them together."""
    charts = curves(runs, OVERVIEW)
    if len(runs) == 1:
        summary = _summary(runs[0])
    else:
        cards = (f'<article class="run"><h2>{esc(run.name)}</h2>{_summary(run)}</article>' for run in runs)
        summary = f'<div class="runs">{"".join(cards)}</div>' if runs else ""
    said = ""
    if evaluations:
        names = ", ".join(f"{one.name} ({plural(len(one.benchmarks), 'benchmark')})" for one in evaluations)
        said = f'<p class="lead">Evaluated: {esc(names)}. Their numbers are under <a href="#compare">Compare</a>.</p>'
    drawn = charts_html(charts) or (nothing("No curves: no metrics and no evaluations were found.") if runs else "")
    return View("overview", "Overview", f"{summary}{said}{drawn}", charts)


def _summary(run: Run) -> str:
    table, said = before_after(run), findings(run)
    numbers = f"<div>{table_html(table, 'Before and after', 'summary')}</div>" if table else ""
    listed = "".join(f"<li>{esc(finding)}</li>" for finding in said)
    found = f'<ul class="findings">{listed}</ul>' if listed else ""
    return (
        f'<p class="sentence">{esc(sentence(run))}</p>\n{facts_html(facts(run))}'
        f'<div class="summaries">{numbers}{found}</div>{notices_html(run.notices)}'
    )
