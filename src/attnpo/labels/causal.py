"""Label steps without a judge: a step is essential if the final answer becomes less likely without seeing it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from attnpo.data.jsonl import row_name, write_jsonl
from attnpo.errors import InputError
from attnpo.labels.hiding import iterate_drops
from attnpo.models import resolve_model
from attnpo.models.loading import load_model
from attnpo.steps.formats import format_of_rows
from attnpo.steps.lexicon import load_lexicon
from attnpo.traces.labelled import longest
from attnpo.traces.origins import AUTO
from attnpo.traces.prepared import PreparedTrace, Span, prepare_trace
from attnpo.traces.read import read_traces, rows_for_model

SHARE = 0.01
"""A step is essential if its drop is above this share of the trace's largest drop; docs/labels.md has the reason."""


def label_steps(drops: Float[Tensor, "S"], threshold: float = SHARE) -> Bool[Tensor, "S"]:
    """Return which steps are essential: their drop is positive and above `threshold` times the trace's largest drop.

    drops: d_k of every step of one trace, in nats (`attnpo.labels.hiding.step_drops`). The threshold is a share and not
    a number of nats because drops are large in a model with confident answers and small in others.
    Raises InputError for a threshold outside [0, 1) and for drops that are not finite.
    """
    if not 0 <= threshold < 1:
        raise InputError(f"threshold is {threshold}, expected a share of the largest drop: at least 0, below 1")
    if not torch.isfinite(drops).all():
        raise InputError("drops: found a value that is not finite, expected differences of log-probabilities")
    if len(drops) == 0:
        return torch.zeros(0, dtype=torch.bool, device=drops.device)
    return drops > threshold * drops.max().clamp(min=0)


def without_endings(trace: PreparedTrace, tokenizer: PreTrainedTokenizerBase) -> PreparedTrace:
    """Return the trace with spans that exclude the tokens at a step's end without a letter or digit.

    The model relies on the line break that ends a step as punctuation: if the last step is hidden together with its
    line break, the packaged model makes errors in the answer whatever the step contains. The endings therefore stay
    visible; they cannot attend to the hidden step either, so they carry no information about it.
    """
    return replace(trace, spans=[_without_ending(trace.ids, span, tokenizer) for span in trace.spans])


def label_file(
    source: str | Path,
    target: str | Path,
    *,
    model: str | None = None,
    batch_size: int = 8,
    threshold: float | None = None,
    max_length: int | None = None,
    lexicon: str = "paper",
    origin: str = AUTO,
    thinking_format: str = AUTO,
    say: Callable[[str], None] = lambda line: None,
) -> Counter[str]:
    """Write the rows of `source` to `target` with "essential" (true or false) and "drop" (nats) in every step.

    The order and all other fields are kept. Returns the number of rows "labelled" and skipped, by reason: no closing
    tag, an empty answer, fewer than two steps, too long, tokens that do not decode to the response. Skipped rows are
    written with the reason in "skipped" and without these two fields. The file is written at the end, in one go.

    model: any that has learned to write such traces; default: the packaged one. batch_size: rows per forward, one row
    per step (memory: `iterate_drops`). threshold: see `label_steps`; default 0.01. max_length: tokens of prompt and
    response; default: what the model's configuration allows. thinking_format, say: as in `score_file`.
    Raises InputError for bad files, rows, options or models.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size is {batch_size}, expected at least 1")
    if threshold is not None and not 0 <= threshold < 1:
        raise InputError(f"--threshold is {threshold}, expected a share of the largest drop: at least 0, below 1")
    if max_length is not None and max_length < 1:
        raise InputError(f"--max-length is {max_length}, expected at least 1")
    load_lexicon(lexicon)
    format_of_rows(thinking_format)
    rows = list(read_traces(source, ("problem", "response"), origin))
    network, tokenizer = load_model(resolve_model(model))
    form, rows = rows_for_model(rows, source, origin, thinking_format, tokenizer, say)
    max_length = longest(network.config.get_text_config(), max_length)
    prepared = [
        _prepare(row, tokenizer, lexicon=lexicon, max_length=max_length, where=row_name(source, number), form=form)
        for number, row in rows
    ]
    share = SHARE if threshold is None else threshold

    def labelled() -> Iterator[dict[str, Any]]:
        # Runs after write_jsonl has opened its file: an unwritable target is noticed before the work.
        drops = _measure(network, prepared, batch_size, [row_name(source, number) for number, _ in rows])
        for place, ((_, row), trace) in enumerate(zip(rows, prepared, strict=True)):
            yield _result(row, trace, drops.get(place), share)

    write_jsonl(target, labelled())
    return Counter(trace.skipped or "labelled" for trace in prepared)


def _prepare(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, **options: Any) -> PreparedTrace:
    """Return tokens of one trace, why it is skipped, and the span of each step that is to be hidden."""
    trace = prepare_trace(row, tokenizer, **options)
    if trace.skipped is None and trace.answer is not None:
        answer = tokenizer.decode(trace.ids[slice(*trace.answer)], skip_special_tokens=True)
        if not str(answer).strip():
            trace = replace(trace, skipped="empty answer")
        elif len(trace.steps) < 2:
            trace = replace(trace, skipped="fewer than two steps")
    return without_endings(trace, tokenizer)


def _measure(
    network: Any, prepared: Sequence[PreparedTrace], batch_size: int, names: list[str]
) -> dict[int, list[float]]:
    """Return d_k by index of the trace; shows a bar if standard error is a terminal."""
    drops: dict[int, list[float]] = {}
    for place, drop in track(
        iterate_drops(network, prepared, batch_size),
        description="hiding steps",
        total=sum(trace.skipped is None for trace in prepared),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    ):
        summed = drop.sum(dim=1)
        if not torch.isfinite(summed).all():
            raise InputError(
                f"{names[place]}: the model gives log-probabilities that are not finite there; is it damaged, or the "
                "range of its number type too small?"
            )
        drops[place] = summed.tolist()
    return drops


def _result(row: dict[str, Any], trace: PreparedTrace, drops: list[float] | None, share: float) -> dict[str, Any]:
    result = {key: value for key, value in row.items() if key != "skipped"}
    # Earlier labels must not be taken for labels of this run.
    steps = [{key: step[key] for key in step if key not in ("essential", "drop")} for step in trace.steps]
    if drops is None:
        assert trace.skipped is not None
        return {**result, "steps": steps, "skipped": trace.skipped}
    essential = label_steps(torch.tensor(drops), share).tolist()
    result["steps"] = [
        {**step, "essential": label, "drop": drop} for step, label, drop in zip(steps, essential, drops, strict=True)
    ]
    return result


def _without_ending(ids: list[int], span: Span, tokenizer: PreTrainedTokenizerBase) -> Span:
    start, end = span
    while end > start and not _has_content(str(tokenizer.decode([ids[end - 1]]))):
        end -= 1
    return start, end


def _has_content(text: str) -> bool:
    # Part of a character that is split over tokens decodes to the replacement character.
    return any(letter.isalnum() or letter == "\N{REPLACEMENT CHARACTER}" for letter in text)
