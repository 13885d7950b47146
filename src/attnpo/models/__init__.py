"""The small model that is shipped with the package. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

OVERTHINKER = "overthinker"


def resolve_model(name_or_path: str | None = None) -> str:
    """Path of the packaged over-thinking model for None or "overthinker"; anything else unchanged."""
    if name_or_path is None or name_or_path == OVERTHINKER:
        return str(Path(__file__).resolve().parent / OVERTHINKER)
    return name_or_path


def model_name(name_or_path: str) -> str:
    """The name to write down for a model: "overthinker" for the packaged one, anything else unchanged."""
    packaged = Path(resolve_model())
    return OVERTHINKER if name_or_path and Path(name_or_path).resolve() == packaged else name_or_path
