"""How a model thinks: how often it turns, goes forward or looks back, and in how many steps.

Counts, not intervals: they describe the very responses that were sampled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from attnpo.evaluation.records import Sample
from attnpo.steps.lexicon import PHRASE_KINDS, phrase_counts
from attnpo.steps.response import thinking_of
from attnpo.steps.segment import segment_steps


def behaviour(samples: Sequence[Sample], lexicon: str = "paper") -> dict[str, float | None]:
    """Triggers of each phrase list per 1,000 thinking tokens, over all samples; mean number of steps per response.

    The frequencies are None where nothing was thought. Raises InputError for an unknown lexicon.
    """
    counts: Counter[str] = Counter()
    steps = []
    for sample in samples:
        # A response of a model that does not think has no closing tag either; only its counts tell.
        thinking = thinking_of(sample.text) if sample.thinking_tokens else ""
        counts.update(phrase_counts(thinking, lexicon))
        steps.append(len(segment_steps(thinking, lexicon)))
    tokens = sum(sample.thinking_tokens for sample in samples)
    frequencies = {f"{kind}_per_1k": 1000 * counts[kind] / tokens if tokens else None for kind in PHRASE_KINDS}
    return {**frequencies, "steps": fmean(steps) if steps else None}
