"""`attnpo benchmarks overlap`: training problems that are, or nearly are, problems of a benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHOWN = 10
"""Pairs shown."""

DESCRIPTION = """\
Compare every problem of a training set with every problem of the benchmarks: the same text; the same but for its
numbers; or one that holds at least half of a question's 8-word sequences. docs/benchmarks.md says how it is counted."""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", required=True, metavar="FILE", help="training problems, or a data set of the Hub")
    parser.add_argument("--split", default="train", help="of a data set of the Hub (default: train)")
    parser.add_argument("--problem-column", metavar="NAME", help="(default: problem, question or prompt)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the benchmarks' files (default: the Hub)")
    parser.add_argument("--benchmarks", metavar="A,B", help="(default: all; with --data-dir all that have a file)")
    parser.add_argument("-o", "--output", metavar="OUT.jsonl", help="write every pair with both texts")
    parser.add_argument("--strict", action="store_true", help="end with 1 if there is any overlap")


def run(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from attnpo.data.jsonl import write_jsonl
    from attnpo.data.problems import load_rows
    from attnpo.errors import InputError, RunError
    from attnpo.evaluation.contamination import DEGREES, find_overlaps
    from attnpo.evaluation.load import load_all

    loaded = load_all(args.benchmarks.split(",") if args.benchmarks else None, data_dir=args.data_dir)
    rows = load_rows(args.train, split=args.split)
    column = _problem_column(rows, args.problem_column, args.train)
    problems: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(column), str):
            raise InputError(f"{args.train}, row {number}: column {column!r} is {row.get(column)!r}, expected a text")
        problems[str(number)] = row[column]
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
    for record in records[:SHOWN]:
        where = f"{record['benchmark']} {record['id']}, row {record['train_row']}"
        lines = f"{record['degree']:7} {record['share']:.2f}  {where}\n    {_excerpt(record['problem'])}"
        console.print(lines, markup=False, highlight=False, soft_wrap=True)
    if len(records) > SHOWN:
        console.print(f"… and {len(records) - SHOWN} more pairs (-o OUT.jsonl writes them all)")
    if args.output:
        write_jsonl(args.output, records)
    if args.strict and records:
        raise RunError(f"{len(records)} pairs of {args.train} and the benchmarks overlap")


def _problem_column(rows: Sequence[dict[str, Any]], asked: str | None, source: str) -> str:
    from attnpo.data.problems import PROBLEM_COLUMNS
    from attnpo.errors import InputError

    candidates = (asked,) if asked else PROBLEM_COLUMNS
    for name in candidates:
        if name in rows[0]:
            return name
    raise InputError(
        f"{source}: no problem column; expected {' or '.join(map(repr, candidates))}, found {', '.join(rows[0])}. "
        "Name it with --problem-column"
    )


def _choices(row: dict[str, Any]) -> list[str]:
    """The choices of a row in this package's form."""
    choices = row.get("choices")
    return [str(choice) for choice in choices] if isinstance(choices, list) else []


def _excerpt(text: str, width: int = 76) -> str:
    """The start of a text on one line, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"
