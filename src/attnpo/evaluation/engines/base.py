"""What an evaluation asks of an engine.

What a model's own generation settings ask for beside its end tokens: told to be unused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from transformers import GenerationConfig

from attnpo.evaluation.plan import Request

DEFAULT_BATCH_SIZE = {"transformers": 32, "vllm": 512}
"""Responses of a batch. vLLM makes its own batches out of what it is handed."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; temperature 0 is greedy."""

    temperature: float = 0.6
    top_p: float = 0.95


@dataclass(frozen=True)
class Completion:
    """The token ids of one response, its end token included; `finished`: it ended by itself, not at its limit."""

    ids: list[int]
    finished: bool


Deliver = Callable[[Request, Completion], None]


class Engine(Protocol):
    """A loaded model.

    Attributes:
        facts: for environment.json: device, dtype, kind of seeds …
        notes: for people: what of the model's own settings is not used, and the like.
    """

    tokenizer: Any
    facts: dict[str, Any]
    notes: list[str]

    def generate(self, batch: Sequence[Request], *, deliver: Deliver, tick: Callable[[int], None]) -> None:
        """Sample every request; each is delivered once, as soon as it is there. `tick`: so many new tokens."""
        ...


_NO_CHOICE = {"eos_token_id", "pad_token_id", "bos_token_id", "use_cache", "transformers_version"}


def unused_settings(config: GenerationConfig, sampling: Sampling) -> list[str]:
    """What a model's settings ask for and the evaluation does not do, for people to read."""
    done = {"temperature": sampling.temperature, "top_p": sampling.top_p, "do_sample": sampling.temperature > 0}
    asked = {
        name: value
        for name, value in config.to_diff_dict().items()
        if name not in _NO_CHOICE
        and not name.startswith("_")
        and value not in (None, False)
        and done.get(name) != value
    }
    if not asked:
        return []
    listed = ", ".join(f"{name} {asked[name]}" for name in sorted(asked))
    return [f"the model's own generation settings are not used: {listed}"]
