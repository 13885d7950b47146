"""The advantage estimator `attnpo`: outcome advantages with a length reward, in verl's form.

With the trainer of this package the advantages of a batch are formed beforehand, tokens and all, and the estimator
hands them over (`handing_over`). Under another trainer it is an estimator like any other, without credit per step:
`algorithm.adv_estimator=attnpo` with `attnpo` options in the algorithm's configuration is RLOO with TLMRE by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est

from attnpo.credit.advantages import outcome_advantages
from attnpo.engines.verl.ledger import grouped, judged_elsewhere
from attnpo.engines.verl.options import VerlOptions
from attnpo.errors import RunError
from attnpo.training.rewards import RewardSetup

_ready: list[Float[Tensor, "N C"]] = []


@contextmanager
def handing_over(rows: Sequence[Float[Tensor, " n"]], width: int | None = None) -> Iterator[None]:
    """Let the next call of the estimator, inside the block, give these advantages: one row per response."""
    _ready.append(torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True))
    try:
        yield
    finally:
        _ready.clear()


@register_adv_est("attnpo")
def estimate(
    token_level_rewards: Float[Tensor, "N C"],
    response_mask: Shaped[Tensor, "N C"],
    config: Any = None,
    index: Any = None,
    **_: Any,
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"]]:
    """(advantages, returns) of every token; `index`: the problem of every response.

    Raises:
        RunError: a problem without all its responses, or without the estimator being told which are whose.
    """
    mask = response_mask.to(token_level_rewards)
    if _ready:
        given = _ready.pop()
        if given.shape != mask.shape:
            raise RunError(f"advantages of shape {list(given.shape)}, expected {list(mask.shape)}, that of the batch")
        # Rejected tokens (rollout correction) carry none.
        advantages = torch.where(response_mask.bool(), given.to(mask), torch.zeros_like(mask))
        return advantages, advantages
    if index is None:
        raise RunError("adv_estimator attnpo: found no uid in the batch, expected the problem of every response")
    options: Mapping[str, Any] = (config.get("attnpo", None) if config is not None else None) or {}
    outcome = outcome_of(token_level_rewards.sum(dim=1), mask.sum(dim=1).long(), list(index), VerlOptions.of(options))
    advantages = outcome[:, None] * mask
    return advantages, advantages


def outcome_of(
    rewards: Float[Tensor, " N"], lengths: Shaped[Tensor, " N"], uids: list[str], options: VerlOptions, step: int = 1
) -> Float[Tensor, " N"]:
    """The outcome advantage of every response, from rewards of 1 for a right one and the length reward."""
    size = uids.count(uids[0])
    order = torch.tensor(grouped(uids, list(range(len(uids))), size))
    setup = RewardSetup.build([judged_elsewhere], options)
    table = rewards[order, None]
    if setup.has_length:
        table = torch.cat([table, torch.full_like(table, torch.nan)], dim=1)
    table = setup.add_length_reward(table, lengths[order], size, step=step)
    totals = setup.total(table, torch.ones(table.shape[1]).to(table))
    found = torch.empty_like(rewards)
    found[order] = outcome_advantages(totals.view(-1, size), options.advantage).view(-1).to(found)
    return found
