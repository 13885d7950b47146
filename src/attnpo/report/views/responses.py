"""The responses of all runs within one budget of bytes, and in words what was left out of it.

The place of the response explorer: controls, list and reading pane, filled by the scripts of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attnpo.report import evaluated, traced
from attnpo.report.elements import View, esc, nothing, notices_html, plural
from attnpo.report.evaluated import Sampled
from attnpo.report.packing import (
    EVALUATIONS,
    RESPONSES,
    TRAIN_STEPS,
    Chunk,
    Shelf,
    count_flips,
    ends_first,
    evenly,
    fitting,
    pick_evaluated,
    pick_pairs,
)
from attnpo.report.rollouts import Response, read_responses
from attnpo.report.run import Run
from attnpo.report.traced import TracedFile

BUDGET = 6_000_000  # bytes of the page, for the responses of all runs


def collect(runs: list[Run], sampled: Sequence[Sampled] = (), files: Sequence[TracedFile] = ()) -> list[Shelf]:
    """One shelf per run, evaluation and file of traces, each with an equal part of the budget.

    Raises InputError for malformed rollout files.
    """
    each = BUDGET // max(1, len(runs) + len(sampled) + len(files))
    return [
        *(_shelf(run, each) for run in runs),
        *evaluated.shelve(list(sampled), each * len(sampled)),
        *traced.shelve(list(files), each * len(files)),
    ]


def _shelf(run: Run, budget: int) -> Shelf:
    notices: list[str] = []

    def read(path: Path) -> list[Response]:
        responses, notice = read_responses(path)
        if notice:
            notices.append(notice)
        return responses

    ends = {path: read(path) for path in (*run.eval_files[:1], *run.eval_files[1:][-1:])}
    first, last = (*ends.values(), [], [])[:2]
    pairs = [pair.before.id for pair in pick_pairs(first, last)]
    chunks: list[Chunk] = []
    for files, wanted, part in (
        (run.eval_files, EVALUATIONS, budget // 2),
        (run.train_files, TRAIN_STEPS, budget),
    ):
        chosen = [files[index] for index in evenly(len(files), wanted)]
        for index in ends_first(len(chosen)):
            path = chosen[index]
            responses = ends[path] if path in ends else read(path)
            if path in run.eval_files:
                picked = pick_evaluated(responses, pairs if path in ends else [])
            else:
                picked = responses[:RESPONSES]
            chunk = _chunk(path, picked, len(responses), part - sum(len(chunk.data) for chunk in chunks))
            if chunk is None:
                break
            chunks.append(chunk)
    chunks = sorted((chunk for chunk in chunks if chunk.catalogue), key=lambda chunk: (chunk.split, chunk.step))
    lengths = {}
    if len(ends) == 2:
        names = [f"{when}, step {step_of(path)}" for when, path in zip(("before", "after"), ends, strict=True)]
        both = zip(names, (first, last), strict=True)
        lengths = {name: [one.tokens for one in part if one.tokens is not None] for name, part in both}
    left_out, flips = _left_out(run, chunks), count_flips(first, last)
    return Shelf(run.name, chunks, pairs, left_out, notices, lengths=lengths, flips=flips)


def step_of(path: Path) -> int:
    """The step in the name of a rollout file."""
    return int(path.name.removesuffix(".jsonl.gz").split("-")[1])


def _chunk(path: Path, responses: list[Response], recorded: int, room: int) -> Chunk | None:
    """Of one rollout file."""
    split, step = path.name.split("-")[0], step_of(path)
    return fitting(f"{split}-{step}", split, step, responses, recorded, room)


def _left_out(run: Run, chunks: list[Chunk]) -> list[str]:
    said = []
    for split, files, noun in (("eval", run.eval_files, "evaluation"), ("train", run.train_files, "training step")):
        here = [chunk for chunk in chunks if chunk.split == split]
        if not files:
            continue
        shown, recorded = sum(len(chunk.catalogue) for chunk in here), sum(chunk.recorded for chunk in here)
        steps = f"{len(here)} of {plural(len(files), f'recorded {noun}')}"
        said.append(f"{steps}, and {shown:,} of their {plural(recorded, 'response')}")
    return said


LEVELS = ("under ⅛", "⅛ – ¼", "¼ – ½", "½ – 1", "1 – 2", "2 – 4", "over 4")
EFFECTS = (
    ("attenuated", "▽", "counts less: redundant in a response that is encouraged"),
    ("protected", "◆", "does not count: essential in a response that is discouraged"),
    ("untouched", "=", "keeps the response's advantage"),
)
RULE = (
    "Evaluations and training steps are taken at even distances over the run, first and last always; of an evaluation "
    "its scored responses, of the first and the last one also other problems, at even distances of how much their "
    "responses changed, and of those whose verdict changed; of a training step its first responses. Where they do not "
    "fit into the page's size, the middle of the run is thinned out."
)
RULE_OF_BENCHMARKS = (
    "Of a benchmark the same problems of every evaluation: up to 32 whose verdict is not that of the first evaluation, "
    "and others at even distances, 64 in all."
)
FILTERS = {
    "Verdict": (("right", "✓ right"), ("wrong", "✗ wrong"), ("no_answer", "∅ no answer")),
    "Change": (("gained", "✗→✓ gained"), ("lost", "✓→✗ lost")),
    "With": (("attenuated", "▽ attenuated"), ("protected", "◆ protected"), ("truncated", "✂ cut off")),
}


def responses(shelves: list[Shelf]) -> View:
    """An explorer over `shelves`, and a note on what they do not hold."""
    notices = notices_html([notice for shelf in shelves for notice in shelf.notices])
    if not any(shelf.chunks for shelf in shelves):
        has_runs = any(shelf.kind == "run" for shelf in shelves)
        return View("responses", "Responses", notices + nothing("No responses were recorded.") if has_runs else "")
    return View("responses", "Responses", f"{notices}{_controls(shelves)}{_legend(shelves)}{EXPLORER}")


def _has_pairs(shelves: list[Shelf]) -> bool:
    """Whether a problem is there twice: at both ends of a run, or of two evaluations."""
    benchmarks = [chunk.title for shelf in shelves for chunk in shelf.chunks if chunk.split == "bench"]
    held_out = (sum(chunk.split == "eval" for chunk in shelf.chunks) for shelf in shelves)
    return len(set(benchmarks)) < len(benchmarks) or any(count > 1 for count in held_out)


def _controls(shelves: list[Shelf]) -> str:
    runs = "".join(f'<option value="{index}">{esc(shelf.run)}</option>' for index, shelf in enumerate(shelves))
    no_credit = not any(shelf.kind == "run" for shelf in shelves)
    groups = "".join(
        f"<fieldset><legend>{name}</legend>"
        + "".join(
            f'<label class="chip"><input type="checkbox" name="{key}">{label}</label>'
            for key, label in items
            if not (no_credit and key in ("attenuated", "protected"))
        )
        + "</fieldset>"
        for name, items in FILTERS.items()
        if name != "Change" or _has_pairs(shelves)
    )
    hidden = "" if len(shelves) > 1 else " hidden"
    only_runs = all(shelf.kind == "run" for shelf in shelves)
    source, part = ("Run", "Step") if only_runs else ("Source", "Part")
    return (
        f'<form id="controls" role="search" aria-label="Choose responses"><label{hidden}>{source} <select id="run">'
        f'{runs}</select></label><label>{part} <select id="step"></select></label><label class="find">Text <input '
        f'id="find" type="search" placeholder="in problem, thinking or answer" autocomplete="off"></label>'
        f"{groups}</form>\n"
        '<noscript><p class="notice">Responses are unpacked by a script; this view needs one.</p></noscript>\n'
    )


def _legend(shelves: list[Shelf]) -> str:
    levels = "".join(f'<li class="s{index}">{label}</li>' for index, label in enumerate(LEVELS))
    effects = "".join(
        f'<li><span class="effect {name}">{mark} {name}</span> {meaning}</li>' for name, mark, meaning in EFFECTS
    )
    several = len(shelves) > 1
    left_out = "".join(
        f"<li>{esc(f'{shelf.run}: ' if several else '')}{esc('; '.join(shelf.left_out))}.</li>" for shelf in shelves
    )
    kinds = {shelf.kind for shelf in shelves}
    rules = "".join(
        f"<p>{rule}</p>" for kind, rule in (("run", RULE), ("evaluation", RULE_OF_BENCHMARKS)) if kind in kinds
    )
    if kinds == {"evaluation"}:
        said = f'<ul class="effects">{left_out}</ul>{rules}'
        return f'<details class="more"><summary>What is not here</summary>{said}</details>\n'
    return (
        '<div class="scale"><p>Attention of the final answer to a step, as a multiple of an even spread over all tokens'
        f'</p><ol aria-label="Colour scale, from little to much attention">{levels}</ol></div>\n'
        f'<details class="more"><summary>What the marks mean, and what is not here</summary><ul class="effects">'
        f'{effects}</ul><p>This page carries:</p><ul class="effects">{left_out}</ul>{rules}</details>\n'
    )


EXPLORER = """\
<div class="explorer">
<div class="picker"><p id="found" aria-live="polite"></p>
<ul id="list" role="listbox" tabindex="0" aria-label="Responses"></ul></div>
<div id="reader" aria-live="off"></div>
</div>
"""
