"""Token positions of the steps and the final answer in every row of a padded batch.

Also for rows with several packed sequences, with a check that the model kept the sequences apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from attnpo.attention.masks import HIDDEN, RowMask, index_tensor
from attnpo.errors import InputError

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class StepLayout:
    """Token positions of the steps and of the final answer, for B padded rows of T tokens with at most S >= 1 steps.

    step_ids: k for the tokens of step k, S outside every step.
    answers: [start, end) of the final answer in the padded row; start == end: the row is not scored.
    step_lengths: tokens of every step, |s_k|; 0 for steps beyond a row's count.
    attention_mask: which positions hold tokens.
    longest_answer: an upper bound of |F| over the rows, a Python integer so that capturing never waits for the device.
    """

    step_ids: Int64[Tensor, "B T"]
    answers: Int64[Tensor, "B 2"]
    step_lengths: Int64[Tensor, "B S"]
    attention_mask: Bool[Tensor, "B T"]
    longest_answer: int

    @classmethod
    def from_spans(
        cls,
        steps: Sequence[Sequence[Span]],
        answers: Sequence[Span | None],
        attention_mask: Tensor,
    ) -> StepLayout:
        """Lay out python spans (positions in the padded row, end exclusive) on the device of `attention_mask`.

        A row whose answer is None or empty is not scored. Does not wait for the device, so spans over padding are not
        detected here (`score_steps` checks that).
        Raises InputError for lists of the wrong length and for spans outside the row, overlapping, or not before
        the answer.
        """
        rows, width = attention_mask.shape
        for name, given in (("steps", steps), ("answers", answers)):
            if len(given) != rows:
                raise InputError(f"{name}: {len(given)} entries for a batch of {rows} rows, expected one per row")
        counts = np.array([len(row) for row in steps], dtype=np.int64)
        flat = _span_array(list(chain.from_iterable(steps)), "steps")
        answer_array = _span_array([(0, 0) if answer is None else answer for answer in answers], "answers")
        row_of = np.repeat(np.arange(rows), counts)
        index_of = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
        _check_spans(flat, row_of, index_of, answer_array, width)

        most = max(1, int(counts.max(initial=0)))
        lengths = flat[:, 1] - flat[:, 0]
        total = int(lengths.sum())
        offsets = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        step_ids = np.full(rows * width, most, dtype=np.int64)
        step_ids[np.repeat(row_of * width + flat[:, 0], lengths) + offsets] = np.repeat(index_of, lengths)
        if np.count_nonzero(step_ids != most) < total:
            raise InputError(
                f"steps: row {_overlapping_row(flat, row_of)} has steps that overlap, expected disjoint spans"
            )
        step_lengths = np.zeros((rows, most), dtype=np.int64)
        step_lengths[row_of, index_of] = lengths

        device = attention_mask.device
        return cls(
            step_ids=torch.from_numpy(step_ids.reshape(rows, width)).to(device),
            answers=torch.from_numpy(answer_array).to(device),
            step_lengths=torch.from_numpy(step_lengths).to(device),
            attention_mask=attention_mask.bool(),
            longest_answer=int((answer_array[:, 1] - answer_array[:, 0]).max(initial=0)),
        )

    @property
    def rows(self) -> int:
        """B, the number of rows."""
        return self.step_ids.shape[0]

    @property
    def width(self) -> int:
        """T, the padded length."""
        return self.step_ids.shape[1]

    @property
    def batch_shape(self) -> tuple[int, int]:
        """(B, T) of the forward."""
        return self.rows, self.width

    @property
    def device(self) -> torch.device:
        return self.step_ids.device

    @property
    def most_steps(self) -> int:
        """S, the largest number of steps of a row (at least 1)."""
        return self.step_lengths.shape[1]

    def __getitem__(self, rows: slice | Tensor) -> StepLayout:
        """The layout of some rows (a slice, or a tensor of row indices); T, S and `longest_answer` stay."""
        return StepLayout(
            self.step_ids[rows],
            self.answers[rows],
            self.step_lengths[rows],
            self.attention_mask[rows],
            self.longest_answer,
        )

    def to(self, device: torch.device | str) -> StepLayout:
        """The same layout on another device."""
        return StepLayout(
            self.step_ids.to(device),
            self.answers.to(device),
            self.step_lengths.to(device),
            self.attention_mask.to(device),
            self.longest_answer,
        )


def _span_array(spans: list[Span], name: str) -> np.ndarray:
    try:
        array = np.array(spans, dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected pairs of integers (start, end), found something else: {error}") from None
    if array.size == 0:
        return array.reshape(0, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"{name}: expected pairs (start, end), found entries of shape {array.shape[1:]}")
    return array


def _check_spans(flat: np.ndarray, row_of: np.ndarray, index_of: np.ndarray, answers: np.ndarray, width: int) -> None:
    """Raise InputError naming the first span that does not fit."""

    def fits(spans: np.ndarray) -> np.ndarray:
        return (spans[:, 0] >= 0) & (spans[:, 0] <= spans[:, 1]) & (spans[:, 1] <= width)

    for row in np.flatnonzero(~fits(answers))[:1]:
        raise InputError(f"answers: row {row} is {_show(answers[row])}, expected 0 <= start <= end <= {width}")
    for i in np.flatnonzero(~fits(flat))[:1]:
        found = f"row {row_of[i]}, step {index_of[i]} is {_show(flat[i])}"
        raise InputError(f"steps: {found}, expected 0 <= start <= end <= {width}")
    has_answer = answers[:, 0] < answers[:, 1]
    late = has_answer[row_of] & (flat[:, 1] > answers[row_of, 0])
    for i in np.flatnonzero(late)[:1]:
        found = f"row {row_of[i]}, step {index_of[i]} is {_show(flat[i])}"
        raise InputError(f"steps: {found}, expected to end before its answer at {_show(answers[row_of[i]])}")


def _overlapping_row(flat: np.ndarray, row_of: np.ndarray) -> int:
    kept = flat[:, 0] < flat[:, 1]
    spans, rows = flat[kept], row_of[kept]
    order = np.lexsort((spans[:, 0], rows))
    spans, rows = spans[order], rows[order]
    return int(rows[1:][(rows[1:] == rows[:-1]) & (spans[1:, 0] < spans[:-1, 1])][0])


def _show(span: np.ndarray) -> str:
    return f"({span[0]}, {span[1]})"


@dataclass(frozen=True, eq=False)
class PackedLayout:
    """Steps and answers of N sequences that are packed into the rows of a batch [B, T] without padding between them.

    Captured scores have one row per *sequence*, [H, N, S], in the order of the rows and within them.

    sequences: their layout as if every sequence were a separate row, padded on the right to the longest.
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
        """lengths[i]: the tokens of every sequence of row i, from its first position on; the remainder is padding.

        steps[n] and answers[n] are positions in sequence n, not in the row: the same as if it were alone.
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
        """The position in the row of every token of a sequence (any position for indices beyond its end)."""
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
