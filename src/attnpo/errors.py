"""The ways a command can end badly, kept apart because users act on them differently, and hints for their messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AttnPOError(Exception):
    """Base class of every error this package raises on purpose."""


class InputError(AttnPOError, ValueError):
    """Something the user gave is wrong: a file, a row, an option, a model. The command line exits with 2.

    The message names the file, row or option, says what was found and what was expected.
    """


class RunError(AttnPOError, RuntimeError):
    """The input was fine and the run failed all the same (a loss that is not finite, …). Exits with 1."""


class StoppedError(RunError):
    """The run was asked to end (SIGTERM) and goes on by the same command. Exits with 75, EX_TEMPFAIL of sysexits.h."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The one of the known names that is spelt most like `name`; None where none is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint to put behind a message about a name that is not known; "" where no known one is spelt alike.

    >>> did_you_mean("credit_bet", ["credit_beta", "credit"]), did_you_mean("x", ["credit"])
    ('; did you mean credit_beta?', '')
    """
    alike = closest(name, known)
    return f"; did you mean {alike}?" if alike is not None else ""
