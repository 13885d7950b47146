"""The complete page: views in order, everything inlined, written atomically."""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from attnpo import __version__
from attnpo.data.jsonl import write_whole
from attnpo.errors import InputError
from attnpo.report.elements import View, embedded_json, render
from attnpo.report.evaluation import Evaluation, Sampled, is_evaluation, read_evaluations, read_sampled
from attnpo.report.rollouts import TracedFile, read_traced
from attnpo.report.run import Run, read_runs
from attnpo.report.selection import Shelf, collect
from attnpo.report.views.behaviour import behaviour
from attnpo.report.views.compare import compare
from attnpo.report.views.configuration import configuration
from attnpo.report.views.heads import Stability, find_stability, heads
from attnpo.report.views.overview import overview
from attnpo.report.views.responses import responses
from attnpo.report.views.traces import traced
from attnpo.report.views.trimmed import TrimmedFile, is_trimmed, read_trimmed, trimmed

STYLES = ("colours.css", "page.css", "responses.css")
# In this order: each file is one function and uses what the functions before it return.
SCRIPTS = ("base.js", "maths.js", "responses.js", "explorer.js", "tabs.js")


@dataclass(frozen=True)
class Sources:
    """Everything that was read for the page."""

    runs: list[Run]
    evaluations: list[Evaluation]
    stabilities: list[Stability]
    trimmed: list[TrimmedFile]
    traced: list[TracedFile]
    sampled: list[Sampled]


def write_report(paths: list[Path], output: Path) -> int:
    """Write one HTML page from run folders, evaluations and files of traces; return its size in bytes.

    The page is written completely or not at all. Raises InputError for other folders, malformed files (with the row),
    and an output that cannot be written.
    """
    page = report_html(paths).encode("utf-8", errors="replace")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, page)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written: {error.strerror}") from error
    return len(page)


def read_sources(paths: list[Path]) -> Sources:
    """Read each path by its kind: the folder of a training run, of an evaluation or of `attnpo evidence stability`, a
    file of `attnpo trim`, `attnpo score` or `attnpo segment`, or an evaluation in another project's format."""
    files = [path for path in paths if path.is_file() and not is_evaluation(path)]
    paths = [path for path in paths if path not in files]
    evaluations = [path for path in paths if is_evaluation(path)]
    tables = {path: find_stability(path, path.resolve().name) for path in paths if path not in evaluations}
    runs = read_runs([path for path in tables if tables[path] is None or (path / "config.yaml").exists()])
    trimmed_files = [path for path in files if is_trimmed(path)]
    measured = read_evaluations(evaluations)
    return Sources(
        runs,
        measured,
        [table for table in tables.values() if table is not None],
        [read_trimmed(path) for path in trimmed_files],
        [read_traced(path) for path in files if path not in trimmed_files],
        [read_sampled(one) for one in measured],
    )


def report_html(paths: list[Path]) -> str:
    """Return the complete page."""
    sources = read_sources(paths)
    runs, evaluations = sources.runs, sources.evaluations
    shelves = collect(runs, sources.sampled, sources.traced)
    summary = overview(runs, evaluations, sources.sampled, shelves)
    of_folders = [summary, compare(runs, evaluations, sources.sampled)] if runs or evaluations else []
    views = [
        *of_folders,
        responses(shelves),
        traced(sources.traced),
        heads(runs, sources.stabilities),
        trimmed(sources.trimmed),
        behaviour(runs),
        configuration(runs),
    ]
    names = [one.name for one in (*runs, *evaluations, *sources.trimmed, *sources.traced)]
    kinds = {
        **{"Training report": runs, "Evaluation report": evaluations},
        **{"Trimmed traces": sources.trimmed, "Scored traces": sources.traced},
    }
    there = [kind for kind, found in kinds.items() if found]
    kind = there[0] if len(there) == 1 else "Report"
    title = names[0] if len(names) == 1 else kind
    return _assemble(title, [view for view in views if view.html], shelves)


def _assemble(title: str, views: list[View], shelves: list[Shelf]) -> str:
    plotly, plotly_digest = _plotly()
    temml, temml_digest = _temml()
    script = '"use strict";\n(() => {\n' + "\n".join(_resource(name) for name in SCRIPTS) + "})();\n"
    assert "</script" not in script.lower()
    packed = {f"chunk-{index}-{chunk.key}": chunk.data for index, shelf in enumerate(shelves) for chunk in shelf.chunks}
    has_texts = bool(packed) or any(view.id == "trimmed" for view in views)
    page = render(
        "page.html",
        title=title,
        digests=[plotly_digest, temml_digest, _digest(script)],
        css="".join(_resource(name) for name in STYLES),
        views=views,
        version=__version__,
        data=embedded_json(_data(views, shelves)),
        packed=packed | {"plotly": plotly} | ({"temml": temml} if has_texts else {}),
        script=script,
    )
    return str(page)


def _data(views: list[View], shelves: list[Shelf]) -> dict[str, Any]:
    """The data that the scripts read when the page opens; the chunks of responses are separate and packed."""
    return {
        "figures": [chart.figure() for view in views for chart in view.charts],
        "shelves": [
            {
                "run": shelf.run,
                "kind": shelf.kind,
                "chunks": [
                    {"key": c.key, "split": c.split, "step": c.step, "title": c.title, "rows": c.catalogue}
                    for c in shelf.chunks
                ],
            }
            for shelf in shelves
        ],
    }


@cache
def _plotly() -> tuple[str, str]:
    """plotly.js, gzipped and in base64, and the digest of the unpacked script."""
    return _library(_own_line_ends(get_plotlyjs()))


@cache
def _temml() -> tuple[str, str]:
    """Temml, which draws formulas as MathML, in the same form; its licence is in the same folder."""
    return _library(_resource("temml.min.js"))


def _library(text: str) -> tuple[str, str]:
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii"), _digest(text)


def _resource(name: str) -> str:
    return _own_line_ends(resources.files("attnpo.report").joinpath("static", name).read_text(encoding="utf-8"))


def _own_line_ends(text: str) -> str:
    """A browser reads \\r\\n and \\r as \\n before it computes a script's digest."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
