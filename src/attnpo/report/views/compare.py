"""The Compare view: accuracy, length and AES of runs and of evaluated models, per benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from attnpo.evaluation.options import sampling_notices
from attnpo.report.elements import (
    Chart,
    Key,
    Table,
    View,
    colour,
    dash,
    error_bars,
    mark,
    percent,
    plural,
    render,
    short,
    small,
    symbol,
)
from attnpo.report.elements import score as score_text
from attnpo.report.evaluation import Evaluation, Measure, Sampled
from attnpo.report.run import Run
from attnpo.report.views.frontier import (
    EXPLAINED,
    Point,
    aes,
    frontier_chart,
    lengths_chart,
    run_points,
    runs_table,
    share_of,
    tokens_of,
)


def benchmark_names(evaluations: list[Evaluation]) -> list[str]:
    return list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.benchmarks))


def sampled_differently(evaluations: list[Evaluation]) -> list[str]:
    """Notices about options that differ between evaluations of the same benchmark."""
    having = {
        name: [one.name for one in evaluations if name in one.benchmarks] for name in benchmark_names(evaluations)
    }
    return sampling_notices({one.name: one.options for one in evaluations}, having)


def on_other_problems(evaluations: list[Evaluation], name: str) -> list[Evaluation]:
    """The evaluations whose problems differ from those of the first one that has the benchmark."""
    having = [one for one in evaluations if name in one.benchmarks]
    return [one for one in having[1:] if not one.same_problems(having[0], name)]


def score(evaluation: Evaluation, base: Evaluation, name: str) -> float | None:
    """AES on one benchmark: as recorded in the folder (which is paired), else relative to `base`, the first one given.

    None if the two did not answer the same problems.
    """
    if name in evaluation.aes or evaluation is base:
        return evaluation.aes.get(name)
    ours, theirs = _point(evaluation, name), _point(base, name)
    if ours is None or theirs is None or not evaluation.same_problems(base, name):
        return None
    return aes(ours.accuracy.value, ours.tokens.value, theirs.accuracy.value, theirs.tokens.value)


def bases(evaluations: list[Evaluation]) -> str:
    """A sentence that names the baselines of the AES in the tables; empty without AES."""
    recorded = list(dict.fromkeys(one.base for one in evaluations if one.base is not None))
    own = [one for one in evaluations[1:] if not one.aes]
    parts = [*recorded, *([evaluations[0].name] if own else [])]
    return f"AES: accuracy–efficiency score against {' and '.join(dict.fromkeys(parts))}." if parts else ""


def mean_chart(evaluations: list[Evaluation]) -> Chart | None:
    """A chart of means over the benchmarks that all share, without intervals; None if there are fewer than two."""
    names = _shared(evaluations)
    if len(names) < 2:
        return None
    groups = {one.name: [_mean(one, names)] for one in evaluations}
    title, explained = f"Mean over {len(names)} benchmarks", EXPLAINED.replace(" Bars: 95 % intervals.", "")
    return frontier_chart("frontier-mean", title, groups, explained)


def mean_table(evaluations: list[Evaluation]) -> Table:
    """Means over the benchmarks that all share, and AES on them."""
    names = _shared(evaluations)
    rows = []
    for one in evaluations:
        mean = _mean(one, names)
        scores = [found for name in names if (found := score(one, evaluations[0], name)) is not None]
        overall = one.aes.get("all", fmean(scores) if scores else None)
        rows.append((one.name, share_of(mean.accuracy), tokens_of(mean.tokens), score_text(overall)))
    apart = [name for name in benchmark_names(evaluations) if on_other_problems(evaluations, name)]
    caption = bases(evaluations) + (f" Left out, as the problems differ: {', '.join(apart)}." if apart else "")
    return Table(("Model", "Accuracy", "Tokens", "AES"), rows, caption.strip())


def _shared(evaluations: list[Evaluation]) -> list[str]:
    """The benchmarks that all evaluations have, on the same problems."""
    return [
        name
        for name in benchmark_names(evaluations)
        if all(_point(one, name) for one in evaluations) and not on_other_problems(evaluations, name)
    ]


def _mean(evaluation: Evaluation, names: list[str]) -> Point:
    found = [point for name in names if (point := _point(evaluation, name))]
    accuracy, tokens = fmean(p.accuracy.value for p in found), fmean(p.tokens.value for p in found)
    return Point("mean", Measure(accuracy), Measure(tokens))


def benchmark_charts(evaluations: list[Evaluation], name: str, index: int) -> list[Chart]:
    """The charts of one benchmark as far as measured: frontier, pass@k, accuracy under token budgets."""
    points = {one.name: [point] for one in evaluations if (point := _point(one, name))}
    apart = bool(on_other_problems(evaluations, name))
    warning = " Not all on the same problems: not comparable." if apart else ""
    charts = []
    if points:
        about = "Bars: 95 % intervals." + warning if apart else EXPLAINED
        charts.append(frontier_chart(f"frontier-{index}", "Accuracy and length", points, about, lined=not apart))
    for kind, title, explained, axis, of in (
        ("at-k", "pass@k", "Share of problems with a right response among k, unbiased.", "k", lambda b: b.at_k),
        (
            "at-budget",
            "Accuracy under a token budget",
            "A longer response counts as wrong.",
            "budget in tokens",
            lambda b: b.at_budget,
        ),
    ):
        measured = {one.name: of(one.benchmarks[name]) if name in one.benchmarks else {} for one in evaluations}
        if kind == "at-budget":
            measured, note = _common_budgets(measured)
            explained += note
        chart = _by_number(measured, f"{kind}-{index}", title, explained + warning, axis)
        if chart is not None:
            charts.append(chart)
    return charts


def _common_budgets(measured: dict[str, dict[int, Measure]]) -> tuple[dict[str, dict[int, Measure]], str]:
    """Keep only the budgets that all share, if these suffice for a line; also return a note about the others."""
    budgets = [set(found) for found in measured.values() if found]
    common = set.intersection(*budgets) if budgets else set()
    if all(found == common for found in budgets):
        return measured, ""
    if len(common) < 2:
        return measured, " Not all were measured at the same budgets."
    drawn = {name: {k: m for k, m in found.items() if k in common} for name, found in measured.items()}
    return drawn, " Only budgets that all were measured at."


def _by_number(
    measured: dict[str, dict[int, Measure]], chart: str, title: str, explained: str, axis: str
) -> Chart | None:
    traces, legend, columns = [], [], {}
    for index, (name, measures) in enumerate(measured.items()):
        if len(measures) < 2:
            continue
        values = [m.value for m in measures.values()]
        low, high = [m.low for m in measures.values()], [m.high for m in measures.values()]
        shade = colour(index)
        trace = {
            "name": name,
            "x": list(measures),
            "y": [short(value) for value in values],
            "mode": "lines+markers",
            "line": {"color": shade, "width": 2, "dash": dash(index)},
            "marker": {"color": shade, "size": 8, "symbol": symbol(index)},
        }
        if any(end is not None for end in low):
            trace["error_y"] = error_bars(values, low, high, shade) | {"thickness": 1}
        traces.append(trace)
        legend.append(Key(name, shade, mark(index)))
        columns[name] = {k: share_of(measure) for k, measure in measures.items()}
    if not traces:
        return None
    numbers = sorted({number for column in columns.values() for number in column})
    rows = [(f"{number:,}", *(column.get(number, "") for column in columns.values())) for number in numbers]
    layout = {
        "xaxis": {
            "title": {"text": axis},
            "type": "log",
            "tickvals": numbers,
            "ticktext": [f"{n:,}" for n in numbers],
            "showgrid": False,
        },
        "yaxis": {"tickformat": ".0%"},
        "hovermode": "x unified",
    }
    return Chart(chart, title, explained, traces, layout, legend, Table((axis, *columns), rows))


def benchmark_table(evaluations: list[Evaluation], name: str) -> Table:
    """One row per model with the benchmark: accuracy, length, AES, truncation, transition phrases and steps."""
    columns = (
        *("Model", "Problems", "Accuracy", "Tokens", "AES"),
        *("Thinking", "Answer", "Cut off", "Transitions / 1k", "Steps"),
    )
    having = [one for one in evaluations if name in one.benchmarks]
    apart = on_other_problems(evaluations, name)
    rows, notes = [], []
    for one in having:
        found = one.benchmarks[name]
        m, behaviour = found.measures, found.behaviour
        rows.append(
            (
                one.name,
                f"{found.problems:,}",
                share_of(m["accuracy"]) if "accuracy" in m else "–",
                tokens_of(m["tokens"]) if "tokens" in m else "–",
                score_text(score(one, evaluations[0], name)) + (" (other problems)" if one in apart else ""),
                tokens_of(Measure(m["thinking_tokens"].value)) if "thinking_tokens" in m else "–",
                tokens_of(Measure(m["answer_tokens"].value)) if "answer_tokens" in m else "–",
                percent(m["truncated"].value, 1) if "truncated" in m else "–",
                small(behaviour.get("transition_per_1k")),
                small(behaviour.get("steps")),
            )
        )
        if found.ungraded:
            notes.append(f"{one.name}: {plural(found.ungraded, 'response')} could not be graded and are left out.")
    if apart:
        names = ", ".join(one.name for one in apart)
        notes.append(f"{names}: other problems than {having[0].name}: not comparable; `attnpo compare` pairs them.")
    caption = f"95 % intervals in brackets. {bases(evaluations)}"
    return Table(columns, rows, " ".join([caption.strip(), *notes]))


def _point(evaluation: Evaluation, name: str) -> Point | None:
    measures = evaluation.benchmarks[name].measures if name in evaluation.benchmarks else {}
    if "accuracy" not in measures or "tokens" not in measures:
        return None
    return Point(name, measures["accuracy"], measures["tokens"])


def _lengths(sampled: Sampled, name: str) -> list[float]:
    return [response.tokens for response in sampled.responses.get(name, ()) if response.tokens is not None]


def compare(runs: list[Run], evaluations: list[Evaluation], sampled: Sequence[Sampled] = ()) -> View:
    """The view: held-out problems of the runs first, then every benchmark of the evaluations."""
    groups = {run.name: points for run in runs if (points := run_points(run))}
    of_runs = frontier_chart("frontier-runs", "Accuracy and length", groups) if groups else None
    mean = mean_chart(evaluations)
    benchmarks = []
    for index, name in enumerate(benchmark_names(evaluations)):
        lengths = {one.evaluation.name: _lengths(one, name) for one in sampled}
        spread = lengths_chart(f"lengths-of-{index}", "Lengths", lengths)
        charts = [*benchmark_charts(evaluations, name, index), *([] if spread is None else [spread])]
        benchmarks.append({"name": name, "table": benchmark_table(evaluations, name), "charts": charts})
    html = render(
        "compare.html",
        has_runs=bool(runs),
        of_runs=of_runs,
        runs=runs_table(runs),
        differences=sampled_differently(evaluations),
        mean=mean,
        means=None if mean is None else mean_table(evaluations),
        benchmarks=benchmarks,
    )
    charts = [*(chart for chart in (of_runs, mean) if chart is not None)]
    return View("compare", "Compare", html, [*charts, *(chart for one in benchmarks for chart in one["charts"])])
