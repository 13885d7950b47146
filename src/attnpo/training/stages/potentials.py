"""Segments of the responses and the potential at each of their ends: how often an answer given there is right.

Signals (N responses, C completion tokens, K segments at most):
    segments [N, C]: k for a token of segment k, K on padding.
    potential [N, K + 1]: Φ at the beginning of segment k; the outcome in all columns after a response's last segment.
        NaN: no continuation from there has a verdict.
    mean_segment [N]: mean length of the segments of the batch, over all processes, in tokens.

Every response with a verdict is used, whatever its group and whether or not its thinking is closed; one without a
verdict has no known potential. All responses to a prompt share the potential at its end.

Responses are continued from positions within them; a shared prefix is computed once where possible. With
transformers, one forward of a response fills the key-value cache (and computes the entropies); a continuation from its
first n tokens starts from that row of the cache with everything after n masked out, so that nothing is computed twice.
This needs a cache that keeps every position: with sliding windows, linear attention, a quantised or static cache, or
weights sharded over devices, prefixes are computed again. vLLM shares prefixes itself.

Shape legend: N sequences, T tokens (padded right), X continuations, P cached positions, S tokens fed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from attnpo.credit.segments import SegmentOptions, closing_of, cut_points, segment_ids
from attnpo.steps.formats import AUTO
from attnpo.steps.spans import LocatedSteps
from attnpo.training.batch import STAGE_SIGNAL, GenerationBatch
from attnpo.training.policy import Policy
from attnpo.training.stages.base import Batch

Place = tuple[int, int]
"""(response, n): the position after its first n tokens."""


class Potentials:
    """Cuts responses into segments, continues them from every boundary, and judges the continuations."""

    def __init__(self, method: SegmentOptions, policy: Policy) -> None:
        policy.refuse_uneven_generation("the processes continue different numbers of prefixes")
        self.method, self.tools = method, policy
        self.closing = closing_of(policy.form) if method.closing == AUTO else method.closing
        self.ending: list[int] = self.tools.tokenizer(self.closing, add_special_tokens=False)["input_ids"]
        self.share = method.share_prefixes and policy.can_share_prefixes

    def __call__(self, batch: Batch, rollouts: GenerationBatch) -> Batch:
        known = [i for i, verdict in enumerate(rollouts.verdicts) if verdict is not None]
        cuts, places, continued = self._explore(rollouts, known)
        potentials = self._judge(rollouts, continued)
        lengths = [len(ids) for ids in rollouts.completion_ids]
        count, device = self.method.segments, self.tools.device
        table = torch.full((len(lengths), count + 1), math.nan)
        for i in known:
            table[i, : len(places[i])] = torch.tensor([potentials[place] for place in places[i]])
            table[i, len(places[i]) :] = float(rollouts.verdicts[i] is True)
        segments = segment_ids(cuts, lengths, batch["completion_ids"].shape[1], count)
        batch[f"{STAGE_SIGNAL}segments"] = segments.to(device)
        batch[f"{STAGE_SIGNAL}potential"] = table.to(device)
        batch[f"{STAGE_SIGNAL}mean_segment"] = self._mean_segment(lengths, cuts)
        self._note(table, cuts)
        return batch

    def _explore(
        self, rollouts: GenerationBatch, known: list[int]
    ) -> tuple[list[list[int]], dict[int, list[Place]], dict[Place, list[list[int]]]]:
        """Return the cuts of every response, the places to continue each known one from, and the continuations."""
        tools, method, total = self.tools, self.method, len(rollouts.rows)
        by_entropy = method.cuts == "entropy"
        captured = None
        if by_entropy and not self.share:  # a forward before the rewards may have computed them already
            captured = rollouts.signals.get("entropy")
        size = tools.at_once or total
        starts: dict[tuple[int, ...], Place] = {}  # end of the prompt, in the first response to it
        for i in known:
            starts.setdefault(tuple(rollouts.prompt_ids[i]), (i, 0))
        cuts: list[list[int]] = []
        places: dict[int, list[Place]] = {}
        continued: dict[Place, list[list[int]]] = {}
        for start in range(0, total, size):
            rows = range(start, min(start + size, total))
            prompts = {i: len(rollouts.prompt_ids[i]) for i in rows}
            reading = read(
                tools,
                [[*rollouts.prompt_ids[i], *rollouts.completion_ids[i]] for i in rows],
                entropy=by_entropy and captured is None,
                share=self.share,
            )
            for i in rows:
                entropy = captured[i] if captured is not None else None
                if reading.entropy is not None:
                    entropy = reading.entropy[i - start, prompts[i] :]
                cuts.append(self._cut(rollouts.located[i], entropy))
            for i in set(rows) & set(known):
                places[i] = [starts[tuple(rollouts.prompt_ids[i])], *((i, n) for n in cuts[i])]
            new = sorted({place for i in rows for place in places.get(i, []) if place not in continued})
            found = reading.continue_from(
                [(i - start, prompts[i] + n) for i, n in new],
                self.ending,
                method.rollouts,
                max_new_tokens=method.rollout_tokens,
                at_once=method.rollout_batch or tools.responses,
            )
            continued.update(zip(new, found, strict=True))
        return cuts, places, continued

    def _cut(self, located: LocatedSteps, entropy: Tensor | None) -> list[int]:
        if not located.spans:
            return []
        thinking = (located.spans[0][0], located.spans[-1][1])
        return cut_points(self.method, thinking, entropy=entropy, steps=[start for start, _ in located.spans])

    def _judge(self, rollouts: GenerationBatch, continued: dict[Place, list[list[int]]]) -> dict[Place, float]:
        """Return Φ of every place: the share of right ones among continuations with a verdict, NaN without any."""
        responses = [
            (place, [*rollouts.completion_ids[place[0]][: place[1]], *self.ending, *ids])
            for place, found in continued.items()
            for ids in found
        ]
        verdicts = self.tools.judge([rollouts.rows[i] for (i, _), _ in responses], [ids for _, ids in responses])
        right: dict[Place, list[bool]] = {place: [] for place in continued}
        for (place, _), verdict in zip(responses, verdicts, strict=True):
            if verdict is not None:
                right[place].append(verdict)
        return {place: sum(found) / len(found) if found else math.nan for place, found in right.items()}

    def _mean_segment(self, lengths: list[int], cuts: list[list[int]]) -> Float[Tensor, "N"]:
        own = torch.tensor([sum(lengths), sum(len(starts) + 1 for starts in cuts)], device=self.tools.device)
        tokens, segments = self.tools.accelerator.reduce(own, "sum").tolist()
        return torch.full((len(lengths),), tokens / segments, device=self.tools.device)

    def _note(self, table: Float[Tensor, "N K+1"], cuts: list[list[int]]) -> None:
        """Note metrics: number of segments, share of those that lose potential, potential overall and at the prompt."""
        changes = [
            (after - before).item()
            for row, starts in zip(table, cuts, strict=True)
            for before, after in pairwise(row[: len(starts) + 2])
            if not (after - before).isnan()
        ]
        self.tools.note("segments/per_response", sum(len(starts) + 1 for starts in cuts) / len(cuts))
        self.tools.note("segments/falling", sum(change < 0 for change in changes) / max(1, len(changes)))
        inside = torch.cat([row[: len(starts) + 1] for row, starts in zip(table, cuts, strict=True)])
        self.tools.note("potential/mean", inside.nanmean().nan_to_num(0.0).item())
        if not inside.nan_to_num(0.0).any() and not inside.isnan().all():
            warnings.warn(
                f"credit={self.tools.args.credit!r}: no continuation of this batch is right, so no segment "
                f"gains or loses potential; closing is {self.closing!r}, which must be the text with which the model "
                "ends its thinking and begins its answer",
                stacklevel=2,
            )
        self.tools.note("potential/at_prompt", table[:, 0].nanmean().nan_to_num(0.0).item())


Prefix = tuple[int, int]
"""(sequence, n): the first n ≥ 1 tokens of that sequence."""


@dataclass(frozen=True)
class Reading:
    """Sequences that the policy has read.

    Attributes:
        sequences: token ids, prompt and response.
        entropy: per sequence, in nats, of the distribution each token was drawn from; 0 for the first token. None: not
            requested.
        cache: keys and values at every position; None where prefixes are computed again.
    """

    tools: Policy
    sequences: Sequence[list[int]]
    entropy: Float[Tensor, "N T"] | None
    cache: DynamicCache | None

    def continue_from(
        self, prefixes: Sequence[Prefix], ending: list[int], count: int, *, max_new_tokens: int, at_once: int
    ) -> list[list[list[int]]]:
        """Sample `count` continuations of every prefix followed by `ending`, with the run's settings.

        With a cache at most `at_once` are in memory at a time, and at least those of one prefix.
        """
        if self.cache is None:
            ids = [self.sequences[row][:n] + ending for row, n in prefixes]
            return self.tools.sample(ids, count, max_new_tokens=max_new_tokens)
        found: dict[int, list[list[int]]] = {}
        order = sorted(range(len(prefixes)), key=lambda i: prefixes[i][1])  # similar lengths together
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
        # The last token of a prefix is fed again, because without an ending there is no other input.
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
    """Prepare sequences for continuation; one forward over them if their entropies or a cache are requested."""
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
            # TRL's fused head ignores `use_cache`, but fills a cache passed to it.
            output = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, past_key_values=cache)
        found = output.entropy
        tools.note("extra/forward_tokens", float(mask.sum()))
    else:
        _, found = tools.forward(ids, mask, ids.shape[1] - 1)
    return Reading(tools, sequences, torch.cat([found.new_zeros(len(ids), 1), found], dim=1), cache)


def gather_cache(cache: DynamicCache, rows: Tensor, length: int) -> DynamicCache:
    """Return a new cache with the first `length` positions of these rows."""
    gathered = DynamicCache()
    for i, layer in enumerate(cache.layers):
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        gathered.update(layer.keys[:, :, :length][rows], layer.values[:, :, :length][rows], i)
    return gathered


def until_end(ids: list[int], ends: set[int]) -> list[int]:
    """Cut ids after the first end token."""
    last = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return ids[: last + 1]
