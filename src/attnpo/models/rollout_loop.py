"""A sampling loop for rollouts: rows that have ended leave the batch, and a step does little besides the forward.

transformers' own loop computes every row until the last has ended, and makes masks, positions and criteria anew for
each token. See `fast_rollouts` for what is guaranteed and for what is left to transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

PATIENCE = 2
"""Ended rows leave once they were computed in vain so many times the number of rows that go on. To drop rows copies
the cache of the others, which costs about as much as the attention to it in a few steps."""


def rollout_loop(
    model: Any,
    input_ids: Int[Tensor, "B L"],
    logits_processor: Any,  # LogitsProcessorList
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **model_kwargs: Any,
) -> Int[Tensor, "B T"]:
    """Prompts and what was generated, as `GenerationMixin._sample` returns them, for calls that it covers."""
    batch, width = input_ids.shape
    limit = min(c.max_length for c in stopping_criteria if isinstance(c, MaxLengthCriteria))
    ends = [c.eos_token_id.to(input_ids.device) for c in stopping_criteria if isinstance(c, EosTokenCriteria)]
    pad = 0 if generation_config._pad_token_tensor is None else int(generation_config._pad_token_tensor)
    room = max(limit, width + 1) - width
    sequences = torch.nn.functional.pad(input_ids, (0, room), value=pad)
    outputs = model._prefill(input_ids, generation_config, model_kwargs)
    cache = model_kwargs["past_key_values"]
    positions = model_kwargs["position_ids"][:, -1:]
    mask = _ready_mask(model_kwargs.get("attention_mask"), room)
    options = {name: model_kwargs[name] for name in ("use_cache", "logits_to_keep") if name in model_kwargs}
    rows = torch.arange(batch, device=input_ids.device)  # of `sequences`: those still computed
    going = torch.ones_like(rows, dtype=torch.bool)
    length, in_vain = width, 0
    with model._optimize_model_for_decode():
        while True:
            scores = outputs.logits[:, -1].to(copy=True, dtype=torch.float32)
            del outputs
            if logits_processor:  # some know of each row where its prompt begins
                whole = scores.new_zeros(batch, scores.shape[1])
                whole[rows] = scores
                scores = logits_processor(sequences[:, :length], whole)[rows]
            tokens = draw(scores.softmax(-1), rows, batch) if generation_config.do_sample else scores.argmax(-1)
            if ends:
                tokens = torch.where(going, tokens, pad)
            sequences[rows, length] = tokens
            length += 1
            for end in ends:
                going = going & ~torch.isin(tokens, end)
            count = int(going.sum())
            if not count or length >= limit:
                return sequences[:, :length]
            positions = positions + 1
            in_vain += len(rows) - count
            if in_vain >= PATIENCE * count:
                chosen, in_vain = going.nonzero().squeeze(1), 0
                cache.batch_select_indices(chosen)
                rows, going, tokens, positions = (held[chosen] for held in (rows, going, tokens, positions))
                mask = None if mask is None or mask[chosen].all() else mask[chosen]
            outputs = model(
                input_ids=tokens[:, None],
                attention_mask=None if mask is None else mask[..., :length],
                position_ids=positions,
                past_key_values=cache,
                return_dict=True,
                **options,
            )


def _ready_mask(given: Int[Tensor, "B L"] | None, room: int) -> Bool[Tensor, "B 1 1 M"] | None:
    """What the newest token may look at, for as many tokens as there may ever be; None where no row is padded."""
    return None if given is None else torch.nn.functional.pad(given.bool(), (0, room), value=True)[:, None, None]


def draw(probs: Float[Tensor, "n V"], rows: Int[Tensor, "n"], batch: int) -> Int[Tensor, "n"]:
    """One token for each of these rows of a batch: those that `torch.multinomial` would draw from all its rows.

    `torch.multinomial` takes the largest of probability / exponential noise. On a CPU the noise is drawn here, for all
    rows; elsewhere the probabilities are put into their rows.
    Raises RuntimeError, as `torch.multinomial` does, where probabilities are no numbers.
    """
    if probs.device.type != "cpu":
        whole = probs.new_ones(batch, probs.shape[1])
        whole[rows] = probs
        return torch.multinomial(whole, 1).squeeze(1)[rows]
    if probs[:, 0].isnan().any():  # softmax spreads one that is not over its row
        raise RuntimeError("sampling: found logits that are infinite or no numbers, expected finite ones")
    noise = probs.new_empty(batch, probs.shape[1]).exponential_()
    return (probs / noise[rows]).argmax(dim=-1)
