"""Credit inside a forward that runs anyway: one forward of the policy, read for the signals that a method asks for.

TRL reads `inputs["advantages"]` after the forward that gives the log-probabilities, so credit formed from signals of
that very forward still reaches the loss. On-policy it is the loss forward; where the policy moves between generation
and use, TRL runs an old-log-prob forward, and scores must come from that one, the policy that sampled.
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
"""(ids [N, T], mask [N, T], C, rows at once, whether entropies are wanted) -> log-probabilities of the last C tokens,
their entropies (None: not wanted), the loss of a mixture's router (None: no such model)."""

Signals = dict[str, Tensor]


@dataclass(frozen=True)
class Wanted:
    """What one forward is to be read for.

    Attributes:
        batch: the responses that the forward reads, or the batch they were shuffled out of.
        heads: the heads of the signal `attention` [N, S], the mean over them; None: it is not wanted.
        entropy: whether the signal `entropy` [N, C] is.
        steps: of the rows of the forward; None: they are the first ones of `batch`, in its order.
        then: gets the signals as soon as they are there, before the caller of the forward gets its results.
    """

    batch: GenerationBatch
    heads: list[Head] | None
    entropy: bool
    steps: StepTensors | None = None
    then: Callable[[Signals], None] | None = None

    def steps_of(self, ids: Int[Tensor, "N T"], width: int) -> StepTensors:
        """Steps of the rows of the forward. Before the rewards they come from the sampled ids; `width` is C."""
        if self.steps is not None:
            return self.steps
        return StepTensors.pack(self.batch.located[: len(ids)], width, ids.device)


class ForwardCapture:
    """Reads the first forward that runs inside of `next_forward`; any other passes through unread.

    positions: gives every forward, the reference model's too, the positions that the model's own generation has;
        None: as they come.
    """

    def __init__(self, positions: OwnPositions | None = None) -> None:
        self._positions = positions
        self._open: tuple[Wanted, Signals] | None = None

    @contextmanager
    def next_forward(self, wanted: Wanted | None) -> Iterator[Signals]:
        """The signals of the next forward inside the block: a dict, filled in by that forward. None: nothing wanted."""
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
        """What `forward` returns; where the forward is wanted, it also yields its signals. `width` is C.

        of_reference: `model` is the reference model, which is never read.
        """
        rows = (ids, mask, width, batch_size, entropy)
        with nullcontext() if self._positions is None else self._positions.given(model):
            if self._open is None or of_reference:
                return forward(*rows)
            (wanted, signals), self._open = self._open, None  # one only: an adapter-free pass that follows is not it
            return _read(forward, model, rows, wanted, signals)


Rows = tuple[Int[Tensor, "N T"], Int[Tensor, "N T"], int, int | None, bool]
"""What a `Forward` is given."""


def _read(
    forward: Forward, model: Any, given: Rows, wanted: Wanted, signals: Signals
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"] | None, Float[Tensor, ""] | None]:
    """`ForwardCapture.run` of the forward that is wanted."""
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
