"""`attnpo evidence removal`: does the model still answer without the steps that its heads look at."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnpo.cli.evidence_options import add_common
from attnpo.cli.progress import progress_bar

if TYPE_CHECKING:
    from attnpo.heads.removal_run import Outcome
    from attnpo.tables import Table

DESCRIPTION = """\
Score the steps of each trace with the chosen heads, take a share of them out of the thinking text, and let the model
write its final answer again (greedily, behind the closing tag). If the heads look at what the answer needs, removing
the highest-scored steps costs more right answers than removing as many random ones, and removing the lowest-scored
steps costs the least. They should also cost more than the last steps: many final answers need little but the last
result, which heads that merely look at what is near find as well.

An answer is cut off at --max-answer tokens and then counts as none: with room enough, a model that misses its steps
thinks again behind the tag, whatever was removed.

--random-heads N removes the steps that N sets of as many other heads, drawn at random, score highest and lowest: what
the order of any heads would do.

Rows need "problem", "response" and "reference"; existing steps are kept, others are segmented. With "essential" in the
steps the table also says how many of the essential ones each arm took out. DIR gets table.csv, table.md, figure.png,
differences.csv and every single answer, answers.jsonl.gz."""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="TRACES.jsonl", help="traces with references (.gz is read too)")
    parser.add_argument(
        "--heads", metavar="HEADS.json", help="(layer, head) pairs (default: heads.json in the model's folder)"
    )
    parser.add_argument(
        "--shares", metavar="S,S…", default="0.25,0.5,0.75", help="shares of steps to remove (default: 0.25,0.5,0.75)"
    )
    parser.add_argument(
        "--random-seeds", metavar="N", type=int, default=3, help="random choices per trace and share (default: 3)"
    )
    parser.add_argument(
        "--random-heads", metavar="N", type=int, default=0, help="sets of random heads to compare with (default: 0)"
    )
    parser.add_argument("--max-traces", metavar="N", type=int, help="use the first N usable traces (default: all)")
    parser.add_argument(
        "--max-answer",
        metavar="N",
        type=int,
        help="tokens of an answer (default: twice those of the trace's own, at least 64)",
    )
    parser.add_argument(
        "--lexicon", choices=("paper", "released"), default="paper", help="phrase lists for rows without steps"
    )
    add_common(parser, batch_size=32)


def run(args: argparse.Namespace) -> None:
    from attnpo.heads.removal import Options
    from attnpo.heads.removal_run import run_removal

    options = Options(
        shares=parse_shares(args.shares),
        random_seeds=args.random_seeds,
        max_traces=args.max_traces,
        batch_size=args.batch_size,
        max_length=args.max_length,
        max_answer=args.max_answer,
        lexicon=args.lexicon,
        random_heads=args.random_heads,
    )
    outcome = run_removal(
        args.input, args.output, model=args.model, heads=args.heads, options=options, progress=progress_bar
    )
    print_outcome(outcome, args.output)


def parse_shares(text: str) -> tuple[float, ...]:
    """The numbers of a list such as "0.25,0.5". Raises InputError for anything else."""
    from attnpo.errors import InputError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--shares: found {text!r}, expected numbers such as 0.25,0.5,0.75") from None


def narrow(table: Table) -> Table:
    """The table in the width of a terminal; what it leaves out is in table.csv."""
    from attnpo.tables import Table

    rows = [(f"{arm} {share:g}", *figures) for arm, share, *figures, _ in table.rows]
    return Table(("removed", "steps", "tokens", "essential", "cut", "right", "low", "high"), rows)


def print_outcome(outcome: Outcome, where: str) -> None:
    """Both tables, and what has to be known to read them."""
    from attnpo.heads.figures import print_table
    from attnpo.heads.table import FEWEST

    used = outcome.counts["used"]
    print_table(
        narrow(outcome.table), f"answers without some of the steps, by the scores of heads {_named(outcome.heads)}"
    )
    failed = Counter(one.verdict.value for one in outcome.answers if one.right is None)
    notes = [
        "steps, tokens, essential: what is removed, in number and shares; cut: answers that did not end",
        f"{outcome.right} of {used} traces are right with nothing removed; intervals: 95 %, problems resampled",
        *_random_heads_note(outcome),
        *_says_little_note(outcome),
        f"{len(outcome.answers)} answers of at most {_range(outcome.rooms)} tokens"
        + "".join(f", {count} not counted ({verdict.replace('_', ' ')})" for verdict, count in failed.items()),
        *(f"{count} rows left out: {why}" for why, count in outcome.counts.items() if why != "used"),
        *([f"{used} traces are few (fewer than {FEWEST}): the intervals mean little"] if used < FEWEST else []),
        f"written: {where}",
    ]
    print_table(outcome.differences, "the same traces in both arms", notes)


def _random_heads_note(outcome: Outcome) -> list[str]:
    return [f"random heads: {'; '.join(map(_named, outcome.random_heads))}"] if outcome.random_heads else []


def _says_little_note(outcome: Outcome) -> list[str]:
    """What a test is worth in which the model does nearly as well without any step."""
    if (without := outcome.without_steps) is None:
        return []
    return [
        f"{without:.0%} right with everything removed: the arms say little about the heads. Either the model hardly "
        "needs the steps, or it works the problem out again behind the tag (a smaller --max-answer prevents that)"
    ]


def _named(heads: Sequence[tuple[int, int]]) -> str:
    return " ".join(f"{layer}.{head}" for layer, head in heads)


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}, by trace,"
