"""What a run needs on every GPU, by counting and arithmetic: nothing is loaded, nothing is computed.

docs/scaling.md has the model in words. Weights, gradients, optimiser states and the key-value cache are exact
(tests/unit/test_sizes.py holds them to real ones); activations are counted by running the model's own code on tensors
without numbers (`LiveBytes`), with an attention that keeps what a fused kernel keeps; the head is arithmetic on TRL's
chunks. Not in it: what kernels take while they run, the allocator's rounding, CUDA itself (about 1 GiB together).

`LiveBytes` sees every tensor that torch makes while it is open, and counts rather than measures: the same number on
every machine. With torch's FakeTensorMode, whose tensors have shapes and no numbers, it says what a step of a
32-billion-parameter model would take, in seconds and without the memory.

Shape legend: B rows of a micro-batch, T tokens of a row, H width, V vocabulary.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AutoModelForCausalLM, DynamicCache, Trainer, TrainingArguments
from transformers.masking_utils import AttentionMaskInterface
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

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
    tokens: int,
    vocabulary: int,
    width: int,
    weight: torch.dtype,
    compute: torch.dtype | None = None,
    *,
    trained: bool = True,
) -> int:
    """At most, while TRL's fused head (log-probabilities and entropies in chunks) runs backward over N scored tokens.

    `weight` is the type of weights and hidden states, `compute` that of the product (under autocast another one). The
    scored hidden states, their gradient and that of the weights in float32, and both again in their own type where it
    is another (`trained`: those of the head are); a tile of logits. (TRL's names here are private: a test holds this
    to its function.)
    """
    compute = compute or weight
    rows = min(tokens, chunked_logprob.TOKEN_CHUNK_SIZE)
    tile = rows * trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE * compute.itemsize
    again = 0 if weight == torch.float32 else weight.itemsize
    if compute != weight:  # cast: a chunk of hidden states, of the weights this one and the last
        tile += (rows + 2 * trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE) * width * compute.itemsize
    return tile + tokens * width * (weight.itemsize + 4 + again) + trained * vocabulary * width * (4 + again)


def kv_cache_bytes(config: Any, rows: int, tokens: int, dtype: torch.dtype) -> int:
    """Keys and values of B rows of T tokens, as transformers' own cache holds them (a sliding window keeps less)."""
    text = config.get_text_config(decoder=True)
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    with FakeTensorMode():
        cache = DynamicCache(config=config)
        part = torch.zeros(rows, text.num_key_value_heads, tokens, size, dtype=dtype)
        kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
        for layer, kind in enumerate(kinds):
            if "attention" in kind and "linear" not in kind:
                cache.update(part.clone(), part.clone(), layer)
        parts = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values")]
        return bytes_of(part for part in parts if part is not None)


def optimiser_bytes(args: TrainingArguments, parameters: Iterable[Tensor]) -> int:
    """States of the optimiser of `args.optim` for these parameters, after its first step."""
    kind, options = Trainer.get_optimizer_cls_and_kwargs(args)
    options = {name: value for name, value in options.items() if name not in ("fused", "foreach")}
    with FakeTensorMode():
        ours = [nn.Parameter(torch.zeros(p.shape, dtype=p.dtype)) for p in parameters]
        for parameter in ours:
            parameter.grad = torch.zeros_like(parameter)
        optimiser = kind(ours, **options)
        optimiser.step()
        return bytes_of(t for state in optimiser.state.values() for t in state.values() if isinstance(t, Tensor))


def mask_bytes(rows: int, tokens: int, attention: str, compute: torch.dtype) -> int:
    """The T x T mask of SDPA for rows that are padded, and the same as numbers while a layer uses it. One row alone has
    no padding, and flash attention no mask."""
    return rows * tokens**2 * (1 + compute.itemsize) if attention == "sdpa" and rows > 1 else 0


@dataclass(frozen=True)
class Need:
    """Bytes on one GPU."""

    weights: int
    gradients: int
    optimiser: int
    gathered: int  # weights of two layers, embeddings and head made whole again, where they are sharded
    activations: int  # beside the head, at most
    kept: int  # of these, while the head runs
    head: int
    mask: int
    rows: int
    cache: int  # keys and values of the rollouts sampled at once, or vLLM's share

    @property
    def static(self) -> int:
        return self.weights + self.optimiser

    @property
    def update(self) -> int:
        """At most while gradients are formed."""
        work = max(self.activations, self.kept + self.head) + self.mask + self.rows
        return self.static + self.gradients + self.gathered + work

    @property
    def rollout(self) -> int:
        """At most while responses are sampled by transformers."""
        return self.static + self.gathered + self.cache


def shared_out(number: int, gpus: int, sharded: bool) -> int:
    """What one of the GPUs holds of so many bytes."""
    return -(-number // gpus) if sharded else number


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors made while it is open: `live` now, `peak` at most. Views count once.

    held: tensors made before (weights, inputs), which are not counted when a view of them comes along.
    What a kernel takes for itself while it runs is not seen, nor what an allocator rounds up.
    """

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: dict[int, int] = {}
        for tensor in held:
            self._hold(tensor, counts=False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._hold(leaf)
        return output

    def _hold(self, tensor: Tensor, *, counts: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = size = storage.nbytes() if counts else 0
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live -= self._known.pop(key)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of their storages, each once (tied weights share theirs)."""
    return sum({(s := tensor.untyped_storage())._cdata: s.nbytes() for tensor in tensors}.values())
