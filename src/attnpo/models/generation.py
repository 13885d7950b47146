"""What every way of generating needs: end and padding tokens, rows that end together, and a cache that grows in place.

The key-value cache appends in place; transformers' own copies all of it for every token.

`DynamicLayer` concatenates: T tokens cost T copies of up to T tokens. With a small model on a CPU that is most of the
time from a few hundred tokens on. Here a layer keeps room for `ROOM` more tokens and hands out views of the filled
part, so the attention sees the same numbers, shapes and masks, and the sampled tokens are the same.

What every way of generating needs: the tokens that end a response, a padding token, rows that end together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import GenerationConfig
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
        self.keys, self.values = views
        return self.keys, self.values

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


def end_tokens(config: GenerationConfig, tokenizer: Any) -> list[int]:
    """The tokens that end a response: some models have more than their tokenizer names."""
    own = config.eos_token_id
    named = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    return list(dict.fromkeys(token for token in named if isinstance(token, int)))


def padding_token(tokenizer: Any, ends: Sequence[int]) -> int:
    """The tokenizer's, or else any token: what is padded is masked out."""
    return next(token for token in (tokenizer.pad_token_id, *ends, 0) if token is not None)


def pad_left(rows: Sequence[Sequence[int]], padding: int) -> tuple[Int64[Tensor, "B T"], Int64[Tensor, "B T"]]:
    """Token ids and attention mask of a batch whose rows all end in the last column."""
    ids = torch.full((len(rows), max(map(len, rows))), padding, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, ids.shape[1] - len(row) :] = torch.tensor(row)
        mask[i, ids.shape[1] - len(row) :] = 1
    return ids, mask
