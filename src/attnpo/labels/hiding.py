"""How much less likely the final answer becomes when one step is hidden from attention.

For the answer tokens F of a trace and a step s_k, the drop of the answer is, in nats,

    d_k = Σ_{t∈F} log π(t | everything before t)  -  Σ_{t∈F} log π(t | the same, s_k hidden).

Hidden means that no position after the step attends to the step's positions, in any layer. The text does not change
and all other tokens keep their positions. Content of the hidden step that later steps repeat can still be read there.

Each hidden step is one more row of a batch, with an attention mask that is 0 on the step's tokens. Positions are passed
explicitly: otherwise models number the tokens that the mask shows, and everything after the step would move. (The
step's own tokens are still computed; no other position reads them.)
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnpo.attention.capture import unwrap_model
from attnpo.errors import InputError
from attnpo.traces.prepared import PreparedTrace, Span, pad_right


@dataclass(frozen=True)
class Variant:
    """One row of a batch: the tokens of a trace with one span of them hidden, or none."""

    ids: list[int]
    answer: Span
    hidden: Span | None


def step_drops(
    model: nn.Module, prepared: Sequence[PreparedTrace], batch_size: int = 8
) -> list[Float[Tensor, "S"] | None]:
    """Return d_k of every step, in nats, in the order given: `iterate_drops` summed over the answer's tokens.

    None for a skipped trace. Raises InputError as `iterate_drops` does.
    """
    drops: list[Tensor | None] = [None] * len(prepared)
    for place, drop in iterate_drops(model, prepared, batch_size):
        drops[place] = drop.sum(dim=1)
    return drops


def iterate_drops(
    model: nn.Module, prepared: Sequence[PreparedTrace], batch_size: int = 8
) -> Iterator[tuple[int, Float[Tensor, "S F"]]]:
    """Yield (index in `prepared`, drop of every answer token for every step), on the host, longest trace first.

    Float32, in nats; the sum over F is d_k, the mean is d_k per token. The drop of a step without tokens is 0. Skipped
    traces are left out.

    Costs S + 1 rows of T tokens for a trace with S steps, `batch_size` rows per forward, of one trace or of several.
    Logits are computed at the answers' positions only and taken to float32 row by row: batch_size · |F| · vocabulary
    numbers in the model's type and twice |F| · vocabulary in float32. (Rows of several traces in one batch: the
    positions of all their answers.) With sdpa or eager attention transformers makes a mask of batch_size · T² bytes or
    numbers of the model's type.

    Raises InputError for a batch size below 1, for spans that do not fit, and for models in which a step cannot be
    hidden this way: see `check_model` and `check_hiding`.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected at least 1")
    order = [place for place, trace in enumerate(prepared) if trace.skipped is None]
    order.sort(key=lambda place: len(prepared[place].ids), reverse=True)
    rows = [(place, variant) for place in order for variant in _variants(prepared[place], place)]
    if not rows:
        return
    check_model(model, longest=len(rows[0][1].ids))
    hiding = next((variant for _, variant in rows if variant.hidden is not None), None)
    if hiding is not None:
        check_hiding(model, hiding)
    wanted = {place: len(_variants(prepared[place], place)) for place in order}
    found: dict[int, list[Tensor]] = defaultdict(list)
    for first in range(0, len(rows), batch_size):
        places, variants = zip(*rows[first : first + batch_size], strict=True)
        for place, log_probs in zip(places, answer_log_probs(model, variants), strict=True):
            found[place].append(log_probs)
            if len(found[place]) == wanted[place]:
                yield place, _drops(prepared[place], found.pop(place))


