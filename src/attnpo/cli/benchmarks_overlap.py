"""`attnpo benchmarks overlap`: training problems that are, or nearly are, problems of a benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path

SHOWN = 10
"""Pairs shown without -o."""

DESCRIPTION = """\
Compare every problem of a training set with every problem of the benchmarks: the same text; the same but for its
numbers; or one that holds at least half of a question's 8-word sequences. docs/benchmarks.md says how it is counted."""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", required=True, metavar="FILE", help="training problems, or a data set of the Hub")
    parser.add_argument("--split", default="train", help="of a data set of the Hub (default: train)")
    parser.add_argument("--problem_column", metavar="NAME", help="(default: problem, question or prompt)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the benchmarks' files (default: the Hub)")
    parser.add_argument("--benchmarks", metavar="A,B", help="(default: all; with --data-dir all that have a file)")
    parser.add_argument("-o", "--output", metavar="OUT.jsonl", help="write every pair with both texts")
    parser.add_argument("--strict", action="store_true", help="end with 1 if there is any overlap")


def run(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from attnpo.data.problems import PROBLEM_COLUMNS, find_column, load_rows
    from attnpo.data.traces import write_jsonl
    from attnpo.errors import InputError, RunError
    from attnpo.evaluation.contamination import find_overlaps
    from attnpo.evaluation.load import load_all

    loaded = load_all(args.benchmarks.split(",") if args.benchmarks else None, data_dir=args.data_dir)
    rows = load_rows(args.train, split=args.split)
    column = find_column(rows, args.problem_column, PROBLEM_COLUMNS, "problem", args.train)
    problems: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(column), str):
            raise InputError(f"{args.train}, row {number}: column {column!r} is {row.get(column)!r}, expected a text")
        problems[str(number)] = row[column]
    overlaps = list(find_overlaps(problems.items(), [q for item in loaded.values() for q in item.questions]))

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("benchmark")
    for heading in ("problems", "same", "numbers", "near"):
        table.add_column(heading, justify="right")
    for name, item in loaded.items():
        counts = [
            len({o.question.id for o in overlaps if o.question.benchmark == name and o.degree == degree})
            for degree in ("same", "numbers", "near")
        ]
        table.add_row(name, str(len(item.questions)), *map(str, counts))
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
    for record in records[:SHOWN]:
        line = f"{record['degree']:7} {record['benchmark']} {record['id']}: {args.train}, row {record['train_row']}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(records) > SHOWN:
        console.print(f"… and {len(records) - SHOWN} more pairs (-o writes them all)")
    if args.output:
        write_jsonl(args.output, records)
    if args.strict and records:
        raise RunError(f"{len(records)} pairs of {args.train} and the benchmarks overlap")
