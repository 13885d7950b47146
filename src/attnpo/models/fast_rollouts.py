"""Rollouts through transformers' `generate` with this package's sampling loop and key-value cache.

The loop (`rollout_loop`) removes finished rows from the batch and does little work per step besides the forward.
transformers' loop computes every row until the last has ended, and builds masks, positions and criteria again for each
token. The cache (`GrowingLayer`) appends in place. transformers' `DynamicLayer` concatenates: T tokens cost T copies of
up to T tokens, which with a small model on a CPU takes most of the time from a few hundred tokens on. Here a layer
keeps room for `ROOM` more tokens and returns views of the filled part, so attention gets the same numbers, shapes and
masks.

For the same torch seed the tokens, and the state of the random generator afterwards, equal those of transformers' loop
as long as the logits of a row do not depend on the other rows in the batch. Rounding makes them depend (products of
other shapes are summed in another order): a float32 model draws another token only if two are almost tied, and from
there on its response differs, drawn from the same distribution.

Calls that the loop does not cover use transformers' loop: beams, assistants, streamers, other outputs than tokens,
criteria other than end tokens and a maximal length, logits processors that use more than one row, caches other than
plain full attention, attention other than SDPA, models that prepare inputs in their own way (encoder-decoders, many
multimodal ones), inputs other than text, ALiBi, rotary frequencies that depend on the longest row, active dropout,
weights in shards (FSDP, DeepSpeed ZeRO 3) or on several devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, StoppingCriteriaList, cache_utils
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.generation import logits_process as known
from transformers.generation.configuration_utils import GenerationMode
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module

from attnpo.errors import InputError
from attnpo.models.loading import unwrap_model

_MIXIN: Any = GenerationMixin  # Any, because pyright cannot follow how it declares its methods
_METHODS = ("_sample", "_prefill", "prepare_inputs_for_generation", "_update_model_kwargs_for_generation")
_INPUTS = {"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"}
_ROPE = ("default", "linear", "llama3", "yarn")
_BY_ROW = (  # logits processors that treat rows independently and draw no random numbers
    known.EpsilonLogitsWarper,
    known.EtaLogitsWarper,
    known.MinLengthLogitsProcessor,
    known.MinNewTokensLengthLogitsProcessor,
    known.MinPLogitsWarper,
    known.NoRepeatNGramLogitsProcessor,
    known.RepetitionPenaltyLogitsProcessor,
    known.SuppressTokensLogitsProcessor,
    known.TemperatureLogitsWarper,
    known.TopKLogitsWarper,
    known.TopPLogitsWarper,
    known.TypicalLogitsWarper,
)
_NOT_SETTINGS = ("inputs", "logits_processor", "stopping_criteria", "negative_prompt_attention_mask")
_MORE_THAN_SAMPLING = ("assistant_model", "assistant_tokenizer", "custom_generate", "negative_prompt_ids")
_MORE_THAN_SAMPLING += ("prefix_allowed_tokens_fn", "streamer", "synced_gpus", "tokenizer", "trust_remote_code")


@contextmanager
def fast_rollouts(model: nn.Module) -> Iterator[None]:
    """In this context `generate` of the model (also inside DDP, PEFT, …) uses the loop if possible, with caches that
    grow in place."""
    inner: Any
    with growing_cache():
        try:
            inner = unwrap_model(model)
        except InputError:
            inner = model
        if getattr(type(inner), "generate", None) is not _MIXIN.generate or "generate" in vars(inner):
            yield  # the model has its own `generate`, or this context is already open
            return
        inner.generate = _Generate(inner)  # an instance attribute, found before the method of the class
        try:
            yield
        finally:
            del inner.generate


class _Generate:
    """`model.generate` with `custom_generate` set to the loop."""

    def __init__(self, model: Any):
        self.model, self.stock = model, model.generate

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        extra = {"custom_generate": _sample} if self._plain(args, kwargs) else {}
        return self.stock(*args, **kwargs, **extra)

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the call is plain greedy or random sampling, and all weights are in this process."""
        if len(args) > 1 or any(kwargs.get(name) for name in _MORE_THAN_SAMPLING):
            return False
        if is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self.model):
            return False
        excluded = (*_MORE_THAN_SAMPLING, *_NOT_SETTINGS)
        settings = {"generation_config": None, **{name: kwargs[name] for name in kwargs if name not in excluded}}
        mode = self.model._prepare_generation_config(**settings)[0].get_generation_mode()
        return mode in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)


