"""How a model does on the built-in task: sampled accuracy and length, and how its heads rank the steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attnpo.attention.score import score_steps
from attnpo.probe.sra import has_both_kinds, step_ranking_accuracy
from attnpo.probe.trace_scores import PreparedTrace, prepare_trace
from attnpo.steps.response import answer_of

_BOXED = re.compile(r"\\boxed\{(-?\d+)\}")


@dataclass(frozen=True)
class Sampled:
    """One sampled response: its text without the end token, its tokens, whether it ended, whether it is right."""

    text: str
    tokens: int
    finished: bool
    right: bool


@dataclass(frozen=True, eq=False)
class HeadMeasures:
    """Per head, averaged over labelled traces: step ranking accuracy, and the mean score of the essential and of the
    redundant steps in units of |F| / |o|, what uniform attention would give."""

    accuracy: Float[Tensor, "L H"]
    essential: Float[Tensor, "L H"]
    redundant: Float[Tensor, "L H"]
    traces: int


def boxed_answer(response: str) -> int | None:
    """The last boxed integer after the closing tag; None where there is no tag or no box."""
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
    """One response per row (`problem`, `reference`); temperature 0 is greedy. Draws from torch's global generator."""
    options = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    generator: Any = model  # transformers declares its mixin's methods in a way that pyright cannot follow
    results: list[Sampled] = []
    for first in range(0, len(rows), batch):
        chunk = rows[first : first + batch]
        messages = [[{"role": "user", "content": row["problem"]}] for row in chunk]
        prompts: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs: Any = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left").to(model.device)
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
) -> HeadMeasures:
    """Every head of a model on labelled rows (teacher-forced); rows with one kind of step only do not count."""
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    every = [(layer, head) for layer in range(layers) for head in range(heads)]
    totals, counted = torch.zeros(3, layers * heads, dtype=torch.float64), 0
    for first in range(0, len(rows), batch):
        traces = [prepare_trace(row, tokenizer) for row in rows[first : first + batch]]
        for trace, scores in zip(traces, _score(model, traces, every), strict=True):
            essential = torch.tensor([step["essential"] for step in trace.steps])
            if trace.skipped is not None or not has_both_kinds(essential):
                continue
            shares = scores.double() * len(trace.ids) / trace.answer_tokens
            kinds = [shares[:, essential].mean(dim=1), shares[:, ~essential].mean(dim=1)]
            totals += torch.stack([step_ranking_accuracy(scores, essential), *kinds])
            counted += 1
    accuracy, of_essential, of_redundant = (totals / max(counted, 1)).view(3, layers, heads)
    return HeadMeasures(accuracy, of_essential, of_redundant, counted)


def _score(model: PreTrainedModel, traces: list[PreparedTrace], heads: list[tuple[int, int]]) -> list[Tensor]:
    longest = max(len(trace.ids) for trace in traces)
    ids = torch.zeros(len(traces), longest, dtype=torch.int64)  # what padding holds does not matter
    mask = torch.zeros_like(ids)
    for row, trace in enumerate(traces):
        ids[row, : len(trace.ids)] = torch.tensor(trace.ids)
        mask[row, : len(trace.ids)] = 1
    spans, answers = [trace.spans for trace in traces], [trace.answer for trace in traces]
    scores = score_steps(model, ids.to(model.device), mask.to(model.device), steps=spans, answers=answers, heads=heads)
    return [score.cpu() for score in scores]
