"""Step scores computed inside a normal forward, with the model's own fast attention.

`transformers` looks up the attention function of a layer by name at every call. While `capture_scores` is open, that
name leads to a function which first computes the few rows needed and then calls the original. The model's
configuration does not change, so masks are built for the attention that really runs, and model code that checks the
name ("sdpa", "flash_attention_2", …) takes its usual path.

`score_steps` and `score_packed_steps` score a padded or packed batch with a separate forward.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from attnpo.attention.heads import check_heads
from attnpo.attention.layout import PackedLayout, Span, StepLayout, attends_elsewhere
from attnpo.attention.masks import MaskReader, check_call, check_name, index_tensor
from attnpo.attention.model import (
    check_packable,
    chosen_modules,
    decoder_of,
    eager_function,
    head_count,
    interface_of,
    runs_compiled,
    unwrap_model,
)
from attnpo.attention.positions import own_positions, takes_positions
from attnpo.attention.rows import CHUNK_ELEMENTS, AnswerRows
from attnpo.attention.sequence_parallel import SequenceParts
from attnpo.errors import InputError

Head = tuple[int, int]


class CapturedScores:
    """The result of `capture_scores`; `scores` is available once the forward has run."""

    def __init__(
        self, layout: StepLayout | PackedLayout, heads: list[Head], heads_of_model: int, parts: SequenceParts | None
    ) -> None:
        self.layout, self.parts = layout, parts
        self.heads = heads
        self.heads_of_model = heads_of_model
        self.by_layer: dict[int, tuple[int, ...]] = {
            layer: tuple(dict.fromkeys(h for at, h in heads if at == layer)) for layer in sorted({h[0] for h in heads})
        }
        self.found: dict[int, Float[Tensor, "N heads E"]] = {}
        self.mixed: dict[int, Tensor] = {}
        self.layouts = {layout.device: (layout, AnswerRows(layout))}
        self.read_mask = MaskReader()
        self.forwards = 0
        self.running = False
        self.reused_keys = False

    @property
    def scores(self) -> Float[Tensor, "H N S"]:
        """Float32 scores in the order of the requested heads; 0 for rows not scored and steps beyond a row's count.

        One row per row of the batch, or per sequence of a `PackedLayout`; only with the latter does reading the scores
        wait for the device, once.
        Raises InputError if no forward ran inside the context, a layer did not run its attention, or the model let
        packed sequences attend to each other.
        """
        if self.forwards == 0:
            raise InputError("capture_scores: no forward of the model ran inside the context, expected exactly one")
        missing = [layer for layer in self.by_layer if layer not in self.found]
        if missing:
            raise InputError(
                f"capture_scores: layer {missing[0]} never called its attention function; this model computes "
                "attention in a way that cannot be scored"
            )
        for layer, mixed in self.mixed.items():
            if mixed:
                raise InputError(
                    f"capture_scores: in layer {layer}, answers of packed sequences attend to other sequences; the "
                    "model needs position_ids that restart, no attention_mask and use_cache=False to separate them"
                )
        _, rows = self.layouts[self.layout.device]
        found = [self.found[layer] for layer in self.by_layer]
        scores = rows.means(torch.cat(found, dim=1) if len(found) > 1 else found[0]).transpose(0, 1)
        order = [(layer, head) for layer, heads in self.by_layer.items() for head in heads]
        if order == self.heads:
            return scores
        place = {head: i for i, head in enumerate(order)}
        return scores[index_tensor(tuple(place[head] for head in self.heads), scores.device)]

    def begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Forward pre-hook of the decoder, with keyword arguments."""
        self.forwards += 1
        if self.forwards > 1:
            raise InputError("capture_scores: a second forward ran inside the context, expected exactly one")
        self.running = True
        if self.reused_keys and "logits_to_keep" in kwargs:
            # A decoder that gets this option (Gemma 4) leaves out the other queries of layers that reuse keys. The
            # logits are cut after the decoder in any case.
            kwargs = {**kwargs, "logits_to_keep": 0}
        return args, kwargs

    def finish(self, *_: Any) -> None:
        """Forward hook of the decoder: later calls of attention are recomputations for the backward pass."""
        self.running = False

    def record(self, layer: int, name: str, query: Tensor, key: Tensor, mask: Any, kwargs: dict[str, Any]) -> None:
        """Score the chosen heads of one layer from the arguments of its attention function, called `name`."""
        heads = self.by_layer[layer]
        if layer in self.found:
            raise InputError(f"capture_scores: layer {layer} ran twice in one forward; such a model cannot be scored")
        batch, width = self.layout.batch_shape
        if self.parts is not None:
            width = self.parts.width(width)
        check_call(layer, heads, query, key, (batch, width), self.heads_of_model, kwargs)
        if self.parts is not None:
            query, key, kwargs = self.parts.whole_row(layer, name, mask, query.detach(), key.detach(), heads, kwargs)
            heads = tuple(range(len(heads)))
        if query.device not in self.layouts:  # a model spread over several devices
            there = self.layout.to(query.device)
            self.layouts[query.device] = (there, AnswerRows(there))
        layout, rows = self.layouts[query.device]
        allowed = self.read_mask(layer, name, mask, query, kwargs)
        sums = rows.step_sums(
            query.detach(),
            key.detach(),
            allowed,
            heads,
            scaling=kwargs.get("scaling"),
            softcap=kwargs.get("softcap"),
            sinks=kwargs.get("s_aux"),
        )
        self.found[layer] = sums.to(self.layout.device)
        if isinstance(layout, PackedLayout):
            self.mixed[layer] = attends_elsewhere(allowed, layout, heads, CHUNK_ELEMENTS)


