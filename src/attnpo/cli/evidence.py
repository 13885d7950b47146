"""`attnpo evidence stability`, `transfer`, `heads` and `removal`: measure how reliable the heads are."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attnpo.cli.trace_options import add_heads, add_lexicon, progress_bar
from attnpo.errors import InputError

if TYPE_CHECKING:
    from attnpo.heads.removal_run import Outcome
    from attnpo.heads.sets import HeadScores, ReadFile
    from attnpo.tables import Table


WRITES = "Writes table.csv, table.md, figure.png and command.txt to the folder DIR."


def add_common(parser: argparse.ArgumentParser, *, model: bool = True, batch_size: int = 8) -> None:
    """Add the output folder, the model and its limits; batch_size: the default."""
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the folder to write (created if missing)")
    if model:
        parser.add_argument(
            "--model", metavar="M", help="folder or Hub name of a causal language model (default: the overthinker)"
        )
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=batch_size, help=f"rows per forward (default: {batch_size})"
    )
    parser.add_argument(
        "--max-length", metavar="N", type=int, help="leave out rows with more tokens (default: what the model allows)"
    )


def check_common(args: argparse.Namespace) -> None:
    """Raises InputError for numbers out of range."""
    if args.batch_size < 1:
        raise InputError(f"--batch-size is {args.batch_size}, expected at least 1")
    if args.max_length is not None and args.max_length < 1:
        raise InputError(f"--max-length is {args.max_length}, expected at least 1")
    if getattr(args, "top", 1) < 1:
        raise InputError(f"--top is {args.top}, expected at least 1")


def score_all_heads(args: argparse.Namespace, loaded: tuple[Any, Any], file: ReadFile, what: str) -> HeadScores:
    """Score a file with all heads of a (model, tokenizer), with the common options and a progress bar named `what`."""
    from attnpo.heads.sets import score_file

    with progress_bar(what) as progress:
        return score_file(loaded, file, batch_size=args.batch_size, max_length=args.max_length, progress=progress)


STABILITY_DESCRIPTION = f"""\
Measure the step ranking accuracy of every head in each of several models along a training run, on the same labelled
traces, and correlate it with that in the first. The paper reports a Pearson correlation above 0.85 between before and
after reinforcement learning: heads found before training remain good.

{WRITES}"""

STABILITY_PARSER = {
    "description": STABILITY_DESCRIPTION,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}


def add_stability_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN.jsonl", help="labelled traces, as for `attnpo probe`")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--run",
        dest="folder",
        metavar="RUN",
        help="a run folder: its starting model and checkpoints",
    )
    which.add_argument("--models", metavar="M", nargs="+", help="folders or Hub names, in order; the first is the base")
    parser.add_argument("--top", metavar="N", type=int, default=3, help="heads of the first to follow (default: 3)")
    add_common(parser, model=False)


def run_stability(args: argparse.Namespace) -> None:
    from attnpo.errors import InputError
    from attnpo.heads.figures import draw_stability, print_table, write_evidence
    from attnpo.heads.sets import check_number, load, named_heads, notes, read_file
    from attnpo.heads.stability import check_stages, named, stability_table, stages_of_run
    from attnpo.tables import check_folder

    check_common(args)
    stages = stages_of_run(args.folder) if args.folder else named(args.models)
    if len(stages) < 2:
        raise InputError(f"--models: found {len(stages)}, expected at least 2 to compare")
    check_stages(stages)
    file, folder = read_file(args.input), check_folder(args.output)
    tables, remarks = [], []
    for stage in stages:
        loaded = load(stage.model)
        check_number("--top", args.top, loaded[0])
        scores = score_all_heads(args, loaded, file, stage.name)
        del loaded  # one model in memory at a time
        tables.append(scores.table)
        remarks += notes(stage.name, scores)
    table = stability_table(stages, tables, args.top)
    write_evidence(folder, table, draw_stability(table, tables))
    explained = [
        "Pearson: with the first model, over all heads (95 % over problems); before: with the previous model",
        f"first's: mean of the {args.top} heads that were best in the first model; kept: the number that still are",
    ]
    explained.append(f"best {args.top} in the first model: {named_heads(tables[0].best(args.top))}")
    print_table(
        table,
        "step ranking accuracy of the heads along the run",
        [*explained, *remarks, f"written: {args.output}"],
    )


TRANSFER_DESCRIPTION = f"""\
Choose heads on one file of labelled traces (easy problems, which can be labelled) and measure them on another (hard
ones), compared with heads chosen on the hard ones and heads drawn at random.

