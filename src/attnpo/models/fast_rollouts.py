"""Rollouts with a sampling loop and a key-value cache of this package's, through transformers' own `generate`.

The loop (`rollout_loop`): rows that have ended leave the batch, and a step does little besides the forward.
transformers' own computes every row until the last has ended, and makes masks, positions and criteria anew for each
token. The cache (`GrowingLayer`) appends in place. transformers' `DynamicLayer` concatenates: T tokens cost T copies of
up to T tokens, with a small model on a CPU most of the time from a few hundred tokens on. Here a layer keeps room for
`ROOM` more tokens and hands out views of the filled part, so the attention sees the same numbers, shapes and masks.

For the same torch seed the tokens, and the state of the random generator afterwards, are those of transformers' own
loop as long as the logits of a row do not depend on which other rows are in the batch. By rounding they do (products
of other shapes are summed in another order): a float32 model draws another token only where two all but tie, and its
response is another from there on, drawn from the same distribution.

What the loop does not cover goes to transformers' own: beams, assistants, streamers, other outputs than the tokens,
other criteria than end tokens and a maximal length, logits processors that need more than a row, caches other than
plain full attention, attention other than SDPA, models with a way of their own to prepare inputs (encoder-decoders,
many multimodal ones), inputs besides text, ALiBi, rotary frequencies that follow the longest row, active dropout,
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

_MIXIN: Any = GenerationMixin  # declares its methods in a way that pyright cannot follow
_METHODS = ("_sample", "_prefill", "prepare_inputs_for_generation", "_update_model_kwargs_for_generation")
_INPUTS = {"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"}
_ROPE = ("default", "linear", "llama3", "yarn")
_BY_ROW = (  # logits processors that treat every row alone and draw nothing
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
    """Within, `generate` of this model (also inside DDP, PEFT, …) uses the loop where it can; caches grow in place."""
    inner: Any
    with growing_cache():
        try:
            inner = unwrap_model(model)
        except InputError:
            inner = model
        if getattr(type(inner), "generate", None) is not _MIXIN.generate or "generate" in vars(inner):
            yield  # generates in a way of its own, or in this way already
            return
        inner.generate = _Generate(inner)  # found before the method of the class
        try:
            yield
        finally:
            del inner.generate


class _Generate:
    """`model.generate` with the loop handed over."""

    def __init__(self, model: Any):
        self.model, self.stock = model, model.generate

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        extra = {"custom_generate": _sample} if self._plain(args, kwargs) else {}
        return self.stock(*args, **kwargs, **extra)

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether no more than greedy or random sampling is asked for, and the weights are all here."""
        if len(args) > 1 or any(kwargs.get(name) for name in _MORE_THAN_SAMPLING):
            return False
        if is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self.model):
            return False
        apart = (*_MORE_THAN_SAMPLING, *_NOT_SETTINGS)
        settings = {"generation_config": None, **{name: kwargs[name] for name in kwargs if name not in apart}}
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
    """`GenerationMixin._sample`, by the loop where it covers the call."""
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
    """Whether it takes ready masks and positions, and each row is computed alone and without random numbers."""
    config = model.config
    return (
        all(getattr(type(model), name) is getattr(_MIXIN, name) for name in _METHODS)
        and not any(name in vars(model) for name in _METHODS)
        and model._can_compile_fullgraph  # transformers' word for: takes a ready mask of four dimensions
        and config._attn_implementation == "sdpa"
        and not (config.is_encoder_decoder or model.is_remote_code() or getattr(config, "alibi", False))
        and len(set(getattr(model, "hf_device_map", {"": 0}).values())) == 1
        and all(getattr(module, "rope_type", "default") in _ROPE for module in model.modules())
        and not (model.training and _draws_or_recomputes(model))
    )


def _draws_or_recomputes(model: Any) -> bool:
    """Whether forwards in training mode draw random numbers (dropout) or keep no cache (gradient checkpointing)."""
    by_config = any("drop" in name and value for name, value in model.config.get_text_config().to_dict().items())
    return by_config or any(
        getattr(module, "gradient_checkpointing", False) or (isinstance(module, nn.Dropout) and module.p > 0)
        for module in model.modules()
    )


