"""Trackers (trackio, wandb, tensorboard, mlflow, …): open from the first evaluation of a run to its last.

transformers opens them when training begins and closes them when it ends; `attnpo train` evaluates before and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from attnpo.errors import InputError

PACKAGES = {"azure_ml": "azureml-core", "clearml": "clearml", "comet_ml": "comet-ml", "dagshub": "dagshub"}
"""What to install for a tracker, where it has another name."""


def check_trackers(asked: Sequence[str]) -> None:
    """Raises InputError for a tracker that is unknown or not installed, with what to install."""
    unknown = sorted(set(asked) - set(INTEGRATION_TO_CALLBACK))
    if unknown:
        known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
        raise InputError(f"option report_to: found {', '.join(unknown)}, expected none or some of {known}")
    missing = sorted(set(asked) - set(get_available_reporting_integrations()))
    if missing:
        packages = " ".join(PACKAGES.get(name, name) for name in missing)
        raise InputError(
            f"option report_to: {', '.join(missing)} is not installed: pip install {packages}, or --report_to none"
        )


def trackers_of(trainer: Any) -> list[Any]:
    """The callbacks of a trainer that report to a tracker."""
    known = tuple(INTEGRATION_TO_CALLBACK.values())
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, known)]


def start_trackers(trainer: Any) -> None:
    """Open those that are not open: TRL logs to some of them without asking, also while nothing is trained."""
    for tracker in trackers_of(trainer):
        if getattr(tracker, "_initialized", None) is False:
            tracker.setup(trainer.args, trainer.state, trainer.model)


@contextmanager
def open_to_the_end(trainer: Any) -> Iterator[None]:
    """Within it the end of training closes no tracker; leaving it does."""
    ends: list[Any] = []

    def later(original: Any) -> Any:
        def keep(*args: Any, **kwargs: Any) -> None:
            ends.append(lambda: original(*args, **kwargs))

        return keep

    trackers = trackers_of(trainer)
    for tracker in trackers:
        tracker.on_train_end = later(tracker.on_train_end)
    try:
        yield
    finally:
        for tracker in trackers:
            del tracker.on_train_end
        for end in ends:
            end()
