"""Score the steps of traces in a file (`attnpo score`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from attnpo.attention.heads import HEADS, check_heads, load_heads, warn_of_other_model
from attnpo.data.jsonl import row_name, write_jsonl
from attnpo.errors import InputError
from attnpo.models import resolve_model
from attnpo.models.loading import load_model
from attnpo.steps.formats import format_of_rows
from attnpo.steps.lexicon import load_lexicon
from attnpo.traces.labelled import longest
from attnpo.traces.origins import AUTO
from attnpo.traces.prepared import PreparedTrace, prepare_trace, score_traces
from attnpo.traces.read import read_traces, rows_for_model

BETA = 2.0  # exponent of the difficulty in the baseline (paper section 5)


def score_file(
    source: str | Path,
    target: str | Path,
    *,
    model: str | None = None,
    heads: str | Path | None = None,
    group_accuracy: float = 1.0,
    batch_size: int = 8,
    lexicon: str = "paper",
    max_length: int | None = None,
    origin: str = AUTO,
    thinking_format: str = AUTO,
    say: Callable[[str], None] = lambda line: None,
) -> Counter[str]:
    """Write the rows of `source` with scores to `target`, in the same order; return how many rows were "scored" or
    skipped, by reason.

    heads: a head file; default: heads.json in the model's folder. max_length: tokens of prompt and response; default:
    what the model's configuration allows. origin: see `read_traces`. thinking_format: see `format_of_file`;
    with auto, a response with marks of another format than the model's is read in that format. `say` gets the format.
    Raises InputError for bad files, rows, heads, options or models.
    """
    if not 0 <= group_accuracy <= 1:
        raise InputError(f"--group-accuracy is {group_accuracy}, expected a share from 0 to 1")
    if batch_size < 1:
        raise InputError(f"--batch-size is {batch_size}, expected at least 1")
    load_lexicon(lexicon)
    format_of_rows(thinking_format)
    folder = resolve_model(model)
    file = heads_file(folder, heads)
    chosen = load_heads(file)
    rows = list(read_traces(source, ("problem", "response"), origin))
    network, tokenizer = load_model(folder)
    check_heads(network.config, chosen)
    form, rows = rows_for_model(rows, source, origin, thinking_format, tokenizer, say)
    warn_of_other_model(file, folder)
    max_length = longest(network.config.get_text_config(), max_length)
    prepared = [
        prepare_trace(row, tokenizer, lexicon=lexicon, max_length=max_length, where=row_name(source, number), form=form)
        for number, row in rows
    ]
    scores = score_prepared(network, prepared, chosen, batch_size)
    results = (
        _result(row, trace, score, group_accuracy)
        for (_, row), trace, score in zip(rows, prepared, scores, strict=True)
    )
    write_jsonl(target, results)
    return Counter(trace.skipped or "scored" for trace in prepared)


def heads_file(folder: str, heads: str | Path | None) -> str | Path:
    """Return the given head file, or the one in the model's folder. Raises InputError if there is none."""
    if heads is not None:
        return heads
    own = Path(folder) / HEADS
    if not own.is_file():
        raise InputError(
            f"model {folder} has no {HEADS} in its folder: give --heads, a JSON file such as "
            '{"heads": [[16, 2], [20, 9]]} with (layer, head) pairs counted from zero'
        )
    return own


def score_prepared(
    network: nn.Module, traces: Sequence[PreparedTrace], heads: Sequence[tuple[int, int]], batch_size: int
) -> list[list[float] | None]:
    """Return S(s_k), the mean over the heads, per trace in the order given; None for a skipped one."""
    scores: list[list[float] | None] = [None] * len(traces)
    for i, per_head in score_traces(network, traces, heads, batch_size):
        scores[i] = per_head.mean(dim=0).tolist()
    return scores


def _result(
    row: dict[str, Any], trace: PreparedTrace, scores: list[float] | None, group_accuracy: float
) -> dict[str, Any]:
    listed = [None] * len(trace.steps) if scores is None else scores
    result = {key: value for key, value in row.items() if key != "skipped"}
    result["steps"] = [{**step, "score": score} for step, score in zip(trace.steps, listed, strict=True)]
    result["answer_tokens"] = trace.answer_tokens
    result["total_tokens"] = len(trace.ids)
    result["baseline"] = None
    if trace.skipped is not None:
        return {**result, "skipped": trace.skipped}
    result["baseline"] = group_accuracy**BETA * trace.answer_tokens / len(trace.ids)
    return result