def answer_log_probs(model: nn.Module, variants: Sequence[Variant]) -> list[Float[Tensor, "F_i"]]:
    """Return log π of every answer token of every variant, float32, on the host; one forward, rows padded right."""
    device = next(model.parameters()).device
    ids, shown = pad_right([variant.ids for variant in variants])
    width = ids.shape[1]
    for row, variant in enumerate(variants):
        if variant.hidden is not None:
            shown[row, slice(*variant.hidden)] = 0
    # The token at position t is predicted at t - 1.
    needed = sorted({at - 1 for variant in variants for at in range(*variant.answer)})
    options: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(unwrap_model(model).forward).parameters:
        options["logits_to_keep"] = torch.tensor(needed, dtype=torch.int64, device=device)
    else:
        needed = list(range(width))
    index = {position: i for i, position in enumerate(needed)}
    results = []
    with torch.no_grad():
        logits = model(
            input_ids=ids.to(device),
            attention_mask=shown.to(device),
            position_ids=torch.arange(width, device=device).expand(len(variants), -1),
            use_cache=False,
            **options,
        ).logits
        for row, variant in enumerate(variants):
            start, end = variant.answer
            first = index[start - 1] if start < end else 0
            log_probs = logits[row, first : first + end - start].float().log_softmax(dim=-1)
            targets = torch.tensor(variant.ids[start:end], dtype=torch.int64, device=log_probs.device)
            results.append(log_probs.gather(1, targets[:, None])[:, 0].cpu())
    return results


def check_model(model: nn.Module, longest: int) -> None:
    """Raise InputError for a model known to move or miscount positions when tokens are masked, or with dropout on."""
    inner = unwrap_model(model)
    config, name = inner.config.get_text_config(), type(inner).__name__
    if "position_ids" not in inspect.signature(inner.forward).parameters or getattr(config, "alibi", False):
        raise InputError(
            f"model: {name} takes no positions but counts the tokens that the mask shows; hiding a step would move all "
            "later tokens"
        )
    attention = getattr(config, "_attn_implementation", None) or "eager"
    window = getattr(config, "sliding_window", None)
    if "flash" in attention and window is not None and window < longest:
        raise InputError(
            f"model: {attention} drops hidden tokens before it counts the {window} tokens of {name}'s sliding window, "
            "which would reach further back; load the model with attn_implementation='sdpa'"
        )
    if model.training:
        raise InputError(f"model: {name} is in training mode, expected evaluation mode (model.eval())")


def check_hiding(model: nn.Module, variant: Variant) -> None:
    """Raise InputError if the answer's log-probabilities depend on what the hidden tokens are (two forwards of a row).

    They do in models with layers that do not read the mask.
    """
    assert variant.hidden is not None
    start, end = variant.hidden
    other = [variant.ids[-1]] * (end - start)  # any token that the model knows: the last one, usually the end token
    changed = replace(variant, ids=[*variant.ids[:start], *other, *variant.ids[end:]])
    (before,), (after,) = answer_log_probs(model, [variant]), answer_log_probs(model, [changed])
    # Exactly equal in most models; a mixture of experts may add its tokens up in another order.
    tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.1
    name = type(unwrap_model(model)).__name__
    if not torch.isfinite(before).all():
        raise InputError(f"model: {name} gives log-probabilities that are not finite; is it damaged?")
    if not torch.all((before - after).abs() <= tolerance):  # false for NaN, too
        raise InputError(
            f"model: {name} reads tokens that the attention mask hides (the answer's "
            f"log-probabilities change by {float((before - after).abs().max()):.3g}); its steps cannot be hidden"
        )


def _variants(trace: PreparedTrace, place: int) -> list[Variant]:
    start, end = trace.answer or (0, 0)
    fitting = all(0 <= first <= last <= start for first, last in trace.spans)
    if not (fitting and 0 < start <= end <= len(trace.ids)):
        raise InputError(
            f"prepared[{place}]: steps {trace.spans}, answer {trace.answer} in {len(trace.ids)} tokens; expected steps "
            "that end before the answer, and at least one token before the answer"
        )
    hidden: list[Span | None] = [None, *(span for span in trace.spans if span[0] < span[1])]
    return [Variant(trace.ids, (start, end), span) for span in hidden]


def _drops(trace: PreparedTrace, log_probs: list[Tensor]) -> Tensor:
    drops = torch.zeros(len(trace.spans), trace.answer_tokens)
    with_tokens = [k for k, (start, end) in enumerate(trace.spans) if start < end]
    for k, hidden in zip(with_tokens, log_probs[1:], strict=True):
        drops[k] = log_probs[0] - hidden
    return drops
