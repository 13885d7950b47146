"""`attnpo segment`: add reasoning steps to traces, or check how well a lexicon fits them."""

from __future__ import annotations

import argparse
import sys

from attnpo.cli.trace_options import add_format, add_input, add_lexicon, to_stderr

DESCRIPTION = """\
Split the thinking part of every response into reasoning steps and write the rows with a field "steps":
[{"start", "end", "kind"}, ...]. Offsets are characters of the thinking text: the response up to the mark that ends its
thinking (</think> or another format's), without the opening mark at its start. kind is
confused, forward, backward or answer. Other fields are copied unchanged.

If a row already has steps, their fields other than start, end and kind ("essential", "score") are copied to the new
steps, provided all spans are equal. If the spans differ, the row is an error, because its labels belong to other spans.

--stats instead prints for every model ("model" of a row) the number and size of the steps, to check whether the
lexicon fits. --suggest writes a lexicon of the phrases at the start of the model's paragraphs, to be edited."""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_input(parser)
    parser.add_argument("-o", "--output", metavar="OUT", help="where to write (.gz to compress)")
    add_lexicon(parser, "phrase lists")
    add_format(parser)
    parser.add_argument(
        "--discard-labels",
        action="store_true",
        help="replace existing steps even if their labels do not fit the new spans",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--stats", action="store_true", help="print steps per trace and their size, by model")
    instead.add_argument("--suggest", action="store_true", help="propose a lexicon from the traces' own paragraphs")
    parser.add_argument("--tokenizer", metavar="M", help="with --stats: count tokens too, with this model's tokenizer")


def run(args: argparse.Namespace) -> None:
    from attnpo.errors import InputError

    if args.tokenizer is not None and not args.stats:
        raise InputError("--tokenizer needs --stats")
    if args.stats:
        _stats(args)
        return
    if args.output is None:
        raise InputError("option -o: expected where to write" + (" the lexicon, a JSON file" if args.suggest else ""))
    if args.suggest:
        _suggest(args)
        return
    from attnpo.traces.steps import segment_file

    rows, steps = segment_file(
        args.input,
        args.output,
        args.lexicon,
        discard_labels=args.discard_labels,
        origin=args.origin,
        thinking_format=args.thinking_format,
        say=to_stderr,
    )
    print(f"{rows} traces, {steps} steps: {args.output}", file=sys.stderr)


def _suggest(args: argparse.Namespace) -> None:
    from attnpo.traces.fit import suggest_file

    openers = suggest_file(args.input, args.output, args.origin, args.thinking_format, to_stderr)
    for opener in openers:
        times = f"{opener.count} paragraphs of {opener.traces} traces, {opener.lift:.0f} × chance"
        print(f"{opener.list_name:10}  {opener.phrase}  ({times})")
    print(f"{len(openers)} phrases: {args.output}. Edit it, then --lexicon {args.output}", file=sys.stderr)


def _stats(args: argparse.Namespace) -> None:
    from attnpo.traces.fit import fits_of_file, table_of, token_counter

    count = None if args.tokenizer is None else token_counter(args.tokenizer)
    fits = fits_of_file(args.input, args.lexicon, count, args.origin, args.thinking_format, to_stderr)
    table = table_of(fits)
    print(table.markdown(), end="")
    for model, fit in fits.items():
        if warning := fit.warning(args.lexicon):
            print(f"{model}: {warning}", file=sys.stderr)
    if args.output is not None:
        from attnpo.traces.fit import write_table

        write_table(table, args.output)
