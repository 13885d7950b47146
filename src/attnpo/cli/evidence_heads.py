"""`attnpo evidence heads`: how many heads, of which layers, against heads drawn at random."""

from __future__ import annotations

import argparse

from attnpo.cli.evidence_options import LEAVES, add_common, check_common, score_all_heads

DESCRIPTION = f"""\
Judge sets of heads by the mean of their scores, which is what training uses: the best N of all layers for several N,
the best of the early, middle and late layers, and as many heads drawn at random. Heads are chosen on one half of the
problems and measured on the other.

{LEAVES}"""

NUMBERS = (1, 2, 3, 5, 8, 16)

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN.jsonl", help="labelled traces, as for `attnpo probe`")
    parser.add_argument(
        "--numbers", metavar="N", type=int, nargs="+", help="default: 1 2 3 5 8 16, as far as there are so many"
    )
    parser.add_argument("--top", metavar="N", type=int, default=3, help="heads per third of the layers (default: 3)")
    add_common(parser)


def run(args: argparse.Namespace) -> None:
    from attnpo.heads.figures import draw_head_sets, print_table, write_evidence
    from attnpo.heads.scores import check_number, load, named_heads, notes, read_file
    from attnpo.heads.sets import RANDOM_DRAWS, head_sets_table
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
