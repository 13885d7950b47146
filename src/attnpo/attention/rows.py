"""Attention rows of the final answer, for a few heads per layer, summed into step scores.

Shape legend: B rows of the batch, T padded length, H query heads of the layer, K key heads (query head h reads key
head h // (H // K)), C query rows computed at once, h chosen heads computed at once, S steps, E = S + 1, D head size. N
sequences of at most L tokens: the rows of the batch (N = B, L = T), unless several sequences are packed into one row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from attnpo.attention.layout import PackedLayout, StepLayout
from attnpo.attention.masks import RowMask, index_tensor

CHUNK_ELEMENTS = 1 << 25
"""Float32 numbers in the largest temporary (128 MiB); about four of them exist at once, whatever T and |F| are.

One head of one row is the smallest piece, so N·L·D, the size of one head's keys, is a lower bound.
"""


def rows_bytes(elements: int) -> int:
    """Largest memory, in bytes, for reading the rows of one layer; `elements`: sequences × heads × |F| × positions."""
    return 4 * 4 * min(CHUNK_ELEMENTS, elements)  # float32; logits, their softmax and temporaries


def step_scores(
    query: Float[Tensor, "B H T D"],
    key: Float[Tensor, "B K T D"],
    mask: Tensor | BlockMask | RowMask | None,
    layout: StepLayout | PackedLayout,
    heads: tuple[int, ...],
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    sinks: Float[Tensor, "H"] | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Float[Tensor, "heads N S"]:
    """S(l,h,s_k) of the chosen heads of one layer (paper section 3): (1/|s_k|) · Σ_{m∈F} Σ_{n∈s_k} a(m→n).

    `mask` is the argument of the layer's own attention (see `RowMask`), or a RowMask read from it; `sliding_window` is
    for forms of the mask that do not contain the window. Logits and softmax are in float32. Steps without tokens and
    rows without an answer get 0. Memory: `CHUNK_ELEMENTS`.
    """
    batch, _, width, _ = query.shape
    if not isinstance(mask, RowMask):
        mask = RowMask(mask, (batch, width), query.device, window=sliding_window)
    rows = AnswerRows(layout, chunk_elements)
    sums = rows.step_sums(query, key, mask, heads, scaling=scaling, softcap=softcap, sinks=sinks)
    return rows.means(sums).transpose(0, 1)


class AnswerRows:
    """The query rows of the final answers, for the layers of one forward.

    Tensors that are the same for all layers are cached: the positions of the rows, which of them are answer tokens, and
    the rows of the mask, as long as the layers get the same mask. Nine operations on the device remain per layer (ten
    for several heads), and none waits for it; the division by the steps' lengths comes at the end.
    """

    def __init__(self, layout: StepLayout | PackedLayout, chunk_elements: int = CHUNK_ELEMENTS) -> None:
        self.chunk_elements = chunk_elements
        self.spans = layout.sequences if isinstance(layout, PackedLayout) else layout
        self.longest = max(1, self.spans.longest_answer)
        self.starts: Int64[Tensor, "N 1"] | None = None
        self.columns: Int64[Tensor, "N L"] | None = None
        if isinstance(layout, PackedLayout):
            self.batch_index, self.starts, self.columns = layout.batch_rows, layout.starts[:, None], layout.columns
        else:
            self.batch_index = torch.arange(self.spans.rows, device=layout.device)
        self._step_index = self.spans.step_ids[:, None, :]
        self._chunks: dict[tuple[int, int], _Chunk] = {}
        self._masks: dict[tuple[RowMask, tuple[int, ...], int, int], Tensor] = {}
        self._masks_held = 0  # elements

    def step_sums(
        self,
        query: Float[Tensor, "B H T D"],
        key: Float[Tensor, "B K T D"],
        mask: RowMask,
        heads: tuple[int, ...],
        *,
        scaling: float | None = None,
        softcap: float | None = None,
        sinks: Float[Tensor, "H"] | None = None,
    ) -> Float[Tensor, "N heads E"]:
        """Σ_{m∈F} Σ_{n∈s_k} a(m→n) for the chosen heads of one layer; the last entry is the sum outside all steps."""
        size = query.shape[-1]
        how = _Softmax(size**-0.5 if scaling is None else scaling, softcap, sinks)
        cells = self.spans.rows * self.spans.width
        heads_at_once = max(1, min(len(heads), self.chunk_elements // (cells * max(size, min(self.longest, 64)))))
        rows_at_once = max(1, min(self.longest, self.chunk_elements // (cells * heads_at_once)))
        parts = []
        # Autocast would round the logits to half precision.
        with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
            for first in range(0, len(heads), heads_at_once):
                chosen = heads[first : first + heads_at_once]
                keys = self._keys(key, tuple(h // (query.shape[1] // key.shape[1]) for h in chosen))
                received = None
                for offset in range(0, self.longest, rows_at_once):
                    chunk = self._chunk(offset, min(rows_at_once, self.longest - offset))
                    probabilities = self._probabilities(query, keys, mask, chosen, chunk, how)
                    part = probabilities.mul_(chunk.inside).sum(dim=2)
                    received = part if received is None else received.add_(part)
                assert received is not None
                parts.append(self._by_step(received))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def means(self, sums: Float[Tensor, "N h E"]) -> Float[Tensor, "N h S"]:
        """The mean attention received per token of every step."""
        means = sums[..., :-1] / self.spans.step_lengths.clamp(min=1)[:, None, :]
        scored = self.spans.answers[:, 0] < self.spans.answers[:, 1]
        return means.masked_fill_(~scored[:, None, None], 0.0)

    def _by_step(self, received: Float[Tensor, "N h L"]) -> Float[Tensor, "N h E"]:
        batch, heads, _ = received.shape
        sums = received.new_zeros(batch, heads, self.spans.most_steps + 1)
        return sums.scatter_add_(2, self._step_index.expand(-1, heads, -1), received)

    def _chunk(self, offset: int, count: int) -> _Chunk:
        """`count` rows of every answer from row `offset` on; a shorter answer repeats its last row."""
        found = self._chunks.get((offset, count))
        if found is None:
            start, end = self.spans.answers[:, :1], self.spans.answers[:, 1:]
            rows = start + torch.arange(offset, offset + count, device=start.device)
            inside = (rows < end)[:, None, :, None]
            rows = torch.minimum(rows, end - 1).clamp_(min=0)
            places = rows if self.starts is None else rows + self.starts
            found = self._chunks[(offset, count)] = _Chunk(offset, count, rows, places, inside)
        return found

    def _keys(self, key: Float[Tensor, "B K T D"], heads: tuple[int, ...]) -> Float[Tensor, "N h L D"]:
        """The keys of these key heads."""
        if self.columns is None and len(heads) == 1:
            return key.narrow(1, heads[0], 1)
        index = index_tensor(heads, key.device)
        if self.columns is None:
            return key.index_select(1, index)
        return key[self.batch_index[:, None, None], index[None, :, None], self.columns[:, None, :]]

    def _probabilities(
        self,
        query: Float[Tensor, "B H T D"],
        keys: Float[Tensor, "N h L D"],
        mask: RowMask,
        heads: tuple[int, ...],
        chunk: _Chunk,
        how: _Softmax,
    ) -> Float[Tensor, "N h C L"]:
        """a(m→n) for the query rows of a chunk."""
        head_index = index_tensor(heads, query.device)
        queries = query[self.batch_index[:, None, None], head_index[None, :, None], chunk.places[:, None, :]]
        logits = _logits(queries, keys).mul_(how.scaling)
        if how.softcap is not None:
            logits = logits.div_(how.softcap).tanh_().mul_(how.softcap)
        hidden = self._mask(mask, heads, chunk)
        if hidden.dtype == torch.bool:
            logits.masked_fill_(hidden, torch.finfo(torch.float32).min)
        else:
            logits += hidden
        if self.columns is not None:
            # Places after the end of a sequence repeat or belong to the next one.
            later = mask.columns[: logits.shape[-1]] > chunk.rows[:, None, :, None]
            logits.masked_fill_(later, torch.finfo(torch.float32).min)
        if how.sinks is None:
            return torch.softmax(logits, dim=-1, out=logits)  # no second tensor of this size
        # A sink is one more logit that takes probability but has no value vector.
        sink = how.sinks.float()[head_index].reshape(1, -1, 1, 1).expand(*logits.shape[:3], 1)
        return torch.softmax(torch.cat([logits, sink], dim=-1), dim=-1)[..., :-1]

    def _mask(self, mask: RowMask, heads: tuple[int, ...], chunk: _Chunk) -> Tensor:
        """Broadcastable to [N, h, C, L]: True where a row may not attend, or numbers to add to the logits."""
        key = (mask, heads if mask.differs_by_head else (), chunk.offset, chunk.count)
        found = self._masks.get(key)
        if found is not None:
            return found
        rows = mask.rows(self.batch_index, index_tensor(heads, chunk.places.device), chunk.places, self.columns)
        found = ~rows if rows.dtype == torch.bool else rows
        if self._masks_held + found.numel() <= self.chunk_elements:
            self._masks_held += found.numel()
            self._masks[key] = found
        return found


@dataclass(frozen=True, eq=False)
class _Chunk:
    """C rows of every answer from row `offset` on: their positions in the sequence (`rows`) and in the row of the batch
    (`places`), and whether they are answer tokens (`inside`, [N, 1, C, 1])."""

    offset: int
    count: int
    rows: Int64[Tensor, "N C"]
    places: Int64[Tensor, "N C"]
    inside: Tensor


@dataclass(frozen=True, eq=False)
class _Softmax:
    """The operations of a layer on q·k before and in the softmax."""

    scaling: float
    softcap: float | None
    sinks: Float[Tensor, "H"] | None


def _logits(queries: Float[Tensor, "N h C D"], keys: Float[Tensor, "N h L D"]) -> Float[Tensor, "N h C L"]:
    """q·k in float32. On CUDA, half-precision inputs stay half and only the sums are float32, as in fast kernels."""
    if queries.is_cuda and queries.dtype in (torch.float16, torch.bfloat16) and keys.dtype == queries.dtype:
        product = torch.bmm(queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), out_dtype=torch.float32)
        return product.unflatten(0, queries.shape[:2])
    return torch.matmul(queries.float(), keys.float().transpose(2, 3))
