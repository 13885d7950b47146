"""The memory of a run on every GPU, by counting and arithmetic, without loading or computing anything.

docs/scaling.md describes the method. Weights, gradients, optimiser states and the key-value cache are exact
(tests/unit/test_sizes.py compares them with real ones); activations are counted by running the model's own code on
tensors without data (`LiveBytes`), with an attention that keeps what a fused kernel keeps; the head is arithmetic on
TRL's chunks. Not counted: memory of running kernels, the allocator's rounding, CUDA itself (about 1 GiB together).

`LiveBytes` counts every tensor that torch creates while it is open, with the same result on every machine. With torch's
FakeTensorMode, whose tensors have shapes and no data, it counts a step of a 32-billion-parameter model in seconds and
without the memory.

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
from transformers.training_args import OptimizerNames
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

from attnpo.errors import InputError

STAND_IN = "attnpo_counted"
"""Name of an attention with the memory of a fused kernel and no arithmetic."""


class _Fused(torch.autograd.Function):
    """Keeps queries, keys, values, output and one float32 per query and head, as flash attention does."""

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
    """Register the stand-in attention inside the block and yield its name."""
    AttentionInterface.register(STAND_IN, _attend)
    AttentionMaskInterface.register(STAND_IN, lambda *_, **__: None)
    try:
        yield STAND_IN
    finally:
        AttentionInterface._global_mapping.pop(STAND_IN)  # pyright: ignore[reportAttributeAccessIssue]
        AttentionMaskInterface._global_mapping.pop(STAND_IN)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class DecoderPeak:
    """Bytes in addition to weights and gradients: `kept` from the forward for the backward pass, and `peak`."""

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
    """Count the forward and backward pass of the decoder (without the head) over [B, T] tokens.

    Layers of the same type need the same memory: models of two and three layers are counted and extrapolated.
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
    """Peak while TRL's fused head (log-probabilities and entropies in chunks) runs backward over N scored tokens.

    `weight` is the dtype of weights and hidden states, `compute` that of the product (another one under autocast).
    Counted are the scored hidden states, their gradient and (with `trained`) that of the head's weights in float32,
    both again in their own dtype where it differs, and a tile of logits. (TRL's names here are private; a test compares
    the result with its function.)
    """
    compute = compute or weight
    rows = min(tokens, chunked_logprob.TOKEN_CHUNK_SIZE)
    tile = rows * trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE * compute.itemsize
    again = 0 if weight == torch.float32 else weight.itemsize
    if compute != weight:  # cast chunks: one of hidden states, the current and the previous one of the weights
        tile += (rows + 2 * trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE) * width * compute.itemsize
    return tile + tokens * width * (weight.itemsize + 4 + again) + trained * vocabulary * width * (4 + again)


def kv_cache_bytes(config: Any, rows: int, tokens: int, dtype: torch.dtype) -> int:
    """Bytes of keys and values of B rows of T tokens in transformers' cache (a sliding window keeps less)."""
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
    """Bytes of the states of the optimiser `args.optim` for these parameters, after its first step.

    Raises InputError where the optimiser's package is not installed: its own code creates the states.
    """
    try:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(args)
    except ImportError as error:
        name = OptimizerNames(args.optim).value
        raise InputError(f"option optim: the states of {name!r} cannot be counted: {error}") from error
    options = {name: value for name, value in options.items() if name not in ("fused", "foreach")}
    with FakeTensorMode():
        ours = [nn.Parameter(torch.zeros(p.shape, dtype=p.dtype)) for p in parameters]
        for parameter in ours:
            parameter.grad = torch.zeros_like(parameter)
        optimiser = kind(ours, **options)
        optimiser.step()
        return bytes_of(t for state in optimiser.state.values() for t in state.values() if isinstance(t, Tensor))


def mask_bytes(rows: int, tokens: int, attention: str, compute: torch.dtype) -> int:
    """Bytes of the T x T mask of SDPA for padded rows, and of the same as numbers while a layer uses it.

    A single row has no padding, and flash attention has no mask.
    """
    return rows * tokens**2 * (1 + compute.itemsize) if attention == "sdpa" and rows > 1 else 0


@dataclass(frozen=True)
class Need:
    """Bytes on one GPU."""

    weights: int
    reference: int  # weights of the reference model of the KL term
    gradients: int
    optimiser: int
    gathered: int  # weights of two layers, embeddings and head, gathered where they are sharded
    activations: int  # peak of the layers, without the head
    kept: int  # activations kept while the head runs
    head: int
    mask: int
    rows: int
    cache: int  # keys and values of the rollouts sampled at once, or vLLM's share

    @property
    def static(self) -> int:
        return self.weights + self.reference + self.optimiser

    @property
    def update(self) -> int:
        """Peak while gradients are computed."""
        work = max(self.activations, self.kept + self.head) + self.mask + self.rows
        return self.static + self.gradients + self.gathered + work

    @property
    def rollout(self) -> int:
        """Peak while transformers samples responses."""
        return self.static + self.gathered + self.cache


def shared_out(number: int, gpus: int, sharded: bool) -> int:
    """Bytes of `number` on one of the GPUs."""
    return -(-number // gpus) if sharded else number


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors created while it is open: `live` now, `peak` at most. Views count once.

    held: tensors created before (weights, inputs); views of them are not counted.
    Memory of kernels while they run and the allocator's rounding are not seen.
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
    """Bytes of the storages of tensors, each counted once (tied weights share theirs)."""
    return sum({(s := tensor.untyped_storage())._cdata: s.nbytes() for tensor in tensors}.values())
