"""Reward functions by name, as on a command line: the verifier of this package, TRL's own, and a user's.

A user's function is named `module:function` and has TRL's shape: it gets `completions`, `prompts`, `completion_ids` and
every column of the data set as keyword arguments, one list each, and returns one number (or None) per completion.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attnpo.errors import InputError
from attnpo.rewards.accuracy import AccuracyReward

OURS = "accuracy"

OF_TRL = ("accuracy_reward", "reasoning_accuracy_reward", "think_format_reward")
"""Functions of `trl.rewards` that need nothing but their columns; the first two look for a column `solution`."""


def load_rewards(names: Sequence[str], accuracy: AccuracyReward) -> list[Callable[..., Any]]:
    """The functions of these names, in their order; `accuracy` is this package's verifier.

    Raises:
        InputError: a name that is none of the three kinds, a module or function that cannot be had, a name given twice.
    """
    functions: list[Callable[..., Any]] = []
    for name in names:
        if name == OURS:
            functions.append(accuracy)
        elif name in OF_TRL:
            functions.append(getattr(importlib.import_module("trl.rewards"), name))
        elif ":" in name:
            functions.append(_of_user(name))
        else:
            known = ", ".join((OURS, *OF_TRL))
            raise InputError(f"option reward_funcs: found {name!r}, expected {known}, or MODULE:FUNCTION of your own")
    called = [getattr(function, "__name__", type(function).__name__) for function in functions]
    twice = sorted({name for name in called if called.count(name) > 1})
    if twice:
        raise InputError(f"option reward_funcs: two functions are called {twice[0]!r}; expected different names")
    return functions


def _of_user(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")  # the current folder, as by `python -m`
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise InputError(
            f"option reward_funcs: module {module!r} of {name!r} cannot be imported: {error}; expected the name of a "
            "module in the current folder or where Python finds it, without .py"
        ) from error
    finally:
        sys.path.remove("")
    if not callable(found):
        what = "nothing" if found is None else f"a {type(found).__name__}"
        raise InputError(f"option reward_funcs: found {what} called {attribute!r} in {module}, expected a function")
    return found


def with_columns(problems: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Problems with the other columns of the rows that they are made of, which reward functions may ask for.

    `prompt`, the column that the trainer is given its prompts in, and columns that not every row has are left out.
    """
    if len(problems) != len(rows):
        return [dict(problem) for problem in problems]
    common = set.intersection(*(set(row) for row in rows)) - {"prompt"} if rows else set()
    kept = [name for name in rows[0] if name in common] if rows else []
    return [{**{name: row[name] for name in kept}, **problem} for problem, row in zip(problems, rows, strict=True)]
