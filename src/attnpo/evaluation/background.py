"""Grading beside the sampling: responses are graded and handed on while the model goes on with others."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from attnpo.evaluation.grading import Grader
from attnpo.evaluation.records import Question, Sample


class BackgroundGrading:
    """Grades what is handed to it, all that waits at once, in one thread; a context manager.

    `done` is called with every graded sample, in that thread. What fails there is raised by the next `submit`, or at
    the end.
    """

    def __init__(self, grader: Grader, done: Callable[[Sample], None]) -> None:
        self._grader, self._done = grader, done
        self._waiting: queue.SimpleQueue[tuple[Question, str | None, Sample]] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grade")
        self._futures: list[Future[None]] = []

    def submit(self, question: Question, answer: str | None, sample: Sample) -> None:
        """A sample whose verdict and extracted answer are to be filled in."""
        self._waiting.put((question, answer, sample))
        while self._futures and self._futures[0].done():  # they end in order
            self._futures.pop(0).result()
        self._futures.append(self._thread.submit(self._grade_waiting))

    def _grade_waiting(self) -> None:
        items: list[tuple[Question, str | None, Sample]] = []
        while not self._waiting.empty():  # nobody else takes from it
            items.append(self._waiting.get())
        graded = self._grader.grade([(question, answer) for question, answer, _ in items]) if items else []
        for (_, _, sample), found in zip(items, graded, strict=True):
            self._done(replace(sample, extracted=found.extracted, verdict=found.verdict))

    def __enter__(self) -> BackgroundGrading:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Waits for what was handed in; an error raised inside goes before one of the grading."""
        self._thread.shutdown(wait=True)
        if error is None:
            for future in self._futures:
                future.result()
