"""`attnpo check MODEL DATA`: would a run learn, before it is started."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Answer a few problems several times and say what a run with this model and these problems would meet: responses cut off,
not closed, not judged, wrong and right; problems with signal; steps per response; tokens per second and the time that
sampling will take; what to change. Ends with yes (code 0) or no (code 1)."""

PARSER_OPTIONS = {
    "description": DESCRIPTION,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "epilog": "Every option of `attnpo train` may follow: --max_completion_length 4096, --prompt_template TEXT, …",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a shipped model, a folder, or a name on the Hub")
    parser.add_argument(
        "data", metavar="DATA", help="problems, as --dataset_name of `attnpo train`; task: the built-in ones"
    )
    parser.add_argument("--problems", type=int, default=8, metavar="N", help="problems to answer (default: 8)")
    parser.add_argument("--responses", type=int, default=4, metavar="G", help="responses to each (default: 4)")
    parser.add_argument("-o", "--output", type=Path, metavar="RUN.yaml", help="write a configuration to start from")
    parser.set_defaults(takes_any_option=True)


def run(args: argparse.Namespace) -> None:
    from attnpo.errors import InputError
    from attnpo.training.preflight import check

    for option, least in (("problems", 1), ("responses", 2)):
        if getattr(args, option) < least:
            raise InputError(f"option --{option}: found {getattr(args, option)}, expected at least {least}")
    counts = {"problems": args.problems, "responses": args.responses}
    check(args.model, args.data, **counts, output=args.output, more=args.rest)
