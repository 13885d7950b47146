"""The ways a command can end badly, kept apart because users act on them differently."""

from __future__ import annotations


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
