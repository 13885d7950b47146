"""What is said before an evaluation samples: how many problems there are, what was left out, under which versions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.console import Console

from attnpo.evaluation.environment import ENVIRONMENT, Environment

MOST_KINDS = 3


def tell_problems(console: Console, problems: Mapping[str, int], left_out: Mapping[str, Sequence[str]]) -> None:
    """A line per benchmark, and one for each of the commonest kinds of reasons why questions were left out."""
    for name, count in problems.items():
        reasons = left_out[name]
        tail = f" (left out: {len(reasons)}, see {ENVIRONMENT})" if reasons else ""
        console.print(f"{name}: {count} problem{'' if count == 1 else 's'}{tail}")
        for found, first in kinds(reasons)[:MOST_KINDS]:
            console.print(f"  {found} left out; {first}" if found == 1 else f"  {found} left out; the first: {first}")


def kinds(reasons: Sequence[str]) -> list[tuple[int, str]]:
    """(how many, the first) of reasons that differ in where and what was found alone; the commonest kind first."""
    found: dict[str, list[str]] = {}
    for reason in reasons:
        what = reason.partition(": ")[2]  # behind file and row, or benchmark and problem
        found.setdefault(re.sub(r"\d+|id '[^']*'", "", re.split(r",? \(?found ", what)[0]), []).append(reason)
    return sorted(((len(alike), alike[0]) for alike in found.values()), key=lambda kind: -kind[0])


def tell_versions(console: Console, environment: Environment) -> None:
    """A warning where a run goes on under other versions than it began with."""
    if environment.changed_versions:
        changed = ", ".join(environment.changed_versions)
        console.print(f"not the versions that this run began with, so its samples may differ: {changed}")
