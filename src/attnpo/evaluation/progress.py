"""How far an evaluation is: a live line on a terminal, now and then a plain one elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from attnpo.evaluation.samples import Sample
from attnpo.rewards.verdict import REWARD_OF

PLAIN_EVERY = 60.0
"""Seconds between two plain lines."""
SETTLED, FEW = 2.0, 4
"""Seconds of sampling before a rate is shown, and samples of this call before the time left is."""


class EvalProgress:
    """Counts samples and tokens, and shows them; a context manager.

    Args:
        total: samples of the whole run; `kept`: those that were there before.
    """

    def __init__(self, console: Console, total: int, kept: Iterable[Sample] = ()) -> None:
        self._console, self._total = console, total
        self._done = self._tokens = self._right = self._graded = self._generated = 0
        for sample in kept:
            self._count(sample)
        self._kept = self._done
        self._said = time.monotonic()
        self._started: float | None = None
        columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"))
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task: Any = None

    def tokens(self, count: int) -> None:
        """So many were generated; the clock of the rate starts at the first of them."""
        if self._started is None:
            self._started = time.monotonic()
        self._generated += count
        self._show()

    def sample(self, sample: Sample) -> None:
        """One more is graded and written."""
        self._count(sample)
        self._show()

    @property
    def done(self) -> int:
        return self._done

    @property
    def summary(self) -> str:
        return f"{self._done} of {self._total} samples{self._facts()}"

    def __enter__(self) -> EvalProgress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, completed=self._done, facts="")
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _count(self, sample: Sample) -> None:
        reward = None if sample.verdict is None else REWARD_OF[sample.verdict]
        self._done += 1
        self._tokens += sample.tokens
        self._graded += reward is not None
        self._right += reward == 1

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, facts=self._facts())
        elif time.monotonic() - self._said >= PLAIN_EVERY:
            self._said = time.monotonic()
            self._console.print(self.summary, highlight=False)

    def _facts(self) -> str:
        seconds = 0.0 if self._started is None else time.monotonic() - self._started
        speed = self._generated / seconds if seconds >= SETTLED else None
        text = "" if speed is None else f", {speed:,.0f} tokens/s"
        if self._graded:
            text += f", accuracy {self._right / self._graded:.1%}"
        if self._done:
            mean = self._tokens / self._done
            text += f", mean {mean:,.0f} tokens"
            if speed and self._done < self._total and self._done - self._kept >= FEW:
                text += f", about {_duration((self._total - self._done) * mean / speed)} left"
        return text


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{max(minutes, 1)} min"