@contextmanager
def capture_scores(
    model: nn.Module, layout: StepLayout | PackedLayout, heads: Sequence[Head], *, group: Any = None
) -> Iterator[CapturedScores]:
    """Score the steps of every row during the one forward that runs in the context.

        with capture_scores(model, layout, heads) as captured:
            output = model(input_ids=input_ids, attention_mask=attention_mask)
        captured.scores  # float32 [H, B, S], no gradient

    The forward must see the complete padded rows (no key-value cache). Its output is bit for bit the same (it may round
    differently if a requested layer reuses the keys of another and `logits_to_keep` is given). Wrapped models (PEFT,
    DistributedDataParallel), training mode and gradient checkpointing are supported; the backward pass may run inside
    or after the context. Other models in the same process are not affected. A compiled model runs its Python code in
    this one forward, since every capture would compile it again, so its output rounds differently (with flex attention
    it does compile: uncompiled, that needs the memory of the T x T matrix).
    Rows with several packed sequences need a `PackedLayout`, or a `StepLayout` with one answer per row.
    Under sequence parallelism (Ulysses) `group` holds the processes that share a row, each with an equal part of its
    positions; the layout is that of the complete row, and every process gets all scores.
    Raises InputError for heads that the model does not have, for models whose attention cannot be scored, for a second
    forward, and for a forward with another shape than the layout's.
    """
    decoder = decoder_of(model)
    chosen = [(int(layer), int(head)) for layer, head in heads]
    check_heads(decoder.config, chosen)
    captured = CapturedScores(layout, chosen, head_count(decoder), None if group is None else SequenceParts(group))
    slots = chosen_modules(decoder, list(captured.by_layer))
    if isinstance(layout, PackedLayout):
        check_packable(decoder)
    captured.reused_keys = any(getattr(module, "is_kv_shared_layer", False) for module in slots)
    names = {_implementation(module) for module in slots}
    with ExitStack() as stack:
        for module in slots:
            stack.enter_context(_redirected(module, slots, captured))
        hooks = (
            decoder.register_forward_pre_hook(captured.begin, with_kwargs=True),
            decoder.register_forward_hook(captured.finish, always_call=True),
        )
        for hook in hooks:
            stack.callback(hook.remove)
        if runs_compiled(model) and "flex_attention" not in names:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield captured


def _implementation(module: Any) -> str:
    return getattr(module.config, "_attn_implementation", None) or "eager"


@contextmanager
def _redirected(module: nn.Module, slots: dict[nn.Module, int], captured: CapturedScores) -> Iterator[None]:
    """Make the name of this module's attention function lead to a function that records first."""
    interface = interface_of(module)
    assert interface is not None
    name = _implementation(module)
    original = interface.get(name)
    if getattr(original, "captures_for", None) is captured:
        yield  # done for another layer
        return
    check_name(name, original)

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **kwargs: Any
    ) -> Any:
        if captured.running and module in slots:
            captured.record(slots[module], name, query, key, attention_mask, kwargs)
        inner = original or eager_function(module)
        return inner(module, query, key, value, attention_mask, **kwargs)

    attend.captures_for = captured  # pyright: ignore[reportFunctionMemberAccess]
    interface[name] = attend
    try:
        yield
    finally:
        del interface[name]
        if original is not None and interface.get(name) is not original:
            interface[name] = original  # it was a local override of this interface object


