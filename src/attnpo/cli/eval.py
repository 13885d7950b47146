"""`attnpo eval`: accuracy and length of a model on benchmarks."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from attnpo.evaluation.options import EvalOptions

DESCRIPTION = """\
Sample a model on benchmarks, check its answers, and write samples and results to a folder.

The same command continues an evaluation that was interrupted or killed. `attnpo compare` compares evaluations.
`attnpo benchmarks list` lists the benchmarks."""

PARSER_OPTIONS = {
    "usage": "attnpo eval --model M --benchmarks A,B,… -o DIR [OPTION …]",
    "description": DESCRIPTION,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An argument per field of `EvalOptions`, with its type, default and help."""
    groups: dict[str, Any] = {"": parser}
    types = get_type_hints(EvalOptions)
    for option in fields(EvalOptions):
        cli = option.metadata
        if cli["group"] not in groups:
            groups[cli["group"]] = parser.add_argument_group(cli["group"])
        names = [name for name in (cli["flag"], f"--{option.name.replace('_', '-')}") if name]
        kind = next((one for one in get_args(types[option.name]) if one is not NoneType), types[option.name])
        settings: dict[str, Any] = {"help": cli["help"]}
        if kind is bool:
            settings["action"] = "store_true"
        else:
            required = option.default is MISSING and option.default_factory is MISSING
            settings |= {"type": str if cli["read"] else kind, "metavar": cli["metavar"], "required": required}
            if not required and not cli["read"]:
                settings["default"] = option.default
        groups[cli["group"]].add_argument(*names, **settings)


def run(args: argparse.Namespace) -> None:
    from attnpo.evaluation.results import print_results
    from attnpo.evaluation.run import evaluate

    given: dict[str, Any] = {}
    for option in fields(EvalOptions):
        value, read = getattr(args, option.name), option.metadata["read"]
        if value is not None:
            given[option.name] = read(value) if read else value
    results = evaluate(EvalOptions(**given), command=shlex.join(["attnpo", *sys.argv[1:]]))
    print_results(results)
    print(f"evaluation: {args.output}", file=sys.stderr)
