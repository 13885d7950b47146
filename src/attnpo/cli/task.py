"""`attnpo task`: write problems and labelled over-thinking traces of the built-in task."""

from __future__ import annotations

import argparse
import json
import os
import sys

from attnpo.errors import InputError

DESCRIPTION = """\
Write problems of the built-in task, each with a response that thinks too long: essential steps, false starts, checks
that find an error, useless checks, restatements, alternatives, recaps. Every step is labelled
("steps": [{"start", "end", "essential", "kind", "role"}, ...]) and every response ends with the right answer.

--redundancy makes the traces longer. The same seed, split, difficulty and redundancy give the same rows, and the first
rows do not depend on --n. The two splits share neither numbers nor combinations of people and things.

--repairs writes rows for the cold start of --credit iop: "wrong" is a response with an undetected error, "response" the
same one with the error repaired, "anchor" another right response."""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n", type=int, required=True, metavar="N", help="number of rows")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="(default: 0)")
    parser.add_argument("--split", choices=("train", "test"), default="train", help="(default: train)")
    parser.add_argument(
        "--difficulty",
        metavar="D|LOW-HIGH",
        help="from 1 (two operations, numbers up to 50) to 5 (five operations, numbers up to 200); default: 1-4",
    )
    parser.add_argument(
        "--redundancy",
        type=float,
        metavar="R",
        help="mean number of redundant steps per trace, spread over it; real traces have 20 to 40 (default: about 5, "
        "few of each kind)",
    )
    parser.add_argument(
        "--sentences",
        choices=("few", "many"),
        help="number of sentences per kind of redundant step (default: few; many with --redundancy)",
    )
    parser.add_argument("--repairs", action="store_true", help="pairs of a wrong response and its repair")
    parser.add_argument("-o", "--output", metavar="OUT.jsonl", help="where to write (.gz to compress; default: print)")


def run(args: argparse.Namespace) -> None:
    from attnpo.data.jsonl import write_jsonl
    from attnpo.task.dataset import iterate_dataset, iterate_repairs
    from attnpo.task.problems import parse_difficulty
    from attnpo.task.traces import redundant_style

    difficulty = parse_difficulty(args.difficulty, "difficulty")
    if args.repairs:
        if args.redundancy is not None or args.sentences is not None:
            raise InputError("options --redundancy and --sentences: not allowed with --repairs (fixed style)")
        rows = iterate_repairs(args.n, args.seed, args.split, difficulty)
    else:
        style = redundant_style(args.redundancy, args.sentences)
        rows = iterate_dataset(args.n, args.seed, args.split, difficulty, style)
    if args.output is not None:
        print(f"{write_jsonl(args.output, rows)} problems: {args.output}", file=sys.stderr)
        return
    try:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, for example `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
