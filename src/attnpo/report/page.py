"""The page as a whole: sections in order, everything inlined, written atomically."""

from __future__ import annotations

import base64
import hashlib
import os
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from attnpo import __version__
from attnpo.errors import InputError
from attnpo.report.curves import charts, curves_html, figures
from attnpo.report.data.run import Run, read_runs
from attnpo.report.details import details_html
from attnpo.report.examples import pick_pairs, pick_training
from attnpo.report.heads import has_heads, head_figures, heads_html
from attnpo.report.responses import effects_legend_html, legend_html, pair_html, training_html
from attnpo.report.summary import summary_html
from attnpo.report.words import embedded_json, esc

SECTIONS = {
    "curves": "Curves",
    "pairs": "Same problem, before and after",
    "training": "Training responses",
    "heads": "Attention heads",
    "details": "Details",
}


def write_report(paths: list[Path], output: Path) -> int:
    """Write one HTML page from run folders; returns its size in bytes.

    The page appears whole or not at all. Raises InputError for folders that are no runs, malformed files (with the
    row), and an output that cannot be written.
    """
    page = report_html(paths).encode("utf-8", errors="replace")
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(page)
        os.replace(unfinished, output)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise InputError(f"--output {output}: cannot be written: {error.strerror}") from error
    return len(page)


def report_html(paths: list[Path]) -> str:
    """The whole page as a string."""
    runs = read_runs(paths)
    found = charts(runs)
    pairs, training = _pairs(runs), _training(runs)
    contents = {
        "curves": curves_html(found),
        "pairs": pairs,
        "training": training,
        "heads": heads_html(runs) if has_heads(runs) else "",
        "details": "".join(details_html(run) for run in runs),
    }
    sections = "".join(
        f'<section id="{name}"><h2>{SECTIONS[name]}</h2>\n{content}</section>\n'
        for name, content in contents.items()
        if content
    )
    links = "".join(f'<li><a href="#{name}">{SECTIONS[name]}</a></li>' for name, content in contents.items() if content)
    title = "Training report" if len(runs) > 1 else runs[0].name
    body = (
        f'<header><p class="kind">attnpo report</p><h1>{esc(title)}</h1>\n{_headers(runs)}'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n<main id="main">\n{sections}</main>\n'
        f"<footer><p>Made by attnpo {__version__}. This page loads nothing from anywhere.</p></footer>"
    )
    return _assemble(f"{title} · attnpo report", body, [*figures(found), *head_figures(runs)])


def _assemble(title: str, body: str, drawn: list[dict[str, Any]]) -> str:
    plotly, script = _own_line_ends(get_plotlyjs()), _resource("page.js")
    assert "</script" not in plotly.lower() + script.lower()
    # Only these two scripts may run, whatever a response contains; nothing may be fetched.
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (plotly, script))
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
    return Template(_resource("page.html")).substitute(
        title=esc(title),
        policy=policy,
        css=_resource("page.css"),
        body=body,
        figures=embedded_json(drawn),
        plotly=plotly,
        script=script,
    )


def _resource(name: str) -> str:
    return _own_line_ends(resources.files("attnpo.report").joinpath(name).read_text(encoding="utf-8"))


def _own_line_ends(text: str) -> str:
    """A browser reads \\r\\n and \\r as \\n before it computes a script's digest."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _headers(runs: list[Run]) -> str:
    if len(runs) == 1:
        return summary_html(runs[0]) + _notices(runs[0].notices)
    cards = (
        f'<article class="run"><h2>{esc(r.name)}</h2>{summary_html(r)}{_notices(r.notices)}</article>' for r in runs
    )
    return '<div class="runs">' + "".join(cards) + "</div>"


def _notices(notices: list[str]) -> str:
    items = "".join(f"<li>{esc(notice)}</li>" for notice in notices)
    return f'<ul class="notice" role="note" aria-label="What is missing">{items}</ul>\n' if items else ""


def _titled(title: str, run: Run, runs: list[Run]) -> str:
    return f"<h3>{esc(f'{run.name}: {title.lower()}' if len(runs) > 1 else title)}</h3>\n"


def _pairs(runs: list[Run]) -> str:
    parts = [
        '<p class="lead">Held-out problems, ordered by how much shorter their response became and taken at even '
        "distances: from the strongest change to the weakest.</p>",
        legend_html(),
    ]
    for run in runs:
        pairs, notices = pick_pairs(run.eval_files)
        parts.append(_titled("First and last evaluation", run, runs) + _notices(notices))
        parts.extend(pair_html(pair, number) for number, pair in enumerate(pairs, 1))
        if len(run.eval_files) < 2:
            parts.append(_nothing(f"Nothing to compare: it takes two evaluations, found {len(run.eval_files)}."))
        elif not pairs:
            parts.append(_nothing("Nothing to compare: no problem is in both the first and the last evaluation."))
    return "\n".join(parts)


def _training(runs: list[Run]) -> str:
    parts = [
        '<p class="lead">From the first and the last steps of training: a response with attenuated steps, one with '
        "protected steps and one that was not rescaled, where there are such; of each kind the one nearest the "
        "median length.</p>",
        legend_html(),
        effects_legend_html(),
    ]
    for run in runs:
        half = (len(run.train_files) + 1) // 2
        ends = {"First steps": run.train_files[:half], "Last steps": run.train_files[half:][::-1]}
        shown = 0
        for name, files in ends.items():
            responses, notices = pick_training(files)
            shown += len(responses)
            parts.append(_notices(notices))
            if responses:
                parts.append(_titled(name, run, runs))
                parts.extend(training_html(response, number) for number, response in enumerate(responses, 1))
        if not shown:
            parts.append(_nothing(f"{run.name}: no training response with an advantage other than 0 was found."))
    return "\n".join(parts)


def _nothing(text: str) -> str:
    return f'<p class="notice">{esc(text)}</p>'
