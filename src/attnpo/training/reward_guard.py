"""Faults of reward functions: reported with the function's name, on all processes.

Every process runs the reward functions on its own responses, and on the continuations and repairs of a stage. An error
raised on one process would leave the others waiting, so a guard stores it until the gathers are over, and then all
processes end together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor
from trl.trainer.utils import is_async_callable

from attnpo.errors import InputError, RunError
from attnpo.training.processes import together


class RewardError(RunError):
    """A reward function raised, so that its batch cannot be used."""


class RewardInputError(InputError):
    """A reward function returned invalid rewards."""


class _Guard:
    """Wraps a reward function: where it fails, returns None for every response and stores the first error."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function, self.__name__ = function, name
        self.error: Exception | None = None

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Store an error of the block, which ends there."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a function of the user's may raise anything; raised again by `check`
            self.error = self.error or error

    def __call__(self, *args: Any, completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        with self.storing():
            return checked(self.function(*args, completions=completions, **kwargs), len(completions), self.__name__)
        return [None] * len(completions)

    def check(self, step: int) -> None:
        """Raise RewardInputError where the function returned invalid rewards, RewardError where it raised."""
        if isinstance(self.error, InputError):
            raise RewardInputError(f"step {step}: {self.error}") from self.error
        if self.error is not None:
            cause = f"{type(self.error).__name__}: {self.error}"
            raise RewardError(f"step {step}: the reward function {self.__name__!r} failed: {cause}") from self.error


class _AsyncGuard(_Guard):
    """The guard of a coroutine function; TRL recognises it by its `__call__`."""

    async def __call__(self, *args: Any, completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        with self.storing():
            given = await self.function(*args, completions=completions, **kwargs)
            return checked(given, len(completions), self.__name__)
        return [None] * len(completions)


def faults_of(function: Any) -> AbstractContextManager[None]:
    """Store an error of the block as one of the reward function's where it is guarded; else the error is raised."""
    return function.storing() if isinstance(function, _Guard) else nullcontext()


def checked(given: Any, count: int, name: str) -> list[float | None]:
    """Convert the rewards that a function returned to numbers; None stays.

    Raises:
        InputError: they are not one number or None per response.
    """
    if isinstance(given, Tensor):
        given = given.tolist()
    if given is None or isinstance(given, str) or not hasattr(given, "__len__"):
        raise InputError(
            f"reward_funcs: {name!r} gave {type(given).__name__}, expected a list of {count} numbers or None"
        )
    if len(given) != count:
        raise InputError(f"reward_funcs: {name!r} gave {len(given)} rewards, expected {count}, one per response")
    rewards: list[float | None] = []
    for i, reward in enumerate(given):
        try:
            rewards.append(None if reward is None else float(reward))
        except (TypeError, ValueError):
            raise InputError(
                f"reward_funcs: {name!r} gave {reward!r} for response {i}, expected a number or None"
            ) from None
    return rewards


@contextmanager
def guarded(trainer: Any, accelerator: Accelerator, step: int) -> Iterator[None]:
    """Guard the trainer's reward functions inside the block; afterwards an error on any process is raised on all.

    The block calls them as `trainer.reward_funcs`. Reward models are not guarded.

    Raises:
        RewardInputError: a function returned invalid rewards.
        RewardError: a function raised.
    """
    plain = trainer.reward_funcs
    guards = [_guard(f, name) for f, name in zip(plain, trainer.reward_func_names, strict=True)]
    trainer.reward_funcs = guards
    try:
        yield
    finally:
        trainer.reward_funcs = plain
    try:
        with together(accelerator):
            for guard in guards:
                if isinstance(guard, _Guard):
                    guard.check(step)
    except (RunError, InputError) as error:
        if isinstance(error, RewardError | RewardInputError):
            raise
        # Of another process; all of them take part in saving, which follows.
        raise (RewardInputError if isinstance(error, InputError) else RewardError)(str(error)) from error


def _guard(function: Any, name: str) -> Any:
    if isinstance(function, torch.nn.Module):
        return function
    return (_AsyncGuard if is_async_callable(function) else _Guard)(function, name)


def infinite_metric(name: str) -> str:
    """Return the name of the metric that counts the infinite rewards of a function."""
    return f"rewards/{name}/infinite"


def without_infinite(rewards: Float[Tensor, "M K"]) -> tuple[Float[Tensor, "M K"], list[int]]:
    """Replace infinite rewards by NaN (missing); returns the rewards and the number of infinite ones per function.

    An infinite reward would make every advantage of its group infinite or NaN.
    """
    infinite = rewards.isinf()
    return rewards.masked_fill(infinite, torch.nan), infinite.sum(dim=0).tolist()
