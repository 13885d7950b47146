"""The small models that are shipped with the package. This module does not import torch."""

from __future__ import annotations

from pathlib import Path

from attnpo.errors import closest

OVERTHINKER = "overthinker"
OVERTHINKER_MEDIUM = "overthinker-medium"
OVERTHINKER_LONG = "overthinker-long"
SHIPPED = {OVERTHINKER: 5, OVERTHINKER_MEDIUM: 12, OVERTHINKER_LONG: 30}
"""Shipped model -> approximate number of redundant steps in its responses."""


def shipped_model(redundancy: float | None) -> str:
    """The shipped model with the nearest number of redundant steps per response, by ratio; None: "overthinker"."""
    if redundancy is None or redundancy <= 0:
        return OVERTHINKER
    return min(SHIPPED, key=lambda name: max(redundancy / SHIPPED[name], SHIPPED[name] / redundancy))


def resolve_model(name_or_path: str | None = None) -> str:
    """The path of a shipped model for its name (None: "overthinker"); anything else unchanged."""
    name = OVERTHINKER if name_or_path is None else name_or_path
    return str(Path(__file__).resolve().parent / name) if name in SHIPPED else name


def model_name(name_or_path: str) -> str:
    """The name to record for a model: "overthinker" for the folder of that shipped one, anything else unchanged."""
    found = Path(name_or_path).resolve() if name_or_path else None
    return next((name for name in SHIPPED if found == Path(resolve_model(name))), name_or_path)


def nearest_model(missing: str) -> str:
    """A hint for a path that does not exist: a folder next to it that has a model and a similar name, else a shipped
    model with a similar name; "" if there is neither."""
    path = Path(missing).expanduser()
    siblings = [p.name for p in path.parent.iterdir() if (p / "config.json").is_file()] if path.parent.is_dir() else []
    for names, folder in ((siblings, path.parent), (list(SHIPPED), Path())):
        if alike := closest(path.name, names):
            return f"; did you mean {folder / alike}?"
    return ""
