"""Where the steps and the final answer of every row of a padded batch lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from attnpo.errors import InputError

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class StepLayout:
    """Token positions of the steps and of the final answer, for B padded rows of T tokens with at most S >= 1 steps.

    step_ids: k for the tokens of step k, S outside every step.
    answers: [start, end) of the final answer in the padded row; start == end: the row is not scored.
    step_lengths: tokens of every step, |s_k|; 0 for steps beyond a row's count.
    attention_mask: which positions hold tokens.
    longest_answer: an upper bound of |F| over the rows, known on the host so that capturing never waits for the device.
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

        An answer of None, or an empty one, leaves its row without a score. The device is not waited for; whether
        spans cover padding is therefore not checked here (`score_steps` does).
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
