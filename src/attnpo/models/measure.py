"""How a model does on the built-in task: sampled accuracy and length, and which heads rank the steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from attnpo.models.tokenizer import CLOSE_THINK

_BOXED = re.compile(r"\\boxed\{(-?\d+)\}")


@dataclass(frozen=True)
class Sampled:
    """One sampled response: its text without the end token, its tokens, whether it ended, whether it is right."""

    text: str
    tokens: int
    finished: bool
    right: bool


def boxed_answer(response: str) -> int | None:
    """The last boxed integer after the closing tag; None where there is no tag or no box."""
    _, tag, answer = response.partition(CLOSE_THINK)
    found = _BOXED.findall(answer) if tag else []
    return int(found[-1]) if found else None


@torch.inference_mode()
def sample_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[dict],
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 640,
    batch: int = 256,
) -> list[Sampled]:
    """One response per row (`problem`, `reference`); temperature 0 is greedy. Uses torch's global random state."""
    results: list[Sampled] = []
    for first in range(0, len(rows), batch):
        chunk = rows[first : first + batch]
        prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": row["problem"]}], add_generation_prompt=True, tokenize=False
            )
            for row in chunk
        ]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left").to(model.device)
        options = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            top_k=0,
            top_p=1.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **options,
        )
        completions = output[:, inputs["input_ids"].shape[1] :].tolist()
        for row, ids in zip(chunk, completions, strict=True):
            finished = tokenizer.eos_token_id in ids
            length = ids.index(tokenizer.eos_token_id) + 1 if finished else len(ids)
            text = tokenizer.decode(ids[: length - finished], skip_special_tokens=False)
            right = finished and boxed_answer(text) == int(row["reference"])
            results.append(Sampled(text, length, finished, right))
    return results


def token_spans(starts: Sequence[int], steps: Sequence[dict]) -> list[tuple[int, int]]:
    """Spans of tokens whose first characters (`starts`, ascending) lie in each step (character offsets)."""
    return [
        (sum(s < step["start"] for s in starts), sum(s < step["end"] for s in starts)) for step in steps
    ]


def ranking_accuracy(scores: Float[Tensor, "H S"], essential: Bool[Tensor, "S"]) -> Float[Tensor, "H"]:
    """Share of (essential, redundant) pairs that a head ranks right, ties one half."""
    high, low = scores[:, essential].unsqueeze(2), scores[:, ~essential].unsqueeze(1)
    return ((high > low).float() + 0.5 * (high == low).float()).mean(dim=(1, 2))


@torch.inference_mode()
def head_ranking(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: Sequence[dict], batch: int = 25
) -> Float[Tensor, "L H"]:
    """Step ranking accuracy of every head, averaged over labelled rows that have both kinds of steps."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    total, counted = torch.zeros(model.config.num_hidden_layers, model.config.num_attention_heads), 0
    rows = [row for row in rows if len({step["essential"] for step in row["steps"]}) == 2]
    for first in range(0, len(rows), batch):
        chunk = rows[first : first + batch]
        encoded = []
        for row in chunk:
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": row["problem"]}], add_generation_prompt=True, tokenize=False
            )
            prompt_ids = tokenizer(prompt)["input_ids"]
            response = tokenizer(row["response"], return_offsets_mapping=True)
            encoded.append((prompt_ids, response["input_ids"], [start for start, _ in response["offset_mapping"]]))
        width = max(len(prompt) + len(response) + 1 for prompt, response, _ in encoded)
        ids = torch.full((len(chunk), width), tokenizer.pad_token_id)
        for i, (prompt, response, _) in enumerate(encoded):
            sequence = [*prompt, *response, tokenizer.eos_token_id]
            ids[i, : len(sequence)] = torch.tensor(sequence)
        attentions = model(input_ids=ids.to(model.device), output_attentions=True).attentions
        maps = torch.stack([layer.float().cpu() for layer in attentions])  # [L, B, heads, T, T]
        for i, (row, (prompt, response, starts)) in enumerate(zip(chunk, encoded, strict=True)):
            offset = len(prompt)
            answer_from = offset + response.index(tokenizer.convert_tokens_to_ids(CLOSE_THINK)) + 1
            answer_to = offset + len(response) + 1
            mass = maps[:, i, :, answer_from:answer_to].sum(dim=2).flatten(0, 1)  # [L * heads, T]
            spans = [(offset + a, offset + b) for a, b in token_spans(starts, row["steps"])]
            scores = torch.stack([mass[:, a:b].mean(dim=1) for a, b in spans], dim=1)
            essential = torch.tensor([step["essential"] for step in row["steps"]])
            total += ranking_accuracy(scores, essential).view_as(total)
            counted += 1
    model.set_attn_implementation(implementation)
    return total / counted
