"""Rollouts with the loop of `rollout_loop` and the cache of `growing_cache`, through transformers' own `generate`.

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

from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, StoppingCriteriaList
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.generation import logits_process as known
from transformers.generation.configuration_utils import GenerationMode
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module

from attnpo.errors import InputError
from attnpo.models.growing_cache import GrowingLayer, growing_cache
from attnpo.models.loading import unwrap_model
from attnpo.models.rollout_loop import rollout_loop

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
