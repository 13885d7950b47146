"""Label the steps of traces in a file by the consensus of language models (`attnpo label --by judges`).

Source: ATTNPO (arXiv 2602.09953), which takes the consensus of three judges on an easy subset. Its prompt is not
published; ours is in `attnpo.judges.questions`.
"""

from __future__ import annotations

import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from attnpo.data.jsonl import check_field, row_name, type_name, write_jsonl
from attnpo.errors import InputError, RunError
from attnpo.judges.client import AnswerCache, Patience, Question, Tally, answer_key, ask_judges, require_client
from attnpo.judges.config import Judge
from attnpo.judges.questions import Votes, judge_prompt
from attnpo.labels.report import RULES, JudgeReport, consensus, estimate, pairwise_agreement
from attnpo.steps.formats import BY_MARKS, Form, format_of_rows, formats_found, marks_of
from attnpo.steps.lexicon import load_lexicon
from attnpo.steps.response import answer_of, thinking_of, unclosed_message
from attnpo.tables import TIME_LEFT_FROM
from attnpo.traces.origins import AUTO
from attnpo.traces.read import read_traces
from attnpo.traces.steps import steps_of

_ACCURACY_FIELDS = ("group_accuracy", "correct")


@dataclass(frozen=True)
class JudgedTrace:
    """One row. `skipped`: why it is not judged (in which case it has no prompt)."""

    row: dict[str, Any]
    steps: list[dict[str, Any]]
    prompt: str
    skipped: str | None = None


def prepare_traces(
    rows: Sequence[tuple[int, dict[str, Any]]],
    source: str | os.PathLike[str],
    *,
    lexicon: str = "paper",
    max_traces: int | None = None,
    min_accuracy: float | None = None,
    form: Form = BY_MARKS,
) -> list[JudgedTrace]:
    """Return steps and prompts of numbered rows, in order. Existing steps keep their offsets; other rows are segmented.

    min_accuracy: keep problems that are solved at least that often, according to "group_accuracy" of the row or,
    without it, the share of rows with the same problem that are "correct". max_traces: judge the first that remain.

    Raises:
        InputError: a malformed field (names file, row and field), or `min_accuracy` without any row with an accuracy.
    """
    accuracies = [None] * len(rows) if min_accuracy is None else _accuracies(rows, source)
    traces, judged = [], 0
    for (number, row), accuracy in zip(rows, accuracies, strict=True):
        where = row_name(source, number)
        steps = steps_of(row, lexicon, where=where, form=form)
        reference = row.get("reference")
        if reference is not None:
            check_field(row, "reference", where)
        answer, skipped = answer_of(row["response"], form), None
        if answer is None:
            skipped = "no closing tag"
        elif len(steps) < 2:
            skipped = "fewer than two steps"
        elif min_accuracy is not None and accuracy is None:
            skipped = "no accuracy known"
        elif min_accuracy is not None and accuracy is not None and accuracy < min_accuracy:
            skipped = f"accuracy below {min_accuracy:g}"
        elif max_traces is not None and judged >= max_traces:
            skipped = f"beyond the first {max_traces}"
        prompt = ""
        if skipped is None:
            assert answer is not None
            judged += 1
            thinking = thinking_of(row["response"], form)
            texts = [thinking[step["start"] : step["end"]].strip() for step in steps]
            prompt = judge_prompt(row["problem"], reference, answer.strip(), texts)
        traces.append(JudgedTrace(row, steps, prompt, skipped))
    return traces


def _accuracies(rows: Sequence[tuple[int, dict[str, Any]]], source: str | os.PathLike[str]) -> list[float | None]:
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for number, row in rows:
        where = row_name(source, number)
        accuracy, correct = row.get("group_accuracy"), row.get("correct")
        if accuracy is not None and (type(accuracy) not in (int, float) or not 0 <= accuracy <= 1):
            raise InputError(f"{where}: field 'group_accuracy' is {accuracy!r}, expected a share from 0 to 1")
        if correct is not None and type(correct) is not bool:
            raise InputError(f"{where}: field 'correct' is {type_name(correct)}, expected true/false")
        if correct is not None:
            verdicts[row["problem"]].append(correct)
    found: list[float | None] = []
    for _, row in rows:
        shares = verdicts.get(row["problem"])
        share = sum(shares) / len(shares) if shares else None
        found.append(share if row.get("group_accuracy") is None else row["group_accuracy"])
    if all(accuracy is None for accuracy in found):
        raise InputError(f"--min-accuracy: no row of {source} has a field {' or '.join(map(repr, _ACCURACY_FIELDS))}")
    return found


