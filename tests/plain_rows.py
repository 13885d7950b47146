"""Attention rows of the final answer, one layer at a time and without caches: the reference of `attention/rows.py`.

Shape legend: B rows of the batch, T padded length, H query heads of the layer, K key heads (query head h reads key
head h // (H // K)), C query rows computed at once, h chosen heads computed at once, S steps, D head size. N sequences
of at most L tokens: the rows of the batch (N = B, L = T), unless several are packed into one row.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from attnpo.attention.layout import PackedLayout, StepLayout
from attnpo.attention.masks import RowMask, index_tensor
from attnpo.attention.rows import CHUNK_ELEMENTS


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

    `mask` is what the layer's own attention got (see `RowMask`), or a RowMask read from it; `sliding_window` is for
    forms of the mask that do not carry the window. Logits and softmax are in float32. Steps without tokens and rows
    without an answer get 0. Memory: `CHUNK_ELEMENTS`.
    """
    batch, _, width, size = query.shape
    if not isinstance(mask, RowMask):
        mask = RowMask(mask, (batch, width), query.device, window=sliding_window)
    rows_of = _RowReader(query, key, mask, layout, scaling=scaling, softcap=softcap, sinks=sinks)
    spans = rows_of.spans
    cells = spans.rows * spans.width
    longest = max(1, spans.longest_answer)
    heads_at_once = max(1, min(len(heads), chunk_elements // (cells * max(size, min(longest, 64)))))
    rows_at_once = max(1, min(longest, chunk_elements // (cells * heads_at_once)))
    start, end = spans.answers[:, :1], spans.answers[:, 1:]
    steps = []
    # Autocast would round the logits to half precision.
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        for first in range(0, len(heads), heads_at_once):
            chosen = heads[first : first + heads_at_once]
            key_heads = rows_of.keys(chosen)
            received = query.new_zeros((spans.rows, len(chosen), spans.width), dtype=torch.float32)
            for offset in range(0, longest, rows_at_once):
                count = min(rows_at_once, longest - offset)
                rows = start + torch.arange(offset, offset + count, device=start.device)
                inside = rows < end
                rows = torch.minimum(rows, end - 1).clamp_(min=0)
                probabilities = rows_of.probabilities(key_heads, chosen, rows)
                received += probabilities.mul_(inside[:, None, :, None]).sum(dim=2)
            steps.append(_sum_steps(received, spans))
        return torch.cat(steps, dim=1).transpose(0, 1)


class _RowReader:
    """Attention rows of one layer, for sequences that are whole rows of the batch or parts of them."""

    def __init__(
        self,
        query: Float[Tensor, "B H T D"],
        key: Float[Tensor, "B K T D"],
        mask: RowMask,
        layout: StepLayout | PackedLayout,
        *,
        scaling: float | None,
        softcap: float | None,
        sinks: Float[Tensor, "H"] | None,
    ) -> None:
        self.query, self.key, self.mask, self.softcap, self.sinks = query, key, mask, softcap, sinks
        self.scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        self.group = query.shape[1] // key.shape[1]
        self.spans = layout.sequences if isinstance(layout, PackedLayout) else layout
        self.starts: Int64[Tensor, "N 1"] | None = None
        self.columns: Int64[Tensor, "N L"] | None = None
        if isinstance(layout, PackedLayout):
            self.batch_index, self.starts, self.columns = layout.batch_rows, layout.starts[:, None], layout.columns
        else:
            self.batch_index = torch.arange(query.shape[0], device=query.device)

    def keys(self, heads: tuple[int, ...]) -> Float[Tensor, "N h L D"]:
        """The keys that these query heads read."""
        index = index_tensor(tuple(h // self.group for h in heads), self.key.device)
        if self.columns is None:
            return self.key.index_select(1, index)
        return self.key[self.batch_index[:, None, None], index[None, :, None], self.columns[:, None, :]]

    def probabilities(
        self, key_heads: Float[Tensor, "N h L D"], heads: tuple[int, ...], rows: Int64[Tensor, "N C"]
    ) -> Float[Tensor, "N h C L"]:
        """a(m→n) for the query positions `rows` of every sequence."""
        head_index = index_tensor(heads, self.query.device)
        places = rows if self.starts is None else rows + self.starts
        queries = self.query[self.batch_index[:, None, None], head_index[None, :, None], places[:, None, :]]
        logits = _logits(queries, key_heads).mul_(self.scaling)
        if self.softcap is not None:
            logits = logits.div_(self.softcap).tanh_().mul_(self.softcap)
        mask = self.mask.rows(self.batch_index, head_index, places, self.columns)
        if mask.dtype == torch.bool:
            logits.masked_fill_(~mask, torch.finfo(torch.float32).min)
        else:
            logits += mask
        if self.columns is not None:
            # Places beyond the end of a sequence repeat or belong to the next one.
            later = self.mask.columns[: logits.shape[-1]] > rows[:, None, :, None]
            logits.masked_fill_(later, torch.finfo(torch.float32).min)
        if self.sinks is None:
            return torch.softmax(logits, dim=-1, out=logits)  # no second tensor of this size
        # A sink is one more logit that takes probability and gives no value.
        sink = self.sinks.float()[head_index].reshape(1, -1, 1, 1).expand(*logits.shape[:3], 1)
        return torch.softmax(torch.cat([logits, sink], dim=-1), dim=-1)[..., :-1]


def _logits(queries: Float[Tensor, "N h C D"], keys: Float[Tensor, "N h L D"]) -> Float[Tensor, "N h C L"]:
    """q·k in float32. On CUDA half-precision inputs stay half and only the sums are float32, as in the fast kernels."""
    if queries.is_cuda and queries.dtype in (torch.float16, torch.bfloat16) and keys.dtype == queries.dtype:
        product = torch.bmm(queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), out_dtype=torch.float32)
        return product.unflatten(0, queries.shape[:2])
    return torch.matmul(queries.float(), keys.float().transpose(2, 3))


def _sum_steps(received: Float[Tensor, "N h L"], layout: StepLayout) -> Float[Tensor, "N h S"]:
    """Mean over the tokens of every step of the attention they received."""
    batch, heads, _ = received.shape
    index = layout.step_ids[:, None, :].expand(-1, heads, -1)
    sums = received.new_zeros(batch, heads, layout.most_steps + 1).scatter_add_(2, index, received)
    means = sums[..., :-1] / layout.step_lengths.clamp(min=1)[:, None, :]
    scored = layout.answers[:, 0] < layout.answers[:, 1]
    return torch.where(scored[:, None, None], means, torch.zeros_like(means))
