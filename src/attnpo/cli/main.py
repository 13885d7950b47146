"""`attnpo COMMAND …`: picks the subcommand and turns errors into exit codes.

Every subcommand lives in a file of its own with two functions: ``add_arguments(parser)``, which must not import
torch (``--help`` answers at once), and ``run(args)``, which imports what it needs and calls one function.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from attnpo import __version__
from attnpo.errors import InputError, RunError

COMMANDS = {
    "train": "train a model with attention-guided stepwise credit (or a baseline)",
    "segment": "split the thinking part of responses into steps",
    "score": "score every step by the attention the final answer pays it",
    "task": "write problems and labelled over-thinking traces of the built-in task",
    "report": "one self-contained HTML page from run folders",
}

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; only the module of `command` is imported, the others stay one line of help."""
    parser = argparse.ArgumentParser(
        prog="attnpo", description="Make a reasoning model think shorter without getting worse."
    )
    parser.add_argument("--version", action="version", version=f"attnpo {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"attnpo.cli.{name}") if name == command else None
        options = getattr(module, "PARSER_OPTIONS", {})
        subparser = subparsers.add_parser(name, help=summary, description=summary, **options)
        if module is not None:
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit code (0 done, 1 the run failed, 2 bad input)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in argv if word in COMMANDS), None)
    parser = build_parser(command)
    args, rest = parser.parse_known_args(argv)
    if rest and not getattr(args, "takes_any_option", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        args.run(args)
    except InputError as error:
        print(f"attnpo {args.command}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except RunError as error:
        print(f"attnpo {args.command}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"attnpo {args.command}: interrupted", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
