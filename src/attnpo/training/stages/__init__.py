"""Stages: computations of some credit methods between the rewards and the loss, one file per stage.

A method requests a stage by naming its signal (`STAGES`); the trainer runs it once per generation batch.
"""

from __future__ import annotations

from importlib import import_module

from attnpo.credit.base import FORWARD_SIGNALS, CreditMethod
from attnpo.errors import InputError
from attnpo.training.policy import Policy
from attnpo.training.stages.base import Stage

STAGES: dict[str, str] = {
    "segments": "attnpo.training.stages.potentials:Potentials",
    "potential": "attnpo.training.stages.potentials:Potentials",
    "mean_segment": "attnpo.training.stages.potentials:Potentials",
    "states_answer": "attnpo.training.stages.first_answer:FirstAnswer",
    "repair_role": "attnpo.training.stages.repairs:Repairs",
    "repair_gates": "attnpo.training.stages.repairs:Repairs",
    "repair_weight": "attnpo.training.stages.repairs:Repairs",
}
"""Signal -> "module:class" of the stage that computes it; other packages may add theirs. A stage may have several."""


def make_stages(method: CreditMethod, policy: Policy) -> list[Stage]:
    """Create the stages that `method` requests, each once, in the order of their signals' names.

    Raises:
        InputError: a signal that neither a forward nor a stage computes, or an error of a stage.
    """
    wanted: dict[str, None] = {}
    for signal in sorted(method.signals - FORWARD_SIGNALS):
        if signal not in STAGES:
            known = ", ".join(sorted(FORWARD_SIGNALS | set(STAGES)))
            raise InputError(f"credit {method.name!r} asks for the signal {signal!r}; there are: {known}")
        wanted[STAGES[signal]] = None
    places = [where.partition(":") for where in wanted]
    return [getattr(import_module(module), name)(method, policy) for module, _, name in places]
