"""`attnpo evidence transfer`: do heads found on easy problems serve on hard ones."""

from __future__ import annotations

import argparse

from attnpo.cli.evidence_options import LEAVES, add_common, check_common, score_all_heads

DESCRIPTION = f"""\
Choose heads on one file of labelled traces (easy problems, on which labels are to be had) and measure them on another
(hard ones), beside heads chosen on the hard ones themselves and heads drawn at random.

{LEAVES}"""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("easy", metavar="EASY.jsonl", help="labelled traces that choose the heads")
    parser.add_argument("hard", metavar="HARD.jsonl", help="labelled traces of other problems, to measure them on")
    parser.add_argument("--top", metavar="N", type=int, default=3, help="how many heads to choose (default: 3)")
    add_common(parser)


def run(args: argparse.Namespace) -> None:
    from attnpo.heads.figures import draw_transfer, print_table, write_evidence
    from attnpo.heads.scores import check_number, load, named_heads, notes, read_file
    from attnpo.heads.sets import of_other_problems, transfer_table
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
