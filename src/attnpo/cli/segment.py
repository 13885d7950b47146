"""`attnpo segment`: add reasoning steps to traces."""

from __future__ import annotations

import argparse
import sys

from attnpo.cli.progress import say

DESCRIPTION = """\
Split the thinking part of every response into reasoning steps and write the rows with a field "steps":
[{"start", "end", "kind"}, ...]. Offsets are characters of the thinking text: the response up to the mark that ends its
thinking (</think> or another format's), without the opening mark at its start. kind is
confused, forward, backward or answer. Other fields pass through unchanged.

Where a row has steps already, what they carry besides start, end and kind ("essential", "score") moves to the new
steps if all spans are equal. If the spans differ, the row is refused, because its labels belong to other spans."""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN.jsonl", help="traces, one JSON object per line (.gz is read too)")
    parser.add_argument("-o", "--output", metavar="OUT.jsonl", required=True, help="where to write (.gz to compress)")
    parser.add_argument(
        "--lexicon",
        choices=("paper", "released"),
        default="paper",
        help="phrase lists; released: with the slip of the published script (default: paper)",
    )
    parser.add_argument(
        "--thinking-format",
        metavar="NAME|FILE.yaml",
        default="auto",
        help="how the responses mark their thinking (docs/thinking-formats.md; default: auto, "
        "the marks of each response)",
    )
    parser.add_argument(
        "--discard-labels",
        action="store_true",
        help="replace existing steps even where their labels do not fit the new spans",
    )


def run(args: argparse.Namespace) -> None:
    from attnpo.traces.steps import segment_file

    rows, steps = segment_file(
        args.input,
        args.output,
        args.lexicon,
        discard_labels=args.discard_labels,
        thinking_format=args.thinking_format,
        say=say,
    )
    print(f"{rows} traces, {steps} steps: {args.output}", file=sys.stderr)
