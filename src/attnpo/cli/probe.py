"""`attnpo probe`: find the attention heads of a model that look at essential steps."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from attnpo.cli.trace_options import OR_OF_MODEL, add_format, add_input, add_model, progress_bar, to_stderr

if TYPE_CHECKING:
    from attnpo.heads.find import Found

DESCRIPTION = """\
Measure how every attention head of a model ranks the steps of labelled traces, and write the best ones to a head file
for `attnpo train --heads` and `attnpo score --heads`.

A head's step ranking accuracy (SRA) is the share of pairs of an essential and a redundant step of a response in which
it scores the essential one higher; most heads are near 0.5, key-focus heads above 0.9. Labels are "essential": true,
false or null (not counted) in the steps of each row, as written by `attnpo label` and `attnpo task`. All heads are
read in one forward per batch. The same command continues an interrupted probe."""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}

FORMATS = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_input(parser, "labelled traces")
    parser.add_argument("-o", "--output", metavar="HEADS.json", required=True, help="the head file to write")
    add_model(parser)
    parser.add_argument("--top", metavar="N", type=int, default=3, help="number of heads to choose (default: 3)")
    parser.add_argument("--layers", metavar="L|LOW-HIGH", help="layers to read (default: all)")
    parser.add_argument("--max-traces", metavar="N", type=int, help="use the first N usable traces (default: all)")
    parser.add_argument("--batch-size", metavar="N", type=int, default=8, help="rows per forward (default: 8)")
    parser.add_argument(
        "--max-length", metavar="N", type=int, help="leave out rows with more tokens (default: what the model allows)"
    )
    add_format(parser, OR_OF_MODEL)
    parser.add_argument("--figure", metavar="FILE.png", help="also draw the map of heads (.png, .svg or .pdf)")


def run(args: argparse.Namespace) -> None:
    from attnpo.checks import parse_range
    from attnpo.heads.find import find_heads

    if args.figure is not None:  # checked before the work, not after it
        check_figure(args.figure)
    with progress_bar("probing") as progress:
        found = find_heads(
            args.input,
            args.output,
            model=args.model,
            top=args.top,
            layers=None if args.layers is None else parse_range(args.layers, "layers", "layer"),
            max_traces=args.max_traces,
            batch_size=args.batch_size,
            max_length=args.max_length,
            origin=args.origin,
            progress=progress,
            thinking_format=args.thinking_format,
            say=to_stderr,
        )
    print_found(found, args.output)
    if args.figure is not None:
        from attnpo.heads.figures import draw_head_map

        draw_head_map(found.table, found.heads, args.figure, title=f"{args.model or 'overthinker'}: key-focus heads")


def check_figure(name: str) -> None:
    """Raises InputError if the figure cannot be written there."""
    from attnpo.errors import InputError

    path = Path(name)
    if path.suffix not in FORMATS:
        raise InputError(f"--figure {name}: found {path.suffix or 'no ending'}, expected one of {', '.join(FORMATS)}")
    if not path.resolve().parent.is_dir():
        raise InputError(f"--figure {name}: the folder {path.resolve().parent} does not exist")


def print_found(found: Found, where: str) -> None:
    """Print the chosen heads with their figures, the left-out rows, and a warning if they do not separate the steps."""
    from rich.console import Console
    from rich.table import Table

    from attnpo.heads.table import ESSENTIAL, REDUNDANT, SEPARATES, too_few

    table, interval = found.table.mean(), found.table.intervals
    essential, redundant = found.table.mean(ESSENTIAL), found.table.mean(REDUNDANT)
    shown = Table(title=f"step ranking accuracy on {found.table.traces} traces", title_justify="left")
    for name in ("layer", "head", "SRA", "95 %", "essential", "redundant"):
        shown.add_column(name, justify="right")
    for layer, head in found.heads:
        # With a single problem, resampling gives no interval.
        bounds = "{:.3f} – {:.3f}".format(*interval[layer, head]) if found.table.problem_count > 1 else "–"
        values = f"{table[layer, head]:.3f}", bounds
        means = f"{essential[layer, head]:.2f}", f"{redundant[layer, head]:.2f}"
        shown.add_row(str(layer), str(head), *values, *means)
    console = Console()
    console.print(shown)
    console.print(
        "essential, redundant: mean score of such steps; 1 is uniform attention",
        style="dim",
        highlight=False,
    )
    held_out = found.table.held_out_accuracy(len(found.heads))
    if held_out is not None:
        console.print(f"chosen on one half of the problems, measured on the other: {held_out:.3f}", highlight=False)
    console.print(f"median of {len(table)} heads: {statistics.median(table.values()):.3f}", highlight=False)
    left_out = ", ".join(f"{count} left out ({reason})" for reason, count in found.counts.items() if reason != "used")
    print(f"{len(found.heads)} heads: {where}" + (f"; {left_out}" if left_out else ""), file=sys.stderr)
    few = too_few(found.table)
    if few is not None:
        print(f"attnpo probe: {few}", file=sys.stderr)
    if not found.separates:
        print(
            f"attnpo probe: not all of these heads separate the steps (SRA of at least {SEPARATES}, interval above "
            "0.5): training with them would rescale advantages at random",
            file=sys.stderr,
        )
