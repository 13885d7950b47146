"""The seam between the trainer and length rewards: what a method reads, what it returns, how it is found by name.

A method is a class whose options are fields; :meth:`LengthReward.term` is all that most of them define::

    @register_length_reward("mine")
    @dataclass(frozen=True)
    class MyReward(LengthReward):
        weight: float = 0.1

        def term(self, inputs: LengthInputs) -> Tensor:
            return torch.where(inputs.correct, -self.weight * (inputs.lengths > 100), 0.0)

Legend: P prompts, G responses per prompt.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnpo.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LengthInputs:
    """What a length reward may read about P groups of G responses.

    Raises:
        InputError: tables of different shapes.
    """

    lengths: Int[Tensor, "P G"]
    """Response tokens; the prompt is not counted."""
    correct: Bool[Tensor, "P G"]
    known: Bool[Tensor, "P G"]
    """There is a verdict. Responses without one stay out of every statistic and get 0."""
    targets: Float[Tensor, "P"] | None = None
    """The length each prompt asks for; None: prompts ask for none."""
    step: int = 1
    """Optimiser step, counted from 1."""
    max_completion_length: int | None = None

    def __post_init__(self) -> None:
        shape = list(self.lengths.shape)
        if self.lengths.ndim != 2:
            raise InputError(f"lengths: found shape {shape}, expected [prompts, responses per prompt]")
        for name in ("correct", "known"):
            found = list(getattr(self, name).shape)
            if found != shape:
                raise InputError(f"lengths {shape} and {name} {found}: expected two tables of one shape")
        if self.targets is not None and list(self.targets.shape) != shape[:1]:
            raise InputError(f"targets: found shape {list(self.targets.shape)}, expected one per prompt, {shape[:1]}")

    @property
    def right(self) -> Bool[Tensor, "P G"]:
        """Correct, and known to be."""
        return self.correct & self.known


class LengthReward:
    """A length reward. One instance serves a whole run; most have no state."""

    name: ClassVar[str]
    instruction: ClassVar[str | None] = None
    """What the method writes into every prompt: a text containing {target}. None: it leaves prompts alone."""

    def __call__(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        """The term to add to an accuracy of 1 or 0; exactly 0 where there is no verdict."""
        return torch.where(inputs.known, self.term(inputs), 0.0)

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        """The same, with anything where there is no verdict; to be defined by every method."""
        raise NotImplementedError

    def check_run(self, max_completion_length: int | None) -> None:
        """Raises InputError, naming an option of the method, where these options cannot work in such a run."""

    def metrics(self, step: int) -> dict[str, float]:
        """Numbers of the method's own worth a line in metrics.jsonl."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep, as JSON."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint."""


_REGISTRY: dict[str, Callable[..., LengthReward]] = {}
_M = TypeVar("_M", bound=type)


def register_length_reward(name: str) -> Callable[[_M], _M]:
    """Class decorator: make a method available as ``--length_reward name``; sets the class's ``name``.

    Raises:
        InputError: the name is taken by another class.
    """

    def register(cls: _M) -> _M:
        known = _REGISTRY.get(name)
        if known is not None and getattr(known, "__qualname__", "") != cls.__qualname__:
            raise InputError(f"length reward {name!r} is registered already, by {known}")
        cls.name = name  # type: ignore[attr-defined]
        _REGISTRY[name] = cls
        return cls

    return register


def _load_built_in() -> None:
    from attnpo.rewards.length import kimi, l1, laser, none, overlong, shorterbetter, thinkprune, tlmre  # noqa: F401


def length_reward_names() -> list[str]:
    """Names of all registered methods, sorted."""
    _load_built_in()
    return sorted(_REGISTRY)


def length_reward_options(name: str) -> dict[str, Any]:
    """Options of a method with their defaults, in order.

    Raises:
        InputError: no method of that name.
    """
    if name not in length_reward_names():
        close = difflib.get_close_matches(name, _REGISTRY, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"length_reward: found {name!r}, expected one of {', '.join(length_reward_names())}{hint}")
    return {key: parameter.default for key, parameter in inspect.signature(_REGISTRY[name]).parameters.items()}


def get_length_reward(name: str, **options: Any) -> LengthReward:
    """The method `name` with these options.

    Raises:
        InputError: no such method, no such option of it, or a value out of range (the method checks its own).
    """
    known = length_reward_options(name)
    for option in options:
        if option not in known:
            has = ", ".join(f"{key} ({default!r})" for key, default in known.items()) or "none"
            raise InputError(f"{option}: length reward {name!r} has no such option; it has: {has}")
    return _REGISTRY[name](**options)
