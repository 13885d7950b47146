"""The small models that are shipped with the package. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from attnpo.errors import closest

OVERTHINKER = "overthinker"
OVERTHINKER_MEDIUM = "overthinker-medium"
OVERTHINKER_LONG = "overthinker-long"
SHIPPED = {OVERTHINKER: 5, OVERTHINKER_MEDIUM: 12, OVERTHINKER_LONG: 30}
"""Shipped model -> about how many redundant steps its responses have."""


def shipped_model(redundancy: float | None) -> str:
    """The shipped model nearest to so many redundant steps per response, by their ratio; None: "overthinker"."""
    if redundancy is None or redundancy <= 0:
        return OVERTHINKER
    return min(SHIPPED, key=lambda name: max(redundancy / SHIPPED[name], SHIPPED[name] / redundancy))


def resolve_model(name_or_path: str | None = None) -> str:
    """Path of a shipped model for its name (None: "overthinker"); anything else unchanged."""
    name = OVERTHINKER if name_or_path is None else name_or_path
    return str(Path(__file__).resolve().parent / name) if name in SHIPPED else name


def model_name(name_or_path: str) -> str:
    """The name to write down for a model: "overthinker" for a folder of a shipped one, anything else unchanged."""
    found = Path(name_or_path).resolve() if name_or_path else None
    return next((name for name in SHIPPED if found == Path(resolve_model(name))), name_or_path)


def nearest_model(missing: str) -> str:
    """A hint for a path where there is nothing: the folder beside it that has a model and is called nearly so, else a
    shipped model; "" where there is neither."""
    path = Path(missing).expanduser()
    beside = [p.name for p in path.parent.iterdir() if (p / "config.json").is_file()] if path.parent.is_dir() else []
    for names, folder in ((beside, path.parent), (list(SHIPPED), Path())):
        if alike := closest(path.name, names):
            return f"; did you mean {folder / alike}?"
    return ""