CACHE_NAME = ".attnpo-judges.sqlite"
TraceVotes = dict[str, Votes]  # of one trace, by judge


def label_file(
    source: str | Path,
    target: str | Path,
    *,
    judges: Sequence[Judge],
    approve: Callable[[str], bool],
    rule: str = "unanimous",
    quorum: int | None = None,
    retries: int = 3,
    concurrency: int = 8,
    timeout: float = 120.0,
    max_traces: int | None = None,
    min_accuracy: float | None = None,
    cache: str | Path | None = None,
    lexicon: str = "paper",
    origin: str = AUTO,
    thinking_format: str = AUTO,
    say: Callable[[str], None] = lambda line: None,
) -> JudgeReport:
    """Write the rows of `source` to `target`, in the same order, with "essential" and "votes" in every step of the
    traces that were judged. The other rows have no labels, and the reason in "skipped".

    Args:
        approve: called with the estimate of requests, tokens and cost; unless it returns True, nothing is sent. Not
            called if every answer is in the cache.
        rule, quorum: see `consensus`; quorum: default all judges.
        retries, concurrency, timeout: see `Patience`.
        max_traces, min_accuracy: see `prepare_traces`.
        thinking_format: a format's name or file; auto: every response by its own marks. `say` is called with
            the formats found.
        cache: default: CACHE_NAME in the folder of `target`. Every valid answer is stored as soon as it arrives, so
            that an interrupted run resumes where it stopped.

    Raises:
        InputError: a bad option, file, row or key, or a missing package.
        RunError: not approved, or an endpoint refuses permanently. `target` is not changed.
    """
    judges = list(judges)
    quorum = len(judges) if quorum is None else quorum
    patience = Patience(retries, concurrency, timeout)
    _check_options(judges, rule, quorum, patience, max_traces, min_accuracy)
    load_lexicon(lexicon)
    form = format_of_rows(thinking_format)
    require_client()
    rows = list(read_traces(source, ("problem", "response"), origin, marks=marks_of(form)))
    say(formats_found((row["response"] for _, row in rows), form))
    if (unclosed := unclosed_message((row["response"] for _, row in rows), form)) is not None:
        say(unclosed)
    traces = prepare_traces(rows, source, lexicon=lexicon, max_traces=max_traces, min_accuracy=min_accuracy, form=form)
    report = JudgeReport(judges=judges, tallies={judge.name: Tally() for judge in judges})

    def labelled() -> Iterator[dict[str, Any]]:
        # Runs after write_jsonl has opened its file: an unwritable target is noticed before anything is paid.
        path = Path(target).resolve().parent / CACHE_NAME if cache is None else Path(cache)
        with AnswerCache(path) as answers:
            votes = _collect_votes(traces, judges, answers, report.tallies, patience, approve)
        judged = [vote for vote, trace in zip(votes, traces, strict=True) if trace.skipped is None]
        report.agreements = pairwise_agreement([judge.name for judge in judges], judged)
        for trace, trace_votes in zip(traces, votes, strict=True):
            if trace.skipped is not None:
                report.traces[trace.skipped] += 1
                yield _not_judged(trace)
                continue
            steps = _labelled_steps(trace, trace_votes, rule, quorum)
            report.count_steps(steps)
            yield {**without(trace.row, "skipped"), "steps": steps}

    write_jsonl(target, labelled())
    return report


