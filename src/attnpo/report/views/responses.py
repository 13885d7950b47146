"""The responses of all runs within one budget of bytes, and in words what was left out of it.

The place of the response explorer: controls, list and reading pane, filled by the scripts of the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnpo.report.elements import View, esc, nothing, notices_html, plural
from attnpo.report.packing import (
    EVALUATIONS,
    RESPONSES,
    TRAIN_STEPS,
    Chunk,
    ends_first,
    evenly,
    pack,
    pick_evaluated,
    pick_pairs,
)
from attnpo.report.rollouts import Response, read_responses
from attnpo.report.run import Run

BUDGET = 6_000_000  # bytes of the page, for the responses of all runs


@dataclass(frozen=True)
class Shelf:
    """The responses of one run: chunks by step, evaluations first; `pairs` are problems, in the order they are shown.

    `left_out` says what is not here and by which rule.
    """

    run: str
    chunks: list[Chunk]
    pairs: list[str]
    left_out: list[str]
    notices: list[str]


def collect(runs: list[Run]) -> list[Shelf]:
    """One shelf per run, each with an equal part of the budget. Raises InputError for malformed rollout files."""
    return [_shelf(run, BUDGET // len(runs)) for run in runs]


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
            chunk = _fitting(path, picked, len(responses), part - sum(len(chunk.data) for chunk in chunks))
            if chunk is None:
                break
            chunks.append(chunk)
    chunks = sorted((chunk for chunk in chunks if chunk.catalogue), key=lambda chunk: (chunk.split, chunk.step))
    return Shelf(run.name, chunks, pairs, _left_out(run, chunks), notices)


def _fitting(path: Path, responses: list[Response], recorded: int, room: int) -> Chunk | None:
    """The chunk, with fewer responses if it takes more than `room` bytes; None if not even a few fit."""
    split, step = path.name.removesuffix(".jsonl.gz").split("-")
    most = len(responses)
    while True:
        chunk = pack(f"{split}-{int(step)}", split, int(step), responses[:most], recorded)
        if len(chunk.data) <= room:
            return chunk
        if most <= 4:
            return None
        most //= 2


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
    "responses changed; of a training step its first responses. Where they do not fit into the page's size, the middle "
    "of the run is thinned out."
)
FILTERS = {
    "Verdict": (("right", "✓ right"), ("wrong", "✗ wrong"), ("no_answer", "∅ no answer")),
    "With": (("attenuated", "▽ attenuated"), ("protected", "◆ protected"), ("truncated", "✂ cut off")),
}


def responses(runs: list[Run], shelves: list[Shelf]) -> View:
    """An explorer over `shelves`, and a note on what they do not hold."""
    notices = notices_html([notice for shelf in shelves for notice in shelf.notices])
    if not any(shelf.chunks for shelf in shelves):
        return View("responses", "Responses", notices + nothing("No responses were recorded.") if runs else "")
    return View("responses", "Responses", f"{notices}{_controls(shelves)}{_legend(shelves)}{EXPLORER}")


def _controls(shelves: list[Shelf]) -> str:
    runs = "".join(f'<option value="{index}">{esc(shelf.run)}</option>' for index, shelf in enumerate(shelves))
    groups = "".join(
        f"<fieldset><legend>{name}</legend>"
        + "".join(f'<label class="chip"><input type="checkbox" name="{key}">{label}</label>' for key, label in items)
        + "</fieldset>"
        for name, items in FILTERS.items()
    )
    hidden = "" if len(shelves) > 1 else " hidden"
    return (
        f'<form id="controls" role="search" aria-label="Choose responses"><label{hidden}>Run <select id="run">{runs}'
        '</select></label><label>Step <select id="step"></select></label><label class="find">Text <input id="find" '
        f'type="search" placeholder="in problem, thinking or answer" autocomplete="off"></label>{groups}</form>\n'
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
    return (
        '<div class="scale"><p>Attention of the final answer to a step, as a multiple of an even spread over all tokens'
        f'</p><ol aria-label="Colour scale, from little to much attention">{levels}</ol></div>\n'
        f'<details class="more"><summary>What the marks mean, and what is not here</summary><ul class="effects">'
        f'{effects}</ul><p>This page carries:</p><ul class="effects">{left_out}</ul><p>{RULE}</p></details>\n'
    )


EXPLORER = """\
<div class="explorer">
<div class="picker"><p id="found" aria-live="polite"></p>
<ul id="list" role="listbox" tabindex="0" aria-label="Responses"></ul></div>
<div id="reader" aria-live="off"></div>
</div>
"""
