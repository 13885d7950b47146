"""The small models that are shipped with the package. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

OVERTHINKER = "overthinker"
OVERTHINKER_LONG = "overthinker-long"
SHIPPED = (OVERTHINKER, OVERTHINKER_LONG)

LONG_FROM = 16.0
"""Redundant steps per trace from which on the model of long traces (about 30) is nearer than that of short ones (5)."""


def shipped_model(redundancy: float | None) -> str:
    """The shipped model that writes about so many redundant steps per response; None: the one of short traces."""
    return OVERTHINKER if redundancy is None or redundancy < LONG_FROM else OVERTHINKER_LONG


def resolve_model(name_or_path: str | None = None) -> str:
    """Path of a shipped model for its name (None: "overthinker"); anything else unchanged."""
    name = OVERTHINKER if name_or_path is None else name_or_path
    return str(Path(__file__).resolve().parent / name) if name in SHIPPED else name


def model_name(name_or_path: str) -> str:
    """The name to write down for a model: "overthinker" for a folder of a shipped one, anything else unchanged."""
    found = Path(name_or_path).resolve() if name_or_path else None
    return next((name for name in SHIPPED if found == Path(resolve_model(name))), name_or_path)
