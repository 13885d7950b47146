"""Reads the signals of a credit method in a forward of the policy that runs anyway.

TRL reads `inputs["advantages"]` after the forward that computes the log-probabilities, so credit computed from signals
of that forward still reaches the loss. On-policy it is the forward of the loss; where the policy changes between
generation and use, TRL runs an old-log-prob forward of the policy that sampled, and the scores must come from that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnpo.attention.capture import capture_scores
from attnpo.attention.heads import Head
from attnpo.attention.positions import OwnPositions
from attnpo.training.batch import GenerationBatch, StepTensors

Forward = Callable[..., tuple[Float[Tensor, "N C"], Float[Tensor, "N C"] | None, Float[Tensor, ""] | None]]
"""(ids [N, T], mask [N, T], C, rows per chunk, whether to compute entropies) -> log-probabilities of the last C tokens,
their entropies (None: not computed), the router loss of a mixture of experts (None for other models)."""

Signals = dict[str, Tensor]


@dataclass(frozen=True)
class Wanted:
    """The signals to read in one forward.

    Attributes:
        batch: the responses that the forward reads, or the batch from which they were shuffled.
        heads: the signal `attention` [N, S] is the mean over these heads; None: do not read it.
        entropy: whether to read the signal `entropy` [N, C].
        steps: of the rows of the forward; None: the rows are the first ones of `batch`, in its order.
        then: called with the signals before the forward returns to its caller.
    """

    batch: GenerationBatch
    heads: list[Head] | None
    entropy: bool
    steps: StepTensors | None = None
    then: Callable[[Signals], None] | None = None

    def steps_of(self, ids: Int[Tensor, "N T"], width: int) -> StepTensors:
        """Return the steps of the forward's rows. Before the rewards they come from the sampled ids; `width` is C."""
        if self.steps is not None:
            return self.steps
        return StepTensors.pack(self.batch.located[: len(ids)], width, ids.device)


class ForwardCapture:
    """Reads the first forward inside `next_forward`; other forwards run without being read.

    positions: sets the positions of every forward, including the reference model's, to those of the model's own
        generation; None: leave them unchanged.
    """

    def __init__(self, positions: OwnPositions | None = None) -> None:
        self._positions = positions
        self._open: tuple[Wanted, Signals] | None = None

    @contextmanager
    def next_forward(self, wanted: Wanted | None) -> Iterator[Signals]:
        """Yield a dict that the next forward inside the block fills with its signals; `wanted` None: with nothing."""
        signals: Signals = {}
        self._open = None if wanted is None else (wanted, signals)
        try:
            yield signals
        finally:
            self._open = None

    def run(
        self,
        forward: Forward,
        model: Any,
        ids: Int[Tensor, "N T"],
        mask: Int[Tensor, "N T"],
        width: int,
        batch_size: int | None = None,
        entropy: bool = False,
        *,
        of_reference: bool = False,
    ) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"] | None, Float[Tensor, ""] | None]:
        """Run `forward` and return its result; reads its signals inside `next_forward`. `width` is C.

        of_reference: `model` is the reference model, which is never read.
        """
        rows = (ids, mask, width, batch_size, entropy)
        with nullcontext() if self._positions is None else self._positions.given(model):
            if self._open is None or of_reference:
                return forward(*rows)
            (wanted, signals), self._open = self._open, None  # a following pass without the adapter is not read
            return _read(forward, model, rows, wanted, signals)


Rows = tuple[Int[Tensor, "N T"], Int[Tensor, "N T"], int, int | None, bool]
"""Arguments of a `Forward`."""


def _read(
    forward: Forward, model: Any, given: Rows, wanted: Wanted, signals: Signals
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"] | None, Float[Tensor, ""] | None]:
    """Run a forward in chunks of rows and put its signals into `signals`."""
    ids, mask, width, batch_size, entropy = given
    size = batch_size or len(ids)
    steps, longest = wanted.steps_of(ids, width), wanted.batch.longest_answer
    parts, scores = [], []
    for start in range(0, len(ids), size):
        rows = slice(start, start + size)
        chunk = ids[rows], mask[rows], width, None, entropy or wanted.entropy
        if wanted.heads is None:
            parts.append(forward(*chunk))
            continue
        with capture_scores(model, steps[rows].layout(mask[rows], longest), wanted.heads) as captured:
            parts.append(forward(*chunk))
        scores.append(captured.scores.mean(dim=0))
    logps, entropies, losses = zip(*parts, strict=True)
    found = torch.cat(entropies) if entropy or wanted.entropy else None
    if found is not None:
        signals["entropy"] = found.detach()
    if scores:
        signals["attention"] = torch.cat(scores)
    if wanted.then is not None:
        wanted.then(signals)
    router_loss = torch.stack(losses).mean() if losses[0] is not None else None
    return torch.cat(logps), found if entropy else None, router_loss
