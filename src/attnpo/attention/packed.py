"""Several sequences packed into one row: where their steps and answers lie, and whether the model kept them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from attnpo.attention.layout import Span, StepLayout
from attnpo.attention.masks import HIDDEN, RowMask, index_tensor
from attnpo.errors import InputError


@dataclass(frozen=True, eq=False)
class PackedLayout:
    """Steps and answers of N sequences that lie in the rows of a batch [B, T] without padding between them.

    Captured scores have one row per *sequence*, [H, N, S], in the order of the rows and within them.

    sequences: their layout as if every sequence were a row of its own, padded on the right to the longest.
    batch_rows: the row of the batch that holds the sequence; starts: its first position there.
    batch_shape: (B, T) of the forward.
    """

    sequences: StepLayout
    batch_rows: Int64[Tensor, "N"]
    starts: Int64[Tensor, "N"]
    batch_shape: tuple[int, int]

    @classmethod
    def from_spans(
        cls,
        steps: Sequence[Sequence[Span]],
        answers: Sequence[Span | None],
        lengths: Sequence[Sequence[int]],
        width: int,
        device: torch.device | str = "cpu",
    ) -> PackedLayout:
        """lengths[i]: the tokens of every sequence of row i, from its first position on; what is left is padding.

        steps[n] and answers[n] are positions in sequence n, not in the row: the numbers it would have alone.
        Raises InputError for lengths that do not fit `width` (T) and, as `StepLayout.from_spans`, for spans.
        """
        for i, row in enumerate(lengths):
            if any(length < 1 for length in row) or sum(row) > width:
                raise InputError(
                    f"lengths: row {i} is {list(row)}, expected positive numbers of sum at most {width} (the row)"
                )
        flat = torch.tensor([length for row in lengths for length in row], dtype=torch.int64)
        if not len(flat):
            raise InputError("lengths: no sequence, expected at least one")
        counts = torch.tensor([len(row) for row in lengths])
        ends = torch.cat([torch.tensor(list(row), dtype=torch.int64).cumsum(0) for row in lengths])
        inside = torch.arange(int(flat.max())) < flat[:, None]
        layout = StepLayout.from_spans(steps, answers, inside)
        for n, length in enumerate(flat.tolist()):
            for start, end in (*steps[n], answers[n] or (0, 0)):
                if end > length:
                    raise InputError(f"sequence {n} has {length} tokens, expected no span such as ({start}, {end})")
        return cls(
            layout.to(device),
            torch.repeat_interleave(torch.arange(len(lengths)), counts).to(device),
            (ends - flat).to(device),
            (len(lengths), width),
        )

    @property
    def device(self) -> torch.device:
        return self.starts.device

    @property
    def columns(self) -> Int64[Tensor, "N L"]:
        """Position in its row of every place of a sequence (any position for places beyond its end)."""
        places = torch.arange(self.sequences.width, device=self.starts.device)
        return (self.starts[:, None] + places).clamp(max=self.batch_shape[1] - 1)

    def to(self, device: torch.device | str) -> PackedLayout:
        """The same layout on another device."""
        return PackedLayout(
            self.sequences.to(device), self.batch_rows.to(device), self.starts.to(device), self.batch_shape
        )


def attends_elsewhere(
    allowed: RowMask, layout: PackedLayout, heads: tuple[int, ...], chunk_elements: int
) -> Bool[Tensor, ""]:
    """Whether any answer token may attend to a position outside its own sequence. Does not wait for the device."""
    head_index = index_tensor(heads, layout.device)
    start, end = layout.sequences.answers[:, :1], layout.sequences.answers[:, 1:]
    lengths = layout.sequences.attention_mask.sum(dim=1, keepdim=True)
    place = allowed.columns - layout.starts[:, None]
    outside = (place < 0) | (place >= lengths)
    found = torch.zeros((), dtype=torch.bool, device=start.device)
    longest = max(1, layout.sequences.longest_answer)
    at_once = max(1, chunk_elements // (outside.numel() * len(heads)))
    for offset in range(0, longest, at_once):
        rows = start + torch.arange(offset, min(offset + at_once, longest), device=start.device)
        inside = rows < end
        rows = torch.minimum(rows, end - 1).clamp_(min=0) + layout.starts[:, None]
        mask = allowed.rows(layout.batch_rows, head_index, rows)
        open_to = mask if mask.dtype == torch.bool else mask > HIDDEN
        found |= (open_to & outside[:, None, None, :] & inside[:, None, :, None]).any()
    return found
