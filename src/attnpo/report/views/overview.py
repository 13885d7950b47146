"""The Overview: the outcome of each run in a sentence, findings, a table of before and after, and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from attnpo.report.elements import (
    NBSP,
    Table,
    View,
    change,
    count,
    duration,
    percent,
    plural,
    points,
    render,
    small,
)
from attnpo.report.evaluation import Evaluation, Sampled
from attnpo.report.run import Measured, Run
from attnpo.report.selection import Flips, Shelf, flips_between
from attnpo.report.views.behaviour import OVERVIEW, curves
from attnpo.report.views.frontier import run_lengths, share_of, tokens_of

ROWS = (
    ("Accuracy", "accuracy", "share"),
    ("Response length", "length/completion", "tokens"),
    ("Thinking", "length/thinking", "tokens"),
    ("Final answer", "length/answer", "tokens"),
    ("Cut off at the limit", "truncated", "share"),
)


def sentence(run: Run) -> str:
    """Describe the outcome of `run` in one sentence (text, not HTML); it names its source if that is training."""
    rows = [
        row for row in run.evaluations if row.get("length/completion") is not None or row.get("accuracy") is not None
    ]
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        begin = f"After {_steps(last)}" if not first["step"] else f"From step {first['step']:.0f} to {last['step']:.0f}"
        return f"{begin} {_length(first, last)} and {_accuracy(first, last)}."
    if len(rows) == 1:
        only = rows[0]
        return (
            f"One evaluation so far, after {_steps(only)}: responses of {count(only.get('length/completion'))} tokens, "
            f"accuracy {percent(only.get('accuracy'))}."
        )
    if len(run.metrics) < 2:
        return "Nothing was measured yet."
    window = min(5, len(run.metrics) // 2)
    first, last = _mean_of(run.metrics[:window]), _mean_of(run.metrics[-window:])
    return (
        f"Over {_steps(run.metrics[-1])} of training {_length(first, last)} and {_accuracy(first, last)} (mean of the "
        f"first and the last {plural(window, 'step')} of training; nothing was measured on held-out problems)."
    )


def _steps(row: Measured) -> str:
    return plural(row["step"] or 0, "step")


T_975 = {1: math.inf, 2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}
"""0.975 quantiles of Student's t, by the number of values in the mean (one more than the degrees of freedom)."""


def _mean_of(rows: list[Measured]) -> Measured:
    """Means over a few updates, with 95 % intervals from the spread of the updates, which have different problems."""
    found: Measured = {}
    for key in ("accuracy", "length/completion"):
        values = [value for row in rows if (value := row.get(key)) is not None]
        if values:
            spread = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 1.0
            mean, half = fmean(values), T_975[len(values)] * spread if spread else 0.0
            found |= {key: mean, f"{key}_low": mean - half, f"{key}_high": mean + half}
    return found


def _length(first: Measured, last: Measured) -> str:
    before, after = first.get("length/completion"), last.get("length/completion")
    if not before or after is None:
        return "the length of responses is not known"
    relative = round(100 * (after - before) / before)
    tokens = f"({count(before)} → {count(after)} tokens)"
    if relative and not is_clear(first, last, "length/completion"):
        return f"the length of responses shows no clear change {tokens}"
    if not relative:
        return f"responses are as long as before {tokens}"
    return f"responses are {abs(relative)}{NBSP}% {'shorter' if relative < 0 else 'longer'} {tokens}"


def _accuracy(first: Measured, last: Measured) -> str:
    before, after = first.get("accuracy"), last.get("accuracy")
    if before is None or after is None:
        return "accuracy is not known"
    if percent(before) == percent(after):
        return f"accuracy stayed at {percent(after)}"
    if not is_clear(first, last, "accuracy"):
        return f"accuracy shows no clear change ({percent(before)} → {percent(after)})"
    return f"accuracy went from {percent(before)} to {percent(after)}"


def is_clear(first: Measured, last: Measured, key: str) -> bool:
    """Whether the interval of the difference excludes 0; true without intervals.

    The interval is Newcombe's (Stat. Med. 17, 1998, method 10), from those of the two values: the root of the sum of
    the squared distances from each value to its bound on the side of the other value.
    """
    before, after = first.get(key), last.get(key)
    if before is None or after is None:
        return True
    up = after > before
    towards, back = first.get(f"{key}_{'high' if up else 'low'}"), last.get(f"{key}_{'low' if up else 'high'}")
    return towards is None or back is None or abs(after - before) > math.hypot(towards - before, after - back)


def facts(run: Run) -> list[tuple[str, str]]:
    """Names and values: the model, the method and the duration."""
    labels = {"advantage": "Advantage", "length_reward": "Length reward", "credit": "Credit"}
    found = [("Model", run.model), ("Method", run.method or "")]
    found += [(labels[key], value) for key, value in run.choices.items()]
    if len(run.config.get("reward_funcs") or []) > 1:
        found.append(("Right or wrong", str(run.environment.get("right_or_wrong") or "not recorded")))
    seconds = sum(row.get("seconds") or 0 for row in run.metrics)
    if seconds:
        found.append(("Training", f"{plural(run.last_step, 'step')} in {duration(seconds)}"))
    return [(name, value) for name, value in found if value]


