"""The responses of all runs within one budget of bytes, and in words what was left out of it.

The place of the response explorer: controls, list and reading pane, filled by the scripts of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from attnpo.report import evaluated, traced
from attnpo.report.elements import View, plural, render
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


FILTERS = {
    "Verdict": {"right": "✓ right", "wrong": "✗ wrong", "no_answer": "∅ no answer"},
    "Change": {"gained": "✗→✓ gained", "lost": "✓→✗ lost"},
    "With": {"attenuated": "▽ attenuated", "protected": "◆ protected", "truncated": "✂ cut off"},
}
CREDIT = {"attenuated", "protected"}


def responses(shelves: list[Shelf]) -> View:
    """An explorer over `shelves`, and a note on what they do not hold."""
    kinds = {shelf.kind for shelf in shelves}
    if "run" not in kinds and not any(shelf.chunks for shelf in shelves):
        return View("responses", "Responses", Markup())
    several = len(shelves) > 1
    filters = {
        title: {name: label for name, label in boxes.items() if "run" in kinds or name not in CREDIT}
        for title, boxes in FILTERS.items()
        if title != "Change" or _has_pairs(shelves)
    }
    html = render(
        "responses.html",
        missing=[notice for shelf in shelves for notice in shelf.notices],
        sources=[shelf.run for shelf in shelves] if any(shelf.chunks for shelf in shelves) else [],
        kinds=kinds,
        only_runs=kinds == {"run"},
        steps_have_colours=kinds != {"evaluation"},
        filters=filters,
        left_out=[f"{f'{shelf.run}: ' if several else ''}{'; '.join(shelf.left_out)}." for shelf in shelves],
    )
    return View("responses", "Responses", html)


def _has_pairs(shelves: list[Shelf]) -> bool:
    """Whether a problem is there twice: at both ends of a run, or of two evaluations."""
    benchmarks = [chunk.title for shelf in shelves for chunk in shelf.chunks if chunk.split == "bench"]
    held_out = (sum(chunk.split == "eval" for chunk in shelf.chunks) for shelf in shelves)
    return len(set(benchmarks)) < len(benchmarks) or any(count > 1 for count in held_out)
