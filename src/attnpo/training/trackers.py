"""Trackers (trackio, wandb, tensorboard, mlflow, …), kept open from the first evaluation of a run to its last.

transformers opens them when training begins and closes them when it ends; `attnpo train` evaluates before and after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    TensorBoardCallback,
    get_available_reporting_integrations,
)

from attnpo.errors import InputError

PACKAGES = {"azure_ml": "azureml-core", "clearml": "clearml", "comet_ml": "comet-ml", "dagshub": "dagshub"}
"""Packages of trackers whose name differs from the tracker's."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise InputError for a tracker that is unknown or not installed, with the package to install."""
    check_known(names)
    missing = sorted(set(names) - set(get_available_reporting_integrations()))
    if missing:
        packages = " ".join(PACKAGES.get(name, name) for name in missing)
        raise InputError(
            f"option report_to: {', '.join(missing)} is not installed: pip install {packages}, or --report_to none"
        )


def check_known(names: Sequence[str]) -> None:
    """Raise InputError for an unknown tracker."""
    unknown = sorted(set(names) - set(INTEGRATION_TO_CALLBACK))
    if unknown:
        known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
        raise InputError(f"option report_to: found {', '.join(unknown)}, expected none or some of {known}")


def trackers_of(trainer: Any) -> list[Any]:
    """Return the callbacks of a trainer that report to a tracker."""
    known = tuple(INTEGRATION_TO_CALLBACK.values())
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, known)]


FAILURES = 3
"""Failed calls in a row after which a tracker is not called again in this run."""


def keep_in_folder(trainer: Any) -> None:
    """Let TensorBoard write into the run folder from the first evaluation on.

    Its own default folder is set only when training begins; earlier logs would go to the current folder.
    """
    for tracker in trackers_of(trainer):
        if isinstance(tracker, TensorBoardCallback) and tracker.logging_dir is None:
            tracker.logging_dir = str(Path(trainer.args.output_dir, "tensorboard"))


def guard_trackers(trainer: Any, warn: Callable[[str], object]) -> None:
    """Let the run continue when a tracker fails, for example because its server is unreachable.

    `warn` gets the first failure, and a message when the tracker is given up after `FAILURES` failures of the same call
    in a row. The run folder has everything that a tracker would show.
    """
    for tracker in trackers_of(trainer):
        failed = _Failed()
        for name in dir(tracker):
            if name == "setup" or name.startswith("on_"):
                setattr(tracker, name, _guarded(tracker, name, failed, warn))


@dataclass
class _Failed:
    """Failures in a row of each call of a tracker, and whether one was reported."""

    in_row: Counter[str] = field(default_factory=Counter)
    reported: bool = False


def _guarded(tracker: Any, name: str, failed: _Failed, warn: Callable[[str], object]) -> Callable[..., Any]:
    """Return the method `name` of a tracker with its errors reported to `warn` instead of raised."""
    call = getattr(tracker, name)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if max(failed.in_row.values(), default=0) >= FAILURES:
            return None
        try:
            result = call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - each of a dozen packages has its own errors
            failed.in_row[name] += 1
            failure = f"the tracker {type(tracker).__name__} failed ({type(error).__name__}: {error})"
            if failed.in_row[name] == FAILURES:
                warn(f"{failure}, {FAILURES} times in a row: nothing more is sent to it. The run folder has all data")
            elif not failed.reported:
                warn(f"{failure}; the run continues")
            failed.reported = True
            return None
        failed.in_row[name] = 0
        return result

    return guarded


def start_trackers(trainer: Any) -> None:
    """Open trackers that are not open: TRL logs to some of them unconditionally, also outside of training."""
    for tracker in trackers_of(trainer):
        if getattr(tracker, "_initialized", None) is False:
            tracker.setup(trainer.args, trainer.state, trainer.model)


@contextmanager
def open_to_the_end(trainer: Any) -> Iterator[None]:
    """Close the trackers at the end of the block instead of at the end of training."""
    ends: list[Any] = []

    def later(original: Any) -> Any:
        def keep(*args: Any, **kwargs: Any) -> None:
            ends.append(lambda: original(*args, **kwargs))

        return keep

    trackers = [(tracker, vars(tracker).get("on_train_end")) for tracker in trackers_of(trainer)]
    for tracker, _ in trackers:
        tracker.on_train_end = later(tracker.on_train_end)
    try:
        yield
    finally:
        for tracker, guard in trackers:
            del tracker.on_train_end
            if guard is not None:
                tracker.on_train_end = guard
        for end in ends:
            end()
