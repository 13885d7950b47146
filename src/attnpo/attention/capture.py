"""Step scores read off inside a normal forward, with the model's own fast attention.

`transformers` looks the attention function of a layer up by name at every call. While `capture_scores` is open that
name leads to a function which first computes the few rows needed and then calls the original. The model's
configuration does not change, so masks are built for the attention that really runs, and model code that asks for the
name ("sdpa", "flash_attention_2", …) takes its usual path.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnpo.attention.heads import check_heads
from attnpo.attention.layout import StepLayout
from attnpo.attention.rows import step_scores
from attnpo.errors import InputError

Head = tuple[int, int]

# Keyword tensors that do not change which position attends to which; any other one is refused, not ignored.
_HARMLESS_TENSORS = frozenset({"position_ids", "cache_position", "num_items_in_batch", "labels", "s_aux"})


class CapturedScores:
    """What `capture_scores` yields; `scores` is there once the forward has run."""

    def __init__(self, layout: StepLayout, heads: list[Head]) -> None:
        self.layout = layout
        self.heads = heads
        self.by_layer: dict[int, tuple[int, ...]] = {
            layer: tuple(dict.fromkeys(h for at, h in heads if at == layer)) for layer in sorted({h[0] for h in heads})
        }
        self.found: dict[int, Float[Tensor, "heads B S"]] = {}
        self.forwards = 0
        self.running = False

    @property
    def scores(self) -> Float[Tensor, "H B S"]:
        """Float32 scores in the order of the heads asked for; 0 for rows not scored and steps beyond a row's count.

        Raises InputError when no forward ran inside the context or a layer did not run its attention.
        """
        if self.forwards == 0:
            raise InputError("capture_scores: no forward of the model ran inside the context, expected exactly one")
        missing = [layer for layer in self.by_layer if layer not in self.found]
        if missing:
            raise InputError(
                f"capture_scores: layer {missing[0]} never called its attention function; this model computes "
                "attention in a way that cannot be scored"
            )
        place = {
            (layer, head): row
            for layer, hs in self.by_layer.items()
            for head, row in zip(hs, self.found[layer], strict=True)
        }
        return torch.stack([place[head] for head in self.heads])

    def begin(self, *_: Any) -> None:
        """Forward pre-hook of the decoder."""
        self.forwards += 1
        if self.forwards > 1:
            raise InputError("capture_scores: a second forward ran inside the context, expected exactly one")
        self.running = True

    def finish(self, *_: Any) -> None:
        """Forward hook of the decoder: what calls attention later is a recomputation for the backward pass."""
        self.running = False

    def record(self, layer: int, query: Tensor, key: Tensor, mask: Any, kwargs: dict[str, Any]) -> None:
        """Score the chosen heads of one layer from what its attention function was given."""
        heads = self.by_layer[layer]
        if layer in self.found:
            raise InputError(f"capture_scores: layer {layer} ran twice in one forward; such a model cannot be scored")
        _check_call(layer, heads, query, key, self.layout, kwargs)
        self.found[layer] = step_scores(
            query.detach(),
            key.detach(),
            mask,
            self.layout,
            heads,
            scaling=kwargs.get("scaling"),
            softcap=kwargs.get("softcap"),
            sliding_window=kwargs.get("sliding_window"),
            sinks=kwargs.get("s_aux"),
        )


@contextmanager
def capture_scores(model: nn.Module, layout: StepLayout, heads: Sequence[Head]) -> Iterator[CapturedScores]:
    """Score the steps of every row inside the one forward that runs in the context.

        with capture_scores(model, layout, heads) as captured:
            output = model(input_ids=input_ids, attention_mask=attention_mask)
        captured.scores  # float32 [H, B, S], no gradient

    The forward must see the whole padded rows (no key-value cache). Its output is not changed by a bit. Wrapped models
    (PEFT, DistributedDataParallel), training mode and gradient checkpointing are fine; the backward pass may run inside
    or after the context. Within one process, models other than `model` are left alone.
    Raises InputError for heads the model has not got, for models whose attention cannot be scored, for a second forward
    and for a forward of another shape than the layout's.
    """
    decoder = unwrap_model(model).get_decoder()
    chosen = [(int(layer), int(head)) for layer, head in heads]
    check_heads(decoder.config, chosen)
    captured = CapturedScores(layout, chosen)
    layers = _attention_modules(decoder)
    slots: dict[nn.Module, int] = {}
    for layer in captured.by_layer:
        if layer not in layers:
            raise InputError(f"heads: layer {layer} of {type(decoder).__name__} {_CANNOT}")
        if not getattr(layers[layer], "is_causal", True):
            raise InputError(f"model: the attention of layer {layer} is not causal, expected a causal language model")
        slots[layers[layer]] = layer
    with ExitStack() as stack:
        for module in slots:
            stack.enter_context(_redirected(module, slots, captured))
        hooks = (
            decoder.register_forward_pre_hook(captured.begin),
            decoder.register_forward_hook(captured.finish, always_call=True),
        )
        for hook in hooks:
            stack.callback(hook.remove)
        yield captured


_CANNOT = (
    "does not take its attention function from transformers' AttentionInterface (ALiBi, linear or remote-code "
    "attention, or no attention in that layer); its heads cannot be scored"
)


def unwrap_model(model: nn.Module) -> Any:
    """The transformers causal language model inside its wrappers (DDP, torch.compile, PEFT).

    Raises InputError if there is none.
    """
    while True:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    get_base_model: Any = getattr(model, "get_base_model", None)
    if get_base_model is not None:
        model = get_base_model()
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "get_decoder"):
        raise InputError(f"model: {type(model).__name__} is not a transformers model, expected a causal language model")
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"model: {type(model).__name__} is an encoder-decoder, expected a causal language model")
    return model


def _attention_modules(decoder: nn.Module) -> dict[int, nn.Module]:
    found: dict[int, nn.Module] = {}
    for module in decoder.modules():
        layer = getattr(module, "layer_idx", None)
        if not isinstance(layer, int) or _interface_of(module) is None:
            continue
        if layer in found:
            raise InputError(
                f"model: layer {layer} of {type(decoder).__name__} has two attention modules, expected one"
            )
        found[layer] = module
    return found


@contextmanager
def _redirected(module: nn.Module, slots: dict[nn.Module, int], captured: CapturedScores) -> Iterator[None]:
    """Let the name of this module's attention function lead to one that records first."""
    interface = _interface_of(module)
    assert interface is not None
    name: str = getattr(module.config, "_attn_implementation", None) or "eager"
    original = interface.get(name)
    if getattr(original, "captures_for", None) is captured:
        yield  # another layer has done it
        return
    if original is None and name != "eager":
        raise InputError(f"model: attention implementation {name!r} is not registered with transformers")

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **kwargs: Any
    ) -> Any:
        if captured.running and module in slots:
            captured.record(slots[module], query, key, attention_mask, kwargs)
        inner = original or _eager_function(module)
        return inner(module, query, key, value, attention_mask, **kwargs)

    attend.captures_for = captured  # pyright: ignore[reportFunctionMemberAccess]
    interface[name] = attend
    try:
        yield
    finally:
        del interface[name]
        if original is not None and interface.get(name) is not original:
            interface[name] = original  # it was a local override of this interface object


