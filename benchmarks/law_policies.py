"""The policies of law_simulation.py: which steps they write, and the gradient of an update.

`written`: every step is written or not, independently of the others; redundant step m of M belongs to logit m mod R.
A response is right if and only if all essential steps are written. A step that is not written is a decision too, made
by the token that continues with something else: it has the outcome advantage (`skipped="outcome"`) or none
(`"nothing"`).

`choice`: at every decision the policy either writes a redundant step of one of R kinds or continues, to the next
essential step or, after the last one, to the answer: a softmax over R logits and 0. Essential steps are always written,
and a response is right with a constant probability. `choice_end`: continuing has its own logit, learned like the
others.

The gradient is that of Σ scale · advantage · log-probability over all decisions, divided by the number of written
steps (the mean over tokens of the loss, a step being a token). The answer keeps the outcome advantage.

Legend: S seeds (parallel training runs), P problems, G responses per problem, K kinds of steps, L logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

SKIPPED = ("outcome", "nothing")
MODELS = ("written", "choice", "choice_end")


@dataclass(frozen=True)
class Setting:
    """One regime. `redundant` steps (M) share `parameters` logits (R); an update sees problems × group responses."""

    problems: int
    redundant: int
    parameters: int
    model: str = "written"
    skipped: str = "outcome"
    essential: int = 4
    group: int = 8
    start: float = 0.7
    """Probability of a redundant step at the start; start × redundant is the redundancy to be removed."""
    essential_start: float = 0.95
    alpha: float = 0.4
    learning_rate: float = 0.05


class Policy(Protocol):
    essential: Bool[ndarray, "K"]
    logits_of_redundant: slice

    def start(self) -> Float[ndarray, "L"]: ...
    def sample(
        self, logits: Float[ndarray, "S L"], rng: np.random.Generator
    ) -> tuple[Int[ndarray, "S P G K"], Bool[ndarray, "S P G"]]:
        """Return the number of steps of every kind in each response, and whether it is right."""
        ...

    def gradient(
        self,
        logits: Float[ndarray, "S L"],
        counts: Int[ndarray, "S P G K"],
        kept: Int[ndarray, "S P G K"],
        advantages: Float[ndarray, "S P G"],
    ) -> Float[ndarray, "S L"]:
        """Return the gradient for ascent. `kept`: how many of `counts` have scale 1; the others have scale 0."""
        ...

    def left(self, logits: Float[ndarray, "S L"]) -> Float[ndarray, "S"]:
        """Return the expected redundant steps per response, as a share of those at the start."""
        ...

    def accuracy(self, logits: Float[ndarray, "S L"]) -> Float[ndarray, "S"]: ...


class Written:
    def __init__(self, setting: Setting) -> None:
        self.setting, e = setting, setting.essential
        self.owner = np.concatenate([np.arange(e), e + np.arange(setting.redundant) % setting.parameters])
        self.owns = self.owner[:, None] == np.arange(e + setting.parameters)
        self.essential = np.arange(e + setting.redundant) < e
        self.logits_of_redundant = slice(e, None)

    def start(self) -> Float[ndarray, "L"]:
        chances = np.full(self.setting.essential + self.setting.parameters, self.setting.start)
        chances[: self.setting.essential] = self.setting.essential_start
        return np.log(chances / (1 - chances))

    def chances(self, logits: Float[ndarray, "S L"]) -> Float[ndarray, "S 1 1 K"]:
        return 1 / (1 + np.exp(-logits[:, None, None, self.owner]))

    def sample(
        self, logits: Float[ndarray, "S L"], rng: np.random.Generator
    ) -> tuple[Int[ndarray, "S P G K"], Bool[ndarray, "S P G"]]:
        chances = self.chances(logits)
        shape = (len(logits), self.setting.problems, self.setting.group, len(self.owner))
        written = rng.random(shape) < chances
        return written.astype(int), np.all(written[..., self.essential], axis=-1)

    def gradient(
        self,
        logits: Float[ndarray, "S L"],
        counts: Int[ndarray, "S P G K"],
        kept: Int[ndarray, "S P G K"],
        advantages: Float[ndarray, "S P G"],
    ) -> Float[ndarray, "S L"]:
        chances = self.chances(logits)
        per_step = kept * (1 - chances)
        if self.setting.skipped == "outcome":
            per_step = per_step - (1 - counts) * chances
        summed = (advantages[..., None] * per_step).sum(axis=(1, 2)) @ self.owns
        return summed / np.maximum(counts.sum(axis=(1, 2, 3)), 1)[:, None]

    def left(self, logits: Float[ndarray, "S L"]) -> Float[ndarray, "S"]:
        return self.chances(logits)[:, 0, 0, ~self.essential].mean(axis=-1) / self.setting.start

    def accuracy(self, logits: Float[ndarray, "S L"]) -> Float[ndarray, "S"]:
        return self.chances(logits)[:, 0, 0, self.essential].prod(axis=-1)


class Choice:
    """Kind 0 is the essential steps. The order of the decisions does not matter, so only counts are drawn: redundant
    steps until the policy has continued essential + 1 times (a negative binomial), then their kinds (a multinomial)."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.essential = np.arange(setting.parameters + 1) < 1
        self.learns_end = setting.model == "choice_end"
        self.logits_of_redundant = slice(1 if self.learns_end else 0, None)

    def start(self) -> Float[ndarray, "L"]:
        s = self.setting
        each = np.full(s.parameters, np.log(s.start * s.redundant / (s.essential + 1) / s.parameters))
        return np.concatenate([[0.0], each]) if self.learns_end else each

    def chances(self, logits: Float[ndarray, "S L"]) -> Float[ndarray, "S 1 1 K"]:
        """Return the probabilities of continuing, then of each redundant kind."""
        every = logits if self.learns_end else np.pad(logits, ((0, 0), (1, 0)))
        weights = np.exp(every - every.max(axis=-1, keepdims=True))[:, None, None]
        return weights / weights.sum(axis=-1, keepdims=True)

    def sample(
        self, logits: Float[ndarray, "S L"], rng: np.random.Generator
    ) -> tuple[Int[ndarray, "S P G K"], Bool[ndarray, "S P G"]]:
        s, chances = self.setting, self.chances(logits)
        shape = (len(logits), s.problems, s.group)
        redundant = rng.negative_binomial(s.essential + 1, chances[..., 0], shape)
        kinds = rng.multinomial(redundant, chances[..., 1:] / chances[..., 1:].sum(axis=-1, keepdims=True))
        counts = np.concatenate([np.full((*shape, 1), s.essential), kinds], axis=-1)
        return counts, rng.random(shape) < self.accuracy(logits)[:, None, None]

    def gradient(
        self,
        logits: Float[ndarray, "S L"],
        counts: Int[ndarray, "S P G K"],
        kept: Int[ndarray, "S P G K"],
        advantages: Float[ndarray, "S P G"],
    ) -> Float[ndarray, "S L"]:
        decisions = kept.astype(float)
        decisions[..., 0] += 1  # the last one, for the answer
        per_kind = decisions - decisions.sum(axis=-1, keepdims=True) * self.chances(logits)
        summed = (advantages[..., None] * per_kind).sum(axis=(1, 2)) / counts.sum(axis=(1, 2, 3))[:, None]
        return summed if self.learns_end else summed[:, 1:]

    def left(self, logits: Float[ndarray, "S L"]) -> Float[ndarray, "S"]:
        s, going_on = self.setting, self.chances(logits)[:, 0, 0, 0]
        return (s.essential + 1) * (1 - going_on) / going_on / (s.start * s.redundant)

    def accuracy(self, logits: Float[ndarray, "S L"]) -> Float[ndarray, "S"]:
        return np.full(len(logits), self.setting.essential_start**self.setting.essential)


def policy_of(setting: Setting) -> Policy:
    return Written(setting) if setting.model == "written" else Choice(setting)
