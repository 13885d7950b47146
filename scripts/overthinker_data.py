"""Training data of the shipped model: its tokeniser, and endless batches of traces from worker processes.

The tokeniser is a byte-level BPE trained on the task, with digits one by one.
"""

from __future__ import annotations

import multiprocessing
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from attnpo.task.problems import sample_problem
from attnpo.task.traces import Trace, TraceStyle, write_trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
OPEN_THINK, CLOSE_THINK = "<think>", "</think>"

# A generation prompt ends with an opened thinking part, as R1-like models have it.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)

# The opening of a boxed answer; words with their leading space; single digits; signs with the line breaks after them.
_PIECES = r" ?\\boxed\{| ?\p{L}+| ?\d| ?[^\s\p{L}\d]+\n*|\s+"


def train_tokenizer(texts: Iterable[str], vocabulary: int = 1024) -> PreTrainedTokenizerFast:
    """Train a fast tokeniser with `vocabulary` entries, special and added tokens included."""
    from transformers import PreTrainedTokenizerFast  # slow to import, and the data workers do without it

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, END, USER, ASSISTANT]
    trainer = BpeTrainer(
        vocab_size=vocabulary - 2,  # the two thinking tags are added below, as tokens that decoding keeps
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([OPEN_THINK, CLOSE_THINK])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def prompt_text(problem: str) -> str:
    """Return one user message in the chat template, with the thinking opened."""
    return f"{USER}{problem}{ASSISTANT}{OPEN_THINK}\n"


_POOL = 4  # batches drawn at once, so that a batch has traces of similar length


@dataclass(frozen=True)
class StreamOptions:
    """Options of the stream: traces per batch, the task's settings, and the generator's style of over-thinking."""

    tokenizer_file: str
    batch: int
    seed: int
    difficulty: tuple[int, int]
    style: TraceStyle


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids [B, T] and, per row, the first response token and the length.

    essential [B, T]: whether a token is in an essential step or after the thinking.
    """

    ids: np.ndarray
    response_starts: np.ndarray
    lengths: np.ndarray
    essential: np.ndarray


def worker_batches(options: StreamOptions, worker: int) -> Iterator[Batch]:
    """Yield the batches of one worker, determined by the options and the worker's number. Train split only."""
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
    """Return whether each token of a response, by its characters, is in an essential step or after the thinking."""
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
    """Yield batches of `workers` processes as they arrive (0: in this process). Close the iterator to stop them."""
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
