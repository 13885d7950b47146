"""`attnpo report RUN… -o FILE.html`"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="a run folder (several: one page that compares them)",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.html", help="the page to write")


def run(args: argparse.Namespace) -> None:
    from attnpo.report.page import write_report

    size = write_report(args.runs, args.output)
    print(f"{args.output}: {size / 1e6:.1f} MB, open it in any browser (no network needed)")
