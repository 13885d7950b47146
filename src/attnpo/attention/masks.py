"""The arguments that a layer passes to its attention function, and rows of the mask that the function applies.

transformers gives every attention function the mask in its own form. Reading that form, rather than building a mask
from the padding, keeps packed, chunked or custom masks exact; the full T x T mask is never built. Forms that cannot be
read raise an error with the reason. Nothing here waits for the device: only shapes, types and names are read, never
values.

Shape legend: B rows of the batch, T positions of a row, N rows to read (sequences), C query rows of each, h heads,
L columns to read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    eager_mask,
    flash_attention_mask,
    flex_attention_mask,
    sdpa_mask,
)
from transformers.modeling_flash_attention_utils import lazy_import_flash_attention

from attnpo.errors import InputError

HIDDEN = -1e4
"""A mask value at most this, added to a logit, leaves no probability in float32."""


class RowMask:
    """The columns that query rows may attend to.

    `mask`: a 4-D tensor (bool, or added to the logits), flash attention's 2-D padding mask, a flex BlockMask, or None
    for causal attention. `window` and `sequences` are for flash attention, whose mask does not contain them: the
    sliding window, and the index of the sequence in the row that every position belongs to.
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

    @property
    def differs_by_head(self) -> bool:
        """Whether its rows have to be read for every head: a flex mask may depend on the head."""
        return isinstance(self.mask, BlockMask) or (
            self.mask is not None and self.valid is None and self.mask.shape[1] > 1
        )

    def rows(
        self,
        batch_index: Int64[Tensor, "N"],
        head_index: Int64[Tensor, "h"],
        rows: Int64[Tensor, "N C"],
        columns: Int64[Tensor, "N L"] | None = None,
    ) -> Tensor:
        """The rows of the mask, broadcastable to [N, h, C, L]: bool (True: may be attended to), or numbers to add to
        the logits. `columns` None means all T columns.
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
    """A small index tensor on the device, cached: creating one waits for the device."""
    return torch.tensor(values, dtype=torch.int64, device=device)


_PACKING = frozenset({"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"})

# Keyword tensors that are read here, or do not change which position attends to which. Any other one raises an error.
_KNOWN_TENSORS = _PACKING | {"position_ids", "cache_position", "num_items_in_batch", "labels", "s_aux", "seq_idx"}

_SINKS, _WINDOW = frozenset({"s_aux", "learnable_sink"}), frozenset({"window_size"})

_FORMS = {sdpa_mask: "sdpa", eager_mask: "eager", flash_attention_mask: "flash", flex_attention_mask: "flex"}


def is_flash(name: str) -> bool:
    """Whether an attention implementation takes its masks in the form of flash attention."""
    return _FORMS.get(ALL_MASK_ATTENTION_FUNCTIONS.get(name)) == "flash"  # pyright: ignore[reportArgumentType]


def check_name(name: str, function: Callable[..., Any] | None) -> None:
    """Raise InputError for an attention implementation that cannot be wrapped."""
    if name.startswith("paged|"):
        raise InputError(f"model: attention implementation {name!r} is for generation; use sdpa, or the name after |")
    if function is None and name != "eager":
        raise InputError(f"model: attention implementation {name!r} is not registered with transformers")
    if "/" in name and function is not flash_attention_forward:
        raise InputError(
            f"model: the attention kernel {name!r} is not one that transformers calls as flash attention; which "
            "positions attend to which is not known"
        )


def check_call(
    layer: int,
    heads: tuple[int, ...],
    query: Tensor,
    key: Tensor,
    batch_shape: tuple[int, int],
    heads_of_model: int,
    kwargs: dict[str, Any],
) -> None:
    """Raise InputError for arguments of an attention call that would give wrong scores."""
    batch, head_count, length, _ = query.shape
    rows, width = batch_shape
    if (batch, length) != (rows, width):
        raise InputError(
            f"capture_scores: the forward saw {batch} rows of {length} positions, expected {rows} rows of {width} "
            "(whole rows in one forward; no decoding, no virtual tokens of a prompt-tuning adapter)"
        )
    if key.shape[2] != length:
        raise InputError(
            f"capture_scores: layer {layer} has {key.shape[2]} key positions for {length} query positions, expected "
            "as many (no key-value cache, no prefix tuning, no compressed keys)"
        )
    if head_count != heads_of_model:
        raise InputError(
            f"heads: layer {layer} computes {head_count} query heads where the configuration has {heads_of_model}; "
            "head numbers mean nothing where heads are split over devices (tensor parallelism) or differ by layer"
        )
    if max(heads) >= head_count or head_count % key.shape[1]:
        raise InputError(
            f"heads: layer {layer} has {head_count} query and {key.shape[1]} key heads, cannot read head {max(heads)}"
        )
    if kwargs.get("is_causal") is False:
        raise InputError(f"model: the attention of layer {layer} is not causal, expected a causal language model")
    if kwargs.get("cache") is not None or kwargs.get("block_table") is not None:
        raise InputError(
            f"model: layer {layer} runs with a paged cache (continuous batching), expected a plain forward"
        )
    for name, value in kwargs.items():
        if isinstance(value, Tensor) and name not in _KNOWN_TENSORS:
            raise InputError(f"model: layer {layer} passes {name!r} to its attention, which step scores do not know")


_OF_MASK = ("position_ids", "cu_seq_lens_k", "cu_seq_lens_q", "max_length_k", "max_length_q", "sliding_window")
"""Arguments that `read_mask` reads in addition to the mask itself and whether there are sinks."""


class MaskReader:
    """Cached `read_mask` for layers with identical arguments: most models pass one mask object to every layer."""

    def __init__(self) -> None:
        self._read: list[tuple[tuple[Any, ...], tuple[Any, ...], RowMask]] = []

    def __call__(self, layer: int, name: str, mask: Any, query: Tensor, kwargs: dict[str, Any]) -> RowMask:
        kind = (name, query.device, kwargs.get("s_aux") is not None)
        given = (mask, *(kwargs.get(option) for option in _OF_MASK))
        for of_kind, seen, found in self._read:  # a handful; references are kept so that no identity is reused
            if of_kind == kind and all(a is b for a, b in zip(seen, given, strict=True)):
                return found
        found = read_mask(layer, name, mask, query, kwargs)
        self._read.append((kind, given, found))
        return found


def read_mask(layer: int, name: str, mask: Any, query: Tensor, kwargs: dict[str, Any]) -> RowMask:
    """The mask that the attention implementation `name` applies, given these arguments.

    Raises InputError if the implementation misinterprets the mask, or ignores an option of the model's configuration:
    then the model's output does not follow its configuration, and scores could follow only one of the two.
    """
    form = _FORMS.get(ALL_MASK_ATTENTION_FUNCTIONS.get(name))  # pyright: ignore[reportArgumentType]
    shape = (query.shape[0], query.shape[2])
    what = f"model: layer {layer}, attention implementation {name!r}"
    if mask is None and form not in ("sdpa", "flash"):
        raise InputError(f"{what}, got no mask; which positions attend to which is not known")
    if isinstance(mask, BlockMask) and form not in ("flex", None):
        raise InputError(f"{what}, got a BlockMask, expected a tensor")
    if isinstance(mask, Tensor):
        if (mask.ndim == 2) != (form == "flash"):
            raise InputError(f"{what}, got a mask of {mask.ndim} dimensions, which it does not read as a mask")
        if form == "flex":
            raise InputError(f"{what}, got a mask tensor, expected a BlockMask; use sdpa for masks of your own")
        if form == "eager" and mask.dtype == torch.bool:
            raise InputError(f"{what}, got a mask of bools, which it adds as 0 and 1; expected numbers, or use sdpa")
    window, sinks = kwargs.get("sliding_window"), kwargs.get("s_aux")
    if sinks is not None and not (form in ("eager", "flex") or (form == "flash" and _kernel_takes(name, _SINKS))):
        raise InputError(
            f"{what}, ignores the model's attention sinks; use eager, flex or a flash attention with sinks"
        )
    if form != "flash":
        return RowMask(mask, shape, query.device)
    if window is not None and not _kernel_takes(name, _WINDOW):
        raise InputError(f"{what}, ignores the model's sliding window; use sdpa")
    packed = _flash_sequences(layer, shape, query.device, kwargs) if mask is None else None
    return RowMask(mask, shape, query.device, window=window, sequences=packed)


def _flash_sequences(
    layer: int, shape: tuple[int, int], device: torch.device, kwargs: dict[str, Any]
) -> Int64[Tensor, "B T"] | None:
    """The sequence of a packed row that every position belongs to, found as flash attention without a mask finds it."""
    rows, width = shape
    if all(kwargs.get(name) is not None for name in _PACKING):
        if rows != 1:
            raise InputError(f"model: layer {layer} got cu_seq_lens for {rows} rows, expected all sequences in one row")
        bounds = kwargs["cu_seq_lens_k"]
        return torch.bucketize(torch.arange(width, device=device, dtype=bounds.dtype), bounds, right=True)[None]
    positions = kwargs.get("position_ids")
    if positions is None or rows != 1 or width == 1:
        return None
    if positions.shape != (1, width):
        raise InputError(
            f"model: layer {layer} got position_ids of shape {tuple(positions.shape)}, expected {(1, width)}: where "
            "packed sequences begin is not known"
        )
    return (positions == positions.min()).cumsum(dim=1)


def _kernel_takes(name: str, options: frozenset[str]) -> bool:
    """Whether this flash attention's kernel has one of the arguments; transformers silently drops missing ones."""
    (*functions,), *_ = lazy_import_flash_attention(name)
    return all(options & _parameters(function) for function in functions[:2] if function is not None)


@lru_cache(maxsize=64)
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