def _covers_inputs(model: Any, ids: Tensor, inputs: dict[str, Any]) -> bool:
    """Whether it is text for a new cache of plain full attention."""
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
"""Ended rows leave once they were computed in vain so many times the number of rows that go on. To drop rows copies
the cache of the others, which costs about as much as the attention to it in a few steps."""


def rollout_loop(
    model: Any,
    input_ids: Int[Tensor, "B L"],
    logits_processor: Any,  # LogitsProcessorList
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **model_kwargs: Any,
) -> Int[Tensor, "B T"]:
    """Prompts and what was generated, as `GenerationMixin._sample` returns them, for calls that it covers."""
    batch, width = input_ids.shape
    limit = min(c.max_length for c in stopping_criteria if isinstance(c, MaxLengthCriteria))
    ends = [c.eos_token_id.to(input_ids.device) for c in stopping_criteria if isinstance(c, EosTokenCriteria)]
    pad = 0 if generation_config._pad_token_tensor is None else int(generation_config._pad_token_tensor)
    room = max(limit, width + 1) - width
    sequences = torch.nn.functional.pad(input_ids, (0, room), value=pad)
    outputs = model._prefill(input_ids, generation_config, model_kwargs)
    cache = model_kwargs["past_key_values"]
    positions = model_kwargs["position_ids"][:, -1:]
    mask = _ready_mask(model_kwargs.get("attention_mask"), room)
    options = {name: model_kwargs[name] for name in ("use_cache", "logits_to_keep") if name in model_kwargs}
    rows = torch.arange(batch, device=input_ids.device)  # of `sequences`: those still computed
    going = torch.ones_like(rows, dtype=torch.bool)
    length, in_vain = width, 0
    with model._optimize_model_for_decode():
        while True:
            scores = outputs.logits[:, -1].to(copy=True, dtype=torch.float32)
            del outputs
            if logits_processor:  # some know of each row where its prompt begins
                whole = scores.new_zeros(batch, scores.shape[1])
                whole[rows] = scores
                scores = logits_processor(sequences[:, :length], whole)[rows]
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
            in_vain += len(rows) - count
            if in_vain >= PATIENCE * count:
                chosen, in_vain = going.nonzero().squeeze(1), 0
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


def _ready_mask(given: Int[Tensor, "B L"] | None, room: int) -> Bool[Tensor, "B 1 1 M"] | None:
    """What the newest token may look at, for as many tokens as there may ever be; None where no row is padded."""
    return None if given is None else torch.nn.functional.pad(given.bool(), (0, room), value=True)[:, None, None]


def draw(probs: Float[Tensor, "n V"], rows: Int[Tensor, "n"], batch: int) -> Int[Tensor, "n"]:
    """One token for each of these rows of a batch: those that `torch.multinomial` would draw from all its rows.

    `torch.multinomial` takes the largest of probability / exponential noise. On a CPU the noise is drawn here, for all
    rows; elsewhere the probabilities are put into their rows.
    Raises RuntimeError, as `torch.multinomial` does, where probabilities are no numbers.
    """
    if probs.device.type != "cpu":
        whole = probs.new_ones(batch, probs.shape[1])
        whole[rows] = probs
        return torch.multinomial(whole, 1).squeeze(1)[rows]
    if probs[:, 0].isnan().any():  # softmax spreads one that is not over its row
        raise RuntimeError("sampling: found logits that are infinite or no numbers, expected finite ones")
    noise = probs.new_empty(batch, probs.shape[1]).exponential_()
    return (probs / noise[rows]).argmax(dim=-1)


ROOM = 256
"""Tokens of room that are added at once: one copy per `ROOM` tokens, and at most so much memory unused per row."""

_FULL = "full_attention"
_LAYERS: dict[str, Any] = getattr(cache_utils, "DYNAMIC_LAYER_TYPE_MAPPING", None) or getattr(
    cache_utils, "LAYER_TYPE_CACHE_MAPPING", {_FULL: DynamicLayer}
)
"""Which class keeps the cache of a layer, by the layer's kind: transformers' own table, also under its older name."""


class GrowingLayer(DynamicLayer):
    """`DynamicLayer` whose keys and values are views of larger buffers.

    Where gradients are recorded it concatenates like `DynamicLayer`: an append in place would spoil the graph.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
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
    plain = _LAYERS[_FULL]
    _LAYERS[_FULL] = GrowingLayer
    try:
        yield
    finally:
        _LAYERS[_FULL] = plain