def _not_judged(trace: JudgedTrace) -> dict[str, Any]:
    assert trace.skipped is not None
    row = {**trace.row, "skipped": trace.skipped}
    if "steps" in row:  # earlier labels must not be taken for labels of this run
        row["steps"] = [without(step, "essential", "votes") for step in trace.steps]
    return row


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a row without these fields."""
    return {name: value for name, value in row.items() if name not in names}


def _labelled_steps(trace: JudgedTrace, votes: TraceVotes, rule: str, quorum: int) -> list[dict[str, Any]]:
    steps = []
    for index, step in enumerate(trace.steps):
        single = {name: of_judge[index] for name, of_judge in votes.items()}
        steps.append({**step, "essential": consensus(list(single.values()), rule, quorum), "votes": single})
    return steps


def _collect_votes(
    traces: Sequence[JudgedTrace],
    judges: Sequence[Judge],
    cache: AnswerCache,
    tallies: dict[str, Tally],
    patience: Patience,
    approve: Callable[[str], bool],
) -> list[TraceVotes]:
    """Return the votes on every trace, from the cache and from the judges, by judge in the given order. Equal traces
    share one question."""
    known: dict[str, Votes] = {}
    asked: list[dict[str, str]] = [{} for _ in traces]  # per trace: judge -> key of its answer
    todo: list[tuple[Judge, list[Question]]] = []
    for judge in judges:
        questions: dict[str, Question] = {}
        for trace, keys in zip(traces, asked, strict=True):
            if trace.skipped is None:
                key = keys[judge.name] = answer_key(judge, trace.prompt)
                questions[key] = Question(key, trace.prompt, len(trace.steps))
        found = {key: votes for key, asks in questions.items() if (votes := cache.get(key, asks.steps)) is not None}
        known |= found
        tallies[judge.name].cached = len(found)
        todo.append((judge, [question for key, question in questions.items() if key not in found]))
    if any(unanswered for _, unanswered in todo):
        for judge, unanswered in todo:
            if unanswered:
                judge.api_key()  # a missing key is reported before the cost
        if not approve(estimate(todo, tallies)):
            raise RunError("not confirmed: nothing was sent")
        with _progress(todo) as advance:

            def store(judge: Judge, question: Question, votes: Votes | None) -> None:
                if votes is not None:
                    cache.put(question.key, votes)
                    known[question.key] = votes
                advance(judge)

            try:
                ask_judges([item for item in todo if item[1]], tallies, patience, store)
            except RunError as error:
                raise RunError(
                    f"{error}. Stopped; answers so far are kept in {cache.path}: run the same command again to resume"
                ) from error
    return [{name: known[key] for name, key in keys.items() if key in known} for keys in asked]


@contextmanager
def _progress(todo: Sequence[tuple[Judge, Sequence[Question]]]) -> Iterator[Callable[[Judge], None]]:
    """Show one bar per judge on standard error, if that is a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    options = {"disable": not sys.stderr.isatty(), "speed_estimate_period": TIME_LEFT_FROM}
    with Progress(*columns, console=Console(stderr=True), **options) as bars:
        tasks = {judge.name: bars.add_task(judge.name, total=len(questions)) for judge, questions in todo}
        yield lambda judge: bars.advance(tasks[judge.name])


def _check_options(
    judges: Sequence[Judge],
    rule: str,
    quorum: int,
    patience: Patience,
    max_traces: int | None,
    min_accuracy: float | None,
) -> None:
    if not judges:
        raise InputError("--judge: none is given, expected at least one")
    if rule not in RULES:
        raise InputError(f"--consensus is {rule!r}, expected {' or '.join(RULES)}")
    if not 1 <= quorum <= len(judges):
        raise InputError(f"--quorum is {quorum}, expected 1 to {len(judges)} (the number of judges)")
    if patience.retries < 0:
        raise InputError(f"--retries is {patience.retries}, expected 0 or more")
    if patience.concurrency < 1:
        raise InputError(f"--concurrency is {patience.concurrency}, expected at least 1")
    if not 0 < patience.timeout < math.inf:
        raise InputError(f"--timeout is {patience.timeout:g}, expected a number of seconds above 0")
    if max_traces is not None and max_traces < 1:
        raise InputError(f"--max-traces is {max_traces}, expected at least 1")
    if min_accuracy is not None and not 0 <= min_accuracy <= 1:
        raise InputError(f"--min-accuracy is {min_accuracy:g}, expected a share from 0 to 1")
