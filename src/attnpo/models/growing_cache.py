"""A key-value cache for generating that appends in place; transformers' own copies all of it for every token.

`DynamicLayer` concatenates: T tokens cost T copies of up to T tokens. With a small model on a CPU that is most of the
time from a few hundred tokens on. Here a layer keeps room for `ROOM` more tokens and hands out views of the filled
part, so the attention sees the same numbers, shapes and masks, and the sampled tokens are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DYNAMIC_LAYER_TYPE_MAPPING, DynamicLayer

ROOM = 256
"""Tokens of room that are added at once: one copy per `ROOM` tokens, and at most so much memory unused per row."""

_FULL = "full_attention"


class GrowingLayer(DynamicLayer):
    """`DynamicLayer` whose keys and values are views of larger buffers.

    Where gradients are recorded it concatenates like `DynamicLayer`: an append in place would spoil the graph.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Float[Tensor, "B H t D"], value_states: Float[Tensor, "B H t D"], *args: Any, **kwargs: Any
    ) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T D"]]:
        """Append t tokens; the keys and values of all T tokens."""
        if torch.is_grad_enabled():
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        filled = self.get_seq_length()
        total = filled + key_states.shape[-2]
        if self._buffers is None or not self._fits(total):
            self._buffers = (_with_room(self.keys, key_states, total), _with_room(self.values, value_states, total))
        views = []
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., filled:total, :] = new
            views.append(buffer[..., :total, :])
        keys, values = views
        self.keys, self.values = keys, values
        return keys, values

    def batch_select_indices(self, indices: Int[Tensor, " n"]) -> None:
        """Keep these rows only, with the room they have: one copy, where `super` would have `update` make a second."""
        filled = self.get_seq_length()
        if self._buffers is None or not self._fits(filled):
            super().batch_select_indices(indices)
            return
        keys, values = (buffer[indices] for buffer in self._buffers)
        self._buffers = (keys, values)
        self.keys, self.values = keys[..., :filled, :], values[..., :filled, :]

    def reset(self) -> None:
        """Forget everything, the buffers too."""
        self._buffers = None
        super().reset()

    def _fits(self, total: int) -> bool:
        """Whether keys and values still are the head of the buffers (rows may have been chosen or moved since), and
        the buffers have room for `total` tokens."""
        return all(
            held is not None
            and total <= buffer.shape[-2]
            and held.data_ptr() == buffer.data_ptr()
            and held.stride() == buffer.stride()
            and held.shape[:-2] == buffer.shape[:-2]
            for held, buffer in zip((self.keys, self.values), self._buffers or (), strict=True)
        )


def _with_room(held: Tensor | None, new: Float[Tensor, "B H t D"], total: int) -> Float[Tensor, "B H T+ROOM D"]:
    """A buffer for `total` tokens and `ROOM` more that begins with what is held (at first nothing)."""
    buffer = new.new_empty(*new.shape[:-2], total + ROOM, new.shape[-1])
    if held is not None and held.numel():
        buffer[..., : held.shape[-2], :] = held
    return buffer


@contextmanager
def growing_cache() -> Iterator[None]:
    """Within, the caches that `generate` makes for layers of full attention grow in place; others are as ever."""
    plain = DYNAMIC_LAYER_TYPE_MAPPING[_FULL]
    DYNAMIC_LAYER_TYPE_MAPPING[_FULL] = GrowingLayer
    try:
        yield
    finally:
        DYNAMIC_LAYER_TYPE_MAPPING[_FULL] = plain
