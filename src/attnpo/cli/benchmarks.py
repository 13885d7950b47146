"""`attnpo benchmarks list`, `check` and `overlap`: list the benchmarks, check the grader on every gold answer, and find
training problems that are equal or nearly equal to problems of a benchmark.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from attnpo.evaluation.benchmarks import Benchmark
    from attnpo.evaluation.gold import GoldCheck, RuleTally, Tally
    from attnpo.evaluation.load import Loaded


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="list and count the files of this folder instead of the Hub's",
    )


def run_list(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from attnpo.evaluation.benchmarks import BENCHMARKS
    from attnpo.evaluation.load import check_data_dir

    if args.data_dir is not None:
        check_data_dir(args.data_dir)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("name", "kind"):
        table.add_column(column, no_wrap=True)
    for column in ("rows", "samples"):
        table.add_column(column, justify="right")
    table.add_column("source", no_wrap=True)  # so that an id can be copied; the licence is wrapped instead
    table.add_column("licence")
    for benchmark in BENCHMARKS.values():
        source, rows = benchmark.hub_id or "this package", str(benchmark.rows)
        if args.data_dir is not None and benchmark.hub_id:
            source, rows = _in_folder(benchmark, args.data_dir)
        licence = benchmark.licence + (", gated" if benchmark.gated else "")
        table.add_row(benchmark.name, benchmark.kind, rows, str(benchmark.samples), source, licence)
    Console().print(table)


def _in_folder(benchmark: Benchmark, data_dir: Path) -> tuple[str, str]:
    """The benchmark's file in a data folder, and its number of questions."""
    from attnpo.errors import InputError
    from attnpo.evaluation.load import find_file, load_file

    try:
        path = find_file(benchmark, data_dir)
    except InputError:
        return "no file", "–"
    try:
        return path.name, str(len(load_file(benchmark, path).questions))
    except InputError:
        return f"{path.name} (not usable)", "–"


LEAST_READ = 0.995
"""Minimum share of the golds that must be right, for each way of spelling."""

CHECK_SHOWN = 5
"""Rows of each kind that are listed without --all."""

CHECK_DESCRIPTION = """\
Grade the gold answer of every problem, written as a model would write it and in some thirty other spellings: it must
be right. Grade near-misses of it, and the gold of another problem: they must be wrong. For every rule of the verifier,
count the verdicts that it changes. Exits with 1 if a gold answer is not graded right, a spelling is misread more often
than 1 time in 200, a near-miss is accepted, or a file cannot be used."""

CHECK_PARSER = {"description": CHECK_DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="a folder of JSONL files (default: the Hub)")
    parser.add_argument("--benchmarks", metavar="A,B", help="(default: all; with --data-dir all that have a file)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core, 8 at most)")
    parser.add_argument("--no-rules", action="store_true", help="do not count what each rule changes (half the time)")
    parser.add_argument("--all", action="store_true", help=f"list every row, not the first {CHECK_SHOWN} of a kind")


