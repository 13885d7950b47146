"""Sequence parallelism (Ulysses): each process has all heads for a part of the row, but scores need complete rows.

The all-to-all that exchanges parts of the row for parts of the heads runs below transformers' attention interface, so
the queries and keys read there are those of all heads at a part of the positions. Only those of the chosen heads are
gathered over the group: 2 · h · T · D numbers per layer for h heads, once per forward.

Shape legend: B rows, t positions of this process, T = t · (processes) positions of the row, H query and K key heads, h
chosen heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from attnpo.attention.masks import index_tensor, is_flash
from attnpo.errors import InputError


class SequenceParts:
    """The processes of `group` (torch.distributed), each with its part of the row, in the order of their ranks."""

    def __init__(self, group: Any) -> None:
        self.group, self.size = group, dist.get_world_size(group)
        self._positions: Tensor | None = None

    def width(self, row: int) -> int:
        """Positions of this process in a row of `row` positions. Raises InputError if the row has no equal parts."""
        if row % self.size:
            raise InputError(
                f"capture_scores: a row of {row} positions over {self.size} processes, expected a multiple: sequence "
                "parallelism pads rows, and the layout must count the padding"
            )
        return row // self.size

    def whole_row(
        self,
        layer: int,
        name: str,
        mask: Any,
        query: Float[Tensor, "B H t D"],
        key: Float[Tensor, "B K t D"],
        heads: tuple[int, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Float[Tensor, "B h T D"], Float[Tensor, "B h T D"], dict[str, Any]]:
        """Queries and keys of the chosen heads at all positions, and the attention's arguments for the complete row.

        The keys are repeated: head i of the result reads key head i. Collective.
        Raises InputError for attention without that exchange: there each process attends only within its part, and
        log-probabilities are wrong as well.
        """
        if self.size > 1 and (not is_flash(name) or mask is not None):
            found = f"attention implementation {name!r}" + ("" if mask is None else " with a mask")
            raise InputError(
                f"model: layer {layer}, {found} under sequence parallelism, expected flash attention over packed rows "
                "without padding: others attend only within the part of one process"
            )
        group = query.shape[1] // key.shape[1]
        chosen = index_tensor(heads, query.device)
        keys = index_tensor(tuple(head // group for head in heads), key.device)
        both = torch.stack([query.index_select(1, chosen), key.index_select(1, keys)])
        query, key = self._gather(both, dim=3).unbind()
        kwargs = dict(kwargs)
        if isinstance(kwargs.get("position_ids"), Tensor):
            if self._positions is None:  # the same in every layer of the one forward
                self._positions = self._gather(kwargs["position_ids"], dim=-1)
            kwargs["position_ids"] = self._positions
        if kwargs.get("s_aux") is not None:
            kwargs["s_aux"] = kwargs["s_aux"].index_select(0, chosen)
        return query, key, kwargs

    def _gather(self, part: Tensor, dim: int) -> Tensor:
        part = part.contiguous()
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part, group=self.group)
        return torch.cat(parts, dim=dim)
