"""Find the key-focus heads of a model on labelled traces (`attnpo probe`)."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnpo.attention.heads import Head, save_heads
from attnpo.attention.model import all_heads, scorable_layers
from attnpo.data.jsonl import drop_unfinished_line, read_jsonl
from attnpo.errors import InputError
from attnpo.heads.table import ESSENTIAL, REDUNDANT, HeadTable, parting_scale, probe_traces, separating
from attnpo.models import OVERTHINKER, resolve_model
from attnpo.models.loading import load_model
from attnpo.steps.formats import format_of_rows
from attnpo.traces.labelled import LabelledTraces, longest, prepare_labelled, read_labelled
from attnpo.traces.origins import AUTO
from attnpo.traces.prepared import PreparedTrace
from attnpo.traces.read import rows_for_model


@dataclass(frozen=True)
class Found:
    """The outcome of a probe: the table, the chosen heads, and the number of rows used or left out, by reason."""

    table: HeadTable
    heads: list[Head]
    counts: Counter[str]

    @property
    def separates(self) -> bool:
        """Whether every chosen head distinguishes essential from redundant steps."""
        return len(separating(self.table, self.heads)) == len(self.heads)


def find_heads(
    source: str | Path,
    target: str | Path,
    *,
    model: str | None = None,
    top: int = 3,
    layers: tuple[int, int] | None = None,
    max_traces: int | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    origin: str = AUTO,
    progress: Callable[[int, int], None] = lambda done, total: None,
    thinking_format: str = AUTO,
    say: Callable[[str], None] = lambda line: None,
) -> Found:
    """Measure every head on the labelled traces of `source` and write the best `top` to the head file `target`.

    layers: first and last layer to probe (default: all). origin: which tool wrote the file. thinking_format, say: as in
    `score_file`. Figures of each trace are kept in TARGET.partial until the end, so that an interrupted probe resumes
    where it stopped.
    Raises InputError for bad files, rows, labels, options or models.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size is {batch_size}, expected at least 1")
    if max_traces is not None and max_traces < 1:
        raise InputError(f"--max-traces is {max_traces}, expected at least 1")
    if not Path(target).resolve().parent.is_dir():
        raise InputError(f"--output {target}: the folder {Path(target).resolve().parent} does not exist")
    rows, labels = read_labelled(source, origin, format_of_rows(thinking_format))
    folder = resolve_model(model)
    network, tokenizer = load_model(folder)
    form, rows = rows_for_model(rows, source, origin, thinking_format, tokenizer, say)
    config = network.config.get_text_config(decoder=True)
    which = chosen_layers(layers, config.num_hidden_layers, scorable_layers(network))
    most = len(all_heads(network, which))
    if not 1 <= top <= most:
        raise InputError(f"--top is {top}, expected 1 to {most}, the number of heads probed")
    data = prepare_labelled(
        source,
        rows,
        labels,
        tokenizer,
        max_length=longest(config, max_length),
        max_traces=max_traces,
        form=form,
    )
    partial = Path(f"{target}.partial")
    figures = measure(network, data, which, batch_size, partial, folder, progress)
    table = HeadTable(figures, tuple(which), data.problems)
    found = Found(table, table.best(top), data.counts)
    write_head_file(target, found, model=model or OVERTHINKER, labels=str(source))
    partial.unlink(missing_ok=True)
    return found


def chosen_layers(layers: tuple[int, int] | None, count: int, scorable: Sequence[int]) -> list[int]:
    """Return the layers of the range (default: all) that can be scored.

    Raises InputError for layers that the model does not have, and if none of them can be scored.
    """
    first, last = (0, count - 1) if layers is None else layers
    if not 0 <= first <= last < count:
        raise InputError(f"--layers: found {first}-{last}, expected a range within 0-{count - 1}, the model's layers")
    found = [layer for layer in scorable if first <= layer <= last]
    if not found:
        raise InputError(f"--layers: none of the layers {first}-{last} can be scored (docs/architectures.md)")
    return found


def measure(
    network: nn.Module,
    data: LabelledTraces,
    layers: list[int],
    batch_size: int,
    partial: Path,
    model: str,
    progress: Callable[[int, int], None],
) -> Float[Tensor, "N 3 L H"]:
    """Return figures of every trace, in order; those in the file `partial` are read, the others added to it."""
    traces, labels = data.traces, data.labels
    keys = [_key(model, layers, trace, row) for trace, row in zip(traces, labels, strict=True)]
    done = _kept(partial)
    todo = [i for i, key in enumerate(keys) if key not in done]
    progress(len(keys) - len(todo), len(keys))
    with open(partial, "a", encoding="utf-8") as file:
        results = probe_traces(
            network, [traces[i] for i in todo], [labels[i] for i in todo], layers=layers, batch_size=batch_size
        )
        for count, (place, figures) in enumerate(results, len(keys) - len(todo) + 1):
            key = keys[todo[place]]
            done[key] = figures.tolist()
            file.write(json.dumps({"key": key, "figures": done[key]}) + "\n")
            file.flush()
            progress(count, len(keys))
    return torch.tensor([done[key] for key in keys], dtype=torch.float64)


def _kept(partial: Path) -> dict[str, Any]:
    """Read the figures that an interrupted probe wrote; an incomplete last line is removed."""
    if not partial.is_file() or not drop_unfinished_line(partial):
        return {}
    return {row["key"]: row["figures"] for row in read_jsonl(partial, ("key", "figures"))}


def _key(model: str, layers: list[int], trace: PreparedTrace, labels: Sequence[bool | None]) -> str:
    """Return a hash of everything that the figures of a trace depend on."""
    content = [model, layers, trace.ids, trace.spans, trace.answer, list(labels)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_head_file(target: str | Path, found: Found, *, model: str, labels: str) -> None:
    """Write a head file with the figures of every head that was probed (docs/heads.md explains the fields)."""
    table = found.table
    # Resampling a single problem gives no interval.
    interval = table.intervals if table.problem_count > 1 else None
    essential, redundant = table.mean(ESSENTIAL), table.mean(REDUNDANT)
    sra = table.mean()
    save_heads(
        target,
        found.heads,
        sra=sra,
        sra_interval=None if interval is None else {f"{layer},{head}": interval[layer, head] for layer, head in sra},
        sra_median=statistics.median(sra.values()),
        sra_held_out=table.held_out_accuracy(len(found.heads)),
        essential_over_uniform={f"{layer},{head}": essential[layer, head] for layer, head in found.heads},
        redundant_over_uniform={f"{layer},{head}": redundant[layer, head] for layer, head in found.heads},
        threshold=parting_scale(table, found.heads),
        model=model,
        labels=labels,
        traces=table.traces,
        problems=table.problem_count,
        left_out={reason: count for reason, count in found.counts.items() if reason != "used"},
    )
