"""Files of traces seen as a whole: how well a lexicon fits each model's responses, and what lexicon would."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attnpo.data.jsonl import read_jsonl, write_whole
from attnpo.errors import InputError
from attnpo.steps.fit import Fit, fit_of
from attnpo.steps.lexicon import load_lexicon
from attnpo.steps.response import thinking_of
from attnpo.steps.segment import segment_steps
from attnpo.steps.suggest import Opener, suggest_openers, suggestion
from attnpo.tables import Table

NO_MODEL = "not named"
COLUMNS = (
    "model", "traces", "steps: median", "10 %", "90 %", "characters per step", "tokens per step", "largest step",
    "one step only",
)  # fmt: skip


def fits_of_file(
    source: str | os.PathLike[str], lexicon: str = "paper", count: Callable[[str], int] | None = None
) -> dict[str, Fit]:
    """How a lexicon fits the responses of each model that the field "model" names; `count` counts the tokens of a text.

    Raises:
        InputError: bad file, row or lexicon.
    """
    load_lexicon(lexicon)
    thinkings: dict[str, list[str]] = {}
    for row in read_jsonl(source, required=("response",)):
        thinkings.setdefault(_model_of(row), []).append(thinking_of(row["response"]))
    return {
        model: fit_of(
            texts,
            [[(step.start, step.end) for step in segment_steps(text, lexicon)] for text in texts],
            None if count is None else [count(text) for text in texts],
        )
        for model, texts in sorted(thinkings.items())
    }


def table_of(fits: dict[str, Fit]) -> Table:
    """The fits, a model a row."""
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


def suggest_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> list[Opener]:
    """Propose a lexicon from the responses of a file and write it to `target`.

    Raises:
        InputError: bad file or row, nothing to propose, or `target` cannot be written to.
    """
    thinkings = [thinking_of(row["response"]) for row in read_jsonl(source, required=("response",))]
    openers = suggest_openers(thinkings)
    if not openers:
        raise InputError(
            f"{source}: found no phrase that opens paragraphs of at least 3 of its {len(thinkings)} responses; expected"
            " more responses of one model, with blank lines or line breaks between paragraphs"
        )
    content = json.dumps(suggestion(openers), ensure_ascii=False, indent=1)
    try:
        write_whole(Path(target), content.encode() + b"\n")
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror})") from error
    return openers


def _model_of(row: dict[str, Any]) -> str:
    model = row.get("model")
    return model if isinstance(model, str) and model else NO_MODEL
