"""What a run may use, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from attnpo.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one run, that is of one test. The defaults are LiveCodeBench's time and memory.

    Attributes:
        seconds: CPU time, all threads together. The time that passes is limited to twice as much and two seconds more,
            for programs that sleep; waiting for a core does not count, so that a busy machine makes no program wrong.
        memory_mb: address space, interpreter included (about 100 MB).
        output_bytes: of standard output; as much again of standard error and of a function's result.

    Raises:
        InputError: a limit out of range; names it.
    """

    seconds: float = 6.0
    memory_mb: int = 4096
    output_bytes: int = 16 * 2**20

    def __post_init__(self) -> None:
        for name, value, least in (
            ("seconds", self.seconds, 0.1),
            ("memory_mb", self.memory_mb, 256),
            ("output_bytes", self.output_bytes, 1),
        ):
            if not least <= value < float("inf"):
                raise InputError(f"{name}: found {value}, expected at least {least}")

    @property
    def wall_seconds(self) -> float:
        return 2 * self.seconds + 2


class End(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    CRASHED = "crashed"
    """An exception (MemoryError included), an exit status of its own, or a signal such as SIGSEGV."""
    TOO_SLOW = "too slow"
    TOO_MUCH_OUTPUT = "too much output"
    TOO_MANY_THREADS = "too many threads"
    KILLED = "killed"
    """From outside, in practice by the kernel because the machine ran out of memory."""
    NOT_STARTED = "not started"
    """The sandbox failed, not the program."""

    @property
    def is_the_programs_doing(self) -> bool:
        return self not in (End.KILLED, End.NOT_STARTED)


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        output: what it printed.
        result: JSON of what the function returned; None where it returned nothing in time, or none was called.
        error: the end of what it wrote to standard error, e.g. a traceback.
        seconds: of CPU time.
    """

    end: End
    output: str
    result: str | None
    error: str
    seconds: float
