"""Sampling with transformers' `generate`, batch by batch.

Each response has its own random numbers, so that no response depends on the others of its batch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from attnpo.errors import RunError
from attnpo.evaluation.samples import Completion, Deliver, Request, Sampling, unused_settings
from attnpo.models.loading import end_tokens, pad_left, padding_token


class TransformersEngine:
    """See `Engine`. The network's generation settings are replaced by those of the evaluation.

    If the memory is too small for a batch, it is sampled in halves, down to single responses; later batches have at
    most as many tokens as the largest one that fitted. `warn` is called with a message the first time.
    """

    def __init__(
        self, network: Any, tokenizer: Any, sampling: Sampling, *, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self.network, self.tokenizer, self.sampling, self._warn = network.eval(), tokenizer, sampling, warn
        self.ends = end_tokens(network.generation_config, tokenizer)
        self.padding = padding_token(tokenizer, self.ends)
        self.notes = unused_settings(network.generation_config, sampling)
        self.facts: dict[str, Any] = {
            "device": network.device.type,
            "dtype": str(network.dtype).removeprefix("torch."),
            "attn_implementation": network.config._attn_implementation,
        }
        # `generate` takes settings that are not passed to it from here.
        network.generation_config = GenerationConfig(eos_token_id=self.ends or None, pad_token_id=self.padding)
        self._most_tokens: int | None = None  # of a batch, rows × length; set when memory was too small

    def generate(self, batch: Sequence[Request], *, deliver: Deliver, tick: Callable[[int], None]) -> None:
        """See `Engine.generate`. Raises RunError if not even one response fits into the memory."""
        waiting = list(batch)

        def done(request: Request, completion: Completion) -> None:
            waiting.remove(request)
            deliver(request, completion)

        while waiting:
            part = waiting[: self._most(waiting)]
            if self._fits(part, done, tick):
                continue
            # The exception has been freed, and with it the tensors that its traceback referenced.
            clear_device_cache(garbage_collection=True)
            if len(part) == 1:
                raise RunError(
                    f"out of memory with a single response of up to {_length(part)} tokens; lower --max-tokens"
                )
            if self._most_tokens is None:
                self._warn(f"out of memory with {len(part)} responses at once: continuing with half of them")
            self._most_tokens = len(part) // 2 * _length(part)

    def _most(self, waiting: Sequence[Request]) -> int:
        """The number of waiting responses to sample at once."""
        if self._most_tokens is None:
            return len(waiting)
        return max(1, self._most_tokens // _length(waiting))

    def _fits(self, part: list[Request], deliver: Deliver, tick: Callable[[int], None]) -> bool:
        try:
            self._sample(part, deliver, tick)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or should_reduce_batch_size(error):
                return False
            raise
        return True

    @torch.inference_mode()
    def _sample(self, part: list[Request], deliver: Deliver, tick: Callable[[int], None]) -> None:
        device = self.network.device
        ids, mask = (tensor.to(device) for tensor in pad_left([request.prompt for request in part], self.padding))
        width = ids.shape[1]
        uniforms = Uniforms([request.seed for request in part], device)
        rows = _Rows(part, self.ends, deliver, tick)
        cache: Any = None
        if self.network._supports_default_dynamic_cache():
            cache = DynamicCache(config=self.network.config)
        while True:
            rows.halve = cache is not None
            output = self.network.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                max_new_tokens=width + max(request.room for request in rows.requests) - ids.shape[1],
                do_sample=False,  # `SeededChoice` leaves one token for greedy search
                use_cache=True,
                return_dict_in_generate=True,
                logits_processor=LogitsProcessorList(self._processors(uniforms, width)),
                stopping_criteria=StoppingCriteriaList([rows]),
            )
            kept = rows.keep_unfinished()
            if not kept:
                return
            # Half of the rows have ended: continue without them.
            ids, mask, cache = output.sequences[kept], mask[kept], output.past_key_values
            mask = torch.cat([mask, mask.new_ones(len(kept), ids.shape[1] - mask.shape[1])], dim=1)
            cache.batch_select_indices(torch.tensor(kept, device=device))
            uniforms.keep(kept)

    def _processors(self, uniforms: Uniforms, width: int) -> list[Any]:
        sampling, processors = self.sampling, []
        if sampling.temperature == 0:
            return processors
        if sampling.temperature != 1:
            processors.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_p < 1:
            processors.append(TopP(sampling.top_p))
        return [*processors, SeededChoice(uniforms, width)]


class _Rows(StoppingCriteria):
    """Delivers every row of a batch when it ends, and stops generation when half of the rows have ended.

    A row ends with an end token or at its request's `room`.
    """

    def __init__(
        self, requests: list[Request], ends: Sequence[int], deliver: Deliver, tick: Callable[[int], None]
    ) -> None:
        self.requests, self.ends, self.deliver, self.tick = requests, frozenset(ends), deliver, tick
        self.written: list[list[int]] = [[] for _ in requests]
        self.ended = [False] * len(requests)
        self.halve = False

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.tick(self.ended.count(False))
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self.ended[row]:
                continue
            self.written[row].append(token)
            finished = token in self.ends
            if finished or len(self.written[row]) == self.requests[row].room:
                self.ended[row] = True
                self.deliver(self.requests[row], Completion(self.written[row], finished))
        stop = self.halve and self.ended.count(True) * 2 >= len(self.ended)
        return torch.tensor([stop or ended for ended in self.ended], device=input_ids.device)

    def keep_unfinished(self) -> list[int]:
        """Drop the rows that have ended; returns the indices of the others."""
        kept = [row for row, ended in enumerate(self.ended) if not ended]
        self.requests = [self.requests[row] for row in kept]
        self.written = [self.written[row] for row in kept]
        self.ended = [False] * len(kept)
        return kept


def _length(requests: Sequence[Request]) -> int:
    """The maximum length of a row of these requests, in tokens."""
    return max(len(request.prompt) + request.room for request in requests)


_BLOCK = 128  # numbers drawn and moved to the device at once
_LIKELY = 512  # likeliest tokens that are tried before the whole vocabulary is sorted


class Uniforms:
    """Random numbers in [0, 1), one per row and step; a row's numbers depend only on its seed."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self._generators = [random.Random(seed) for seed in seeds]
        self._device = device
        self._drawn = torch.empty(len(seeds), 0, dtype=precision(device), device=device)

    def at(self, step: int) -> Float[Tensor, " B"]:
        """The numbers of a step, counted from 0."""
        while self._drawn.shape[1] <= step:
            block = [[generator.random() for _ in range(_BLOCK)] for generator in self._generators]
            new = torch.tensor(block, dtype=self._drawn.dtype).to(self._device)
            self._drawn = torch.cat([self._drawn, new], dim=1)
        return self._drawn[:, step]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        self._generators = [self._generators[row] for row in rows]
        self._drawn = self._drawn[list(rows)]


