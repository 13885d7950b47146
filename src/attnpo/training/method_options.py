"""Options of the credit method and of the length reward: their checks, and the methods created from them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attnpo.credit.base import CreditMethod, get_credit
from attnpo.data.targets import LengthTargets
from attnpo.errors import InputError
from attnpo.rewards.length import LengthReward, get_length_reward, length_reward_names, length_reward_options
from attnpo.rewards.length.l1 import TargetReward

if TYPE_CHECKING:  # other engines take their options from here without TRL
    from trl.trainer.grpo_config import GRPOConfig


def describe_length_rewards() -> str:
    """List the length rewards with their options and defaults, for the help."""
    parts = []
    for name in length_reward_names():
        options = ", ".join(f"{key}={value}" for key, value in length_reward_options(name).items())
        parts.append(f"{name} ({options})" if options else name)
    return ", ".join(parts)


def make_length_reward(
    name: str, alpha: float | None, given: dict[str, Any] | None, max_completion_length: int | None
) -> LengthReward:
    """Create the method `name`; `alpha` is `length_alpha`, `given` is `length_kwargs`.

    Raises:
        InputError: the method refuses a value; names the option of the command line.
    """
    options = dict(given or {})
    try:
        if alpha is not None and "alpha" in length_reward_options(name):
            if "alpha" in options:
                raise InputError("length_alpha: found together with alpha in length_kwargs; expected one of them")
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
    """Raise InputError for an invalid `length_eval_target`."""
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
    """Return the lengths to request in prompts, `fixed` or drawn; None where the method requests none."""
    if not isinstance(method, TargetReward):
        return None
    low, high = (method.low, method.high) if fixed is None else (fixed, fixed)
    assert method.instruction is not None
    return LengthTargets(method.instruction, low, high, seed)


ATTNPO_OPTIONS = {
    "beta": "credit_beta",
    "lam": "credit_lambda",
    "delta": "credit_delta",
    "delay": "credit_delay",
    "positive": "credit_positive",
    "negative": "credit_negative",
    "difficulty": "credit_difficulty",
    "yardstick": "credit_yardstick",
    "threshold": "credit_threshold",
    "sharp": "credit_sharp",
}
"""AttnPO's names of its options -> names in the configuration."""

OF_HEADS = "heads"  # credit_threshold: the value in the head file, read once the heads are known


def import_modules(names: str | None) -> None:
    """Import comma-separated modules that register methods; the current folder is searched first, as by `python -m`."""
    for name in (names or "").split(","):
        if name:
            _import(name.strip())


def _import(module: str) -> None:
    sys.path.insert(0, "")
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"option credit_module: {module!r} cannot be imported: {error}; expected the name of a module in the "
            "current folder or where Python finds it, without .py"
        ) from error
    finally:
        sys.path.remove("")


def fixed_threshold(given: str | float, yardstick: str) -> float:
    """Return `credit_threshold` as a number; for "heads" 1, until the head file is read.

    Raises:
        InputError: neither a number nor "heads"; "heads" with a yardstick that head files do not use.
    """
    if given == OF_HEADS:
        if yardstick != "uniform":
            raise InputError(
                f"option credit_threshold: 'heads' is measured in units of uniform attention; found "
                f"credit_yardstick={yardstick!r}, expected uniform"
            )
        return 1.0
    try:
        return float(given)
    except ValueError:
        raise InputError(f"option credit_threshold: found {given!r}, expected a number or {OF_HEADS}") from None


def make_credit(name: str, given: dict[str, Any] | None, of_attnpo: dict[str, Any]) -> CreditMethod:
    """Create the method `name`; `given` is `credit_kwargs`, `of_attnpo` the options `credit_…` by AttnPO's names.

    Raises:
        InputError: the method refuses a value; names the option of the command line.
    """
    if name == "attnpo" and given:
        raise InputError("option credit_kwargs: with credit='attnpo' use the options credit_beta, credit_delay, …")
    try:
        return get_credit(name, **(of_attnpo if name == "attnpo" else given or {}))
    except InputError as error:
        option, colon, rest = str(error).partition(":")
        if name == "attnpo" and option in ATTNPO_OPTIONS:
            raise InputError(f"option {ATTNPO_OPTIONS[option]}{colon}{rest}") from error
        raise InputError(f"option credit_kwargs (credit={name!r}): {error}") from error


def check_loss(config: GRPOConfig, name: str, method: CreditMethod) -> None:
    """Raise InputError for options under which TRL's loss would be wrong with the method's (B, T) advantages."""
    needed: Mapping[str, Any] = getattr(method, "run_options", {})
    found = {option: getattr(config, option) for option in needed}
    if other := [option for option in needed if found[option] != needed[option]]:
        listing = "; ".join(f"option {one}: found {found[one]!r}, expected {needed[one]!r}" for one in other)
        raise InputError(f"{listing}: credit={name!r} works only with this")
    refused = {
        "loss_type": (config.loss_type in ("vespo", "luspo"), "weights complete sequences"),
        "importance_sampling_level": (config.importance_sampling_level != "token", "has one ratio per sequence"),
        "off_policy_mask_threshold": (
            config.off_policy_mask_threshold is not None,
            "masks sequences by the sign of one advantage",
        ),
        "multi_objective_aggregation": (
            config.multi_objective_aggregation != "sum_then_normalize",
            "normalises rewards differently from the chosen advantage",
        ),
    }
    for option, (is_set, why) in refused.items():
        if option in needed:
            continue
        if is_set and (name != "outcome" or option == "multi_objective_aggregation"):
            raise InputError(
                f"option {option}: {getattr(config, option)!r} {why}; it cannot be used with credit={name!r}"
            )
