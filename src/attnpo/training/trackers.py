"""Trackers (trackio, wandb, tensorboard, mlflow, …): open from the first evaluation of a run to its last.

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


FAILURES = 3
"""Calls in a row that a tracker may fail in; then it is left alone for the rest of the run."""


def keep_in_folder(trainer: Any) -> None:
    """TensorBoard's files go into the run folder from the first evaluation on: its own default is known only when
    training begins, and what is logged before goes to the current folder."""
    for tracker in trackers_of(trainer):
        if isinstance(tracker, TensorBoardCallback) and tracker.logging_dir is None:
            tracker.logging_dir = str(Path(trainer.args.output_dir, "tensorboard"))


def guard_trackers(trainer: Any, tell: Callable[[str], object]) -> None:
    """From here on a tracker that fails, as one whose server is away does, fails alone: the run goes on.

    The first failure is told, and that it is given up after `FAILURES` of a kind in a row. The run folder has all that
    a tracker would show.
    """
    for tracker in trackers_of(trainer):
        failed = _Failed()
        for name in dir(tracker):
            if name == "setup" or name.startswith("on_"):
                setattr(tracker, name, _alone(tracker, name, failed, tell))


@dataclass
class _Failed:
    """How often in a row each call of a tracker has failed, and whether that was told."""

    in_row: Counter[str] = field(default_factory=Counter)
    told: bool = False


def _alone(tracker: Any, name: str, failed: _Failed, tell: Callable[[str], object]) -> Callable[..., Any]:
    """The method `name` of a tracker, whose errors are told instead of raised."""
    call = getattr(tracker, name)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if max(failed.in_row.values(), default=0) >= FAILURES:
            return None
        try:
            result = call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - each of a dozen packages has errors of its own
            failed.in_row[name] += 1
            what = f"the tracker {type(tracker).__name__} failed ({type(error).__name__}: {error})"
            if failed.in_row[name] == FAILURES:
                tell(f"{what}, {FAILURES} times in a row: nothing more is sent to it. The run folder has everything")
            elif not failed.told:
                tell(f"{what}; the run goes on")
            failed.told = True
            return None
        failed.in_row[name] = 0
        return result

    return guarded


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
