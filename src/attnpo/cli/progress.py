"""A progress bar for commands that go through traces. No command of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
