"""How well a lexicon fits the responses of each model in a file of traces, and a lexicon suggested from them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attnpo.data.jsonl import write_whole
from attnpo.errors import InputError
from attnpo.steps.fit import Fit, fit_of
from attnpo.steps.formats import Form, format_of_rows, marks_of
from attnpo.steps.lexicon import load_lexicon
from attnpo.steps.response import Unclosed, thinking_of
from attnpo.steps.segment import segment_steps
from attnpo.steps.suggest import Opener, suggest_openers, suggestion
from attnpo.tables import Table
from attnpo.traces.origins import AUTO
from attnpo.traces.read import read_traces

NO_MODEL = "not named"
COLUMNS = (
    "model", "traces", "steps: median", "10 %", "90 %", "characters per step", "tokens per step", "largest step",
    "one step only",
)  # fmt: skip


def fits_of_file(
    source: str | os.PathLike[str],
    lexicon: str = "paper",
    count: Callable[[str], int] | None = None,
    origin: str = AUTO,
    thinking_format: str = AUTO,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Fit]:
    """Return how a lexicon fits the responses of each model (field "model"); `count` counts the tokens of a text.

    `say` gets a warning if responses do not end their thinking.

    Raises:
        InputError: bad file, row or lexicon.
    """
    load_lexicon(lexicon)
    form = format_of_rows(thinking_format)
    thinkings: dict[str, list[str]] = {}
    for row in _rows(source, origin, form, say):
        thinkings.setdefault(_model_of(row), []).append(thinking_of(row["response"], form))
    return {
        model: fit_of(
            texts,
            [[(step.start, step.end) for step in segment_steps(text, lexicon)] for text in texts],
            None if count is None else [count(text) for text in texts],
        )
        for model, texts in sorted(thinkings.items())
    }


def table_of(fits: dict[str, Fit]) -> Table:
    """Return the fits as a table, one row per model."""
    return Table(
        COLUMNS,
        [
            (
                model,
                fit.traces,
                f"{fit.steps:g}",
                f"{fit.low:g}",
                f"{fit.high:g}",
                f"{fit.characters:.0f}",
                None if fit.tokens is None else f"{fit.tokens:.0f}",
                f"{fit.largest:.0%}",
                f"{fit.uncut:.0%}",
            )
            for model, fit in fits.items()
        ],
    )


def suggest_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    origin: str = AUTO,
    thinking_format: str = AUTO,
    say: Callable[[str], None] = lambda line: None,
) -> list[Opener]:
    """Propose a lexicon from the responses of a file and write it to `target`; `say` as for `fits_of_file`.

    Raises:
        InputError: bad file or row, nothing to propose, or `target` cannot be written.
    """
    form = format_of_rows(thinking_format)
    thinkings = [thinking_of(row["response"], form) for row in _rows(source, origin, form, say)]
    openers = suggest_openers(thinkings)
    if not openers:
        raise InputError(
            f"{source}: found no phrase that opens paragraphs of at least 3 of its {len(thinkings)} responses; expected"
            " more responses of one model, with blank lines or line breaks between paragraphs"
        )
    _write(target, json.dumps(suggestion(openers), ensure_ascii=False, indent=1) + "\n")
    return openers


def _rows(
    source: str | os.PathLike[str], origin: str, form: Form, say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    unclosed = Unclosed(form)
    for _, row in read_traces(source, ("response",), origin, marks=marks_of(form)):
        unclosed.add(row["response"])
        yield row
    if (message := unclosed.message()) is not None:
        say(message)


def write_table(table: Table, target: str | os.PathLike[str]) -> None:
    """Write the table as CSV. Raises InputError if `target` cannot be written."""
    _write(target, table.csv())


def token_counter(model: str) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text for a model. Raises InputError without a tokenizer."""
    from attnpo.models.loading import find_model

    tokenizer = find_model(model).tokenizer()
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _write(target: str | os.PathLike[str], text: str) -> None:
    try:
        write_whole(Path(target), text.encode())
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror})") from error


def _model_of(row: dict[str, Any]) -> str:
    model = row.get("model")
    return model if isinstance(model, str) and model else NO_MODEL
