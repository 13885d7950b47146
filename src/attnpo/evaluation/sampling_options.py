"""Whether evaluations were sampled alike: differences between them may else be those of the options, not the models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

ALIKE = (
    *("temperature", "top_p", "max_tokens", "thinking", "engine", "dtype"),
    *("prompt_template", "chat_template_kwargs"),
)
"""Options of eval.yaml that change what a model writes, besides the samples per problem of each benchmark."""


def sampling_notice(options: Mapping[str, Mapping[str, Any]], benchmarks: Sequence[str]) -> str | None:
    """One sentence on the options in which evaluations differ, None where they are alike.

    Args:
        options: eval.yaml by name of the evaluation. One that does not record an option says nothing about it.
        benchmarks: those whose samples per problem count.

    >>> sampling_notice({"cool": {"temperature": 0.6}, "hot": {"temperature": 1.0}, "older": {}}, [])
    'sampled with different options: temperature 0.6 (cool), 1.0 (hot).'
    """
    differing = [f"{option} {found}" for option in ALIKE if (found := _differing(options, option))]
    samples: dict[str, list[str]] = {}
    for benchmark in benchmarks:
        if found := _differing({name: _of(values, benchmark) for name, values in options.items()}, "samples"):
            samples.setdefault(found, []).append(benchmark)
    differing += [f"samples per problem of {', '.join(names)} {found}" for found, names in samples.items()]
    return f"sampled with different options: {'; '.join(differing)}." if differing else None


def sampling_notices(options: Mapping[str, Mapping[str, Any]], having: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for every group of evaluations that are compared; it names its benchmarks where groups differ.

    `having`: the evaluations of each benchmark.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for benchmark, names in having.items():
        groups.setdefault(tuple(names), []).append(benchmark)
    found = []
    for names, benchmarks in groups.items():
        if notice := sampling_notice({name: options[name] for name in names}, benchmarks):
            found.append(notice if len(groups) == 1 else f"{', '.join(benchmarks)}: {notice}")
    return found


def _differing(options: Mapping[str, Mapping[str, Any]], option: str) -> str:
    """Every value with the names that have it; empty where there is but one."""
    names: dict[str | float, list[str]] = {}
    for name, values in options.items():
        if option in values:
            names.setdefault(_plain(values[option]), []).append(name)
    return ", ".join(f"{value} ({', '.join(having)})" for value, having in names.items()) if len(names) > 1 else ""


def _plain(value: Any) -> str | float:
    """A number as it is, so that 1 and 1.0 are the same; anything else as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value, default=str)


def _of(options: Mapping[str, Any], benchmark: str) -> Mapping[str, Any]:
    """What is recorded of one benchmark; nothing where only the names are."""
    recorded = options.get("benchmarks")
    found = recorded.get(benchmark) if isinstance(recorded, Mapping) else None
    return found if isinstance(found, Mapping) else {}
