"""`attnpo COMMAND …`: selects the command and converts errors to exit codes.

Every command has its own file with two functions: ``add_arguments(parser)``, which must not import torch, so that
``--help`` is fast, and ``run(args)``, which imports what it needs and calls one function. A module may also define
``PARSER_OPTIONS``, keyword arguments of its parser (an epilog, a formatter). A command that passes options to another
parser calls ``parser.set_defaults(takes_any_option=True)`` and gets them, in the order of the command line, in
``args.rest``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import select
import sys
from collections.abc import Sequence

from attnpo import __version__
from attnpo.errors import InputError, RunError, StoppedError

COMMANDS = {
    "check": "check by a minute of sampling whether a run with this model and these problems would learn",
    "train": "train a model with attention-guided stepwise credit (or a baseline)",
    "verl": "train on verl and Ray, for models that do not fit on one machine",
    "segment": "split the thinking part of responses into steps",
    "score": "score every step by the attention that the final answer pays to it",
    "probe": "find the attention heads that distinguish essential from redundant steps",
    "label": "label the essential steps of traces: judged by language models, or by hiding steps",
    "evidence": "measure how reliable the heads are: stability, transfer, number of heads, removal of steps",
    "trim": "remove the steps that the answer does not need from traces, for fine-tuning",
    "budget": "compute thinking budgets for vLLM per difficulty, from trimmed traces",
    "eval": "measure accuracy and length of a model on benchmarks",
    "benchmarks": "list the benchmarks, check their answers, compare them with training data",
    "compare": "compare evaluations and training runs: accuracy, length and the significance of differences",
    "task": "write problems and labelled over-thinking traces of the built-in task",
    "report": "write a self-contained HTML page from run folders",
}

TOOLS = {
    "evidence": {
        "stability": "whether the heads stay the same during training",
        "transfer": "whether heads found on easy problems work on hard ones",
        "heads": "how many heads, of which layers, compared with heads drawn at random",
        "removal": "whether the model still answers without the steps that its heads look at",
    },
    "benchmarks": {
        "list": "list the benchmarks with their sources and licences",
        "check": "check that every gold answer is graded right, and a different one wrong",
        "overlap": "find problems of a training set that are equal or nearly equal to problems of a benchmark",
    },
}
"""Commands with several tools: `attnpo evidence removal …` calls `run_removal` of attnpo.cli.evidence, with the parser
options `REMOVAL_PARSER` and the arguments of `add_removal_arguments`."""

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_AGAIN = 0, 1, 2, 75


def build_parser() -> argparse.ArgumentParser:
    """The parser of `attnpo` without a command: help, version and the list of commands. It imports no command."""
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="attnpo",
        usage="attnpo [--help] [--version] COMMAND …",
        description="Make a reasoning model think shorter without getting worse.",
        epilog=f"commands:\n{listing}\n\n`attnpo COMMAND --help` lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"attnpo {__version__}")
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    return parser


def build_tools_parser(command: str) -> argparse.ArgumentParser:
    """The parser of a command with several tools (a key of ``TOOLS``): help and the list of tools."""
    width = max(map(len, TOOLS[command]))
    listing = "\n".join(f"  {name:{width}}  {summary}" for name, summary in TOOLS[command].items())
    parser = argparse.ArgumentParser(
        prog=f"attnpo {command}",
        usage=f"attnpo {command} TOOL …",
        description=COMMANDS[command],
        epilog=f"tools:\n{listing}\n\n`attnpo {command} TOOL --help` lists the options of a tool.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tool", choices=TOOLS[command], metavar="TOOL", help="one of the tools below")
    return parser


def build_command_parser(command: str) -> argparse.ArgumentParser:
    """The parser of one command (a key of ``COMMANDS``, or "COMMAND TOOL"); imports only its module."""
    name, _, tool = command.partition(" ")
    module = importlib.import_module(f"attnpo.cli.{name}")
    summary = TOOLS[name][tool] if tool else COMMANDS[name]
    settings, add, run = (
        (f"{tool.upper()}_PARSER", f"add_{tool}_arguments", f"run_{tool}")
        if tool
        else ("PARSER_OPTIONS", "add_arguments", "run")
    )
    # No abbreviated options: `--out` must not change its meaning, or match another parser's option, when one is added.
    options = {"description": summary, "allow_abbrev": False, **getattr(module, settings, {})}
    parser = argparse.ArgumentParser(prog=f"attnpo {command}", **options)
    getattr(module, add)(parser)
    parser.set_defaults(command=command, run=getattr(module, run))
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line of at least one word; an invalid one exits with code 2 (SystemExit).

    Only the first word can be the command, so that an option's value may have the name of a command.
    """
    if argv[0] not in COMMANDS:
        parser = build_parser()
        parser.parse_known_args(argv[:1])  # handles --help and --version, exits for an unknown command
        parser.error(f"a command was expected first, found {argv[0]!r}")
    command, words = argv[0], list(argv[1:])
    if command in TOOLS:
        if not words:
            build_tools_parser(command).print_help(sys.stderr)
            raise SystemExit(EXIT_BAD_INPUT)
        tool = build_tools_parser(command).parse_args(words[:1]).tool
        command, words = f"{command} {tool}", words[1:]
    parser = build_command_parser(command)
    # Intermixed, so that `report RUN_A -o PAGE.html RUN_B` gets both runs.
    args, rest = parser.parse_known_intermixed_args(words)
    if rest and not getattr(args, "takes_any_option", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code (0 done, 1 the run failed, 2 bad input, 75 stopped, to be restarted)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv:
        build_parser().print_help(sys.stderr)
        return EXIT_BAD_INPUT
    try:
        try:
            return _run(parse(argv))
        finally:
            sys.stdout.flush()  # raises for a closed pipe here, not while the interpreter shuts down
    except BrokenPipeError:
        if not _pipe_closed():
            raise
        return EXIT_FAILED


def _run(args: argparse.Namespace) -> int:
    try:
        args.run(args)
    except InputError as error:
        return _print_error(args.command, error, EXIT_BAD_INPUT)
    except RunError as error:
        return _print_error(args.command, error, EXIT_AGAIN if isinstance(error, StoppedError) else EXIT_FAILED)
    except KeyboardInterrupt:
        return _print_error(args.command, "interrupted", EXIT_FAILED)
    except OSError as error:
        if not _named_on_the_command_line(error.filename, args):
            raise
        return _print_error(args.command, f"{error.filename}: {error.strerror}", EXIT_BAD_INPUT)
    return EXIT_OK


def _print_error(command: str, message: object, code: int) -> int:
    print(f"attnpo {command}: {message}", file=sys.stderr)
    return code


def _named_on_the_command_line(path: object, args: argparse.Namespace) -> bool:
    """Whether exactly this path is on the command line: a mistyped name then; any other OSError gets a traceback."""
    if not isinstance(path, str | os.PathLike):
        return False
    given = [item for value in vars(args).values() for item in (value if isinstance(value, list) else [value])]
    return os.fspath(path) in {os.fspath(item) for item in given if isinstance(item, str | os.PathLike)}


def _pipe_closed() -> bool:
    """Whether standard output is a pipe whose reader has closed it (`attnpo … | head`). If so, discard further output.

    A BrokenPipeError may also come from a worker process; polling the descriptor distinguishes the two.
    """
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


if __name__ == "__main__":
    sys.exit(main())
