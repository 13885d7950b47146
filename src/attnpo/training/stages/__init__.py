"""Work that some credit methods need between the rewards and the loss: one file per stage.

A method asks for a stage by naming the signal it makes (`STAGES`); the trainer runs it once per generation batch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from attnpo.credit.base import FORWARD_SIGNALS, CreditMethod
from attnpo.errors import InputError
from attnpo.training.stages.base import Stage

STAGES: dict[str, str] = {}
"""Signal -> "module:class" of the stage that makes it; other packages may add theirs."""


def make_stages(method: CreditMethod, trainer: Any) -> list[Stage]:
    """The stages `method` asks for, in the order of their names.

    Raises:
        InputError: a signal that neither a forward nor a stage makes, or what a stage itself refuses.
    """
    made = []
    for signal in sorted(method.signals - FORWARD_SIGNALS):
        if signal not in STAGES:
            known = ", ".join(sorted(FORWARD_SIGNALS | set(STAGES)))
            raise InputError(f"credit {method.name!r} asks for the signal {signal!r}; there are: {known}")
        module, _, name = STAGES[signal].partition(":")
        made.append(getattr(import_module(module), name)(method, trainer))
    return made
