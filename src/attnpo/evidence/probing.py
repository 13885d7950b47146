"""Every head of a model on a file of labelled traces: what all tools but the removal of steps start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attnpo.attention.interface import scorable_layers
from attnpo.models import resolve_model
from attnpo.probe.head_table import HeadTable, probe_traces
from attnpo.probe.labelled import Labels, NumberedRow, longest, prepare_labelled, read_labelled
from attnpo.probe.prepare import load_model


@dataclass(frozen=True)
class ReadFile:
    """A file of labelled traces, read and checked, not yet in the tokens of any model."""

    source: str
    rows: list[NumberedRow]
    labels: list[Labels]


def read_file(source: str | Path) -> ReadFile:
    """Raises InputError for bad files, rows and labels."""
    rows, labels = read_labelled(source)
    return ReadFile(str(source), rows, labels)


def probe_file(
    loaded: tuple[Any, Any],
    file: ReadFile,
    *,
    batch_size: int,
    max_length: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> HeadTable:
    """The figures of all heads of a (model, tokenizer) on the usable traces of a file; `progress` after each trace.

    Raises InputError where no trace can be used.
    """
    network, tokenizer = loaded
    length = longest(network.config.get_text_config(decoder=True), max_length)
    data = prepare_labelled(file.source, file.rows, file.labels, tokenizer, max_length=length)
    figures = {}
    for place, found in probe_traces(network, data.traces, data.labels, batch_size=batch_size):
        figures[place] = found
        progress()
    stacked = torch.stack([figures[place] for place in range(len(data.traces))])
    return HeadTable(stacked, tuple(scorable_layers(network)), data.problems)


def load(model: str | None) -> tuple[Any, Any]:
    """(model, tokenizer) of a folder or Hub name; None: the packaged overthinker."""
    return load_model(resolve_model(model))
