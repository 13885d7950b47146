"""`attnpo compare RUN… -o DIR`"""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Runs side by side: accuracy, tokens, pass@k, accuracy under token budgets, AES, and how sure the differences are.

A RUN is a folder of `attnpo eval`, or the run folder of `attnpo train`: then its first and its last evaluation on
held-out problems are compared, called NAME@STEP; or an evaluation of anyone in the form of Every Eval Ever (.json, or
its _samples.jsonl) or lighteval (details_*.parquet). Only problems that the runs have in common count."""

EPILOG = """\
It leaves comparison.json, table.csv, table.md and frontier.png (accuracy against length) in DIR."""

PARSER_OPTIONS = {
    "description": DESCRIPTION,
    "epilog": EPILOG,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="an evaluation or a training run")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument("--base", metavar="NAME", help="the run to measure the others against (default: the first)")
    parser.add_argument("--names", metavar="A,B,…", help="what to call the runs, in their order (default: by folder)")
    parser.add_argument("--budgets", metavar="N,N,…", help="token budgets (default: 2048,4096,8192,16384,32768)")
    for name, default, meaning in (
        ("length", 1, "tokens saved"),
        ("gain", 3, "accuracy won"),
        ("loss", 5, "accuracy lost"),
    ):
        text = f"weight in AES of the share of {meaning} (default: {default})"
        parser.add_argument(f"--aes-{name}", metavar="W", type=float, default=default, help=text)


def run(args: argparse.Namespace) -> None:
    from attnpo.evaluation.aes import Weights
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
    write_comparison(folder, comparison)
    print_comparison(comparison)
    print(f"written: {', '.join(FILES)} in {folder}")