def score_steps(
    model: nn.Module,
    input_ids: Int64[Tensor, "B T"],
    attention_mask: Tensor | None,
    *,
    steps: Sequence[Sequence[Span]],
    answers: Sequence[Span | None],
    heads: Sequence[tuple[int, int]],
) -> list[Float[Tensor, "H S_i"]]:
    """S(l,h,s_k) of every step and chosen head (paper section 3), with one forward of a transformers causal LM.

    steps[i]: (start, end) token spans of row i; answers[i]: (start, end) of its final answer; both as positions in the
    padded row, with any padding side (positions are numbered from a row's first token, as in generation). heads:
    (layer, head), zero-based. Returns one float32 tensor [H, S_i] per row, heads in the order given; the mean over H is
    S(s_k). A step without tokens scores 0, and so do the steps of a row whose answer is empty or None. Training or
    evaluation mode is not changed (with dropout, the forward has dropout).
    Raises InputError for heads that the model does not have, for models that cannot be scored, and for spans outside
    the row, over padding, overlapping, or not before the answer.
    """
    if input_ids.ndim != 2:
        raise InputError(f"input_ids: shape {tuple(input_ids.shape)}, expected [rows, positions]")
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    if attention_mask.shape != input_ids.shape:
        raise InputError(
            f"attention_mask: shape {tuple(attention_mask.shape)}, expected that of input_ids {tuple(input_ids.shape)}"
        )
    layout = StepLayout.from_spans(steps, answers, attention_mask)
    _check_padding(steps, answers, attention_mask)
    options: dict[str, Any] = dict(_few_logits(model))
    if takes_positions(model) and not bool(attention_mask[:, 0].all()):
        options["position_ids"] = own_positions(attention_mask)
    with torch.no_grad(), capture_scores(model, layout, heads) as captured:
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **options)
    scores = captured.scores
    return [scores[:, i, : len(row)].contiguous() for i, row in enumerate(steps)]


def score_packed_steps(
    model: nn.Module,
    input_ids: Int64[Tensor, "B T"],
    lengths: Sequence[Sequence[int]],
    *,
    steps: Sequence[Sequence[Span]],
    answers: Sequence[Span | None],
    heads: Sequence[tuple[int, int]],
) -> list[Float[Tensor, "H S_n"]]:
    """Score rows into which several sequences are packed without padding between them, as `score_steps` does.

    lengths[i]: tokens of the sequences in row i, from its first position on; the remainder of the row is padding.
    steps[n], answers[n]: of sequence n, counted over all rows, in positions of the sequence itself: the spans that
    `score_steps` would take for it alone. Returns one tensor per sequence, equal to that of the sequence alone.
    Raises InputError as `score_steps` does, and for a model that does not keep packed sequences apart.
    """
    if input_ids.ndim != 2 or len(input_ids) != len(lengths):
        raise InputError(f"input_ids: shape {tuple(input_ids.shape)}, expected [{len(lengths)} (lengths), positions]")
    width = input_ids.shape[1]
    layout = PackedLayout.from_spans(steps, answers, lengths, width, input_ids.device)
    positions = torch.stack(
        [torch.cat([torch.arange(n) for n in (*row, width - sum(row))]).to(input_ids.device) for row in lengths]
    )
    with torch.no_grad(), capture_scores(model, layout, heads) as captured:
        model(input_ids=input_ids, position_ids=positions, use_cache=False, **_few_logits(model))
    scores = captured.scores
    return [scores[:, n, : len(row)].contiguous() for n, row in enumerate(steps)]


def _few_logits(model: nn.Module) -> dict[str, int]:
    """Options that avoid computing the logits, which are not used and can be gigabytes for a full row."""
    takes_option = "logits_to_keep" in inspect.signature(unwrap_model(model).forward).parameters
    return {"logits_to_keep": 1} if takes_option else {}


def _check_padding(steps: Sequence[Sequence[Span]], answers: Sequence[Span | None], attention_mask: Tensor) -> None:
    """Raise InputError for a span that covers a padding position."""
    padding = torch.nn.functional.pad((~attention_mask.bool()).cpu().long().cumsum(dim=1), (1, 0)).tolist()
    for i, (row, answer) in enumerate(zip(steps, answers, strict=True)):
        spans = [(f"step {k}", span) for k, span in enumerate(row)]
        spans += [] if answer is None else [("answer", answer)]
        for name, (start, end) in spans:
            if padding[i][end] > padding[i][start]:
                raise InputError(f"row {i}, {name} is ({start}, {end}), which covers padding; expected tokens only")
