"""Endless training batches for the shipped model, written and tokenised by worker processes."""

from __future__ import annotations

import multiprocessing
import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from attnpo.models.tokenizer import END, PAD, prompt_text
from attnpo.task.problems import sample_problem
from attnpo.task.traces import Trace, TraceStyle, write_trace

_POOL = 4  # batches drawn at once, so that a batch holds traces of similar length


@dataclass(frozen=True)
class StreamOptions:
    """What to write: traces per batch, the task's dials, and how the writer over-thinks."""

    tokenizer_file: str
    batch: int
    seed: int
    difficulty: tuple[int, int]
    style: TraceStyle


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids [B, T] and, per row, the first response token and the length.

    essential [B, T]: whether a token belongs to an essential step or to what follows the thinking.
    """

    ids: np.ndarray
    response_starts: np.ndarray
    lengths: np.ndarray
    essential: np.ndarray


def worker_batches(options: StreamOptions, worker: int) -> Iterator[Batch]:
    """The batches of one worker; deterministic by the options and the worker's number. Train split only."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(options.tokenizer_file)
    pad, end = tokenizer.token_to_id(PAD), tokenizer.token_to_id(END)
    assert pad is not None
    assert end is not None
    rng = random.Random(f"stream/{options.seed}/{worker}")
    seed = options.seed * 1000 + worker + 1
    index = 0
    while True:
        prompts, traces = [], []
        for _ in range(options.batch * _POOL):
            problem = sample_problem(seed, index, "train", options.difficulty)
            index += 1
            prompts.append(prompt_text(problem.text))
            traces.append(write_trace(problem, rng, options.style))
        responses = tokenizer.encode_batch([trace.response for trace in traces])
        rows = [
            (prompt.ids, [*response.ids, end], [*essential_tokens(trace, response.offsets), True])
            for prompt, response, trace in zip(tokenizer.encode_batch(prompts), responses, traces, strict=True)
        ]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        batches = [rows[i : i + options.batch] for i in range(0, len(rows), options.batch)]
        rng.shuffle(batches)
        yield from (_pad(batch, pad) for batch in batches)


def essential_tokens(trace: Trace, offsets: list[tuple[int, int]]) -> list[bool]:
    """Whether each token of a response, by its characters, lies in an essential step or after the thinking."""
    ends = [step.end for step in trace.steps]
    essential = [*(step.essential for step in trace.steps), True]
    return [essential[bisect_right(ends, start)] for start, _ in offsets]


def _pad(rows: list[tuple[list[int], list[int], list[bool]]], pad: int) -> Batch:
    starts = np.array([len(prompt) for prompt, _, _ in rows])
    lengths = starts + [len(response) for _, response, _ in rows]
    ids = np.full((len(rows), lengths.max()), pad, dtype=np.uint16)
    essential = np.zeros(ids.shape, dtype=bool)
    for row, (prompt, response, marked) in enumerate(rows):
        ids[row, : lengths[row]] = prompt + response
        essential[row, starts[row] : lengths[row]] = marked
    return Batch(ids, starts, lengths, essential)


def _work(options: StreamOptions, worker: int, queue: multiprocessing.Queue) -> None:
    for batch in worker_batches(options, worker):
        queue.put(batch)


def parallel_batches(options: StreamOptions, workers: int) -> Iterator[Batch]:
    """Batches of `workers` processes as they come (0: in this process). Close the iterator to stop them."""
    if workers == 0:
        yield from worker_batches(options, 0)
        return
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(maxsize=4 * workers)
    processes = [context.Process(target=_work, args=(options, i, queue), daemon=True) for i in range(workers)]
    for process in processes:
        process.start()
    try:
        while True:
            yield queue.get()
    finally:
        for process in processes:
            process.terminate()
