"""Trackers (trackio, wandb, tensorboard, mlflow, …), kept open from the first evaluation of a run to its last.

transformers opens them when training begins and closes them when it ends; `attnpo train` evaluates before and after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    TensorBoardCallback,
    get_available_reporting_integrations,
)
from trl.extras import profiling
from trl.trainer import grpo_trainer

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


class _Guard:
    """Calls a tracker; its errors are reported to `warn` instead of raised, and after `FAILURES` it is not called."""

    def __init__(self, title: str, warn: Callable[[str], object]) -> None:
        self._title, self._warn = title, warn
        self._in_row: Counter[str] = Counter()  # failures of each call
        self._reported = False

    def call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `function`; `name`: the call that failures in a row are counted for."""
        if max(self._in_row.values(), default=0) >= FAILURES:
            return None
        try:
            result = function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - each of a dozen packages has its own errors
            self._in_row[name] += 1
            failure = f"the tracker {self._title} failed ({type(error).__name__}: {error})"
            if self._in_row[name] == FAILURES:
                self._warn(
                    f"{failure}, {FAILURES} times in a row: nothing more is sent to it. The run folder has all data"
                )
            elif not self._reported:
                self._warn(f"{failure}; the run continues")
            self._reported = True
            return None
        self._in_row[name] = 0
        return result


class GuardedTrackers:
    """Lets the run of a trainer continue when a tracker fails, for example because its server is unreachable.

    `warn` gets the first failure, and a message when the tracker is given up after `FAILURES` failures of the same call
    in a row. The run folder has everything that a tracker would show.
    """

    def __init__(self, trainer: Any, warn: Callable[[str], object]) -> None:
        self._trackers: dict[str, tuple[Any, _Guard]] = {}
        for tracker in trackers_of(trainer):
            guard = _Guard(type(tracker).__name__, warn)
            for name in dir(tracker):
                if name == "setup" or name.startswith("on_"):
                    setattr(tracker, name, partial(guard.call, name, getattr(tracker, name)))
            names = [name for name, kind in INTEGRATION_TO_CALLBACK.items() if isinstance(tracker, kind)]
            self._trackers.update(dict.fromkeys(names, (tracker, guard)))

    @contextmanager
    def within_trl(self) -> Iterator[None]:
        """Guard, inside the block, what TRL sends itself: durations, and the table of `log_completions`."""
        replaced: list[tuple[dict[str, Any], str, Any]] = []
        for module in (grpo_trainer, profiling):
            for name, (tracker, guard) in self._trackers.items():
                package = vars(module).get(name)
                if package is not None and not isinstance(package, _Package):
                    replaced.append((vars(module), name, package))
                    vars(module)[name] = _Package(package, tracker, partial(guard.call, module.__name__))
        try:
            yield
        finally:
            for namespace, name, package in replaced:
                namespace[name] = package


class _Package:
    """A tracker's package as TRL calls it; nothing is sent while the tracker is not open.

    TRL asks wandb and mlflow whether they are, but not trackio, whose `log` then raises.
    """

    def __init__(self, package: Any, tracker: Any, call: Callable[..., Any]) -> None:
        self._package, self._tracker, self._call = package, tracker, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._package, name)

    def _send(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if getattr(self._tracker, "_initialized", None) is not False:
            self._call(function, *args, **kwargs)

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        self._send(self._package.log_metrics, *args, **kwargs)

    def Table(self, *args: Any, **kwargs: Any) -> Callable[[], Any]:
        """Return what makes the table: it is made where it is sent, since making it may fail too."""
        return partial(self._package.Table, *args, **kwargs)

    def log(self, values: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        def send() -> None:
            made = {name: value() if isinstance(value, partial) else value for name, value in values.items()}
            self._package.log(made, *args, **kwargs)

        self._send(send)


def start_trackers(trainer: Any) -> None:
    """Open trackers that are not open, for an evaluation outside of training."""
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
