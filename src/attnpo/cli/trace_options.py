"""What the commands on trace files share: their options, and a progress bar. No command of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def add_input(parser: argparse.ArgumentParser, what: str = "traces") -> None:
    """The file of traces, and --from."""
    parser.add_argument(
        "input", metavar="IN.jsonl", help=f"{what}: JSON Lines (.gz too), or a file of another tool (--from)"
    )
    parser.add_argument(
        "--from",
        dest="origin",
        choices=("auto", "attnpo", "messages", "lm-eval", "lighteval", "inspect", "every-eval-ever"),
        default="auto",
        help="who wrote the file: messages of a conversation, lm-eval's samples, lighteval's details, inspect's log, "
        "Every Eval Ever (default: its first row says)",
    )


def add_model(parser: argparse._ActionsContainer) -> None:
    """--model, which reads the traces."""
    parser.add_argument(
        "--model", metavar="M", help="folder or Hub name of a causal language model (default: the packaged overthinker)"
    )


def add_heads(parser: argparse._ActionsContainer) -> None:
    """--heads of the model."""
    parser.add_argument(
        "--heads", metavar="HEADS.json", help="(layer, head) pairs (default: heads.json in the model's folder)"
    )


def add_lexicon(parser: argparse.ArgumentParser, used: str = "phrase lists for rows without steps") -> None:
    """--lexicon; what it is used for stands in the help. The name is checked where the lexicon is loaded."""
    parser.add_argument(
        "--lexicon",
        metavar="NAME",
        default="paper",
        help=f"{used}: paper (default), released (with the slip of the published script), zh, paragraphs, a JSON file "
        "of five lists, or several joined by + (paper+zh)",
    )


def add_format(parser: argparse.ArgumentParser, auto: str = "the marks of each response") -> None:
    """--thinking-format; what auto goes by stands in the help. The name is checked where the format is loaded."""
    parser.add_argument(
        "--thinking-format",
        metavar="NAME|FILE.yaml",
        default="auto",
        help=f"how the responses mark their thinking (docs/thinking-formats.md; default: auto, {auto})",
    )


OR_OF_MODEL = "the marks of each response, else those the model's tokenizer shows"


@contextmanager
def progress_bar(what: str, unit: str = "traces") -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, gone when done; gives the function that is told (done, of how many).

    Nothing is written where standard error is no terminal.
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


def say(line: str) -> None:
    """A line on standard error."""
    print(line, file=sys.stderr)
