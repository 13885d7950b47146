"""Measure a model on the built-in task: sampled accuracy and length, and the ranking of steps by its heads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attnpo.attention.model import scorable_layers
from attnpo.heads.table import HeadTable, probe_traces
from attnpo.models.fast_rollouts import fast_rollouts
from attnpo.steps.response import answer_of
from attnpo.traces.prepared import prepare_trace

_BOXED = re.compile(r"\\boxed\{(-?\d+)\}")


@dataclass(frozen=True)
class Sampled:
    """One sampled response: its text without the end token, its tokens, whether it ended, whether it is right."""

    text: str
    tokens: int
    finished: bool
    right: bool


def boxed_answer(response: str) -> int | None:
    """Return the last boxed integer after the closing tag; None without a tag or a box."""
    found = _BOXED.findall(answer_of(response) or "")
    return int(found[-1]) if found else None


@torch.inference_mode()
def sample_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 512,
    batch: int = 256,
) -> list[Sampled]:
    """Sample one response per row (`problem`, `reference`); temperature 0 is greedy. Uses torch's global generator."""
    options = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    generator: Any = model  # transformers declares its mixin's methods in a way that pyright cannot follow
    results: list[Sampled] = []
    for first in range(0, len(rows), batch):
        chunk = rows[first : first + batch]
        messages = [[{"role": "user", "content": row["problem"]}] for row in chunk]
        prompts: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs: Any = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left").to(model.device)
        with fast_rollouts(model):
            output = generator.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                **options,
            )
        completions = output[:, inputs["input_ids"].shape[1] :].tolist()
        results += [_sampled(row, ids, tokenizer) for row, ids in zip(chunk, completions, strict=True)]
    return results


def _sampled(row: dict[str, Any], ids: list[int], tokenizer: PreTrainedTokenizerBase) -> Sampled:
    end: Any = tokenizer.eos_token_id
    finished = end in ids
    length = ids.index(end) + 1 if finished else len(ids)
    text = str(tokenizer.decode(ids[: length - finished], skip_special_tokens=False))
    return Sampled(text, length, finished, finished and boxed_answer(text) == int(row["reference"]))


def measure_heads(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]], batch: int = 25
) -> HeadTable:
    """Measure every head of a model on labelled rows (teacher-forced); rows with one kind of step do not count."""
    traces = [prepare_trace(row, tokenizer) for row in rows]
    labels = [[step["essential"] for step in row["steps"]] for row in rows]
    found = probe_traces(model, traces, labels, batch_size=batch)
    figures = dict(sorted(found, key=lambda pair: pair[0]))
    return HeadTable(torch.stack(list(figures.values())), tuple(scorable_layers(model)))
