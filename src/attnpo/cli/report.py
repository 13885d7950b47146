"""`attnpo report RUN… -o FILE.html`"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

DESCRIPTION = """\
Write one HTML page that opens anywhere without a network, from training runs, evaluations (those of others too: files
of Every Eval Ever, lighteval's details) and files of `attnpo trim` and `attnpo score`, in any mixture. What the page
shows is described in docs/report.md."""

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
        help="write the page again whenever a run has got on, looked at every so often (default: 30); Ctrl-C ends it",
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
    """Write the page anew after every change of a run's records, until Ctrl-C."""
    print(f"watching every {args.watch:g} s; reload the page to see more; Ctrl-C ends it", flush=True)
    from attnpo.errors import InputError

    before, said = _changed(args.runs), ""
    try:
        while True:
            time.sleep(args.watch)
            now = _changed(args.runs)
            if now == before:
                continue
            try:
                _write(args)
            except InputError as error:  # a file may be in the middle of being written: the next look finds it whole
                if str(error) != said:
                    print(f"the page stays as it is: {error}", file=sys.stderr, flush=True)
                said = str(error)
            else:
                before, said = now, ""
    except KeyboardInterrupt:
        if _changed(args.runs) != before:
            _write(args)


def _changed(runs: list[Path]) -> list[tuple[str, int]]:
    """The files that a page is made of, each with the time of its last change."""
    names = ("metrics.jsonl", "evaluations.jsonl", "warnings.jsonl", "config.yaml", "heads.json", "results.json")
    files = [run / name for run in runs for name in (*names, "table.csv", "questions.jsonl", "rollouts")]
    # An evaluation adds lines to the files it has; a run of training writes new ones.
    files += [*runs, *(file for run in runs for file in sorted((run / "samples").glob("*.jsonl")))]
    return [(str(file), file.stat().st_mtime_ns) for file in files if file.exists()]
