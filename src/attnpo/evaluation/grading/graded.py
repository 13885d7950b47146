"""What grading says about one response."""

from __future__ import annotations

from dataclasses import dataclass, field

from attnpo.rewards.verdict import Verdict


@dataclass(frozen=True)
class Graded:
    """The verdict on a response, and the answer that was read out of it.

    Attributes:
        verdict: None only for a question without a reference or tests.
        extracted: for people to look at; None where no answer was found.
        fired: rules of the verifier that took part (mathematics).
    """

    verdict: Verdict | None
    extracted: str | None
    fired: tuple[str, ...] = field(default=(), kw_only=True)