def findings(run: Run) -> list[str]:
    """One sentence for each other change, with the source of its numbers."""
    held_out = len(run.evaluations) > 1
    first, last = _ends(run.evaluations if held_out else run.metrics)
    source = "" if held_out else " in training batches"
    changes = []
    before, after = first.get("steps/per_response"), last.get("steps/per_response")
    if before is not None and after is not None:
        now, then = small(after, digits=2), small(before, digits=2)
        changes.append(f"A response takes {now} steps{source}, {'as before' if now == then else f'instead of {then}'}.")
    before, after = first.get("phrases/transition_per_1k"), last.get("phrases/transition_per_1k")
    if before is not None and after is not None:
        changes.append(
            f"Phrases that doubt or turn round (“wait”, “alternatively”){source}: {small(before, digits=2)} → "
            f"{small(after, digits=2)} per 1,000 thinking tokens."
        )
    early, late = _ends(run.metrics)
    before, after = early.get("steps/attenuated"), late.get("steps/attenuated")
    if before is not None and after is not None:
        protected = late.get("steps/protected")
        also = "" if protected is None else f" and protected {percent(protected)}"
        changes.append(
            f"The method attenuated {percent(after)} of the steps in the last training batches ({percent(before)} in "
            f"the first){also}."
        )
    without = late.get("groups/without_signal")
    if without:
        changes.append(
            f"{percent(without)} of the last prompts gave no signal: all their responses were worth the same."
        )
    return changes


def _ends(rows: list[Measured]) -> tuple[Measured, Measured]:
    """The first and the last row; for training steps the means of a few."""
    if not rows:
        return {}, {}
    window = max(1, min(5, len(rows) // 2)) if "n" not in rows[0] else 1
    return _means(rows[:window]), _means(rows[-window:])


def _means(rows: list[Measured]) -> Measured:
    values = {key: [value for row in rows if (value := row.get(key)) is not None] for key in rows[0]}
    return {key: fmean(found) if found else None for key, found in values.items()}


def before_after(run: Run) -> Table | None:
    """The first and the last evaluation in columns, with intervals; None without evaluations."""
    if not run.evaluations:
        return None
    columns = run.evaluations[:1] if len(run.evaluations) == 1 else [run.evaluations[0], run.evaluations[-1]]
    two = len(columns) == 2
    names = ["Before", "After"] if two else ["Measured"]
    heads = [f"{name}, step {row['step']:.0f}" for name, row in zip(names, columns, strict=True)]
    rows = []
    for label, key, unit in ROWS:
        if all(row.get(key) is None for row in columns):
            continue
        cells = [_cell(row, key, unit) for row in columns]
        if two:
            cells.append(_change(columns[0].get(key), columns[1].get(key), unit))
        rows.append((label, *cells))
    return Table(("", *heads, *(["Change"] if two else [])), rows, _caption(columns[-1]))


def _caption(row: Measured) -> str:
    size, level = row.get("n"), row.get("confidence")
    measured = f"Measured on {count(size)} held-out problems" if size else "Measured on held-out problems"
    interval = f"{percent(level)} intervals" if level else "intervals"
    return f"{measured}; {interval} in brackets." if row.get("accuracy_low") is not None else f"{measured}."


def _cell(row: Measured, key: str, unit: str) -> str:
    def show(value: float | None) -> str:
        return percent(value, 1) if unit == "share" else count(value)

    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    interval = "" if low is None or high is None else f" [{_bare(show(low))}, {_bare(show(high))}]"
    return f"{show(row.get(key))}{interval}"


def _bare(shown: str) -> str:
    return shown.removesuffix(f"{NBSP}%")


def _change(before: float | None, after: float | None, unit: str) -> str:
    if before is None or after is None:
        return "–"
    return points(after - before) if unit == "share" else change(before, after)


@dataclass(frozen=True)
class Summary:
    """The part of one run above the curves."""

    run: str
    warnings: list[str]
    sentence: str
    facts: list[tuple[str, str]]
    table: Table | None
    findings: list[str]
    notices: list[str]


def overview(
    runs: list[Run], evaluations: list[Evaluation], sampled: Sequence[Sampled] = (), shelves: Sequence[Shelf] = ()
) -> View:
    """The view: a summary per run, the results of the evaluations, then the curves of all runs together.

    `shelves`: the responses of the runs first, in their order.
    """
    charts, own = curves(runs, OVERVIEW), shelves[: len(runs)]
    flips = [shelf.flips for shelf in own] or [None] * len(runs)
    found = [run_lengths(shelf, index, several=len(runs) > 1) for index, shelf in enumerate(own)]
    lengths = [chart for chart in found if chart is not None]
    html = render(
        "overview.html",
        summaries=[_summary(run, counts) for run, counts in zip(runs, flips, strict=True)],
        evaluated=_evaluated(evaluations) if evaluations else None,
        missing=[notice for one in evaluations for notice in one.notices],
        flips=[
            counts.sentence(f"problems of {name}, from {base} to {other},")
            for name, base, other, counts in flips_between(list(sampled))
        ],
        curves=charts,
        lengths=lengths,
    )
    return View("overview", "Overview", html, [*charts, *lengths])


def _evaluated(evaluations: list[Evaluation]) -> Table:
    """The results of every evaluation on every benchmark."""
    rows = [
        (
            one.name,
            name,
            count(found.problems),
            share_of(found.measures["accuracy"]) if "accuracy" in found.measures else "–",
            tokens_of(found.measures["tokens"]) if "tokens" in found.measures else "–",
        )
        for one in evaluations
        for name, found in one.benchmarks.items()
    ]
    caption = "95 % intervals in brackets. More under Compare; single responses under Responses."
    return Table(("Evaluated", "Benchmark", "Problems", "Accuracy", "Tokens"), rows, caption)


def _summary(run: Run, flips: Flips | None) -> Summary:
    sentences = findings(run)
    if flips is not None and flips.problems:
        sentences = [flips.sentence("recorded held-out problems"), *sentences]
    return Summary(run.name, run.warnings, sentence(run), facts(run), before_after(run), sentences, run.notices)
