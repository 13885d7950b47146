"""The removal test: does the model still answer when the steps its heads look at, or those they pass over, are gone?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpo.attention.heads import Head, check_heads, load_heads, warn_of_other_model
from attnpo.data.traces import write_jsonl
from attnpo.evidence.answering import answer_context, generate_answers
from attnpo.evidence.output import Table, check_folder, write_evidence
from attnpo.evidence.removal import NOTHING, plan_removals, remaining_text, removed_essential, removed_share
from attnpo.evidence.removal_figure import draw_removal
from attnpo.evidence.removal_table import Reanswer, accuracy_table, difference_table
from attnpo.evidence.removal_traces import Options, UsedTraces, choose_traces, read_rows
from attnpo.models import resolve_model
from attnpo.probe.labelled import NumberedRow, longest
from attnpo.probe.prepare import load_model
from attnpo.probe.trace_scores import heads_file, score_prepared
from attnpo.rewards.pool import VerifierPool
from attnpo.steps.response import thinking_of

ANSWERS, DIFFERENCES = "answers.jsonl.gz", "differences.csv"


@dataclass(frozen=True)
class Outcome:
    """Accuracies, paired differences, every answer; the heads; rows used or left out; tokens an answer may have."""

    table: Table
    differences: Table
    answers: list[Reanswer]
    heads: list[Head]
    counts: Counter[str]
    room: int

    @property
    def right(self) -> int:
        """Traces whose answer is right with nothing removed."""
        return sum(one.removal.arm == NOTHING and one.right == 1 for one in self.answers)


def run_removal(
    source: str | Path,
    folder: str | Path,
    *,
    model: str | None = None,
    heads: str | Path | None = None,
    options: Options | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Score the steps of the traces in `source`, take steps out, let the model answer again, verify the answers.

    Writes into `folder`: table.csv, table.md, figure.png, differences.csv and answers.jsonl.gz. progress: called with
    (contexts answered, all). Raises InputError for bad files, rows, heads or models, and where no row can be used.
    """
    options = options or Options()
    target, name = check_folder(folder), resolve_model(model)
    head_file = heads_file(name, heads)
    chosen = load_heads(head_file)
    rows = read_rows(source, options.lexicon)
    with VerifierPool() as pool:
        unreadable = pool.validate_references([row["reference"] for _, row in rows if row.get("reference")])
        network, tokenizer = load_model(name)
        check_heads(network.config, chosen)
        warn_of_other_model(head_file, name)
        limit = longest(network.config.get_text_config(decoder=True), options.max_length)
        data = choose_traces(source, rows, tokenizer, unreadable=unreadable, longest=limit, options=options)
        answers = _answer(network, tokenizer, data, chosen, pool, options, progress)
    outcome = Outcome(
        accuracy_table(answers, data.problems),
        difference_table(answers, data.problems),
        answers,
        chosen,
        data.counts,
        data.room,
    )
    write_jsonl(target / ANSWERS, _records(data.rows, answers))
    (target / DIFFERENCES).write_text(outcome.differences.csv(), encoding="utf-8")
    title = f"{model or 'overthinker'}: answers without some of the steps ({data.counts['used']} traces)"
    write_evidence(target, outcome.table, draw_removal(outcome.table, title=title))
    return outcome


def _answer(
    network: Any,
    tokenizer: Any,
    data: UsedTraces,
    heads: Sequence[Head],
    pool: VerifierPool,
    options: Options,
    progress: Callable[[int, int], None],
) -> list[Reanswer]:
    """Every answer of the test, trace by trace."""
    plan, contexts = [], []
    for place, scores in enumerate(score_prepared(network, data.traces, heads, options.batch_size)):
        assert scores is not None
        number, row = data.rows[place]
        thinking, steps = thinking_of(row["response"]), data.traces[place].steps
        for removal in plan_removals(place, scores, options.shares, options.random_seeds, number):
            left = remaining_text(thinking, steps, removal.removed)
            plan.append(removal)
            contexts.append(answer_context(row["problem"], row["response"], left, tokenizer))
    written = generate_answers(
        network, tokenizer, contexts, max_new_tokens=data.room, batch_size=options.batch_size, progress=progress
    )
    references = [data.rows[removal.trace][1]["reference"] for removal in plan]
    # What was cut off is no final answer, though a number in it may happen to be the right one.
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
