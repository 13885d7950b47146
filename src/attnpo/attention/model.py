"""The attention modules of a model, by layer: where they look up their attention function, and which can be scored."""

from __future__ import annotations

import inspect
from collections.abc import Callable, MutableMapping, Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedModel

from attnpo.attention.heads import Head
from attnpo.errors import InputError
from attnpo.models.loading import unwrap_model


def decoder_of(model: nn.Module) -> Any:
    """The part of a causal language model that runs the layers, without the output layer that follows it.

    Raises InputError as `unwrap_model` does, and for a model without such a part.
    """
    inner = unwrap_model(model)
    for part in (inner.get_decoder(), inner.base_model):  # some models call their output layer the decoder
        if isinstance(part, PreTrainedModel):
            return part
    raise InputError(
        f"model: {type(inner).__name__} has no decoder that is a transformers model (get_decoder() is a "
        f"{type(inner.get_decoder()).__name__}), expected a causal language model of transformers"
    )


def scorable_layers(model: nn.Module) -> list[int]:
    """The layers whose heads can be scored; a hybrid model also has layers of linear attention, convolutions, …

    Raises InputError as `unwrap_model` does.
    """
    return sorted(_attention_modules(decoder_of(model)))


def all_heads(model: nn.Module, layers: Sequence[int] | None = None) -> list[Head]:
    """Every query head of these layers (default: all layers that can be scored), layer by layer.

    Raises InputError as `unwrap_model` does.
    """
    per_layer = head_count(decoder_of(model))
    return [
        (layer, head) for layer in (scorable_layers(model) if layers is None else layers) for head in range(per_layer)
    ]


def chosen_modules(decoder: nn.Module, layers: Sequence[int]) -> dict[nn.Module, int]:
    """Attention module -> layer, for each of these layers.

    Raises InputError for a layer whose attention cannot be scored, naming the layers that can.
    """
    found = _attention_modules(decoder)
    kinds = getattr(_text_config(decoder), "layer_types", None) or ()
    name = type(decoder).__name__
    for layer in layers:
        if layer not in found:
            kind = f" ({kinds[layer]})" if layer < len(kinds) else ""
            others = f"the layers that can be scored are {sorted(found)}" if found else "nor can any other layer"
            raise InputError(
                f"heads: layer {layer}{kind} of {name} does not take its attention function from transformers' "
                f"AttentionInterface (ALiBi, linear or remote-code attention, or no attention in that layer); its "
                f"heads cannot be scored; {others}"
            )
        if not getattr(found[layer], "is_causal", True) or not getattr(_text_config(decoder), "is_causal", True):
            raise InputError(f"model: the attention of layer {layer} is not causal, expected a causal language model")
    return {found[layer]: layer for layer in layers}


def check_packable(decoder: nn.Module) -> None:
    """Raise InputError for a model with layers that may carry state from one packed sequence into the next."""
    found = _attention_modules(decoder)
    others = [layer for layer in range(_text_config(decoder).num_hidden_layers) if layer not in found]
    if others:
        raise InputError(
            f"model: layers {others} of {type(decoder).__name__} are not attention layers (linear attention, "
            "convolution, …) and may not keep packed sequences apart; score each sequence in a separate row"
        )


def head_count(decoder: nn.Module) -> int:
    """Number of query heads per layer, from the configuration."""
    return _text_config(decoder).num_attention_heads


def runs_compiled(model: nn.Module) -> bool:
    """Whether torch.compile is applied to the model: around it, to a submodule, or in place."""
    # Not by `modules()`: with three getattr per module it would take milliseconds before every capture.
    remaining = [model]
    while remaining:
        module = remaining.pop()
        own = module.__dict__
        if own.get("_compiled_call_impl") is not None or "_orig_mod" in own["_modules"]:
            return True
        forward = own.get("forward") or type(module).forward
        if "_torchdynamo_orig_callable" in getattr(forward, "__dict__", ()):
            return True
        remaining.extend(child for child in own["_modules"].values() if child is not None)
    return False


def interface_of(module: nn.Module) -> MutableMapping[str, Callable[..., Any]] | None:
    """The AttentionInterface that the module's forward reads; None if it reads none."""
    function = _forward_code(module)
    if not _reads_interface(getattr(function, "__code__", None)):
        return None
    return function.__globals__.get("ALL_ATTENTION_FUNCTIONS")


def eager_function(module: nn.Module) -> Callable[..., Any]:
    """The fallback that the module's own file passes to the interface for "eager"."""
    function = _forward_code(module)
    names = [name for name in function.__code__.co_names if name.endswith("eager_attention_forward")]
    if len(names) != 1:
        raise InputError(f"model: the eager attention of {type(module).__name__} cannot be found; use sdpa")
    return function.__globals__[names[0]]


_WALKED: WeakKeyDictionary[nn.Module, dict[int, tuple[str, nn.Module]]] = WeakKeyDictionary()
"""Decoder -> its attention modules by layer, with their names. Walking a model of 30 layers takes milliseconds."""


def _attention_modules(decoder: nn.Module) -> dict[int, nn.Module]:
    known = _WALKED.get(decoder)
    if known is not None and all(_is_at(decoder, name, module) for name, module in known.values()):
        return {layer: module for layer, (_, module) in known.items()}
    found: dict[int, tuple[str, nn.Module]] = {}
    for name, module in decoder.named_modules():
        layer = getattr(module, "layer_idx", None)
        if not isinstance(layer, int) or interface_of(module) is None:
            continue
        if layer in found:
            raise InputError(
                f"model: layer {layer} of {type(decoder).__name__} has two attention modules, expected one"
            )
        found[layer] = (name, module)
    if found:
        _WALKED[decoder] = found
    return {layer: module for layer, (_, module) in found.items()}


def _is_at(decoder: nn.Module, name: str, module: nn.Module) -> bool:
    """Whether the decoder still has this module under this name, and it still reads the interface."""
    place: Any = decoder
    for part in name.split("."):
        place = place._modules.get(part)
        if place is None:
            return False
    return place is module and interface_of(module) is not None


def _text_config(decoder: nn.Module) -> Any:
    config: Any = decoder.config
    get_text_config = getattr(config, "get_text_config", None)
    return config if get_text_config is None else get_text_config(decoder=True)


def _forward_code(module: nn.Module) -> Any:
    forward = inspect.unwrap(module.forward)
    return getattr(forward, "__func__", forward)


@lru_cache(maxsize=1024)
def _reads_interface(code: Any) -> bool:
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names
