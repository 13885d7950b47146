"""`attnpo COMMAND …`: picks the command and turns errors into exit codes.

Every command lives in a file of its own with two functions: ``add_arguments(parser)``, which must not import
torch (``--help`` answers at once), and ``run(args)``, which imports what it needs and calls one function.
A module may also define ``PARSER_OPTIONS``, keyword arguments of its parser (an epilog, a formatter). A command that
hands options on to another parser says ``parser.set_defaults(takes_any_option=True)`` and finds them, in the order
in which they were given, in ``args.rest``.
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
    "check": "would a run with this model and these problems learn: a minute of sampling, yes or no",
    "train": "train a model with attention-guided stepwise credit (or a baseline)",
    "verl": "the same on verl and Ray, for models that outgrow one machine",
    "segment": "split the thinking part of responses into steps",
    "score": "score every step by the attention the final answer pays it",
    "probe": "find the attention heads that tell essential from redundant steps",
    "label": "say which steps of traces are essential: judged by language models, or by hiding them",
    "evidence": "how far to trust the heads: stability, transfer, number of heads, removal of steps",
    "trim": "traces without the steps that the answer does not need, to fine-tune on",
    "budget": "thinking budgets for vLLM per difficulty, from trimmed traces",
    "eval": "accuracy and length of a model on benchmarks",
    "benchmarks": "the benchmarks: list them, check their answers, compare them with training data",
    "compare": "evaluations and training runs side by side: accuracy, length and how sure the differences are",
    "task": "write problems and labelled over-thinking traces of the built-in task",
    "report": "one self-contained HTML page from run folders",
}

TOOLS = {
    "evidence": {
        "stability": "do the heads stay the same while the model is trained",
        "transfer": "do heads found on easy problems serve on hard ones",
        "heads": "how many heads, of which layers, against heads drawn at random",
        "removal": "does the model still answer without the steps that its heads look at",
    },
    "benchmarks": {
        "list": "what there is, where it comes from, under which licence",
        "check": "is every gold answer graded right, and a different one wrong",
        "overlap": "which problems of a training set are, or nearly are, problems of a benchmark",
    },
}
"""Commands of several tools: `attnpo evidence removal …` is `run_removal` of attnpo.cli.evidence, with its parser's
`REMOVAL_PARSER` and `add_removal_arguments`."""

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_AGAIN = 0, 1, 2, 75


def build_parser() -> argparse.ArgumentParser:
    """The parser of `attnpo` itself: help, version and the list of commands. It imports no command."""
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="attnpo",
        usage="attnpo [--help] [--version] COMMAND …",
        description="Make a reasoning model think shorter without getting worse.",
        epilog=f"commands:\n{listing}\n\n`attnpo COMMAND --help` lists the options of one of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"attnpo {__version__}")
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    return parser


def build_tools_parser(command: str) -> argparse.ArgumentParser:
    """The parser of a command of several tools (a key of ``TOOLS``): help and the list of tools."""
    width = max(map(len, TOOLS[command]))
    listing = "\n".join(f"  {name:{width}}  {summary}" for name, summary in TOOLS[command].items())
    parser = argparse.ArgumentParser(
        prog=f"attnpo {command}",
        usage=f"attnpo {command} TOOL …",
        description=COMMANDS[command],
        epilog=f"tools:\n{listing}\n\n`attnpo {command} TOOL --help` lists the options of one of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tool", choices=TOOLS[command], metavar="TOOL", help="one of those below")
    return parser


def build_command_parser(command: str) -> argparse.ArgumentParser:
    """The parser of one command (a key of ``COMMANDS``, or "COMMAND TOOL"); imports its module and no other."""
    name, _, tool = command.partition(" ")
    module = importlib.import_module(f"attnpo.cli.{name}")
    summary = TOOLS[name][tool] if tool else COMMANDS[name]
    settings, add, run = (
        (f"{tool.upper()}_PARSER", f"add_{tool}_arguments", f"run_{tool}")
        if tool
        else ("PARSER_OPTIONS", "add_arguments", "run")
    )
    # Options are never abbreviated: `--out` must not change its meaning, or steal another parser's, when one is added.
    options = {"description": summary, "allow_abbrev": False, **getattr(module, settings, {})}
    parser = argparse.ArgumentParser(prog=f"attnpo {command}", **options)
    getattr(module, add)(parser)
    parser.set_defaults(command=command, run=getattr(module, run))
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read a command line of at least one word; one that is not understood leaves with code 2 (SystemExit).

    The command is the first word and nothing else, so that an option's value may be called like a command.
    """
    if argv[0] not in COMMANDS:
        parser = build_parser()
        parser.parse_known_args(argv[:1])  # answers --help and --version, refuses an unknown command
        parser.error(f"a command was expected first, found {argv[0]!r}")
    command, words = argv[0], list(argv[1:])
    if command in TOOLS:
        if not words:
            build_tools_parser(command).print_help(sys.stderr)
            raise SystemExit(EXIT_BAD_INPUT)
        tool = build_tools_parser(command).parse_args(words[:1]).tool
        command, words = f"{command} {tool}", words[1:]
    parser = build_command_parser(command)
    # Intermixed: `report RUN_A -o PAGE.html RUN_B` takes both runs.
    args, rest = parser.parse_known_intermixed_args(words)
    if rest and not getattr(args, "takes_any_option", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit code (0 done, 1 the run failed, 2 bad input, 75 stopped: again)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv:
        build_parser().print_help(sys.stderr)
        return EXIT_BAD_INPUT
    try:
        try:
            return _run(parse(argv))
        finally:
            sys.stdout.flush()  # a reader that has left is noticed here, not while the interpreter shuts down
    except BrokenPipeError:
        if not _reader_left():
            raise
        return EXIT_FAILED


def _run(args: argparse.Namespace) -> int:
    try:
        args.run(args)
    except InputError as error:
        return _complain(args.command, error, EXIT_BAD_INPUT)
    except RunError as error:
        return _complain(args.command, error, EXIT_AGAIN if isinstance(error, StoppedError) else EXIT_FAILED)
    except KeyboardInterrupt:
        return _complain(args.command, "interrupted", EXIT_FAILED)
    except OSError as error:
        if not _named_on_the_command_line(error.filename, args):
            raise
        return _complain(args.command, f"{error.filename}: {error.strerror}", EXIT_BAD_INPUT)
    return EXIT_OK


def _complain(command: str, message: object, code: int) -> int:
    print(f"attnpo {command}: {message}", file=sys.stderr)
    return code


def _named_on_the_command_line(path: object, args: argparse.Namespace) -> bool:
    """Whether the user gave exactly this path: a typing mistake then, and any other OSError a fault to be shown."""
    if not isinstance(path, str | os.PathLike):
        return False
    given = [item for value in vars(args).values() for item in (value if isinstance(value, list) else [value])]
    return os.fspath(path) in {os.fspath(item) for item in given if isinstance(item, str | os.PathLike)}


def _reader_left() -> bool:
    """Whether standard output is a pipe nobody reads any more (`attnpo … | head`). If so, send the rest nowhere.

    A BrokenPipeError may as well come from a worker process; the descriptor itself tells which of the two it was.
    """
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


if __name__ == "__main__":
    sys.exit(main())
