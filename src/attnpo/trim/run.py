"""Shorten the traces of a file (`attnpo trim`): read, check, trim in portions, write.

Finished portions are kept in TARGET.partial until the end, one line each, so that an interrupted call resumes where it
stopped. Portions depend on the rows of the input only, and the results of one do not depend on the others, so the file
is the same after an interruption. Rows left out are listed in TARGET.left-out, with the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from attnpo import __version__
from attnpo.attention.heads import Head, check_heads, load_heads, warn_of_other_model
from attnpo.data.jsonl import (
    check_target,
    drop_unfinished_line,
    json_line,
    read_jsonl,
    row_name,
    write_jsonl,
)
from attnpo.errors import InputError
from attnpo.models import resolve_model
from attnpo.models.loading import find_model, load_model
from attnpo.rewards.pool import VerifierPool
from attnpo.rewards.verdict import REWARD_OF
from attnpo.steps.detect import choose_format, format_of_file
from attnpo.steps.formats import Form, marks_of
from attnpo.steps.response import answer_of, thinking_of
from attnpo.traces.labelled import NumberedRow, longest
from attnpo.traces.prepared import prepare_trace
from attnpo.traces.scores import heads_file
from attnpo.traces.steps import check_tiling
from attnpo.trim.examples import Summary, Writer, summarise
from attnpo.trim.rows import LeftOut, read_source
from attnpo.trim.trimmer import ATTENTION, SAMPLE, Options, Trimmer
from attnpo.trim.verify import Candidate, Model

PORTION = 128
"""Number of traces that are trimmed together, and whose results are lost if the work is interrupted."""

Row = dict[str, Any]
Progress = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
"""Called with the activity and its unit; gives a function to call with (done, all)."""


def _no_progress(what: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a call. `continued`: number of rows that an earlier, interrupted call had done."""

    summary: Summary
    left_out: list[LeftOut]
    left_out_file: Path
    continued: int