def _sample(
    model: Any,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **model_kwargs: Any,
) -> Any:
    """`GenerationMixin._sample`, with `rollout_loop` if it covers the call."""
    covered = (
        _covers_model(model)
        and _covers_inputs(model, input_ids, model_kwargs)
        and not (generation_config.return_dict_in_generate or generation_config.is_assistant)
        and all(type(step) in _BY_ROW for step in logits_processor)
        and all(type(criterion) in (MaxLengthCriteria, EosTokenCriteria) for criterion in stopping_criteria)
        and stopping_criteria.max_length is not None
    )
    loop = rollout_loop if covered else type(model)._sample
    return loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs)


def _covers_model(model: Any) -> bool:
    """Whether the model takes prepared masks and positions, and computes rows independently, without random numbers."""
    config = model.config
    return (
        all(getattr(type(model), name) is getattr(_MIXIN, name) for name in _METHODS)
        and not any(name in vars(model) for name in _METHODS)
        and model._can_compile_fullgraph  # in transformers this implies that it takes a prepared 4-D mask
        and config._attn_implementation == "sdpa"
        and not (config.is_encoder_decoder or model.is_remote_code() or getattr(config, "alibi", False))
        and len(set(getattr(model, "hf_device_map", {"": 0}).values())) == 1
        and all(getattr(module, "rope_type", "default") in _ROPE for module in model.modules())
        and not (model.training and _draws_or_recomputes(model))
    )


def _draws_or_recomputes(model: Any) -> bool:
    """Whether forwards in training mode draw random numbers (dropout) or have no cache (gradient checkpointing)."""
    by_config = any("drop" in name and value for name, value in model.config.get_text_config().to_dict().items())
    return by_config or any(
        getattr(module, "gradient_checkpointing", False) or (isinstance(module, nn.Dropout) and module.p > 0)
        for module in model.modules()
    )


def _covers_inputs(model: Any, ids: Tensor, inputs: dict[str, Any]) -> bool:
    """Whether the inputs are text, with a new cache of plain full attention."""
    cache, positions, mask = (inputs.get(name) for name in ("past_key_values", "position_ids", "attention_mask"))
    return (
        inputs.keys() <= _INPUTS
        and bool(inputs.get("use_cache"))
        and positions is not None
        and positions.shape == ids.shape
        and (mask is None or mask.shape == ids.shape)
        and ids.device == model.device
        and type(cache) is DynamicCache
        and not (cache.offloading or getattr(cache, "_is_user_defined", False))
        and bool(cache.layers)
        and all(type(layer) in (DynamicLayer, GrowingLayer) for layer in cache.layers)
    )


PATIENCE = 2
"""Finished rows are removed once the number of row-steps wasted on them reaches this times the number of other rows.
Removing rows copies the cache of the others, which costs about as much as a few steps of attention to it."""


def rollout_loop(
    model: Any,
    input_ids: Int[Tensor, "B L"],
    logits_processor: Any,  # LogitsProcessorList
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **model_kwargs: Any,
) -> Int[Tensor, "B T"]:
    """Prompts and generated tokens, as `GenerationMixin._sample` returns them, for calls that `_sample` accepts."""
    batch, width = input_ids.shape
    limit = min(c.max_length for c in stopping_criteria if isinstance(c, MaxLengthCriteria))
    ends = [c.eos_token_id.to(input_ids.device) for c in stopping_criteria if isinstance(c, EosTokenCriteria)]
    pad = 0 if generation_config._pad_token_tensor is None else int(generation_config._pad_token_tensor)
    room = max(limit, width + 1) - width
    sequences = torch.nn.functional.pad(input_ids, (0, room), value=pad)
    outputs = model._prefill(input_ids, generation_config, model_kwargs)
    cache = model_kwargs["past_key_values"]
    positions = model_kwargs["position_ids"][:, -1:]
    mask = _full_mask(model_kwargs.get("attention_mask"), room)
    options = {name: model_kwargs[name] for name in ("use_cache", "logits_to_keep") if name in model_kwargs}
    rows = torch.arange(batch, device=input_ids.device)  # the rows of `sequences` that are still computed
    going = torch.ones_like(rows, dtype=torch.bool)
    length, wasted = width, 0
    with model._optimize_model_for_decode():
        while True:
            scores = outputs.logits[:, -1].to(copy=True, dtype=torch.float32)
            del outputs
            if logits_processor:  # needs all rows, because some processors store where each prompt begins
                all_scores = scores.new_zeros(batch, scores.shape[1])
                all_scores[rows] = scores
                scores = logits_processor(sequences[:, :length], all_scores)[rows]
            tokens = draw(scores.softmax(-1), rows, batch) if generation_config.do_sample else scores.argmax(-1)
            if ends:
                tokens = torch.where(going, tokens, pad)
            sequences[rows, length] = tokens
            length += 1
            for end in ends:
                going = going & ~torch.isin(tokens, end)
            count = int(going.sum())
            if not count or length >= limit:
                return sequences[:, :length]
            positions = positions + 1
            wasted += len(rows) - count
            if wasted >= PATIENCE * count:
                chosen, wasted = going.nonzero().squeeze(1), 0
                cache.batch_select_indices(chosen)
                rows, going, tokens, positions = (held[chosen] for held in (rows, going, tokens, positions))
                mask = None if mask is None or mask[chosen].all() else mask[chosen]
            outputs = model(
                input_ids=tokens[:, None],
                attention_mask=None if mask is None else mask[..., :length],
                position_ids=positions,
                past_key_values=cache,
                return_dict=True,
                **options,
            )


