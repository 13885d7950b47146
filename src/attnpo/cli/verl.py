"""`attnpo verl`: a training run on verl and Ray, for models that outgrow one machine."""

from __future__ import annotations

import argparse

PARSER_OPTIONS = {"add_help": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(takes_any_option=True)


def run(args: argparse.Namespace) -> None:
    from attnpo.engines.verl.launch import run_command

    run_command(args.rest)