def trim_file(
    source: str | Path,
    target: str | Path,
    *,
    model: str | None = None,
    heads: str | Path | None = None,
    options: Options | None = None,
    progress: Progress = _no_progress,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Write the right traces of `source` with shorter thinking to `target` as examples, in the same order.

    Bad rows, wrong traces and those that do not fit are left out and named, and so are traces that `shortest` or
    `preference` do not write. heads: a head file; default: heads.json in the model's folder; read for the attention
    ranking only. progress: reports the rows. say: called with lines on notable events.
    Raises InputError for bad files, heads, options or models, and if there is no row to write.
    """
    check_target(target, read=source)
    options = options or Options()
    name = resolve_model(model)
    found = find_model(name)  # raises for a missing model before its heads are missed
    head_file = heads_file(name, heads) if options.ranking == ATTENTION else None
    chosen = [] if head_file is None else load_heads(head_file)
    own_marks = marks_of(choose_format(options.thinking_format, found.tokenizer()).form)
    rows, without = _first(*read_source(source, own_marks), options.max_traces)
    target, partial = Path(target), Path(f"{target}.partial")
    with _resumed(partial, _settings(rows, name, chosen, options), say) as (file, done), VerifierPool() as pool:
        portions = [rows[first : first + PORTION] for first in range(0, len(rows), PORTION)]
        continued = sum(len(portion) for portion in portions[: len(done)])
        if len(done) < len(portions):
            network, tokenizer = load_model(name)
            if head_file is not None:
                check_heads(network.config, chosen)
                warn_of_other_model(head_file, name)
            form = format_of_file(options.thinking_format, tokenizer, rows, say)
            worker = _Worker(source, Model(network, tokenizer, options.batch_size), chosen, pool, options, form)
            with progress("trimming", "rows") as report:
                for portion in portions[len(done) :]:
                    before = sum(map(len, portions[: len(done)]))
                    report(before, len(rows))
                    done.append(worker.portion(portion, lambda count, at=before: report(at + count, len(rows))))
                    file.write(json_line(done[-1]))
                    file.flush()
    examples = [example for portion in done for example in portion["examples"]]
    without += [LeftOut(**one) for portion in done for one in portion["left_out"]]
    right = [rows[i * PORTION + place] for i, portion in enumerate(done) for place in portion["places"]]
    written, unwritten = _chosen(source, list(zip(right, examples, strict=True)), options)
    without = sorted([*without, *unwritten], key=lambda one: one.row)
    left_out_file = Path(f"{target}.left-out")
    if without:
        write_jsonl(left_out_file, map(asdict, without))
    else:
        left_out_file.unlink(missing_ok=True)
    if not written:
        partial.unlink(missing_ok=True)
        reasons = "".join(
            f"; {count} × {reason}" for reason, count in Counter(x.reason for x in without).most_common(5)
        )
        named = f" (all of them: {left_out_file})" if without else ""
        if not examples:
            raise InputError(f"{source}: no row can be used, expected right traces with a closing tag{reasons}{named}")
        raise InputError(
            f"--preference: no trace of {source} lost a step, so there is no pair to write; expected at least one that "
            f"can be shortened (a smaller --keep or --least, or --values ignore, may allow more){reasons}{named}"
        )
    other = sum(not any(mark in one["response"] for mark in own_marks.closing) for one in examples)
    if other and own_marks.closing:
        say(f"{target}: {other} of {len(examples)} traces keep other marks than the model's ({own_marks.closing[0]})")
    write_jsonl(target, written)
    partial.unlink(missing_ok=True)
    return Outcome(summarise(examples, len(written)), without, left_out_file, continued)


@dataclass(frozen=True)
class _Worker:
    """Trims portions of rows."""

    source: str | Path
    model: Model
    heads: list[Head]
    pool: VerifierPool
    options: Options
    form: Form

    def portion(self, rows: list[NumberedRow], progress: Callable[[int], None]) -> Row:
        """Return the examples made from some rows, the places of these rows, and the rows left out."""
        without: list[LeftOut] = []
        traces = self._right(self._candidates(rows, without), without)
        trimmer = Trimmer(self.model, self.heads, self.pool, self.options)
        out = len(rows) - len(traces)
        trimmed = trimmer.trim(traces, lambda count: progress(out + count)) if traces else []
        writer = Writer(self.model.tokenizer, self.options.ranking, self.options.verify, self.options.format)
        examples = [
            writer.example(one, found, preference=self.options.preference)
            for one, found in zip(traces, trimmed, strict=True)
        ]
        used = {id(one.row) for one in traces}  # row numbers repeat: a row may hold several responses
        places = [place for place, (_, row) in enumerate(rows) if id(row) in used]
        return {"examples": examples, "places": places, "left_out": list(map(asdict, without))}

    def _candidates(self, rows: Iterable[NumberedRow], without: list[LeftOut]) -> list[Candidate]:
        """Return the rows as tokens, without those that cannot be trimmed."""
        found = []
        limit = longest(self.model.network.config.get_text_config(decoder=True), self.options.max_length)
        for number, row in rows:
            where = row_name(self.source, number)
            try:
                trace = prepare_trace(
                    row,
                    self.model.tokenizer,
                    lexicon=self.options.lexicon,
                    max_length=limit,
                    where=where,
                    form=self.form,
                )
                check_tiling(trace.steps, thinking_of(row["response"], trace.form), where)
            except InputError as error:
                without.append(LeftOut.of(self.source, (number, row), str(error)))
                continue
            reason = trace.skipped
            if reason is None and not trace.steps:
                reason = "no step"
            if reason is None and not (answer_of(row["response"], trace.form) or "").strip():
                reason = "empty answer"
            if reason is None and self.options.verify == SAMPLE:
                reason = self._no_sample(row, len(trace.ids) - trace.answer_tokens + self.options.room(trace), limit)
            if reason is None:
                found.append(Candidate(number, row, trace))
            else:
                without.append(LeftOut.of(self.source, (number, row), reason))
        return found

    def _no_sample(self, row: Row, length: int, limit: int | None) -> str | None:
        """Return why an answer cannot be sampled and verified; None if it can."""
        if not row.get("reference"):
            return "no reference answer, which --verify sample needs"
        if limit is not None and length > limit:
            return f"no room for a new answer within {limit} tokens"
        return None

    def _right(self, traces: list[Candidate], without: list[LeftOut]) -> list[Candidate]:
        """Return the traces whose own answer is right, and those without a reference."""
        known = {place: one for place, one in enumerate(traces) if one.row.get("reference")}
        unreadable: Collection[str] = self.pool.validate_references([one.row["reference"] for one in known.values()])
        verdicts = self.pool.verify(
            (answer_of(one.row["response"], one.trace.form), one.row["reference"]) for one in known.values()
        )
        wrong = {
            place: "a reference answer that cannot be read"
            if one.row["reference"] in unreadable
            else f"answer is {verdict.value.replace('_', ' ')}"
            for (place, one), verdict in zip(known.items(), verdicts, strict=True)
            if REWARD_OF[verdict] != 1
        }
        without += [
            LeftOut.of(self.source, (traces[place].number, traces[place].row), reason)
            for place, reason in wrong.items()
        ]
        return [one for place, one in enumerate(traces) if place not in wrong]


def _first(
    rows: list[NumberedRow], without: list[LeftOut], count: int | None
) -> tuple[list[NumberedRow], list[LeftOut]]:
    """Return the first `count` rows, and the others that are not beyond the last of these."""
    if count is None or len(rows) <= count:
        return rows, without
    rows = rows[:count]
    return rows, [one for one in without if one.row <= rows[-1][0]]


def _chosen(
    source: str | Path, examples: list[tuple[NumberedRow, Row]], options: Options
) -> tuple[list[Row], list[LeftOut]]:
    """Return the examples that are written, in order, and the rows of the others."""
    kept = range(len(examples)) if options.shortest is None else _shortest(examples, options.shortest)
    written, without = [], []
    for place, (row, example) in enumerate(examples):
        trim = example["trim"]
        if place not in kept:
            reason = f"not written: not among the {options.shortest} shortest of its problem (--shortest)"
            without.append(LeftOut.of(source, row, reason))
        elif options.preference and example["response"] == trim["response"]:
            reason = f"not written: no step was removed, so there is no pair (--preference): {trim['reason']}"
            without.append(LeftOut.of(source, row, reason))
        else:
            written.append(example)
    return written, without


def _shortest(examples: Sequence[tuple[NumberedRow, Row]], count: int) -> set[int]:
    """Return the places of each problem's `count` examples with the fewest thinking tokens; of equals, the first."""
    by_problem: dict[str, list[int]] = {}
    for place, (_, example) in enumerate(examples):
        by_problem.setdefault(example["problem"], []).append(place)
    lengths = [example["trim"]["tokens"]["short"] for _, example in examples]
    return {place for places in by_problem.values() for place in sorted(places, key=lambda i: lengths[i])[:count]}


def _settings(rows: list[NumberedRow], model: str, heads: list[Head], options: Options) -> Row:
    """Return everything that the portions depend on."""
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    relevant = {name: value for name, value in asdict(options).items() if name != "shortest"}
    common = {"attnpo": __version__, "portion": PORTION, "input": digest}
    return {**common, "model": model, "heads": heads, "options": relevant}


@contextmanager
def _resumed(partial: Path, settings: Row, say: Callable[[str], None]) -> Iterator[tuple[IO[bytes], list[Row]]]:
    """Yield the file of portions, open for appending, and the portions in it if they have the same settings.

    Raises InputError if it cannot be written.
    """
    settings = json.loads(json.dumps(settings))
    try:
        kept = list(read_jsonl(partial)) if partial.is_file() and drop_unfinished_line(partial) else []
        if kept and kept[0] != settings:
            say(f"{partial}: has other options, another model or another input; starting anew")
            kept = []
        with open(partial, "ab" if kept else "wb") as file:
            if not kept:
                file.write(json_line(settings))
                file.flush()
            yield file, kept[1:]
    except OSError as error:
        if error.filename is None or Path(error.filename) != partial:
            raise
        raise InputError(f"{partial}: cannot be written ({error.strerror})") from error
