"""The responses of all runs within one budget of bytes, and in words what was left out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnpo.report.data.packing import Chunk, pack
from attnpo.report.data.rollouts import Response, read_responses
from attnpo.report.data.run import Run
from attnpo.report.data.selection import (
    EVALUATIONS,
    RESPONSES,
    TRAIN_STEPS,
    ends_first,
    evenly,
    pick_evaluated,
    pick_pairs,
)
from attnpo.report.words import plural

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
