"""What a run needs on every GPU, by counting and arithmetic: nothing is loaded, nothing is computed.

docs/scaling.md has the model in words. Weights, gradients, optimiser states and the key-value cache are exact
(tests/unit/test_sizes.py holds them to real ones); activations are counted by running the model's own code on tensors
without numbers (`LiveBytes`), with an attention that keeps what a fused kernel keeps; the head is arithmetic on TRL's
chunks. Not in it: what kernels take while they run, the allocator's rounding, CUDA itself (about 1 GiB together).

Shape legend: B rows of a micro-batch, T tokens of a row, H width, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.masking_utils import AttentionMaskInterface
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

from attnpo.training.memory import LiveBytes

STAND_IN = "attnpo_counted"
"""Name of the attention that has a fused kernel's memory and no arithmetic."""


class _Fused(torch.autograd.Function):
    """Keeps queries, keys, values, output and a float32 number per query and head, as flash attention does."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:3], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = ctx.saved_tensors[:3]
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    return _Fused.apply(query, key, value).transpose(1, 2).contiguous(), None  # pyright: ignore[reportOptionalMemberAccess]


@contextmanager
def counted_attention() -> Iterator[str]:
    """The name under which the stand-in is registered within."""
    AttentionInterface.register(STAND_IN, _attend)
    AttentionMaskInterface.register(STAND_IN, lambda *_, **__: None)
    try:
        yield STAND_IN
    finally:
        AttentionInterface._global_mapping.pop(STAND_IN)  # pyright: ignore[reportAttributeAccessIssue]
        AttentionMaskInterface._global_mapping.pop(STAND_IN)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class DecoderPeak:
    """Bytes beside weights and their gradients: kept from the forward for the backward pass, and at most."""

    kept: int
    peak: int


def decoder_peak(
    config: Any,
    rows: int,
    tokens: int,
    *,
    dtype: torch.dtype = torch.float32,
    autocast: bool = False,
    checkpointing: bool = True,
) -> DecoderPeak:
    """Forward and backward pass of the decoder (all but the head) over [B, T] tokens.

    Layers that are all of one kind cost alike: two and three of them are counted, the others follow.
    """
    text = config.get_text_config(decoder=True)
    layers = text.num_hidden_layers
    options: dict[str, Any] = {"dtype": dtype, "autocast": autocast, "checkpointing": checkpointing}
    if layers <= 3 or len(set(getattr(text, "layer_types", None) or ())) > 1:
        return _count(config, layers, rows, tokens, **options)
    two, three = (_count(config, n, rows, tokens, **options) for n in (2, 3))
    more = layers - 3
    return DecoderPeak(three.kept + more * (three.kept - two.kept), three.peak + more * (three.peak - two.peak))


def _count(
    config: Any, layers: int, rows: int, tokens: int, *, dtype: torch.dtype, autocast: bool, checkpointing: bool
) -> DecoderPeak:
    config = copy.deepcopy(config)
    text = config.get_text_config(decoder=True)
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    with counted_attention() as attention, FakeTensorMode():
        decoder = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention).get_decoder()
        decoder.train()
        if checkpointing:
            decoder.activation_checkpointing_enable()
        for parameter in decoder.parameters():
            parameter.grad = torch.zeros_like(parameter)
        ids, mask = torch.zeros(rows, tokens, dtype=torch.long), torch.ones(rows, tokens, dtype=torch.long)
        held = [*decoder.parameters(), *decoder.buffers(), *(p.grad for p in decoder.parameters()), ids, mask]
        with LiveBytes(held) as memory:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                hidden = decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            kept = memory.live
            hidden.backward(torch.zeros_like(hidden))
            return DecoderPeak(kept, memory.peak)


def head_bytes(
    tokens: int, vocabulary: int, width: int, weight: torch.dtype, compute: torch.dtype | None = None
) -> int:
    """At most, while TRL's fused head (log-probabilities and entropies in chunks) runs backward over N scored tokens.

    `weight` is the type of weights and hidden states, `compute` that of the product (under autocast another one). The
    scored hidden states, their gradient and that of the weights in float32, and both again in their own type where it
    is another; a tile of logits. (TRL's names here are private: a test holds this to its function.)
    """
    compute = compute or weight
    rows = min(tokens, chunked_logprob.TOKEN_CHUNK_SIZE)
    tile = rows * trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE * compute.itemsize
    again = 0 if weight == torch.float32 else weight.itemsize
    if compute != weight:  # cast: a chunk of hidden states, of the weights this one and the last
        tile += (rows + 2 * trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE) * width * compute.itemsize
    return tile + tokens * width * (weight.itemsize + 4 + again) + vocabulary * width * (4 + again)
