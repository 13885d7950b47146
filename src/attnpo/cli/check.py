"""`attnpo check MODEL [DATA]`: check before a run that a model is supported and, with data, whether it would learn."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Without data: print the model's thinking format, prompts and end tokens, whether the lexicon finds steps in its
responses, which layers can be scored, and whether scores agree with eager attention on its own tokens.

With data: answer a few problems several times and print the expected figures of a run with this model and these
problems: responses cut off, not closed, not judged, wrong and right; problems with signal; steps per response; tokens
per second and the time for sampling; and what to change. Ends with yes (code 0) or no (code 1)."""

PARSER_OPTIONS = {
    "description": DESCRIPTION,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "epilog": "Every option of `attnpo train` may follow: --max_completion_length 4096, --prompt_template TEXT, …; "
    "without data --max_completion_length, --thinking_format and --lexicon.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a shipped model, a folder, or a name on the Hub")
    parser.add_argument(
        "data", nargs="?", metavar="DATA", help="problems, as --dataset_name of `attnpo train`; task: the built-in ones"
    )
    parser.add_argument("--problems", type=int, default=8, metavar="N", help="problems to answer (default: 8)")
    parser.add_argument("--responses", type=int, default=4, metavar="G", help="responses to each (default: 4)")
    parser.add_argument("-o", "--output", type=Path, metavar="RUN.yaml", help="write a configuration to start from")
    parser.set_defaults(takes_any_option=True)


def run(args: argparse.Namespace) -> None:
    if args.data is None or args.data.startswith("--"):
        words = [*([] if args.data is None else [args.data]), *args.rest]
        _check_model(args.model, words, output=args.output)
        return
    from attnpo.errors import InputError
    from attnpo.training.preflight import check

    for option, least in (("problems", 1), ("responses", 2)):
        if getattr(args, option) < least:
            raise InputError(f"option --{option}: found {getattr(args, option)}, expected at least {least}")
    counts = {"problems": args.problems, "responses": args.responses}
    check(args.model, args.data, **counts, output=args.output, more=args.rest)


def _check_model(model: str, words: list[str], *, output: Path | None) -> None:
    """The check without data.

    Raises:
        InputError: an option that needs data, or a model that cannot be loaded.
        RunError: credit per step is impossible with this model; the message has the reason.
    """
    from rich.console import Console
    from rich.table import Table

    from attnpo.errors import InputError, RunError
    from attnpo.models.loading import find_model, usual_device, usual_dtype
    from attnpo.traces.model_check import check_model

    parser = argparse.ArgumentParser(prog="attnpo check MODEL", add_help=False, exit_on_error=False)
    parser.add_argument("--max_completion_length", "--max-new-tokens", type=int, default=1024)
    parser.add_argument("--thinking_format", "--thinking-format", default="auto")
    parser.add_argument("--lexicon", default="paper")
    try:
        options, rest = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise InputError(f"attnpo check: {error}") from None
    if rest or output is not None:
        raise InputError(
            f"attnpo check {model}: found {' '.join(rest) or '-o'} without data, expected DATA after the model, or "
            "only --max_completion_length, --thinking_format and --lexicon"
        )
    source, device = find_model(model), usual_device()
    tokenizer, network = source.tokenizer(), source.network(device=device, dtype=usual_dtype(device))
    console = Console()
    console.print(f"answering a few problems with {model} …", markup=False)
    found = check_model(
        network,
        tokenizer,
        lexicon=options.lexicon,
        thinking_format=options.thinking_format,
        max_new_tokens=options.max_completion_length,
    )
    table = Table(show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for name, value in found.lines.items():
        table.add_row(name, value)
    console.print(table, markup=False)
    console.print(found.response, markup=False, highlight=False, soft_wrap=True)
    for line in found.notes:
        console.print(f"note: {line}", style="yellow", markup=False, soft_wrap=True)
    if found.against:
        raise RunError("no: " + "; ".join(found.against))
    console.print(
        "yes: steps of this model can be scored; `attnpo check MODEL DATA` checks whether a run would learn",
        style="bold green",
        markup=False,
        soft_wrap=True,
    )
