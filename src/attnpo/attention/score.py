"""Step scores of a padded or packed batch, with one forward of its own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from attnpo.attention.capture import capture_scores
from attnpo.attention.interface import unwrap_model
from attnpo.attention.layout import Span, StepLayout
from attnpo.attention.packed import PackedLayout
from attnpo.errors import InputError


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
    padded row, any padding side. heads: (layer, head), zero-based. One float32 tensor [H, S_i] per row, heads in the
    order given; their mean over H is S(s_k). A step without tokens scores 0, and so do the steps of a row whose answer
    is empty or None. Training or evaluation mode stays as it is (with dropout, the forward has dropout).
    Raises InputError for heads that the model has not got, for models that cannot be scored, and for spans outside the
    row, over padding, overlapping, or not before the answer.
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
    with torch.no_grad(), capture_scores(model, layout, heads) as captured:
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **_few_logits(model))
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
    """As `score_steps`, for rows into which several sequences are packed without padding between them.

    lengths[i]: tokens of the sequences in row i, from its first position on; what is left of the row is padding.
    steps[n], answers[n]: of sequence n, counted over all rows, in positions of the sequence itself: the spans that
    `score_steps` would take for it alone. The result has one tensor per sequence, equal to what it would get alone.
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
    """The logits are not used; a full row of them can be gigabytes."""
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
