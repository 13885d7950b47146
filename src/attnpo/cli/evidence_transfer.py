"""`attnpo evidence transfer`: do heads found on easy problems serve on hard ones."""

from __future__ import annotations

import argparse

from attnpo.cli.evidence_options import LEAVES, add_common, check_common, progress_bar

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
    from attnpo.evidence.figures import draw_transfer
    from attnpo.evidence.output import check_folder, print_table, write_evidence
    from attnpo.evidence.probing import correlation, load, read_file, score_file
    from attnpo.evidence.transfer import transfer_table

    check_common(args)
    files, folder = [read_file(args.easy), read_file(args.hard)], check_folder(args.output)
    loaded = load(args.model)
    scores = []
    for name, file in zip(("easy", "hard"), files, strict=True):
        with progress_bar(name) as progress:
            options = {"batch_size": args.batch_size, "max_length": args.max_length, "progress": progress}
            scores.append(score_file(loaded, file, **options))
    easy, hard = scores
    table = transfer_table(easy, hard, args.top, (args.easy, args.hard))
    write_evidence(folder, table, draw_transfer(table, easy.table, hard.table))
    title = f"heads from easy to hard: the best {args.top}"
    note = f"Pearson correlation of all heads' accuracies, easy and hard: {correlation(easy.table, hard.table):.3f}"
    print_table(table, title, [note, "essential, redundant: mean score of such steps; 1 is uniform attention"])