{WRITES}"""

TRANSFER_PARSER = {"description": TRANSFER_DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_transfer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("easy", metavar="EASY.jsonl", help="labelled traces that choose the heads")
    parser.add_argument("hard", metavar="HARD.jsonl", help="labelled traces of other problems, to test the heads")
    parser.add_argument("--top", metavar="N", type=int, default=3, help="number of heads to choose (default: 3)")
    add_common(parser)


def run_transfer(args: argparse.Namespace) -> None:
    from attnpo.heads.figures import draw_transfer, print_table, write_evidence
    from attnpo.heads.sets import check_number, load, named_heads, notes, of_other_problems, read_file, transfer_table
    from attnpo.heads.stability import correlation
    from attnpo.tables import check_folder

    check_common(args)
    files, folder = [read_file(args.easy), read_file(args.hard)], check_folder(args.output)
    loaded = load(args.model)
    check_number("--top", args.top, loaded[0])
    easy, whole = (
        score_all_heads(args, loaded, file, name) for name, file in zip(("easy", "hard"), files, strict=True)
    )
    hard = of_other_problems(whole, easy, args.hard)
    table = transfer_table(easy, hard, args.top, (args.easy, args.hard))
    write_evidence(folder, table, draw_transfer(table, easy.table, hard.table))
    alike, shared = correlation(easy.table, hard.table), len(whole.scores) - len(hard.scores)
    pairs = (("easy", easy), ("hard", hard))
    explained = [
        "Pearson correlation of all heads, easy and hard: " + ("undefined" if alike is None else f"{alike:.3f}"),
        "low, high: 95 % over problems, of the random row 95 % of the sets; scores: 1 is uniform attention",
        *(f"best {args.top}, {name}: {named_heads(own.table.best(args.top))}" for name, own in pairs),
        *notes(args.easy, easy),
        *([f"{args.hard}: {shared} traces left out (their problem is among the easy ones)"] if shared else []),
        *notes(args.hard, hard),
        f"written: {args.output}",
    ]
    print_table(table, f"heads from easy to hard: the best {args.top}", explained)


HEADS_DESCRIPTION = f"""\
Evaluate sets of heads by the mean of their scores, as in training: the best N of all layers for several N, the best of
the early, middle and late layers, and the same number of heads drawn at random. Heads are chosen on one half of the
problems and measured on the other.

{WRITES}"""

NUMBERS = (1, 2, 3, 5, 8, 16)

HEADS_PARSER = {"description": HEADS_DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_heads_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN.jsonl", help="labelled traces, as for `attnpo probe`")
    parser.add_argument(
        "--numbers", metavar="N", type=int, nargs="+", help="default: 1 2 3 5 8 16, up to the model's number of heads"
    )
    parser.add_argument("--top", metavar="N", type=int, default=3, help="heads per third of the layers (default: 3)")
    add_common(parser)


def run_heads(args: argparse.Namespace) -> None:
    from attnpo.heads.figures import draw_head_sets, print_table, write_evidence
    from attnpo.heads.sets import RANDOM_DRAWS, check_number, head_sets_table, load, named_heads, notes, read_file
    from attnpo.tables import check_folder

    check_common(args)
    file, folder = read_file(args.input), check_folder(args.output)
    loaded = load(args.model)
    check_number("--top", args.top, loaded[0])
    for number in args.numbers or ():
        check_number("--numbers", number, loaded[0])
    scores = score_all_heads(args, loaded, file, "scoring")
    numbers = args.numbers or [number for number in NUMBERS if number <= len(scores.heads)]
    table = head_sets_table(scores, numbers, args.top, args.input)
    write_evidence(folder, table, draw_head_sets(table, scores.table))
    explained = [
        f"best: chosen on the other half of the problems; random: the interval contains 95 % of {RANDOM_DRAWS} sets",
        "essential, redundant: mean score of such steps; 1 is uniform attention",
    ]
    explained.append(f"best {args.top} on all traces: {named_heads(scores.table.best(args.top))}")
    print_table(table, "sets of heads", [*explained, *notes(args.input, scores), f"written: {args.output}"])


REMOVAL_DESCRIPTION = """\
Score the steps of each trace with the chosen heads, remove a share of them from the thinking text, and let the model
write its final answer again (greedily, after the closing tag). If the heads look at what the answer needs, removing
the highest-scored steps costs more right answers than removing the same number of random ones, and removing the
lowest-scored steps costs the least. It should also cost more than removing the last steps: many final answers need
little more than the last result, which heads that only look at nearby tokens find as well.

