"""The length reward that the options of a run name: built, and checked against the rest of the run."""

from __future__ import annotations

from typing import Any

from attnpo.data.targets import LengthTargets
from attnpo.errors import InputError
from attnpo.rewards.length import LengthReward, get_length_reward, length_reward_names, length_reward_options
from attnpo.rewards.length.l1 import TargetReward


def describe_length_rewards() -> str:
    """The names, each with its options and their defaults, for the help."""
    parts = []
    for name in length_reward_names():
        options = ", ".join(f"{key}={value}" for key, value in length_reward_options(name).items())
        parts.append(f"{name} ({options})" if options else name)
    return ", ".join(parts)


def make_length_reward(
    name: str, alpha: float | None, given: dict[str, Any] | None, max_completion_length: int | None
) -> LengthReward:
    """The method `name`; `alpha` is `length_alpha`, `given` is `length_kwargs`.

    Raises:
        InputError: what the method refuses, under the name of the option on the command line.
    """
    options = dict(given or {})
    try:
        if alpha is not None and "alpha" in length_reward_options(name):
            if "alpha" in options:
                raise InputError("length_alpha: given, and so is alpha in length_kwargs; give one of them")
            options["alpha"] = alpha
        method = get_length_reward(name, **options)
        method.check_run(max_completion_length)
    except InputError as error:
        option = str(error).partition(":")[0]
        if option in ("length_reward", "length_alpha"):
            raise InputError(f"option {error}") from error
        if option == "alpha" and "alpha" not in (given or {}):
            raise InputError(f"option length_{error}") from error
        raise InputError(f"option length_kwargs (length_reward={name!r}): {error}") from error
    return method


def check_targets(method: LengthReward, eval_target: int | None, max_completion_length: int | None) -> None:
    """InputError where `length_eval_target` cannot be asked for."""
    if eval_target is None:
        return
    if method.instruction is None:
        raise InputError(
            f"option length_eval_target: length_reward={method.name!r} writes no target into prompts; l1_exact and "
            "l1_max do"
        )
    if eval_target < 1:
        raise InputError(f"option length_eval_target: found {eval_target}, expected a number of tokens, at least 1")
    if max_completion_length is not None and eval_target > max_completion_length:
        raise InputError(
            f"option length_eval_target: found {eval_target}, expected at most max_completion_length, "
            f"{max_completion_length}, where responses are cut off"
        )


def length_targets(method: LengthReward, seed: int, fixed: int | None = None) -> LengthTargets | None:
    """The lengths that prompts ask for, `fixed` or drawn; None where the method writes nothing into them."""
    if not isinstance(method, TargetReward):
        return None
    low, high = (method.low, method.high) if fixed is None else (fixed, fixed)
    assert method.instruction is not None
    return LengthTargets(method.instruction, low, high, seed)