def _full_mask(given: Int[Tensor, "B L"] | None, room: int) -> Bool[Tensor, "B 1 1 M"] | None:
    """The positions that the newest token may attend to, for the maximal length; None if there is no mask."""
    return None if given is None else torch.nn.functional.pad(given.bool(), (0, room), value=True)[:, None, None]


def draw(probs: Float[Tensor, "n V"], rows: Int[Tensor, "n"], batch: int) -> Int[Tensor, "n"]:
    """Draw one token for each of these rows, the same that `torch.multinomial` would draw for the complete batch.

    `torch.multinomial` takes the largest of probability / exponential noise. On a CPU the noise is drawn here, for all
    rows; elsewhere the probabilities are scattered into a complete batch.
    Raises RuntimeError, as `torch.multinomial` does, if probabilities are NaN.
    """
    if probs.device.type != "cpu":
        all_probs = probs.new_ones(batch, probs.shape[1])
        all_probs[rows] = probs
        return torch.multinomial(all_probs, 1).squeeze(1)[rows]
    if probs[:, 0].isnan().any():  # softmax spreads a NaN over its row
        raise RuntimeError("sampling: found logits that are infinite or no numbers, expected finite ones")
    noise = probs.new_empty(batch, probs.shape[1]).exponential_()
    return (probs / noise[rows]).argmax(dim=-1)


ROOM = 256
"""Number of tokens by which buffers grow: one copy per `ROOM` tokens, and at most this many unused per row."""

_FULL = "full_attention"
_LAYERS: dict[str, Any] = getattr(cache_utils, "DYNAMIC_LAYER_TYPE_MAPPING", None) or getattr(
    cache_utils, "LAYER_TYPE_CACHE_MAPPING", {_FULL: DynamicLayer}
)
"""Kind of layer -> class of its cache: transformers' own table, also under its older name."""


class GrowingLayer(DynamicLayer):
    """`DynamicLayer` whose keys and values are views of larger buffers.

    If gradients are recorded it concatenates like `DynamicLayer`, because appending in place would break the graph.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Float[Tensor, "B H t D"], value_states: Float[Tensor, "B H t D"], *args: Any, **kwargs: Any
    ) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T D"]]:
        """Append t tokens and return the keys and values of all T tokens."""
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
        """Keep only these rows, with their room. Copies once; after `super`'s method `update` would copy again."""
        filled = self.get_seq_length()
        if self._buffers is None or not self._fits(filled):
            super().batch_select_indices(indices)
            return
        keys, values = (buffer[indices] for buffer in self._buffers)
        self._buffers = (keys, values)
        self.keys, self.values = keys[..., :filled, :], values[..., :filled, :]

    def reset(self) -> None:
        """Drop all tokens and the buffers."""
        self._buffers = None
        super().reset()

    def _fits(self, total: int) -> bool:
        """Whether keys and values are still views of the start of the buffers (rows may have been selected or moved
        meanwhile), and the buffers have room for `total` tokens."""
        return all(
            held is not None
            and total <= buffer.shape[-2]
            and held.data_ptr() == buffer.data_ptr()
            and held.stride() == buffer.stride()
            and held.shape[:-2] == buffer.shape[:-2]
            for held, buffer in zip((self.keys, self.values), self._buffers or (), strict=True)
        )


def _with_room(held: Tensor | None, new: Float[Tensor, "B H t D"], total: int) -> Float[Tensor, "B H T+ROOM D"]:
    """A buffer for `total` tokens and `ROOM` more, filled with the tokens held so far (None at first)."""
    buffer = new.new_empty(*new.shape[:-2], total + ROOM, new.shape[-1])
    if held is not None and held.numel():
        buffer[..., : held.shape[-2], :] = held
    return buffer


@contextmanager
def growing_cache() -> Iterator[None]:
    """In this context, caches that `generate` creates for layers of full attention grow in place."""
    plain = _LAYERS[_FULL]
    _LAYERS[_FULL] = GrowingLayer
    try:
        yield
    finally:
        _LAYERS[_FULL] = plain
