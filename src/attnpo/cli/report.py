"""`attnpo report RUN… -o FILE.html`"""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Write one HTML page that opens anywhere without a network, from training runs, evaluations and files of
`attnpo trim`, in any mixture. What the page shows is described in docs/report.md."""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="a run folder, an output folder of `attnpo eval` or of `attnpo evidence stability`, `attnpo trim` file",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.html", help="the page to write")


def run(args: argparse.Namespace) -> None:
    from attnpo.report.page import write_report

    size = write_report(args.runs, args.output)
    print(f"{args.output}: {size / 1e6:.1f} MB, open it in any browser (no network needed)")
