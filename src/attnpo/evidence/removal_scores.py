"""The scores of the removal test: of the steps by the chosen heads, and by sets of random heads as a control."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from torch import nn

from attnpo.attention.heads import Head
from attnpo.attention.interface import all_heads
from attnpo.errors import InputError
from attnpo.probe.prepare import PreparedTrace, score_traces


def draw_random_heads(network: nn.Module, chosen: Sequence[Head], sets: int, seed: int = 0) -> list[list[Head]]:
    """Different sets of as many heads as chosen, none of them a chosen one.

    Raises InputError where the model has too few other heads.
    """
    others = [head for head in all_heads(network) if head not in set(chosen)]
    most = math.comb(len(others), len(chosen))
    if sets > most:
        raise InputError(
            f"--random-heads is {sets}, expected at most {most}, the number of sets of {len(chosen)} heads among the "
            f"{len(others)} that are not chosen"
        )
    rng, found = random.Random(seed), []
    while len(found) < sets:
        drawn = sorted(rng.sample(others, len(chosen)))
        if drawn not in found:
            found.append(drawn)
    return found


def score_sets(
    network: nn.Module,
    traces: Sequence[PreparedTrace],
    sets: Sequence[Sequence[Head]],
    batch_size: int,
    progress: Callable[[int, int], None],
) -> list[list[list[float]]]:
    """Scores by trace, set of heads and step: the mean over the heads of a set. No trace is a skipped one.

    One forward reads the heads of all sets. progress: called with (traces scored, all).
    """
    heads = list(dict.fromkeys(head for one in sets for head in one))
    rows = [[heads.index(head) for head in one] for one in sets]
    scores: list[list[list[float]]] = [[] for _ in traces]
    progress(0, len(traces))
    for done, (i, per_head) in enumerate(score_traces(network, traces, heads, batch_size), 1):
        scores[i] = [per_head[row].mean(dim=0).tolist() for row in rows]
        progress(done, len(traces))
    return scores
