"""Values of a YAML file, held to the types their options have. TRL's parser checks the command line only."""

from __future__ import annotations

import types
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from attnpo.errors import InputError

_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


def typed_value(option: str, value: Any, hint: Any) -> Any:
    """`value` as the option's type wants it; texts are left to the parser, which reads them as on the command line.

    Raises:
        InputError: a value of another type; names the option, what was found and what was expected.
    """
    arms = _arms(hint)
    if Any in arms:
        return value
    enums = [arm for arm in arms if isinstance(arm, type) and issubclass(arm, Enum)]
    if value is False and enums:
        value = "no"  # YAML reads a bare `no`, as in `eval_strategy: no`, as false
    choices = [member.value for arm in enums for member in arm]
    choices += [choice for arm in arms if get_origin(arm) is Literal for choice in get_args(arm)]
    if choices and isinstance(value, str):
        if value in choices:
            return value
        raise InputError(f"option {option}: found {value!r}, expected one of {', '.join(map(str, choices))}")
    if isinstance(value, str) and {str, bool, int, float}.intersection(arms):
        return value
    if any(_fits(value, arm) for arm in arms):
        return float(value) if float in arms and int not in arms and type(value) is int else value
    if str in arms and type(value) in (int, float):
        return str(value)  # `task_difficulty: 2`
    expected = " or ".join(dict.fromkeys(_NAMES.get(get_origin(arm) or arm, str(arm)) for arm in arms))
    raise InputError(f"option {option}: found {value!r}, expected {expected}")


def _arms(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [inner for arm in get_args(hint) for inner in _arms(arm)]
    return [hint]


def _fits(value: Any, arm: Any) -> bool:
    origin = get_origin(arm) or arm
    if origin is list:
        inner = get_args(arm) or (Any,)
        return isinstance(value, list) and all(inner[0] is Any or _fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, Mapping)
    if origin is float:
        return type(value) in (int, float)
    return type(value) is origin
