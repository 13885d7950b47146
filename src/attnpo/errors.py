"""Error types, separated by what the user can do about them, and hints for their messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AttnPOError(Exception):
    """Base class of every error this package raises on purpose."""


class InputError(AttnPOError, ValueError):
    """A file, row, option or model given by the user is invalid. The command line exits with 2.

    The message names the file, row or option, the value found and the value expected.
    """


class RunError(AttnPOError, RuntimeError):
    """The run failed with valid input (a loss that is not finite, …). The command line exits with 1."""


class StoppedError(RunError):
    """SIGTERM stopped the run; the same command resumes it. Exits with 75, EX_TEMPFAIL of sysexits.h."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name with the spelling closest to `name`; None where none is close."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint to append to a message about an unknown name; "" where no known name is spelt alike.

    >>> did_you_mean("credit_bet", ["credit_beta", "credit"]), did_you_mean("x", ["credit"])
    ('; did you mean credit_beta?', '')
    """
    alike = closest(name, known)
    return f"; did you mean {alike}?" if alike is not None else ""
