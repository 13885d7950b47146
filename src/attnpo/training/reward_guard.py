"""Reward functions that fail: said by name, on all processes alike.

A reward function runs on every process by itself. One that raised on one of them would leave the others waiting for it,
so a guard keeps the error, lets the gather go by, and then all end together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor
from trl.trainer.utils import is_async_callable

from attnpo.errors import InputError, RunError
from attnpo.training.processes import together


class RewardError(RunError):
    """A reward function raised: nothing of its batch can be trained on."""


class RewardInputError(InputError):
    """A reward function returned something that are no rewards."""


class _Guard:
    """A reward function that gives nothing where it fails, and remembers why."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function, self.__name__ = function, name
        self.error: Exception | None = None

    def __call__(self, *args: Any, completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        try:
            return checked(self.function(*args, completions=completions, **kwargs), len(completions), self.__name__)
        except Exception as error:  # noqa: BLE001 - a function of the user's may raise anything; raised again by `check`
            self.error = error
            return [None] * len(completions)

    def check(self, step: int) -> None:
        """Raises RewardInputError where the function gave no rewards, RewardError where it raised, with `step`."""
        if isinstance(self.error, InputError):
            raise RewardInputError(f"step {step}: {self.error}") from self.error
        if self.error is not None:
            what = f"{type(self.error).__name__}: {self.error}"
            raise RewardError(f"step {step}: the reward function {self.__name__!r} failed: {what}") from self.error


class _AsyncGuard(_Guard):
    """The same for a coroutine function, which TRL recognises by its call."""

    async def __call__(self, *args: Any, completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        try:
            given = await self.function(*args, completions=completions, **kwargs)
            return checked(given, len(completions), self.__name__)
        except Exception as error:  # noqa: BLE001 - as above
            self.error = error
            return [None] * len(completions)


def checked(given: Any, count: int, name: str) -> list[float | None]:
    """What a reward function returned as numbers; None stays.

    Raises:
        InputError: not one number or None per response; says what was found.
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
    """Within it the trainer's reward functions are guarded; leaving it raises what one of them raised, anywhere.

    Models that reward are TRL's own affair.

    Raises:
        RewardInputError: a function returned something that are no rewards.
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
    except RunError as error:
        if isinstance(error, RewardError):
            raise
        raise RewardError(str(error)) from error  # of another process: what follows, saving, takes all of them


def _guard(function: Any, name: str) -> Any:
    if isinstance(function, torch.nn.Module):
        return function
    return (_AsyncGuard if is_async_callable(function) else _Guard)(function, name)


def without_infinite(rewards: Float[Tensor, "M K"]) -> tuple[Float[Tensor, "M K"], list[int]]:
    """The rewards with NaN, missing, in place of infinite ones, and how many those were of each function.

    An infinite reward would make every difference to its group's mean infinite or NaN.
    """
    infinite = rewards.isinf()
    return rewards.masked_fill(infinite, torch.nan), infinite.sum(dim=0).tolist()
