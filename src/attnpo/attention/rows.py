"""Attention rows of the final answer, for a few heads of one layer, summed into step scores.

Shape legend: B rows of the batch, T padded length, H query heads of the layer, K key heads (query head h reads key
head h // (H // K)), C query rows computed at once, h chosen heads computed at once, S steps, D head size.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from attnpo.attention.layout import StepLayout
from attnpo.errors import InputError

CHUNK_ELEMENTS = 1 << 25
"""Float32 numbers in the largest temporary (128 MiB); about four of them live at once, whatever T and |F| are.

One head of one row is the smallest piece, so B·T·max(D, 1) is a floor: the size of one head's keys.
"""


def step_scores(
    query: Float[Tensor, "B H T D"],
    key: Float[Tensor, "B K T D"],
    mask: Tensor | BlockMask | None,
    layout: StepLayout,
    heads: tuple[int, ...],
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    sinks: Float[Tensor, "H"] | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Float[Tensor, "heads B S"]:
    """S(l,h,s_k) of the chosen heads of one layer (paper section 3): (1/|s_k|) · Σ_{m∈F} Σ_{n∈s_k} a(m→n).

    `mask` is what the layer's own attention got: a 4-D mask (bool, or added to the logits), flash attention's 2-D mask,
    a flex BlockMask, or None for plain causal attention. Logits and softmax are in float32. Steps without tokens and
    rows without an answer get 0. Memory: `CHUNK_ELEMENTS`.
    """
    batch, _, width, size = query.shape
    group = query.shape[1] // key.shape[1]
    factor = size**-0.5 if scaling is None else scaling
    allowed = _RowMask(mask, layout, batch, width, sliding_window)
    longest = max(1, layout.longest_answer)
    heads_at_once = max(1, min(len(heads), chunk_elements // (batch * width * max(size, min(longest, 64)))))
    rows_at_once = max(1, min(longest, chunk_elements // (batch * width * heads_at_once)))
    start, end = layout.answers[:, :1], layout.answers[:, 1:]
    steps = []
    # Autocast would round the logits to half precision.
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        for first in range(0, len(heads), heads_at_once):
            chosen = heads[first : first + heads_at_once]
            key_heads = key.index_select(1, _indices(tuple(h // group for h in chosen), key.device))
            received = query.new_zeros((batch, len(chosen), width), dtype=torch.float32)
            for offset in range(0, longest, rows_at_once):
                count = min(rows_at_once, longest - offset)
                rows = start + torch.arange(offset, offset + count, device=start.device)
                inside = rows < end
                rows = torch.minimum(rows, end - 1).clamp_(min=0)
                probabilities = _row_probabilities(
                    query, key_heads, chosen, rows, allowed, scaling=factor, softcap=softcap, sinks=sinks
                )
                received += probabilities.mul_(inside[:, None, :, None]).sum(dim=2)
            steps.append(_sum_steps(received, layout))
        return torch.cat(steps, dim=1).transpose(0, 1)


def _row_probabilities(
    query: Float[Tensor, "B H T D"],
    key_heads: Float[Tensor, "B h T D"],
    heads: tuple[int, ...],
    rows: Int64[Tensor, "B C"],
    allowed: _RowMask,
    *,
    scaling: float,
    softcap: float | None,
    sinks: Float[Tensor, "H"] | None,
) -> Float[Tensor, "B h C T"]:
    """a(m→n) for the query positions `rows`."""
    head_index = _indices(heads, query.device)
    batch_index = torch.arange(query.shape[0], device=query.device)
    queries = query[batch_index[:, None, None], head_index[None, :, None], rows[:, None, :]]
    logits = _logits(queries, key_heads).mul_(scaling)
    if softcap is not None:
        logits = logits.div_(softcap).tanh_().mul_(softcap)
    mask = allowed.rows(batch_index, head_index, rows)
    if mask.dtype == torch.bool:
        logits.masked_fill_(~mask, torch.finfo(torch.float32).min)
    else:
        logits += mask
    if sinks is None:
        return torch.softmax(logits, dim=-1)
    # A sink is one more logit that takes probability and gives no value.
    sink = sinks.float()[head_index].reshape(1, -1, 1, 1).expand(*logits.shape[:3], 1)
    return torch.softmax(torch.cat([logits, sink], dim=-1), dim=-1)[..., :-1]


def _logits(queries: Float[Tensor, "B h C D"], keys: Float[Tensor, "B h T D"]) -> Float[Tensor, "B h C T"]:
    """q·k in float32. On CUDA half-precision inputs stay half and only the sums are float32, as in the fast kernels."""
    if queries.is_cuda and queries.dtype in (torch.float16, torch.bfloat16) and keys.dtype == queries.dtype:
        product = torch.bmm(queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), out_dtype=torch.float32)
        return product.unflatten(0, queries.shape[:2])
    return torch.matmul(queries.float(), keys.float().transpose(2, 3))


def _sum_steps(received: Float[Tensor, "B h T"], layout: StepLayout) -> Float[Tensor, "B h S"]:
    """Mean over the tokens of every step of the attention they received."""
    batch, heads, _ = received.shape
    index = layout.step_ids[:, None, :].expand(-1, heads, -1)
    sums = received.new_zeros(batch, heads, layout.most_steps + 1).scatter_add_(2, index, received)
    means = sums[..., :-1] / layout.step_lengths.clamp(min=1)[:, None, :]
    scored = layout.answers[:, 0] < layout.answers[:, 1]
    return torch.where(scored[:, None, None], means, torch.zeros_like(means))


class _RowMask:
    """Rows of the mask that the layer itself applied, never the whole of it.

    transformers gives every attention function the mask in a form of its own. Reading that form, rather than building
    a mask from the padding, keeps packed, chunked or custom masks exact.
    """

    def __init__(
        self, mask: Tensor | BlockMask | None, layout: StepLayout, batch: int, width: int, window: int | None
    ) -> None:
        if isinstance(mask, Tensor) and mask.ndim not in (2, 4):
            raise InputError(f"attention mask of shape {tuple(mask.shape)}: expected 2 or 4 dimensions")
        self.mask = mask
        self.window = window
        self.columns = torch.arange(width, device=layout.step_ids.device)
        self.valid: Bool[Tensor, "B T"] | None = None
        self.places: Int64[Tensor, "B T"] | None = None
        if isinstance(mask, Tensor) and mask.ndim == 2:
            self.valid = mask[:, -width:].bool()
            # Flash attention drops the padding first: its windows count tokens, not padded positions.
            self.places = self.valid.cumsum(dim=1)
        elif isinstance(mask, Tensor):
            self.mask = mask[..., :width].expand(batch, -1, -1, -1)

    def rows(
        self, batch_index: Int64[Tensor, "B"], head_index: Int64[Tensor, "h"], rows: Int64[Tensor, "B C"]
    ) -> Tensor:
        """Broadcastable to [B, h, C, T]: bool (True: may be attended to) or numbers to add to the logits."""
        batch_at, row_at = batch_index[:, None, None, None], rows[:, None, :, None]
        if isinstance(self.mask, BlockMask):
            return self.mask.mask_mod(batch_at, head_index[None, :, None, None], row_at, self.columns)
        if self.mask is not None and self.valid is None:
            heads_at = head_index if self.mask.shape[1] > 1 else head_index[:1] * 0
            return self.mask[batch_index[:, None, None], heads_at[None, :, None], rows[:, None, :]]
        allowed = self.columns <= row_at
        if self.window is not None:
            if self.places is None:
                distance = row_at - self.columns
            else:
                distance = self.places.gather(1, rows)[:, None, :, None] - self.places[:, None, None, :]
            allowed = allowed & (distance < self.window)
        return allowed if self.valid is None else allowed & self.valid[:, None, None, :]


@lru_cache(maxsize=4096)
def _indices(values: tuple[int, ...], device: torch.device) -> Int64[Tensor, "n"]:
    """A small index tensor on the device, made once: making one waits for the device."""
    return torch.tensor(values, dtype=torch.int64, device=device)
