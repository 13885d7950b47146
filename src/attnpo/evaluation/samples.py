"""The files `samples/BENCHMARK.jsonl` of an evaluation: written line by line, read again to go on."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from attnpo.data.jsonl import drop_unfinished_line, json_line, write_whole
from attnpo.errors import InputError, RunError
from attnpo.evaluation.folder import SAMPLES, read_samples
from attnpo.evaluation.plan import Key
from attnpo.evaluation.reading import has_tag
from attnpo.evaluation.records import Sample
from attnpo.rewards.verdict import Verdict


class SampleFiles:
    """The samples of one folder. A context manager, until whose end the folder belongs to this process.

    Every line is flushed as it is written, so a killed run loses at most the line being written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, IO[bytes]] = {}
        self._lock: int | None = None

    def read(self, benchmarks: Iterable[str]) -> list[Sample]:
        """What is there; a line that was not finished is cut off its file first.

        Raises:
            InputError: a row that is no sample; names file and row.
        """
        found: list[Sample] = []
        for file in map(self._file, benchmarks):
            if file.is_file() and drop_unfinished_line(file):
                found += read_samples(file)
        return found

    def append(self, sample: Sample) -> None:
        """Raises RunError where it cannot be written (disk full, …)."""
        try:
            if sample.benchmark not in self._open:
                self._file(sample.benchmark).parent.mkdir(exist_ok=True)
                self._open[sample.benchmark] = open(self._file(sample.benchmark), "ab")  # noqa: SIM115 - open to the end
            self._open[sample.benchmark].write(json_line(sample.as_json()))
            self._open[sample.benchmark].flush()
        except OSError as error:
            raise RunError(f"{self._file(sample.benchmark)}: writing failed ({error.strerror})") from error

    def settle_thinking(self, benchmarks: Iterable[str]) -> tuple[bool, int]:
        """Whether the model thinks, by its responses. Then untagged ones have no answer; how many that changed.

        That is so if at least half of all responses that ended have a closing tag: some models write it without any
        opening, and a response that was cut off before it would pass for an answer. Doing it again changes nothing.
        """
        benchmarks = list(benchmarks)
        samples = self.read(benchmarks)
        ended = [has_tag(sample.text) for sample in samples if not sample.truncated]
        changed = [sample for sample in samples if not has_tag(sample.text)]
        if not any(ended) or 2 * sum(ended) < len(ended):
            return False, 0
        for name in {sample.benchmark for sample in changed}:
            write_whole(
                self._file(name), b"".join(json_line(_unanswered(s).as_json()) for s in samples if s.benchmark == name)
            )
        return True, len(changed)

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
        if self._lock is not None:
            os.close(self._lock)  # which lets go of it, as the end of the process would
            self._lock = None

    def __enter__(self) -> SampleFiles:
        """Raises InputError where another process writes to the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise InputError(f"-o {self.folder}: another evaluation is writing to it") from None
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _file(self, benchmark: str) -> Path:
        return self.folder / SAMPLES / f"{benchmark}.jsonl"


def check_planned(samples: Iterable[Sample], planned: dict[Key, int]) -> set[Key]:
    """The keys of samples, all of them planned (key → seed).

    Raises:
        InputError: a sample of another run.
    """
    keys: set[Key] = set()
    for sample in samples:
        key = (sample.benchmark, sample.id, sample.sample)
        if planned.get(key) != sample.seed:
            raise InputError(
                f"{SAMPLES}/{sample.benchmark}.jsonl: sample {sample.sample} of problem {sample.id!r} has seed "
                f"{sample.seed}, expected {planned.get(key, 'no such sample')}; --overwrite starts anew"
            )
        keys.add(key)
    return keys


def _unanswered(sample: Sample) -> Sample:
    if has_tag(sample.text):
        return sample
    verdict = None if sample.verdict is None else Verdict.NO_ANSWER
    return replace(sample, verdict=verdict, extracted=None, thinking_tokens=sample.tokens, answer_tokens=0)
