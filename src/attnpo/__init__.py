"""attnpo: make a reasoning model think shorter without getting worse.

Public names are imported on first use, so that ``import attnpo`` and ``attnpo --help`` never wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Step": "attnpo.steps.segment",
    "segment_steps": "attnpo.steps.segment",
    "step_scales": "attnpo.credit.attnpo",
    "score_steps": "attnpo.attention.capture",
    "AttnPOConfig": "attnpo.training.config",
    "AttnPOTrainer": "attnpo.training.trainer",
}

__all__ = ["AttnPOConfig", "AttnPOTrainer", "Step", "__version__", "score_steps", "segment_steps", "step_scales"]

if TYPE_CHECKING:
    from attnpo.attention.capture import score_steps
    from attnpo.credit.attnpo import step_scales
    from attnpo.steps.segment import Step, segment_steps
    from attnpo.training.config import AttnPOConfig
    from attnpo.training.trainer import AttnPOTrainer


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attnpo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
