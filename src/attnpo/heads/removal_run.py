"""Run the removal test: does the model still answer without the steps its heads attend to most, or least?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpo.attention.heads import Head, check_heads, load_heads, warn_of_other_model
from attnpo.data.jsonl import write_jsonl
from attnpo.heads.figures import write_evidence
from attnpo.heads.removal import (
    EVERYTHING,
    NOTHING,
    Options,
    UsedTraces,
    choose_traces,
    draw_random_heads,
    plan_removals,
    read_rows,
    remaining_text,
    removed_essential,
    removed_share,
    score_sets,
)
from attnpo.heads.removal_table import (
    Reanswer,
    accuracy_table,
    answer_context,
    difference_table,
    draw_removal,
    generate_answers,
)
from attnpo.models import resolve_model
from attnpo.models.loading import load_model
from attnpo.rewards.pool import VerifierPool
from attnpo.steps.formats import BY_MARKS
from attnpo.steps.response import thinking_of
from attnpo.tables import Table, check_folder, write_table
from attnpo.traces.labelled import longest
from attnpo.traces.read import NumberedRow
from attnpo.traces.scores import heads_file

ANSWERS, DIFFERENCES = "answers.jsonl.gz", "differences.csv"

LEAST_LOSS = 0.2
"""If removing all steps costs less accuracy than this, the choice of steps can show little."""

Progress = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
"""Called with the activity and its unit ("scoring", "traces"); gives a function to call with (done, all)."""


def _no_progress(what: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class Outcome:
    """Accuracies, paired differences and every answer; the heads and the sets of random heads; the number of rows used
    or left out; the tokens that an answer of each trace may have."""

    table: Table
    differences: Table
    answers: list[Reanswer]
    heads: list[Head]
    random_heads: list[list[Head]]
    counts: Counter[str]
    rooms: list[int]

    @property
    def right(self) -> int:
        """Number of traces whose answer is right with nothing removed."""
        return sum(one.removal.arm == NOTHING and one.right == 1 for one in self.answers)

    @property
    def without_steps(self) -> float | None:
        """The accuracy with everything removed if it is little less than with nothing removed; otherwise None."""
        of = {row[0]: row[self.table.columns.index("accuracy")] for row in self.table.rows}
        complete, empty = of[NOTHING], of[EVERYTHING]
        if not isinstance(complete, float) or not isinstance(empty, float):  # no verdict at all
            return None
        return empty if empty > complete - LEAST_LOSS else None


def run_removal(
    source: str | Path,
    folder: str | Path,
    *,
    model: str | None = None,
    heads: str | Path | None = None,
    options: Options | None = None,
    progress: Progress = _no_progress,
) -> Outcome:
    """Score the steps of the traces in `source`, remove steps, let the model answer again, verify the answers.

    Writes into `folder`: table.csv, table.md, figure.png, differences.csv and answers.jsonl.gz. progress: reports the
    scoring and the answering. Raises InputError for bad files, rows, heads or models, and if no row can be used.
    """
    options = options or Options()
    name = resolve_model(model)
    head_file = heads_file(name, heads)
    chosen = load_heads(head_file)
    rows = read_rows(source, options.lexicon)
    target = check_folder(folder)
    with VerifierPool() as pool:
        unreadable = pool.validate_references([row["reference"] for _, row in rows if row.get("reference")])
        network, tokenizer = load_model(name)
        check_heads(network.config, chosen)
        warn_of_other_model(head_file, name)
        others = draw_random_heads(network, chosen, options.random_heads)
        limit = longest(network.config.get_text_config(decoder=True), options.max_length)
        data = choose_traces(source, rows, tokenizer, unreadable=unreadable, longest=limit, options=options)
        with progress("scoring", "traces") as report:
            scores = score_sets(network, data.traces, [chosen, *others], options.batch_size, report)
        with progress("answering", "texts") as report:
            answers = _answer(network, tokenizer, data, scores, pool, options, report)
    outcome = Outcome(
        accuracy_table(answers, data.problems),
        difference_table(answers, data.problems),
        answers,
        chosen,
        others,
        data.counts,
        data.rooms,
    )
    write_jsonl(target / ANSWERS, _records(data.rows, answers))
    write_table(target / DIFFERENCES, outcome.differences)
    title = f"{model or 'overthinker'}: answers without some of the steps ({data.counts['used']} traces)"
    write_evidence(target, outcome.table, draw_removal(outcome.table, title=title))
    return outcome


def _answer(
    network: Any,
    tokenizer: Any,
    data: UsedTraces,
    scores: Sequence[Sequence[Sequence[float]]],
    pool: VerifierPool,
    options: Options,
    progress: Callable[[int, int], None],
) -> list[Reanswer]:
    """Return every answer of the test, trace by trace. scores: by trace, set of heads (the chosen one first), step."""
    plan, contexts = [], []
    for place, (own, *controls) in enumerate(scores):
        number, row = data.rows[place]
        thinking, steps = thinking_of(row["response"], BY_MARKS), data.traces[place].steps
        for removal in plan_removals(place, own, options.shares, options.random_seeds, number, controls):
            remaining = remaining_text(thinking, steps, removal.removed)
            plan.append(removal)
            contexts.append(answer_context(row["problem"], row["response"], remaining, tokenizer))
    rooms = [data.rooms[removal.trace] for removal in plan]
    written = generate_answers(
        network, tokenizer, contexts, rooms=rooms, batch_size=options.batch_size, progress=progress
    )
    references = [data.rows[removal.trace][1]["reference"] for removal in plan]
    # A truncated text is no final answer, though a number in it may happen to be the right one.
    texts = (answer.text if answer.finished else None for answer in written)
    verdicts = pool.verify(zip(texts, references, strict=True))
    return [
        Reanswer(
            removal,
            removed_share(data.traces[removal.trace].spans, removal.removed),
            removed_essential(data.labels[removal.trace], removal.removed),
            answer,
            verdict,
        )
        for removal, answer, verdict in zip(plan, written, verdicts, strict=True)
    ]


def _records(rows: Sequence[NumberedRow], answers: Sequence[Reanswer]) -> Iterator[dict[str, Any]]:
    for one in answers:
        number, row = rows[one.removal.trace]
        yield {
            "id": row.get("id", number),
            "row": number,
            "arm": one.removal.arm,
            "share": one.removal.share,
            "seed": one.removal.seed,
            "removed": list(one.removal.removed),
            "answer": one.answer.text,
            "answer_tokens": one.answer.tokens,
            "finished": one.answer.finished,
            "verdict": one.verdict.value,
        }
