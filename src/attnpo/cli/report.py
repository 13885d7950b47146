"""`attnpo report RUN… -o FILE.html`: write an HTML page from runs."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

DESCRIPTION = """\
Write one HTML page that opens without a network, from any combination of training runs, evaluations (also of other
projects: files of Every Eval Ever, lighteval's details) and files of `attnpo trim` and `attnpo score`. docs/report.md
describes the page."""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="a run folder, an output folder of `attnpo eval` or of `attnpo evidence stability`, a file of "
        "`attnpo trim` or `attnpo score`, a .json or _samples.jsonl of Every Eval Ever, a details_*.parquet of "
        "lighteval",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.html", help="the page to write")

    parser.add_argument(
        "--watch",
        nargs="?",
        const=30.0,
        type=float,
        metavar="SECONDS",
        help="write the page again when a run has new records, checked every SECONDS (default: 30); Ctrl-C stops",
    )


def run(args: argparse.Namespace) -> None:
    from attnpo.errors import InputError

    if args.watch is not None and not args.watch > 0:
        raise InputError(f"option --watch: found {args.watch:g}, expected a number of seconds")
    size = _write(args)
    print(f"{args.output}: {size / 1e6:.1f} MB, open it in any browser (no network needed)")
    if args.watch is not None:
        _watch(args)


def _write(args: argparse.Namespace) -> int:
    from attnpo.report.page import write_report

    return write_report(args.runs, args.output)


def _watch(args: argparse.Namespace) -> None:
    """Write the page again after every change of a run's records, until Ctrl-C."""
    print(f"watching every {args.watch:g} s; reload the page to see more; Ctrl-C stops", flush=True)
    from attnpo.errors import InputError

    before, printed = _changed(args.runs), ""
    try:
        while True:
            time.sleep(args.watch)
            now = _changed(args.runs)
            if now == before:
                continue
            try:
                _write(args)
            except InputError as error:  # a file may be partly written, and complete at the next check
                if str(error) != printed:
                    print(f"the page was not updated: {error}", file=sys.stderr, flush=True)
                printed = str(error)
            else:
                before, printed = now, ""
    except KeyboardInterrupt:
        if _changed(args.runs) != before:
            _write(args)


def _changed(runs: list[Path]) -> list[tuple[str, int]]:
    """The files that the page is made from, each with the time of its last change."""
    names = ("metrics.jsonl", "evaluations.jsonl", "warnings.jsonl", "config.yaml", "heads.json", "results.json")
    files = [run / name for run in runs for name in (*names, "table.csv", "questions.jsonl", "rollouts")]
    # An evaluation appends to its files; a training run writes new ones.
    files += [*runs, *(file for run in runs for file in sorted((run / "samples").glob("*.jsonl")))]
    return [(str(file), file.stat().st_mtime_ns) for file in files if file.exists()]