class TopP(TopPLogitsWarper):
    """transformers' top-p, which sorts the vocabulary only if the `_LIKELY` likeliest tokens do not reach p (rarely).

    For 32 rows of 49,152 tokens on a CPU: 24 ms instead of 390.
    """

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        likely, places = scores.softmax(dim=-1).topk(min(_LIKELY, scores.shape[1]))
        upto = likely.cumsum(dim=-1)
        if scores.shape[1] > _LIKELY and (upto[:, -1] < self.top_p).any():
            return super().__call__(input_ids, scores)
        # A token stays if the likelier ones together have less than p; the likeliest always does.
        stays = upto - likely < self.top_p
        kept = scores.gather(1, places).masked_fill(~stays, self.filter_value)
        return torch.full_like(scores, self.filter_value).scatter_(1, places, kept)


class SeededChoice(LogitsProcessor):
    """Masks all tokens of a row except the one chosen by its random number: inverse CDF over the vocabulary by id.

    The last processor, after temperature and top-p; greedy search then selects the token. `prompt_width`: columns of
    the padded prompts, from which the step follows with the width of the ids.
    """

    def __init__(self, uniforms: Uniforms, prompt_width: int) -> None:
        self.uniforms, self.prompt_width = uniforms, prompt_width

    def __call__(self, input_ids: Int64[Tensor, "B T"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        chosen = choose(scores, self.uniforms.at(input_ids.shape[1] - self.prompt_width))
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


def choose(scores: Float[Tensor, "B V"], uniforms: Float[Tensor, " B"]) -> Int64[Tensor, " B"]:
    """The first token of each row at which the cumulative probability exceeds the row's number in [0, 1)."""
    cumulative = scores.softmax(dim=-1).cumsum(dim=-1, dtype=precision(scores.device))
    total = cumulative[:, -1]
    # Rounding must not raise a number to the total, above which there is no token.
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target[:, None], right=True).squeeze(1)


def precision(device: torch.device | str) -> torch.dtype:
    """float64, except on Apple's GPUs, which do not support it."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64
