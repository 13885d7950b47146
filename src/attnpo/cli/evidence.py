"""`attnpo evidence stability`, `transfer`, `heads` and `removal`: how far the heads can be trusted."""

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


LEAVES = "Leaves table.csv, table.md, figure.png and command.txt in the folder DIR."


def add_common(parser: argparse.ArgumentParser, *, model: bool = True, batch_size: int = 8) -> None:
    """The output folder, the model, and how it is run; batch_size: the default."""
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the folder to write (made if need be)")
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
    """InputError for numbers that cannot be."""
    if args.batch_size < 1:
        raise InputError(f"--batch-size is {args.batch_size}, expected at least 1")
    if args.max_length is not None and args.max_length < 1:
        raise InputError(f"--max-length is {args.max_length}, expected at least 1")
    if getattr(args, "top", 1) < 1:
        raise InputError(f"--top is {args.top}, expected at least 1")


def score_all_heads(args: argparse.Namespace, loaded: tuple[Any, Any], file: ReadFile, what: str) -> HeadScores:
    """All heads of a (model, tokenizer) on a file, as the common options say, with a bar called `what`."""
    from attnpo.heads.sets import score_file

    with progress_bar(what) as progress:
        return score_file(loaded, file, batch_size=args.batch_size, max_length=args.max_length, progress=progress)


STABILITY_DESCRIPTION = f"""\
Measure the step ranking accuracy of every head in each of several models along a training run, on the same labelled
traces, and correlate it with that in the first. The paper reports a Pearson correlation above 0.85 between before and
after reinforcement learning: heads found once stay good.

{LEAVES}"""

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
    tables, said = [], []
    for stage in stages:
        loaded = load(stage.model)
        check_number("--top", args.top, loaded[0])
        scores = score_all_heads(args, loaded, file, stage.name)
        del loaded  # one model in memory at a time
        tables.append(scores.table)
        said += notes(stage.name, scores)
    table = stability_table(stages, tables, args.top)
    write_evidence(folder, table, draw_stability(table, tables))
    explained = [
        "Pearson: with the first model, over all heads (95 % over problems); before: with the model before",
        f"first's: mean of the {args.top} heads that were best in the first model; kept: how many still are",
    ]
    explained.append(f"best {args.top} in the first model: {named_heads(tables[0].best(args.top))}")
    print_table(
        table,
        "step ranking accuracy of the heads along the run",
        [*explained, *said, f"written: {args.output}"],
    )


TRANSFER_DESCRIPTION = f"""\
Choose heads on one file of labelled traces (easy problems, on which labels are to be had) and measure them on another
(hard ones), beside heads chosen on the hard ones themselves and heads drawn at random.

{LEAVES}"""

TRANSFER_PARSER = {"description": TRANSFER_DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_transfer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("easy", metavar="EASY.jsonl", help="labelled traces that choose the heads")
    parser.add_argument("hard", metavar="HARD.jsonl", help="labelled traces of other problems, to measure them on")
    parser.add_argument("--top", metavar="N", type=int, default=3, help="how many heads to choose (default: 3)")
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
Judge sets of heads by the mean of their scores, which is what training uses: the best N of all layers for several N,
the best of the early, middle and late layers, and as many heads drawn at random. Heads are chosen on one half of the
problems and measured on the other.

{LEAVES}"""

NUMBERS = (1, 2, 3, 5, 8, 16)

HEADS_PARSER = {"description": HEADS_DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_heads_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN.jsonl", help="labelled traces, as for `attnpo probe`")
    parser.add_argument(
        "--numbers", metavar="N", type=int, nargs="+", help="default: 1 2 3 5 8 16, as far as there are so many"
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
        f"best: chosen on the other half of the problems; random: 95 % of {RANDOM_DRAWS} sets lie in the interval",
        "essential, redundant: mean score of such steps; 1 is uniform attention",
    ]
    explained.append(f"best {args.top} on all traces: {named_heads(scores.table.best(args.top))}")
    print_table(table, "sets of heads", [*explained, *notes(args.input, scores), f"written: {args.output}"])


REMOVAL_DESCRIPTION = """\
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
        help="tokens of an answer (default: twice those of the trace's own, at least 64)",
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
