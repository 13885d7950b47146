"""`attnpo benchmarks list`: the benchmarks and where they come from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnpo.evaluation.benchmarks import Benchmark


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="name and count the files of this folder, not those of the Hub",
    )


def run(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from attnpo.evaluation.benchmarks import BENCHMARKS
    from attnpo.evaluation.load import check_data_dir

    if args.data_dir is not None:
        check_data_dir(args.data_dir)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("name", "kind"):
        table.add_column(column, no_wrap=True)
    for column in ("rows", "samples"):
        table.add_column(column, justify="right")
    table.add_column("source", no_wrap=True)  # an id is copied from here: the licence takes two lines instead
    table.add_column("licence")
    for benchmark in BENCHMARKS.values():
        source, rows = benchmark.hub_id or "this package", str(benchmark.rows)
        if args.data_dir is not None and benchmark.hub_id:
            source, rows = _in_folder(benchmark, args.data_dir)
        licence = benchmark.licence + (", gated" if benchmark.gated else "")
        table.add_row(benchmark.name, benchmark.kind, rows, str(benchmark.samples), source, licence)
    Console().print(table)


def _in_folder(benchmark: Benchmark, data_dir: Path) -> tuple[str, str]:
    """The file of a data folder that is used, and how many questions it has."""
    from attnpo.errors import InputError
    from attnpo.evaluation.load import find_file, load_file

    try:
        path = find_file(benchmark, data_dir)
    except InputError:
        return "no file", "–"
    try:
        return path.name, str(len(load_file(benchmark, path).questions))
    except InputError:
        return f"{path.name} (not usable)", "–"
