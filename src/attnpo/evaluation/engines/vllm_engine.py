"""Sampling with vLLM, which does its own batching."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from attnpo.errors import InputError
from attnpo.evaluation.samples import Completion, Deliver, Request, Sampling, unused_settings
from attnpo.models.loading import Source, end_tokens


class VllmEngine:
    """See `Engine`. Responses are reproducible only if vLLM forms the same batches again.

    Args:
        seed: of the engine, used if vLLM has no seeds per request (its CPU build crashes with them).
        length: tokens of the longest prompt and response together.

    Raises:
        InputError: vLLM is not installed, or the model is an adapter or a GGUF file.
    """

    def __init__(
        self, source: Source, tokenizer: Any, sampling: Sampling, *, dtype: str, seed: int, length: int
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise InputError("--engine vllm: the package vllm is not installed; pip install 'attnpo[vllm]'")
        if source.adapter or source.gguf is not None:
            kind = "a PEFT adapter; merge it into its base model first" if source.adapter else "a GGUF file"
            raise InputError(f"--engine vllm: found {kind}, expected a folder or a Hub name")
        from vllm import LLM  # pyright: ignore[reportMissingImports]
        from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

        self.tokenizer, self._sampling = tokenizer, sampling
        own = source.generation_config()
        self._ends = end_tokens(own, tokenizer)
        self.notes = unused_settings(own, sampling)
        on_cpu = current_platform.is_cpu()
        self._seed_each = not on_cpu
        self.facts: dict[str, Any] = {
            "device": current_platform.device_type,
            "dtype": dtype,
            "seeds": "per engine" if on_cpu else "per response",
        }
        if on_cpu:
            self.notes.append(f"vLLM on a CPU has no seeds per response: the engine's seed is {seed}")
        self._llm = LLM(
            model=source.path,
            revision=source.revision,
            trust_remote_code=source.trust_remote_code,
            dtype=dtype,
            seed=seed,
            max_model_len=length,
            generation_config="vllm",  # none of the model's own settings
        )

    def generate(self, batch: Sequence[Request], *, deliver: Deliver, tick: Callable[[int], None]) -> None:
        """See `Engine.generate`."""
        from vllm.inputs import TokensPrompt  # pyright: ignore[reportMissingImports]

        engine = self._llm.llm_engine
        for number, request in enumerate(batch):
            engine.add_request(str(number), TokensPrompt(prompt_token_ids=list(request.prompt)), self._params(request))
        while engine.has_unfinished_requests():
            for output in engine.step():
                if not output.finished:
                    continue
                (response,) = output.outputs
                tick(len(response.token_ids))
                finished = response.finish_reason == "stop"
                deliver(batch[int(output.request_id)], Completion(list(response.token_ids), finished))

    def _params(self, request: Request) -> Any:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        return SamplingParams(
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            max_tokens=request.room,
            seed=request.seed if self._seed_each else None,
            stop_token_ids=self._ends,
            detokenize=False,
        )