def run_check(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from attnpo.errors import RunError
    from attnpo.evaluation.gold import check_gold
    from attnpo.evaluation.grading import Grader

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("source", no_wrap=True)
    for column in ("rows", "right", "failed", "unchecked", "left out", "spellings", "misread", "misses", "accepted"):
        table.add_column(column, justify="right")
    ways: dict[str, Tally] = {}
    rules: dict[str, RuleTally] = {}
    notes: list[str] = []
    unusable: list[str] = []
    failures = accepted = 0
    with Grader(workers=args.workers) as grader:
        for name, loaded in _sources(args, notes, unusable):
            with _progress(name, len(loaded.questions)) as on_progress:
                check = check_gold(loaded.questions, grader, on_progress, with_rules=not args.no_rules)
            failures += len(check.failed)
            accepted += len(check.accepted)
            unchecked = sum(map(len, check.unchecked.values()))
            spelt, missed = (sum(tally.tried for tally in one.values()) for one in (check.ways, check.misses))
            cells = (check.rows, check.right, len(check.failed), unchecked, len(loaded.left_out), spelt)
            table.add_row(name, *map(str, (*cells, len(check.misread), missed, len(check.accepted))))
            notes += _notes(name, check, loaded.left_out, None if args.all else CHECK_SHOWN)
            _add(ways, check.ways)
            _add(rules, check.rules)
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    for error in unusable:
        console.print(f"\nnot usable: {error}", markup=False, highlight=False, soft_wrap=True)
    if rules:
        console.print(_rules_table(rules))
    problems = [f"{failures} gold answers are not graded right"] if failures else []
    if accepted:
        problems.append(f"{accepted} near-misses are accepted")
    problems += [
        f"{tally.tried - tally.good} of {tally.tried} spellings {way!r} are misread"
        for way, tally in ways.items()
        if tally.good < LEAST_READ * tally.tried
    ]
    if unusable:
        problems.append(f"{len(unusable)} {'file' if len(unusable) == 1 else 'files'} cannot be used")
    if problems:
        raise RunError(f"{' and '.join(problems)}; listed above")


def _add(sums: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add the tallies of one source to `sums`, field by field."""
    for name, tally in more.items():
        known = sums.setdefault(name, type(tally)())
        for part in fields(tally):
            setattr(known, part.name, getattr(known, part.name) + getattr(tally, part.name))


def _rules_table(rules: Mapping[str, RuleTally]) -> RichTable:
    from rich.table import Table

    table = Table(
        box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), title="verdicts that a rule changes"
    )
    for column in ("rule", "tried without it", "golds", "spellings", "misses", "of them to right"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for rule, tally in sorted(rules.items()):
        cells = (tally.tried, tally.golds, tally.respellings, tally.near_misses, len(tally.harmful))
        table.add_row(rule, *map(str, cells))
    return table


@contextmanager
def _progress(name: str, problems: int) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on a terminal; elsewhere print a line at the start of a source."""
    from rich.console import Console

    from attnpo.cli.trace_options import progress_bar

    if Console(stderr=True).is_terminal:
        with progress_bar(name, unit="problems") as on_progress:
            yield on_progress
    else:
        print(f"{name}: {problems} problems", file=sys.stderr, flush=True)
        yield None


def _sources(args: argparse.Namespace, notes: list[str], unusable: list[str]) -> Iterator[tuple[str, Loaded]]:
    """Every file, or every data set, with its name.

    A message about every unavailable data set is added to `notes`, about every file without a usable row to `unusable`.
    """
    from attnpo.errors import InputError
    from attnpo.evaluation.benchmarks import BENCHMARKS, get_benchmark
    from attnpo.evaluation.load import files_of, find_file, load_file, load_questions

    benchmarks = [get_benchmark(name) for name in args.benchmarks.split(",")] if args.benchmarks else None
    if args.data_dir and not benchmarks and not any(files_of(one, args.data_dir) for one in BENCHMARKS.values()):
        raise InputError(f"data folder {args.data_dir}: no file of any benchmark (docs/benchmarks.md names them)")
    for benchmark in benchmarks or BENCHMARKS.values():
        if args.data_dir is None or benchmark.hub_id is None:
            try:
                yield benchmark.name, load_questions(benchmark.name, data_dir=args.data_dir)
            except InputError as error:  # the others are checked even if a gated one is not available
                if benchmarks:
                    raise
                notes.append(f"\nnot available: {error}")
            continue
        paths = files_of(benchmark, args.data_dir)
        if benchmarks and not paths:
            find_file(benchmark, args.data_dir)  # raises an error with the expected names
        for path in paths:
            try:
                loaded = load_file(benchmark, path)
            except InputError as error:  # the others are checked even if a file is damaged
                unusable.append(str(error))
            else:
                yield path.name, loaded


def _notes(name: str, check: GoldCheck, left_out: Sequence[str], limit: int | None) -> list[str]:
    listed = [
        ("not graded right", check.failed),
        ("left out", left_out),
        ("misread", check.misread),
        ("near-misses accepted", check.accepted),
        ("golds of other problems accepted", check.foreign),
        *((f"near-misses right because of {rule!r}", tally.harmful) for rule, tally in check.rules.items()),
    ]
    notes = []
    for what, lines in listed:
        if lines:
            notes += [f"\n{name}, {what}:", *(f"  {line}" for line in lines[:limit])]
            if limit is not None and len(lines) > limit:
                notes.append(f"  … and {len(lines) - limit} more (--all lists them)")
    for reason, ids in check.unchecked.items():
        shown = ", ".join(ids[:limit]) + (" …" if limit is not None and len(ids) > limit else "")
        notes.append(f"\n{name}, not checked ({reason}): {len(ids)} rows: {shown}")
    return notes


OVERLAP_SHOWN = 10
"""Number of pairs that are printed."""

OVERLAP_DESCRIPTION = """\
Find problems of a training set that overlap with problems of the benchmarks: the same text; the same except for its
numbers; or one that contains at least half of a question's 8-word sequences. docs/benchmarks.md has the details."""

OVERLAP_PARSER = {"description": OVERLAP_DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_overlap_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", required=True, metavar="FILE", help="training problems, or a data set of the Hub")
    parser.add_argument("--split", default="train", help="of a data set of the Hub (default: train)")
    parser.add_argument("--problem-column", metavar="NAME", help="(default: problem, question or prompt)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the benchmarks' files (default: the Hub)")
    parser.add_argument("--benchmarks", metavar="A,B", help="(default: all; with --data-dir all that have a file)")
    parser.add_argument("-o", "--output", metavar="OUT.jsonl", help="write every pair with both texts")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there is any overlap")


def run_overlap(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from attnpo.data.columns import find_problem_column, read_problem
    from attnpo.data.jsonl import row_name, write_jsonl
    from attnpo.data.problems import load_rows
    from attnpo.errors import RunError
    from attnpo.evaluation.contamination import DEGREES, find_overlaps
    from attnpo.evaluation.load import load_all

    loaded = load_all(args.benchmarks.split(",") if args.benchmarks else None, data_dir=args.data_dir)
    rows = load_rows(args.train, split=args.split)
    column = find_problem_column(rows, args.train, args.problem_column, "--problem-column")
    problems = {
        str(number): read_problem(row, column, row_name(args.train, number))[1]
        for number, row in enumerate(rows, start=1)
    }
    train = ((id_, text, _choices(row)) for (id_, text), row in zip(problems.items(), rows, strict=True))
    overlaps = list(find_overlaps(train, [q for item in loaded.values() for q in item.questions]))
    overlaps.sort(key=lambda overlap: (DEGREES.index(overlap.degree), -overlap.share))
    worst: dict[tuple[str, str], str] = {}
    for overlap in overlaps:
        worst.setdefault((overlap.question.benchmark, overlap.question.id), overlap.degree)

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("benchmark")
    for heading in ("problems", *DEGREES):
        table.add_column(heading, justify="right")
    for name, item in loaded.items():
        degrees = [degree for (benchmark, _), degree in worst.items() if benchmark == name]
        table.add_row(name, str(len(item.questions)), *(str(degrees.count(degree)) for degree in DEGREES))
    console = Console()
    console.print(table)
    records = [
        {
            "degree": overlap.degree,
            "share": round(overlap.share, 3),
            "benchmark": overlap.question.benchmark,
            "id": overlap.question.id,
            "problem": overlap.question.problem,
            "train_row": int(overlap.train_id),
            "train_problem": problems[overlap.train_id],
        }
        for overlap in overlaps
    ]
    if records:
        console.print(f"\nWorst first, rows of {args.train}:", markup=False, highlight=False, soft_wrap=True)
    for record in records[:OVERLAP_SHOWN]:
        where = f"{record['benchmark']} {record['id']}, row {record['train_row']}"
        lines = f"{record['degree']:7} {record['share']:.2f}  {where}\n    {_excerpt(record['problem'])}"
        console.print(lines, markup=False, highlight=False, soft_wrap=True)
    if len(records) > OVERLAP_SHOWN:
        console.print(f"… and {len(records) - OVERLAP_SHOWN} more pairs (-o OUT.jsonl writes them all)")
    if args.output:
        write_jsonl(args.output, records)
    if args.strict and records:
        raise RunError(f"{len(records)} pairs of {args.train} and the benchmarks overlap")


def _choices(row: dict[str, Any]) -> list[str]:
    """The choices of a row in this package's format."""
    choices = row.get("choices")
    return [str(choice) for choice in choices] if isinstance(choices, list) else []


def _excerpt(text: str, width: int = 76) -> str:
    """The start of a text on one line, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"