def _forward_code(module: nn.Module) -> Any:
    forward = inspect.unwrap(module.forward)
    return getattr(forward, "__func__", forward)


def _interface_of(module: nn.Module) -> MutableMapping[str, Callable[..., Any]] | None:
    """The AttentionInterface that the module's forward reads; None if it reads none."""
    function = _forward_code(module)
    if not _reads_interface(getattr(function, "__code__", None)):
        return None
    return function.__globals__.get("ALL_ATTENTION_FUNCTIONS")


@lru_cache(maxsize=1024)
def _reads_interface(code: Any) -> bool:
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def _eager_function(module: nn.Module) -> Callable[..., Any]:
    """The fall-back that the module's own file passes to the interface for "eager"."""
    function = _forward_code(module)
    names = [name for name in function.__code__.co_names if name.endswith("eager_attention_forward")]
    if len(names) != 1:
        raise InputError(f"model: the eager attention of {type(module).__name__} cannot be found; use sdpa")
    return function.__globals__[names[0]]


def _check_call(
    layer: int, heads: tuple[int, ...], query: Tensor, key: Tensor, layout: StepLayout, kwargs: dict[str, Any]
) -> None:
    """Refuse what would give wrong numbers. Shapes only: nothing here waits for the device."""
    batch, head_count, length, _ = query.shape
    if (batch, length) != (layout.rows, layout.width):
        raise InputError(
            f"capture_scores: the forward saw {batch} rows of {length} positions, expected {layout.rows} rows of "
            f"{layout.width} (whole rows in one forward, no decoding)"
        )
    if key.shape[2] != length:
        raise InputError(
            f"capture_scores: {key.shape[2]} key positions for {length} query positions, expected as many (no "
            "key-value cache, no prefix tuning)"
        )
    if max(heads) >= head_count or head_count % key.shape[1]:
        raise InputError(
            f"heads: layer {layer} has {head_count} query and {key.shape[1]} key heads, cannot read head {max(heads)}"
        )
    if kwargs.get("is_causal") is False:
        raise InputError(f"model: the attention of layer {layer} is not causal, expected a causal language model")
    for name, value in kwargs.items():
        if isinstance(value, Tensor) and name not in _HARMLESS_TENSORS:
            raise InputError(f"model: layer {layer} passes {name!r} to its attention, which step scores do not know")
