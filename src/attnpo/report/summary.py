"""What happened in a run: one sentence, and a small table of before and after."""

from __future__ import annotations

from statistics import fmean

from attnpo.report.data.run import Measured, Run
from attnpo.report.words import NBSP, change, count, duration, esc, percent, plural, points

ROWS = (
    ("Accuracy", "accuracy", "share"),
    ("Response length", "length/completion", "tokens"),
    ("Thinking", "length/thinking", "tokens"),
    ("Final answer", "length/answer", "tokens"),
    ("Cut off at the limit", "truncated", "share"),
)


def sentence(run: Run) -> str:
    """One plain sentence about `run` (text, not HTML); it names its source if that is not the held-out evaluation."""
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


def _mean_of(rows: list[Measured]) -> Measured:
    keys = ("accuracy", "length/completion")
    values = {key: [value for row in rows if (value := row.get(key)) is not None] for key in keys}
    return {key: fmean(values[key]) if values[key] else None for key in keys}


def _length(first: Measured, last: Measured) -> str:
    before, after = first.get("length/completion"), last.get("length/completion")
    if not before or after is None:
        return "the length of responses is not known"
    relative = round(100 * (after - before) / before)
    tokens = f"({count(before)} → {count(after)} tokens)"
    if not relative:
        return f"responses are as long as before {tokens}"
    return f"responses are {abs(relative)}{NBSP}% {'shorter' if relative < 0 else 'longer'} {tokens}"


def _accuracy(first: Measured, last: Measured) -> str:
    before, after = first.get("accuracy"), last.get("accuracy")
    if before is None or after is None:
        return "accuracy is not known"
    if percent(before) == percent(after):
        return f"accuracy stayed at {percent(after)}"
    return f"accuracy went from {percent(before)} to {percent(after)}"


def summary_html(run: Run) -> str:
    """Name, model, method, the sentence, the table."""
    facts = [("Model", run.model), ("Method", run.method or "")]
    labels = {"advantage": "Advantage", "length_reward": "Length reward", "credit": "Credit"}
    facts += [(labels[key], value) for key, value in run.choices.items()]
    seconds = sum(row.get("seconds") or 0 for row in run.metrics)
    if seconds:
        facts.append(("Training", f"{plural(run.last_step, 'step')} in {duration(seconds)}"))
    listed = "".join(f"<div><dt>{name}</dt><dd>{esc(value)}</dd></div>" for name, value in facts if value)
    return f'<p class="sentence">{esc(sentence(run))}</p>\n<dl class="facts">{listed}</dl>\n{before_after_table(run)}'


def before_after_table(run: Run) -> str:
    """The first and the last evaluation side by side, with intervals; empty without evaluations."""
    if not run.evaluations:
        return ""
    columns = run.evaluations[:1] if len(run.evaluations) == 1 else [run.evaluations[0], run.evaluations[-1]]
    two = len(columns) == 2
    names = ["Before", "After"] if two else ["Measured"]
    heads = "".join(
        f'<th scope="col">{name} <small>step {row["step"]:.0f}</small></th>'
        for name, row in zip(names, columns, strict=True)
    )
    body = ""
    for label, key, unit in ROWS:
        if all(row.get(key) is None for row in columns):
            continue
        cells = "".join(f"<td>{_cell(row, key, unit)}</td>" for row in columns)
        body += f'<tr><th scope="row">{label}</th>{cells}'
        body += f"<td>{_change(columns[0].get(key), columns[1].get(key), unit)}</td></tr>\n" if two else "</tr>\n"
    change_head = '<th scope="col">Change</th>' if two else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Before and after"><table class="summary">'
        f"<caption>{_caption(columns[-1])}</caption>\n<thead><tr><td></td>{heads}"
        f"{change_head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def _caption(row: Measured) -> str:
    size, level = row.get("n"), row.get("confidence")
    measured = f"Measured on {count(size)} held-out problems" if size else "Measured on held-out problems"
    interval = f"{percent(level)} intervals" if level else "intervals"
    return f"{measured}; {interval} in brackets." if row.get("accuracy_low") is not None else f"{measured}."


def _cell(row: Measured, key: str, unit: str) -> str:
    def show(value: float | None) -> str:
        return percent(value, 1) if unit == "share" else count(value)

    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    interval = "" if low is None or high is None else f" <small>[{_bare(show(low))}, {_bare(show(high))}]</small>"
    return f"{show(row.get(key))}{interval}"


def _bare(shown: str) -> str:
    return shown.removesuffix(f"{NBSP}%")


def _change(before: float | None, after: float | None, unit: str) -> str:
    if before is None or after is None:
        return "–"
    return points(after - before) if unit == "share" else change(before, after)
