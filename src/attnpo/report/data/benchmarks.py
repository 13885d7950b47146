"""Several evaluated models side by side, benchmark by benchmark."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from attnpo.report.data.charts import Chart, Key, Table, colour, dash, error_bars, mark, short, symbol
from attnpo.report.data.evaluation import Benchmark, Evaluation, Measure
from attnpo.report.data.frontier import EXPLAINED, Point, aes, frontier_chart, share_of, tokens_of
from attnpo.report.words import percent, plural, small


def benchmark_names(evaluations: list[Evaluation]) -> list[str]:
    return list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.benchmarks))


def score(evaluation: Evaluation, base: Evaluation, name: str) -> float | None:
    """AES on one benchmark: as recorded in the folder, or else against `base`, the first one given."""
    if name in evaluation.aes or evaluation is base:
        return evaluation.aes.get(name)
    ours, theirs = _point(evaluation, name), _point(base, name)
    if ours is None or theirs is None:
        return None
    return aes(ours.accuracy.value, ours.tokens.value, theirs.accuracy.value, theirs.tokens.value)


def bases(evaluations: list[Evaluation]) -> str:
    """Against what the AES of the tables is, in words; empty where there is none."""
    recorded = list(dict.fromkeys(one.base for one in evaluations if one.base is not None))
    own = [one for one in evaluations[1:] if not one.aes]
    parts = [*recorded, *([evaluations[0].name] if own else [])]
    return f"AES: accuracy–efficiency score against {' and '.join(dict.fromkeys(parts))}." if parts else ""


def mean_chart(evaluations: list[Evaluation]) -> Chart | None:
    """Means over the benchmarks that all have, without intervals; None where fewer than two are shared."""
    names = _shared(evaluations)
    if len(names) < 2:
        return None
    groups = {one.name: [_mean(one, names)] for one in evaluations}
    title, explained = f"Mean over {len(names)} benchmarks", EXPLAINED.replace(" Bars: 95 % intervals.", "")
    return frontier_chart("frontier-mean", title, groups, explained)


def mean_table(evaluations: list[Evaluation]) -> Table:
    """The means over the benchmarks that all have, and AES on them."""
    names = _shared(evaluations)
    rows = []
    for one in evaluations:
        mean = _mean(one, names)
        scores = [found for name in names if (found := score(one, evaluations[0], name)) is not None]
        overall = one.aes.get("all", fmean(scores) if scores else None)
        rows.append((one.name, share_of(mean.accuracy), tokens_of(mean.tokens), small(overall, signed=True, digits=2)))
    return Table(("Model", "Accuracy", "Tokens", "AES"), rows, bases(evaluations))


def _shared(evaluations: list[Evaluation]) -> list[str]:
    return [name for name in benchmark_names(evaluations) if all(_point(one, name) for one in evaluations)]


def _mean(evaluation: Evaluation, names: list[str]) -> Point:
    found = [point for name in names if (point := _point(evaluation, name))]
    accuracy, tokens = fmean(p.accuracy.value for p in found), fmean(p.tokens.value for p in found)
    return Point("mean", Measure(accuracy), Measure(tokens))


def benchmark_charts(evaluations: list[Evaluation], name: str, index: int) -> list[Chart]:
    """Frontier, pass@k and accuracy under budgets of one benchmark, as far as they were measured."""
    points = {one.name: [point] for one in evaluations if (point := _point(one, name))}
    charts = [frontier_chart(f"frontier-{index}", "Accuracy and length", points)] if points else []
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
        chart = _by_number(evaluations, name, f"{kind}-{index}", title, explained, axis, of)
        if chart is not None:
            charts.append(chart)
    return charts


def _by_number(
    evaluations: list[Evaluation],
    name: str,
    chart: str,
    title: str,
    explained: str,
    axis: str,
    of: Callable[[Benchmark], dict[int, Measure]],
) -> Chart | None:
    traces, legend, columns = [], [], {}
    for index, one in enumerate(evaluations):
        measures = of(one.benchmarks[name]) if name in one.benchmarks else {}
        if len(measures) < 2:
            continue
        values = [m.value for m in measures.values()]
        low, high = [m.low for m in measures.values()], [m.high for m in measures.values()]
        shade = colour(index)
        trace = {
            "name": one.name,
            "x": list(measures),
            "y": [short(value) for value in values],
            "mode": "lines+markers",
            "line": {"color": shade, "width": 2, "dash": dash(index)},
            "marker": {"color": shade, "size": 8, "symbol": symbol(index)},
        }
        if any(end is not None for end in low):
            trace["error_y"] = error_bars(values, low, high, shade) | {"thickness": 1}
        traces.append(trace)
        legend.append(Key(one.name, shade, mark(index)))
        columns[one.name] = {k: share_of(measure) for k, measure in measures.items()}
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
    """One row per model: accuracy, length, AES, and how it writes."""
    columns = ("Model", "Accuracy", "Tokens", "AES", "Thinking", "Answer", "Cut off", "Transitions / 1k", "Steps")
    rows, notes = [], []
    for one in evaluations:
        if name not in one.benchmarks:
            rows.append((one.name, *(["–"] * (len(columns) - 1))))
            continue
        found = one.benchmarks[name]
        m, behaviour = found.measures, found.behaviour
        rows.append(
            (
                one.name,
                share_of(m["accuracy"]) if "accuracy" in m else "–",
                tokens_of(m["tokens"]) if "tokens" in m else "–",
                small(score(one, evaluations[0], name), signed=True, digits=2),
                tokens_of(Measure(m["thinking_tokens"].value)) if "thinking_tokens" in m else "–",
                tokens_of(Measure(m["answer_tokens"].value)) if "answer_tokens" in m else "–",
                percent(m["truncated"].value, 1) if "truncated" in m else "–",
                small(behaviour.get("transition_per_1k")),
                small(behaviour.get("steps")),
            )
        )
        if found.ungraded:
            notes.append(f"{one.name}: {plural(found.ungraded, 'response')} could not be graded and are left out.")
    problems = max(one.benchmarks[name].problems for one in evaluations if name in one.benchmarks)
    caption = f"{plural(problems, 'problem')}; 95 % intervals in brackets. {bases(evaluations)}"
    return Table(columns, rows, " ".join([caption.strip(), *notes]))


def _point(evaluation: Evaluation, name: str) -> Point | None:
    measures = evaluation.benchmarks[name].measures if name in evaluation.benchmarks else {}
    if "accuracy" not in measures or "tokens" not in measures:
        return None
    return Point(name, measures["accuracy"], measures["tokens"])
