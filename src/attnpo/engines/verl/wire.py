"""What goes to the engine and comes back, as verl's transport takes it: one ragged row of numbers per sequence.

To the engine: int64 [answer start, answer end, start and end of every step, …], positions in prompt + response; (0, 0)
and no step for a sequence that is not scored. The heads go along once, as a text. Back: one float32 per step, the mean
over the heads, or a single 0 for a sequence without steps, since a row may not be empty.
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
"""Names among verl's fields of a batch."""


def pack_spans(located: LocatedSteps, prompt_tokens: int) -> Int64[Tensor, " n"]:
    """The row of one response. What is scored: two steps or more, and a final answer (as `StepTensors.layout`)."""
    if len(located.spans) < 2 or located.answer is None or not located.has_answer_text:
        return nothing_to_score()
    spans = torch.tensor([located.answer, *located.spans], dtype=torch.int64)
    return (spans + prompt_tokens).flatten()


def nothing_to_score() -> Int64[Tensor, "2"]:
    """The row of a response that is not scored, and of a sequence that verl has added to fill a batch."""
    return torch.zeros(2, dtype=torch.int64)


def unpack_spans(row: Int64[Tensor, " n"]) -> tuple[list[Span], Span | None]:
    """Steps and answer of a row."""
    pairs = [(int(start), int(end)) for start, end in row.view(-1, 2).tolist()]
    answer, *steps = pairs
    return steps, (answer if answer[0] < answer[1] else None)


def pack_scores(scores: Float[Tensor, "N S"], steps: Sequence[int]) -> list[Float[Tensor, " n"]]:
    """One row per sequence, of as many scores as it has steps."""
    return [row[: max(1, count)].contiguous() for row, count in zip(scores, steps, strict=True)]


def unpack_scores(rows: Sequence[Float[Tensor, " n"]], counts: Sequence[int], width: int) -> Float[Tensor, "N {width}"]:
    """The signal `attention`; 0 beyond a row's steps, and for a row that was not scored."""
    table = torch.zeros(len(rows), width)
    for target, row, count in zip(table, rows, counts, strict=True):
        if len(row) == count:  # a single 0 stands for a response that was not scored
            target[:count] = row
    return table


def heads_as_text(heads: Sequence[Head]) -> str:
    """`1.0,2.3`: a text passes through verl's batches as it is, where a list would be taken for one entry per row."""
    return ",".join(f"{layer}.{head}" for layer, head in heads)


def heads_of_text(text: str) -> list[Head]:
    """The reverse of `heads_as_text`."""
    pairs = [part.split(".") for part in text.split(",")]
    return [(int(layer), int(head)) for layer, head in pairs]
