"""`attnpo check MODEL`: whether this package can handle a model, before a GPU is paid for.

The model answers a few problems once. The check reports the thinking format, whether the lexicon finds steps, which
layers can be scored, whether scores agree with eager attention on the model's own tokens, the prompt and end tokens,
and the memory per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from attnpo.attention.capture import score_steps
from attnpo.attention.heads import Head
from attnpo.attention.model import all_heads, scorable_layers
from attnpo.attention.positions import depends_on_positions, own_positions, takes_positions
from attnpo.attention.rows import CHUNK_ELEMENTS, rows_bytes
from attnpo.errors import InputError
from attnpo.models.loading import end_tokens, pad_left, padding_token
from attnpo.steps.detect import choose_format
from attnpo.steps.fit import fit_of
from attnpo.steps.response import decode_completion, never_closed, split_response
from attnpo.steps.segment import segment_steps

PROBLEMS = (
    "Tom has 12 boxes with 30 pens each. He gives away 45 pens. How many pens has he left?",
    "Compute 17 + 26 * 3.",
    "A train goes 150 km in 2 hours. How far does it go in 5 hours at the same speed?",
    "What is the sum of the first ten odd numbers?",
)
AGREES = {torch.float32: 1e-5, torch.float64: 1e-5}
"""Largest accepted difference from eager attention; half-precision weights round in both."""
AGREES_HALF = 3e-2
SHORT = 256
"""Tokens of the input on which attention is compared: eager attention needs T x T numbers per head."""


@dataclass
class ModelCheck:
    """Lines for the screen, by name; `against`: reasons not to use the model with credit per step."""

    lines: dict[str, str] = field(default_factory=dict)
    against: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    response: str = ""


def check_model(
    network: Any,
    tokenizer: Any,
    *,
    lexicon: str = "paper",
    thinking_format: str = "auto",
    max_new_tokens: int = 1024,
    problems: Sequence[str] = PROBLEMS,
) -> ModelCheck:
    """Run all checks. Samples at temperature 1 from torch's global random state.

    Raises:
        InputError: a format or lexicon does not exist.
    """
    found = ModelCheck()
    prompts = [_prompt(tokenizer, problem) for problem in problems]
    ends = end_tokens(network.generation_config, tokenizer)
    _check_prompt(found, tokenizer, prompts[0], ends)
    chosen = choose_format(thinking_format, tokenizer, prompt=prompts[0])
    found.lines["thinking format"] = str(chosen).removeprefix("thinking format: ")
    ids, completions = _sample(network, tokenizer, prompts, max_new_tokens, ends)
    texts = [decode_completion(tokenizer, row, chosen.form) for row in completions]
    found.response = texts[0]
    cut = sum(not row or row[-1] not in ends for row in completions)
    parts = [split_response(text, chosen.form) for text in texts]
    closed = sum(
        part.answer_start is not None and bool(text[part.thinking_start : part.thinking_end].strip())
        for text, part in zip(texts, parts, strict=True)
    )
    found.lines["responses"] = (
        f"{len(texts)} sampled, {closed} with thinking and an answer, {cut} cut off at {max_new_tokens} tokens"
    )
    if not closed and 2 * cut >= len(texts):
        found.notes.append("no response reached its answer: a larger --max_completion_length shows more")
    elif not closed:
        found.against.append(
            "the model ends its responses without an end of the thinking: it thinks in other marks "
            "(--thinking_format), or not at all, and then there are no steps to score"
            + ("" if (unclosed := never_closed(texts, chosen.form)) is None else f". {unclosed}")
        )
    thinkings = [text[part.thinking_start : part.thinking_end] for text, part in zip(texts, parts, strict=True)]
    fit = fit_of(thinkings, [[(s.start, s.end) for s in segment_steps(t, lexicon)] for t in thinkings])
    found.lines["steps"] = (
        f"median {fit.steps:g} per response, {fit.characters:.0f} characters each (lexicon {lexicon})"
    )
    warning = fit.warning(lexicon)
    if warning is not None:
        found.notes.append(warning)
    _check_attention(found, network, ids[0] + completions[0])
    _check_memory(found, network)
    return found


def _prompt(tokenizer: Any, problem: str) -> str:
    if tokenizer.chat_template is None:
        return f"{problem}\n"
    message = [{"role": "user", "content": problem}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    return text


def _check_prompt(found: ModelCheck, tokenizer: Any, prompt: str, ends: Sequence[int]) -> None:
    if tokenizer.chat_template is None:
        found.notes.append("the tokenizer has no chat template: prompts are the bare text (--prompt_template in train)")
    found.lines["prompt"] = repr(prompt)
    found.lines["end tokens"] = ", ".join(f"{id_} {tokenizer.decode([id_])!r}" for id_ in ends) or "none"
    if not ends:
        found.against.append("no end token is known: every response runs into its limit")
    padding: Any = tokenizer.pad_token_id
    found.lines["padding token"] = "none: any is taken, masks come from lengths" if padding is None else f"{padding}"
    if padding is not None:
        found.lines["padding token"] += f" {tokenizer.decode([padding])!r}"


@torch.no_grad()
def _sample(
    network: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int, ends: Sequence[int]
) -> tuple[list[list[int]], list[list[int]]]:
    """Return token ids of the prompts and of one response to each, including its end token."""
    encoded: Any = tokenizer(list(prompts), add_special_tokens=tokenizer.chat_template is None)
    rows = [list(row) for row in encoded["input_ids"]]
    padding = padding_token(tokenizer, ends)
    ids, mask = pad_left(rows, padding)
    options: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    options |= {"eos_token_id": ends or None, "pad_token_id": padding}
    output = network.generate(
        input_ids=ids.to(network.device),
        attention_mask=mask.to(network.device),
        max_new_tokens=max_new_tokens,
        **options,
    )
    completions = []
    for row in output[:, ids.shape[1] :].tolist():
        end = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
        completions.append(row[: end + 1])
    return rows, completions


def _check_attention(found: ModelCheck, network: Any, ids: list[int]) -> None:
    """Report which layers can be scored, and whether the scores agree with eager attention."""
    try:
        layers = scorable_layers(network)
    except InputError as error:
        found.against.append(str(error))
        return
    config = network.config.get_text_config(decoder=True)
    total = config.num_hidden_layers
    if not layers:
        found.lines["layers that can be scored"] = "none"
        found.against.append("no layer takes its attention function from transformers' AttentionInterface")
        return
    rest = sorted(set(range(total)) - set(layers))
    found.lines["layers that can be scored"] = f"{len(layers)} of {total}" + (f", not {rest}" if rest else "")
    heads = all_heads(network, layers)
    found.lines["heads"] = f"{len(heads)} ({len(heads) // len(layers)} a layer)"
    if depends_on_positions(network):
        found.notes.append("attention depends on position numbers: left-padded rows are numbered as in generation")
    try:
        difference = largest_difference(network, ids[:SHORT], heads, layers)
    except InputError as error:
        found.against.append(str(error))
        return
    if difference is None:
        found.lines["agreement with eager attention"] = "not compared: this model gives no attention weights"
        return
    found.lines["agreement with eager attention"] = (
        f"largest difference {difference:.1e} ({min(len(ids), SHORT)} tokens, every head)"
    )
    if difference > AGREES.get(network.dtype, AGREES_HALF):
        found.against.append(f"step scores differ from eager attention by {difference:.1e}")


@torch.no_grad()
def largest_difference(network: Any, ids: Sequence[int], heads: list[Head], layers: Sequence[int]) -> float | None:
    """Compare `score_steps` with S(l,h,s_k) summed from `output_attentions`, for three artificial steps and an answer.

    Returns None if the model gives no weights with eager attention. The attention implementation is restored.
    """
    length = len(ids)
    if length < 8:
        raise InputError(f"check: {length} tokens, expected at least 8 to compare attention on")
    cuts = [length // 8, 3 * length // 8, length // 2, 5 * length // 8]
    steps, answer = list(pairwise(cuts)), (3 * length // 4, length)
    row = torch.tensor([list(ids)], device=network.device)
    mask = torch.ones_like(row)
    (mine,) = score_steps(network, row, mask, steps=[steps], answers=[answer], heads=heads)
    before = network.config._attn_implementation
    network.set_attn_implementation("eager")
    try:
        positions = {"position_ids": own_positions(mask)} if takes_positions(network) else {}
        output = network(input_ids=row, attention_mask=mask, output_attentions=True, use_cache=False, **positions)
    finally:
        network.set_attn_implementation(before)
    weights = [w for w in output.attentions or () if w is not None]
    if not weights:
        return None
    if len(weights) != len(layers):
        weights = [output.attentions[layer] for layer in layers]
    place = {layer: w[0].float() for layer, w in zip(layers, weights, strict=True)}
    slow = torch.stack(
        [
            torch.stack([place[layer][head, slice(*answer), a:b].sum() / (b - a) for a, b in steps])
            for layer, head in heads
        ]
    )
    return float((mine - slow).abs().max())


def _check_memory(found: ModelCheck, network: Any) -> None:
    config = network.config.get_text_config(decoder=True)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    size = next(network.parameters()).element_size()
    found.lines["weights"] = f"{weights / 2**20:,.0f} MiB ({str(network.dtype).removeprefix('torch.')})"
    found.lines["logits"] = f"{config.vocab_size * size / 1024:,.0f} KiB per token"
    found.lines["rows of the heads"] = (
        f"at most {rows_bytes(CHUNK_ELEMENTS) / 2**20:,.0f} MiB while a layer is read, whatever the length"
    )
