"""Encoding of step positions and scores for verl's transport: one ragged row of numbers per sequence.

To the engine: int64 [answer start, answer end, start and end of every step, …], positions in prompt + response; (0, 0)
and no step for a sequence that is not scored. The heads are sent once per batch, as a string. From the engine: one
float32 per step, the mean over the heads, or a single 0 for a sequence without steps, since a row may not be empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from attnpo.attention.heads import Head
from attnpo.attention.layout import Span
from attnpo.steps.spans import LocatedSteps

SPANS, SCORES, HEADS = "attnpo_spans", "attnpo_scores", "attnpo_heads"
"""Names of the fields in verl's batches."""


def pack_spans(located: LocatedSteps, prompt_tokens: int) -> Int64[Tensor, " n"]:
    """Return the row of one response. It is scored if it has two steps or more and a final answer, as in
    `StepTensors.layout`."""
    if len(located.spans) < 2 or located.answer is None or not located.has_answer_text:
        return nothing_to_score()
    spans = torch.tensor([located.answer, *located.spans], dtype=torch.int64)
    return (spans + prompt_tokens).flatten()


def nothing_to_score() -> Int64[Tensor, "2"]:
    """Return the row of a response that is not scored, and of a sequence that verl has added to fill a batch."""
    return torch.zeros(2, dtype=torch.int64)


def unpack_spans(row: Int64[Tensor, " n"]) -> tuple[list[Span], Span | None]:
    """Return steps and answer of a row."""
    pairs = [(int(start), int(end)) for start, end in row.view(-1, 2).tolist()]
    answer, *steps = pairs
    return steps, (answer if answer[0] < answer[1] else None)


def pack_scores(scores: Float[Tensor, "N S"], steps: Sequence[int]) -> list[Float[Tensor, " n"]]:
    """Return one row per sequence, with one score per step."""
    return [row[: max(1, count)].contiguous() for row, count in zip(scores, steps, strict=True)]


def unpack_scores(rows: Sequence[Float[Tensor, " n"]], counts: Sequence[int], width: int) -> Float[Tensor, "N {width}"]:
    """Return the signal `attention`; 0 in the padding after a row's steps, and for a row that was not scored."""
    table = torch.zeros(len(rows), width)
    for target, row, count in zip(table, rows, counts, strict=True):
        if len(row) == count:  # a response that was not scored has a single 0
            target[:count] = row
    return table


def heads_as_text(heads: Sequence[Head]) -> str:
    """Encode heads as `1.0,2.3`: verl passes a string through unchanged, but treats a list as one entry per row."""
    return ",".join(f"{layer}.{head}" for layer, head in heads)


def heads_of_text(text: str) -> list[Head]:
    """Decode the string of `heads_as_text`."""
    pairs = [part.split(".") for part in text.split(",")]
    return [(int(layer), int(head)) for layer, head in pairs]
