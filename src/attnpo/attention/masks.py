"""Rows of the mask that a layer itself applied, never the whole of it.

transformers gives every attention function the mask in a form of its own. Reading that form, rather than building a
mask from the padding, keeps packed, chunked or custom masks exact.

Shape legend: B rows of the batch, T positions of a row, N rows to read (sequences), C query rows of each, h heads,
L columns to read.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from attnpo.errors import InputError

HIDDEN = -1e4
"""A number added to a logit that is at most this leaves no probability in float32."""


class RowMask:
    """Which columns some query rows may attend to.

    `mask`: a 4-D tensor (bool, or added to the logits), flash attention's 2-D padding mask, a flex BlockMask, or None
    for causal attention. `window` and `sequences` belong to flash attention, whose mask does not carry them: the
    sliding window, and which sequence of the row every position belongs to.
    """

    def __init__(
        self,
        mask: Tensor | BlockMask | None,
        shape: tuple[int, int],
        device: torch.device,
        *,
        window: int | None = None,
        sequences: Int64[Tensor, "B T"] | None = None,
    ) -> None:
        batch, width = shape
        if isinstance(mask, Tensor) and mask.ndim not in (2, 4):
            raise InputError(f"attention mask of shape {tuple(mask.shape)}: expected 2 or 4 dimensions")
        self.mask = mask
        self.window = window
        self.sequences = sequences
        self.columns = torch.arange(width, device=device)
        self.valid: Bool[Tensor, "B T"] | None = None
        self.places: Int64[Tensor, "B T"] | None = None
        if isinstance(mask, Tensor) and mask.ndim == 2:
            self.valid = mask[:, -width:].bool()
            # Flash attention drops the padding first: its windows count tokens, not padded positions.
            self.places = self.valid.cumsum(dim=1)
        elif isinstance(mask, Tensor):
            self.mask = mask[..., :width].expand(batch, -1, width, -1)

    def rows(
        self,
        batch_index: Int64[Tensor, "N"],
        head_index: Int64[Tensor, "h"],
        rows: Int64[Tensor, "N C"],
        columns: Int64[Tensor, "N L"] | None = None,
    ) -> Tensor:
        """Broadcastable to [N, h, C, L]: bool (True: may be attended to) or numbers to add to the logits.

        `columns` None stands for all T of them.
        """
        batch_at, row_at = batch_index[:, None, None, None], rows[:, None, :, None]
        column_at = self.columns if columns is None else columns[:, None, None, :]
        if isinstance(self.mask, BlockMask):
            return self.mask.mask_mod(batch_at, head_index[None, :, None, None], row_at, column_at)
        if self.mask is not None and self.valid is None:
            heads_at = head_index if self.mask.shape[1] > 1 else head_index[:1] * 0
            if columns is None:
                return self.mask[batch_index[:, None, None], heads_at[None, :, None], rows[:, None, :]]
            return self.mask[batch_at, heads_at[None, :, None, None], row_at, column_at]
        allowed = column_at <= row_at
        if self.window is not None:
            if self.places is None:
                distance = row_at - column_at
            else:
                distance = self.places[batch_at, row_at] - self.places[batch_at, column_at]
            allowed = allowed & (distance < self.window)
        if self.sequences is not None:
            allowed = allowed & (self.sequences[batch_at, row_at] == self.sequences[batch_at, column_at])
        return allowed if self.valid is None else allowed & self.valid[batch_at, column_at]


@lru_cache(maxsize=4096)
def index_tensor(values: tuple[int, ...], device: torch.device) -> Int64[Tensor, "n"]:
    """A small index tensor on the device, made once: making one waits for the device."""
    return torch.tensor(values, dtype=torch.int64, device=device)
