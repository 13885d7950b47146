"""`attnpo compare RUN… -o DIR`: compare evaluations and training runs."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Compare runs: accuracy, tokens, pass@k, accuracy under token budgets, AES, and the significance of differences.

A RUN is a folder of `attnpo eval`; the run folder of `attnpo train`, of which the first and the last evaluation on
held-out problems are compared, called NAME@STEP; or an evaluation in the format of Every Eval Ever (.json, or its
_samples.jsonl) or lighteval (details_*.parquet). Only common problems of the runs are compared."""

EPILOG = """\
Writes comparison.json, table.csv, table.md and frontier.png (accuracy against length) to DIR."""

PARSER_OPTIONS = {
    "description": DESCRIPTION,
    "epilog": EPILOG,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="an evaluation or a training run")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument("--base", metavar="NAME", help="the run to compare the others with (default: the first)")
    parser.add_argument("--names", metavar="A,B,…", help="names of the runs, in their order (default: by folder)")
    text = "also write a model card (README.md, frontier.png) into the folder of the last run's model"
    parser.add_argument("--card", type=Path, metavar="MODEL", help=text)
    parser.add_argument("--budgets", metavar="N,N,…", help="token budgets (default: 2048,4096,8192,16384,32768)")
    for name, default, meaning in (
        ("length", 1, "tokens saved"),
        ("gain", 3, "accuracy gained"),
        ("loss", 5, "accuracy lost"),
    ):
        text = f"weight in AES of the share of {meaning} (default: {default})"
        parser.add_argument(f"--aes-{name}", metavar="W", type=float, default=default, help=text)


def run(args: argparse.Namespace) -> None:
    from attnpo.evaluation.aes import Weights
    from attnpo.evaluation.card import CARD, write_comparison_card
    from attnpo.evaluation.compare import FILES, compare, print_comparison, read_runs, write_comparison
    from attnpo.evaluation.metrics import BUDGETS
    from attnpo.evaluation.options import read_budgets
    from attnpo.tables import check_folder

    budgets = BUDGETS if args.budgets is None else read_budgets(args.budgets)
    weights = Weights(length=args.aes_length, gain=args.aes_gain, loss=args.aes_loss)
    names = [] if args.names is None else [name.strip() for name in args.names.split(",")]
    runs, notices = read_runs(args.runs, names)
    folder = check_folder(args.output)
    comparison = compare(runs, base=args.base, budgets=budgets, weights=weights, notices=notices)
    if args.card is not None:
        write_comparison_card(args.card, comparison)
    write_comparison(folder, comparison)
    print_comparison(comparison)
    print(f"written: {', '.join(FILES)} in {folder}")
    if args.card is not None:
        print(f"model card: {args.card / CARD}")
