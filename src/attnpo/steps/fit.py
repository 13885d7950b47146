"""The fit of a lexicon to responses: whether it cuts them into enough steps for credit per step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median, quantiles

FEWEST_STEPS = 3
"""Fewer median steps per response than this give a warning: with one or two, credit per step is little more than credit
per response."""

LARGEST_SHARE = 0.8
"""A larger median share of the thinking text in its largest step gives a warning."""

MOST_UNCUT = 0.5
"""A larger share of responses that are one single step gives a warning."""

_NOTHING = "credit per step has nothing to tell apart (another thinking format, or a model that does not think)"
_LETTER = re.compile(r"[^\W\d_]")
_WIDE_LETTER = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
Span = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """Figures of the steps of a set of responses, without those that have no thinking.

    Attributes:
        traces: number of responses. empty: number of responses without thinking text, left out of all other figures.
        steps: median number of steps per response; low and high: 10th and 90th percentile.
        characters: mean length of a step; tokens: the same in tokens, None where they were not counted.
        largest: median over the responses of the largest step's share of the thinking text.
        uncut: share of the responses that are one single step.
        wide: share of the letters that are Chinese, Japanese or Korean.
    """

    traces: int
    empty: int
    steps: float
    low: float
    high: float
    characters: float
    tokens: float | None
    largest: float
    uncut: float
    wide: float

    def warning(self, lexicon: str) -> str | None:
        """The reason why credit per step means little on these responses, and what to try; None if the fit is good."""
        if self.traces == 0:
            return f"none of {self.empty} responses has a thinking part: {_NOTHING}" if self.empty else None
        few = self.steps < FEWEST_STEPS or self.largest > LARGEST_SHARE or self.uncut > MOST_UNCUT
        if not few:
            return None
        other = "paper+zh" if self.wide > 0.2 and "zh" not in lexicon.split("+") else "paragraphs"
        tried = other in lexicon.split("+")
        hint = (
            "a lexicon of the model's own phrases can be proposed with `attnpo segment FILE --suggest`"
            if tried
            else f"try lexicon {other}, or propose one with `attnpo segment FILE --suggest`"
        )
        return (
            f"the lexicon {lexicon} cuts too few steps for credit per step to mean anything: median {self.steps:g} per "
            f"response (expected at least {FEWEST_STEPS}), {self.uncut:.0%} of the responses are one single step, the "
            f"largest step has {self.largest:.0%} of the thinking text; {hint}"
        )


def fit_of(thinkings: Sequence[str], steps: Sequence[Sequence[Span]], tokens: Sequence[int] | None = None) -> Fit:
    """Measure the fit of a lexicon.

    Args:
        thinkings: the thinking texts.
        steps: per text, the character spans of its steps.
        tokens: number of tokens of each text.

    >>> fit = fit_of(["ab cd", "abc"], [[(0, 3), (3, 5)], [(0, 3)]], tokens=[2, 1])
    >>> fit.steps, fit.characters, fit.tokens, fit.largest, fit.uncut
    (1.5, 2.6666666666666665, 1.0, 0.8, 0.5)
    """
    used = [i for i, spans in enumerate(steps) if spans]
    empty = len(steps) - len(used)
    if not used:
        return Fit(0, empty, 0.0, 0.0, 0.0, 0.0, None, 0.0, 0.0, 0.0)
    counts = [len(steps[i]) for i in used]
    sizes = [[end - start for start, end in steps[i]] for i in used]
    deciles = quantiles(counts, n=10, method="inclusive") if len(counts) > 1 else [counts[0]] * 9
    text = "".join(thinkings[i] for i in used)
    letters = "".join(_LETTER.findall(text)) if _WIDE_LETTER.search(text) else ""  # slow, so only where needed
    return Fit(
        traces=len(used),
        empty=empty,
        steps=median(counts),
        low=deciles[0],
        high=deciles[-1],
        characters=mean(size for row in sizes for size in row),
        tokens=None if tokens is None else sum(tokens[i] for i in used) / sum(counts),
        largest=median(max(row) / sum(row) for row in sizes),
        uncut=sum(count == 1 for count in counts) / len(counts),
        wide=len(_WIDE_LETTER.findall(letters)) / max(1, len(letters)),
    )