An answer is cut off at --max-answer tokens and then counts as none: with more tokens, a model whose steps were removed
thinks again after the tag, whichever steps they were.

--random-heads N also removes the steps that N random sets of other heads, of the same size, score highest and lowest,
as a control.

Rows need "problem", "response" and "reference"; existing steps are kept, other responses are segmented. With
"essential" in the steps the table also has the number of essential ones that each arm removes. DIR gets table.csv,
table.md, figure.png, differences.csv and every answer, answers.jsonl.gz."""

REMOVAL_PARSER = {"description": REMOVAL_DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_removal_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="TRACES.jsonl", help="traces with references (.gz is read too)")
    add_heads(parser)
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
        help="tokens of an answer (default: twice those of the trace's answer, at least 64)",
    )
    add_lexicon(parser)
    add_common(parser, batch_size=32)


def run_removal(args: argparse.Namespace) -> None:
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
    """The columns of the table that fit into a terminal; table.csv has all."""
    from attnpo.tables import Table

    rows = [(f"{arm} {share:g}", *figures) for arm, share, *figures, _ in table.rows]
    return Table(("removed", "steps", "tokens", "essential", "cut", "right", "low", "high"), rows)


def print_outcome(outcome: Outcome, where: str) -> None:
    """Print both tables and notes on how to read them."""
    from attnpo.heads.figures import print_table
    from attnpo.heads.table import FEWEST

    used = outcome.counts["used"]
    print_table(
        narrow(outcome.table), f"answers without some of the steps, by the scores of heads {_named(outcome.heads)}"
    )
    failed = Counter(one.verdict.value for one in outcome.answers if one.right is None)
    notes = [
        "steps, tokens, essential: number and shares that are removed; cut: answers that did not end",
        f"{outcome.right} of {used} traces are right with nothing removed; intervals: 95 %, problems resampled",
        *_random_heads_note(outcome),
        *_steps_not_needed_note(outcome),
        f"{len(outcome.answers)} answers of at most {_range(outcome.rooms)} tokens"
        + "".join(f", {count} not counted ({verdict.replace('_', ' ')})" for verdict, count in failed.items()),
        *(f"{count} rows left out: {why}" for why, count in outcome.counts.items() if why != "used"),
        *([f"{used} traces are few (fewer than {FEWEST}): the intervals are unreliable"] if used < FEWEST else []),
        f"written: {where}",
    ]
    print_table(outcome.differences, "the same traces in both arms", notes)


def _random_heads_note(outcome: Outcome) -> list[str]:
    return [f"random heads: {'; '.join(map(_named, outcome.random_heads))}"] if outcome.random_heads else []


def _steps_not_needed_note(outcome: Outcome) -> list[str]:
    """A warning if the accuracy without any step is nearly the same, which makes the test uninformative."""
    if (without := outcome.without_steps) is None:
        return []
    return [
        f"{without:.0%} right with everything removed: the arms tell little about the heads. Either the model hardly "
        "needs the steps, or it solves the problem again after the tag (a smaller --max-answer prevents that)"
    ]


def _named(heads: Sequence[tuple[int, int]]) -> str:
    return " ".join(f"{layer}.{head}" for layer, head in heads)


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}, by trace,"
