"""Steps of traces in files: segmentation that keeps existing labels, reading and checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attnpo.data.jsonl import check_field, row_name, type_name, write_jsonl
from attnpo.errors import InputError
from attnpo.steps.formats import BY_MARKS, Form, format_of_rows, marks_of
from attnpo.steps.lexicon import load_lexicon
from attnpo.steps.response import Unclosed, thinking_of
from attnpo.steps.segment import segment_steps
from attnpo.traces.origins import AUTO
from attnpo.traces.read import read_traces

_OWN_FIELDS = {"start", "end", "kind"}


def segment_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    lexicon: str = "paper",
    *,
    discard_labels: bool = False,
    origin: str = AUTO,
    thinking_format: str = AUTO,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[int, int]:
    """Write the rows of `source` with steps to `target`; return the numbers of rows and of steps.

    origin: which tool wrote the file; see `read_traces`. thinking_format: a format's name or file; auto: every response
    by its own marks. `say` gets the formats found.

    Raises:
        InputError: bad file, row, lexicon or format, or labelled steps that do not fit (see `segment_row`).
        RunError: writing failed half-way.
    """
    load_lexicon(lexicon)  # an unknown name is an error before anything is read
    form, found = format_of_rows(thinking_format), set()
    unclosed = Unclosed(form)
    steps = 0

    def segmented() -> Iterator[dict[str, Any]]:
        nonlocal steps
        for number, row in read_traces(source, ("response",), origin, marks=marks_of(form)):
            found.add(str(form.of(row["response"])))
            unclosed.add(row["response"])
            row = segment_row(row, lexicon, where=row_name(source, number), discard_labels=discard_labels, form=form)
            steps += len(row["steps"])
            yield row

    rows = write_jsonl(target, segmented())
    say(f"thinking format: {', '.join(sorted(found))}")
    if (message := unclosed.message()) is not None:
        say(message)
    return rows, steps


def segment_row(
    row: Mapping[str, Any],
    lexicon: str = "paper",
    *,
    where: str = "row",
    discard_labels: bool = False,
    form: Form = BY_MARKS,
) -> dict[str, Any]:
    """Return a copy of a trace row with the field ``steps`` set; `where` names the row in errors.

    Other fields of existing steps than start, end and kind (labels, scores) are copied if all spans are equal.

    Raises:
        InputError: existing steps have such fields and their spans differ from the new ones, or they are malformed;
            with `discard_labels` they are replaced instead.
    """
    steps = found_steps(thinking_of(row["response"], form), lexicon)
    old = row.get("steps")
    if old is None or discard_labels:
        return {**row, "steps": steps}
    extras = [{key: value for key, value in step.items() if key not in _OWN_FIELDS} for step in _checked(old, where)]
    if [(step["start"], step["end"]) for step in old] == [(step["start"], step["end"]) for step in steps]:
        steps = [{**step, **extra} for step, extra in zip(steps, extras, strict=True)]
    elif any(extras):
        names = ", ".join(f"'{name}'" for name in sorted(set().union(*extras)))
        raise InputError(
            f"{where}: its {len(old)} steps carry {names}, and their spans differ from the {len(steps)} steps found "
            f"with the {lexicon} lexicon; remove the field 'steps' or pass --discard-labels to lose them"
        )
    return {**row, "steps": steps}


def found_steps(thinking: str, lexicon: str = "paper") -> list[dict[str, Any]]:
    """Segment a thinking text and return the steps in the form of a trace file."""
    return [{"start": step.start, "end": step.end, "kind": step.kind} for step in segment_steps(thinking, lexicon)]


def steps_of(
    row: Mapping[str, Any], lexicon: str = "paper", *, where: str = "row", form: Form = BY_MARKS
) -> list[dict[str, Any]]:
    """Return the steps of a trace row with their offsets; segment it if it has none. `where` names it in errors.

    Raises:
        InputError: existing steps are not objects with offsets into the thinking text, in order and without overlap.
    """
    thinking, steps = thinking_of(row["response"], form), row.get("steps")
    if steps is None:
        return found_steps(thinking, lexicon)
    check_field(row, "steps", where)
    last = 0
    for index, step in enumerate(steps):
        start, end = (step.get("start"), step.get("end")) if isinstance(step, dict) else (None, None)
        if type(start) is not int or type(end) is not int or not last <= start <= end <= len(thinking):
            raise InputError(
                f"{where}: steps[{index}] has start and end {(start, end)}, expected {last} <= start <= end <= "
                f"{len(thinking)} (characters of the thinking text, in order, no overlap)"
            )
        last = end
    return steps


def check_tiling(steps: Sequence[Mapping[str, Any]], thinking: str, where: str) -> None:
    """Raise InputError if text of the thinking part is in no step: a labelled trace must cover all of it.

    White space between steps does not matter. The offsets must have been checked (`steps_of`).
    """
    bounds = [0, *(bound for step in steps for bound in (step["start"], step["end"])), len(thinking)]
    for index, (end, start) in enumerate(zip(bounds[::2], bounds[1::2], strict=True)):
        if thinking[end:start].strip():
            place = f"before steps[{index}]" if index < len(steps) else "after the last step"
            raise InputError(
                f"{where}: the steps do not cover the thinking text: found {thinking[end:start].strip()[:40]!r} at "
                f"characters {end} to {start}, {place}, expected every character in a step (a step that should not "
                'count has "essential": null)'
            )


def _checked(steps: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(steps, list):
        raise InputError(f"{where}: field 'steps' is {type_name(steps)}, expected a list")
    for index, step in enumerate(steps):
        if not isinstance(step, dict):
            raise InputError(f"{where}: steps[{index}] is {type_name(step)}, expected an object with start and end")
        for name in ("start", "end"):
            if type(step.get(name)) is not int:
                found = f"is {type_name(step[name])}" if name in step else "is missing"
                raise InputError(f"{where}: steps[{index}] field '{name}' {found}, expected a whole number")
    return steps
