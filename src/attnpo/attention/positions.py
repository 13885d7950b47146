"""Positions of left-padded rows, numbered from the first token on, as in the model's own generation.

A forward without `position_ids` counts the padding. With rotary embeddings nothing depends on that. With learned
positions, or operations on queries and keys that depend on their position (temperatures, norms after the rotation), the
forward would see other positions than those the model sampled with.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from attnpo.models.loading import unwrap_model

_TOKENS = 8
_SAME = 0.05
"""Mean difference of the logits, as a share of their standard deviation, that counts as equal: rounding at large
positions stays below, also in bfloat16; the effect of a learned position is far above."""


def own_positions(attention_mask: Tensor) -> Int64[Tensor, "B T"]:
    """The index of every token in its row, from 0; 0 at padding before them. `attention_mask`: [B, T], 1 at tokens."""
    return (attention_mask.long().cumsum(dim=1) - 1).clamp_(min=0)


def takes_positions(model: nn.Module) -> bool:
    """Whether the model's forward has the argument `position_ids`; a model without it computes them itself."""
    return "position_ids" in inspect.signature(unwrap_model(model).forward).parameters


@torch.no_grad()
def depends_on_positions(model: nn.Module) -> bool:
    """Whether the same 8 tokens get other logits at the end of the model's range of positions. Runs two forwards.

    Collective if the model's weights are sharded. `model` may be wrapped; its mode is restored.
    """
    inner = unwrap_model(model)
    config = inner.config.get_text_config(decoder=True)
    if config is not inner.config:
        return False  # with images positions have several axes, which the model itself computes
    room = (getattr(config, "max_position_embeddings", None) or 2048) - _TOKENS
    if room < 1 or not takes_positions(model):
        return False
    device = next(inner.parameters()).device
    ids = torch.arange(1, 1 + _TOKENS, device=device)[None] % config.vocab_size
    places = torch.arange(_TOKENS, device=device)[None]
    mask = torch.ones_like(ids)
    training = model.training
    model.eval()
    try:
        near, far = (
            model(input_ids=ids, attention_mask=mask, position_ids=places + start, use_cache=False).logits.float()
            for start in (0, room)
        )
    finally:
        model.train(training)
    return bool((near - far).abs().mean() > _SAME * near.std())


class OwnPositions:
    """Applies `own_positions_given` to models that need it, which is tested at the first forward."""

    def __init__(self, needed: bool | None = None) -> None:
        self._needed = needed

    @contextmanager
    def given(self, model: nn.Module) -> Iterator[None]:
        """Context for forwards of `model`, or of its reference model: the test on the first one decides for both."""
        if self._needed is None:
            self._needed = depends_on_positions(model)
        if not self._needed:
            yield
            return
        with own_positions_given(model):
            yield


@contextmanager
def own_positions_given(model: nn.Module) -> Iterator[None]:
    """Pass `own_positions` to every forward in the context that has a mask [B, T] and no `position_ids`."""

    def number(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = kwargs.get("attention_mask")
        if kwargs.get("position_ids") is None and isinstance(mask, Tensor) and mask.ndim == 2:
            kwargs = {**kwargs, "position_ids": own_positions(mask)}
        return args, kwargs

    hook = unwrap_model(model).register_forward_pre_hook(number, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
