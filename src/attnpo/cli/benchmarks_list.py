"""`attnpo benchmarks list`: the benchmarks and where they come from."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="name the file of this folder that is used instead of the Hub"
    )


def run(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from attnpo.errors import InputError
    from attnpo.evaluation.benchmarks import BENCHMARKS
    from attnpo.evaluation.load import check_data_dir, find_file

    if args.data_dir is not None:
        check_data_dir(args.data_dir)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("name", "kind"):
        table.add_column(column, no_wrap=True)
    for column in ("rows", "samples"):
        table.add_column(column, justify="right")
    table.add_column("source", overflow="fold")
    table.add_column("licence", no_wrap=True)
    for benchmark in BENCHMARKS.values():
        source = benchmark.hub_id or "this package"
        if benchmark.hub_id and args.data_dir is not None:
            try:
                source = find_file(benchmark, args.data_dir).name
            except InputError:
                source = "no file"
        licence = benchmark.licence + (", gated" if benchmark.gated else "")
        table.add_row(benchmark.name, benchmark.kind, str(benchmark.rows), str(benchmark.samples), source, licence)
    Console().print(table)
