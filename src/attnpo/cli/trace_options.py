"""Common options of the commands on trace files, and a progress bar. Not a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def add_input(parser: argparse.ArgumentParser, what: str = "traces") -> None:
    """Add the file of traces, and --from."""
    parser.add_argument(
        "input", metavar="IN.jsonl", help=f"{what}: JSON Lines (.gz too), or a file of another tool (--from)"
    )
    parser.add_argument(
        "--from",
        dest="origin",
        choices=("auto", "attnpo", "messages", "lm-eval", "lighteval", "inspect", "every-eval-ever"),
        default="auto",
        help="format of the file: messages of a conversation, lm-eval's samples, lighteval's details, inspect's log, "
        "Every Eval Ever (default: detected from its first row)",
    )


def add_model(parser: argparse._ActionsContainer) -> None:
    """Add --model, the model that reads the traces."""
    parser.add_argument(
        "--model", metavar="M", help="folder or Hub name of a causal language model (default: the packaged overthinker)"
    )


def add_heads(parser: argparse._ActionsContainer) -> None:
    """Add --heads of the model."""
    parser.add_argument(
        "--heads", metavar="HEADS.json", help="(layer, head) pairs (default: heads.json in the model's folder)"
    )


def add_lexicon(parser: argparse.ArgumentParser, used: str = "phrase lists for rows without steps") -> None:
    """Add --lexicon; `used`: its use, for the help. The name is checked when the lexicon is loaded."""
    parser.add_argument(
        "--lexicon",
        metavar="NAME",
        default="paper",
        help=f"{used}: paper (default), released (with the bug of the published script), zh, paragraphs, a JSON file "
        "of five lists, or several joined by + (paper+zh)",
    )


def add_format(parser: argparse.ArgumentParser, auto: str = "by the marks of each response") -> None:
    """Add --thinking-format; `auto`: how it is detected, for the help. The name is checked when it is loaded."""
    parser.add_argument(
        "--thinking-format",
        metavar="NAME|FILE.yaml",
        default="auto",
        help=f"how the responses mark their thinking (docs/thinking-formats.md; default: auto, {auto})",
    )


OR_OF_MODEL = "by the marks of each response, else by the model's tokenizer"


@contextmanager
def progress_bar(what: str, unit: str = "traces") -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, removed at the end; yields the function to call with (done, total).

    Nothing is written if standard error is no terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from attnpo.tables import TIME_LEFT_FROM

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    console = Console(stderr=True)
    options = {"transient": True, "disable": not console.is_terminal, "speed_estimate_period": TIME_LEFT_FROM}
    with Progress(*columns, console=console, **options) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def to_stderr(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr)
