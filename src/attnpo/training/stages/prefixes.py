"""Reading responses and continuing them from places inside: each shared prefix is computed once where that can be.

With transformers, one forward of a response fills the key-value cache (and gives the entropies); a continuation from
its first n tokens starts from that row of the cache with everything behind n masked out, so that nothing is computed
twice. This needs a cache that keeps every position: with sliding windows, linear attention, a quantised or static
cache, or weights spread over devices, prefixes are computed anew. vLLM shares prefixes by itself.

Shape legend: N sequences, T tokens (padded right), X continuations, P cached positions, S tokens fed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from attnpo.training.policy import Policy

Prefix = tuple[int, int]
"""(sequence, n): the first n ≥ 1 tokens of that sequence."""


@dataclass(frozen=True)
class Reading:
    """Sequences that the policy has read.

    Attributes:
        sequences: token ids, prompt and response.
        entropy: per sequence, in nats, of the distribution each token was drawn from; 0 for the first token. None: not
            asked for.
        cache: keys and values at every position; None where prefixes are computed anew.
    """

    tools: Policy
    sequences: Sequence[list[int]]
    entropy: Float[Tensor, "N T"] | None
    cache: DynamicCache | None

    def continue_from(
        self, prefixes: Sequence[Prefix], ending: list[int], count: int, *, max_new_tokens: int, at_once: int
    ) -> list[list[list[int]]]:
        """`count` continuations of every prefix with `ending` put behind it, sampled as the run samples.

        With a cache at most `at_once` are in memory together, and at least those of one prefix.
        """
        if self.cache is None:
            ids = [self.sequences[row][:n] + ending for row, n in prefixes]
            return self.tools.sample(ids, count, max_new_tokens=max_new_tokens)
        found: dict[int, list[list[int]]] = {}
        order = sorted(range(len(prefixes)), key=lambda i: prefixes[i][1])  # neighbours of like length
        size = max(1, at_once // count)
        for start in range(0, len(order), size):
            chunk = order[start : start + size]
            sampled = self._from_cache(self.cache, [prefixes[i] for i in chunk], ending, count, max_new_tokens)
            found.update(zip(chunk, sampled, strict=True))
        return [found[i] for i in range(len(prefixes))]

    def _from_cache(
        self, cache: DynamicCache, prefixes: Sequence[Prefix], ending: list[int], count: int, max_new_tokens: int
    ) -> list[list[list[int]]]:
        device = self.tools.device
        repeated = [prefix for prefix in prefixes for _ in range(count)]
        # The last token of a prefix is fed again: with no ending, something must be.
        kept = torch.tensor([n - 1 for _, n in repeated], device=device)
        fed = torch.tensor([[self.sequences[row][n - 1], *ending] for row, n in repeated], device=device)
        longest = max(n for _, n in prefixes) - 1
        rows = torch.tensor([row for row, _ in repeated], device=device)
        seen = torch.arange(longest, device=device) < kept[:, None]
        with self.tools.generating() as model:
            out = model.generate(
                input_ids=fed,
                attention_mask=torch.cat([seen.long(), torch.ones_like(fed)], dim=1),  # positions follow from it
                past_key_values=gather_cache(cache, rows, longest),
                generation_config=self.tools.generation_config(max_new_tokens),
            )
        ends = self.tools.end_ids
        sampled = [until_end(ids, ends) for ids in out[:, fed.shape[1] :].tolist()]
        self.tools.note("extra/rollout_tokens", float(sum(map(len, sampled))))
        self.tools.note("extra/prefix_tokens", float(fed.numel()))
        self.tools.note("extra/prefix_tokens_saved", float(kept.sum()))
        return [sampled[i : i + count] for i in range(0, len(sampled), count)]


def read(tools: Policy, sequences: Sequence[list[int]], *, entropy: bool, share: bool) -> Reading:
    """Sequences ready to be continued; one forward over them if their entropies or a cache are asked for."""
    if not (entropy or share):
        return Reading(tools, sequences, None, None)
    pad, device = tools.tokenizer.pad_token_id, tools.device
    ids = pad_sequence([torch.tensor(row) for row in sequences], batch_first=True, padding_value=pad).to(device)
    lengths = torch.tensor([len(row) for row in sequences], device=device)
    mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()
    cache = None
    if share:
        cache = DynamicCache(config=tools.model.config)
        with tools.generating() as model, tools.accelerator.autocast():
            labels = ids.masked_fill(mask == 0, -100)
            # TRL's fused head takes `use_cache` away, but fills a cache that it is handed.
            output = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, past_key_values=cache)
        found = output.entropy
        tools.note("extra/forward_tokens", float(mask.sum()))
    else:
        _, found = tools.forward(ids, mask, ids.shape[1] - 1)
    return Reading(tools, sequences, torch.cat([found.new_zeros(len(ids), 1), found], dim=1), cache)


def gather_cache(cache: DynamicCache, rows: Tensor, length: int) -> DynamicCache:
    """A new cache of these rows' first `length` positions."""
    gathered = DynamicCache()
    for i, layer in enumerate(cache.layers):
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        gathered.update(layer.keys[:, :, :length][rows], layer.values[:, :, :length][rows], i)
    return gathered


def until_end(ids: list[int], ends: set[int]) -> list[int]:
    """Up to the first end token, which is kept."""
    last = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return ids[: last + 1]
