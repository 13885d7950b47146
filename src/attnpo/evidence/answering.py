"""The final answer once more: written behind a thinking text that was changed, and verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from attnpo.models.generation import end_tokens, pad_left, padding_token
from attnpo.probe.prepare import prompt_ids
from attnpo.rewards.accuracy import decode_completion
from attnpo.steps.response import CLOSE_TAG, split_response


@dataclass(frozen=True)
class Answer:
    """What the model wrote behind the closing tag; `finished`: it ended by itself."""

    text: str
    tokens: int
    finished: bool


def answer_context(problem: str, response: str, thinking: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Prompt, the response's own opening tag if it has one, another thinking text and the closing tag.

    The text ends with the tag: the model writes all that follows, white space too.
    """
    opening = response[: split_response(response).thinking_start]
    prompt = prompt_ids(problem, tokenizer, opens_itself=bool(opening))
    encoded: Any = tokenizer(opening + thinking + CLOSE_TAG, add_special_tokens=False)
    return [*prompt, *encoded["input_ids"]]


@torch.inference_mode()
def generate_answers(
    network: Any,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[Sequence[int]],
    *,
    rooms: Sequence[int],
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answer]:
    """The greedy continuation of every context, in order. Equal contexts are continued once.

    rooms: tokens each continuation may have; one that has not ended by then is cut off there. progress: called with
    (contexts continued, different contexts).
    """
    keys = [tuple(context) for context in contexts]
    widest: dict[tuple[int, ...], int] = {}
    for key, room in zip(keys, rooms, strict=True):
        widest[key] = max(room, widest.get(key, 0))
    # A batch goes on for its largest room, so like rooms come together; then like lengths.
    different = sorted(widest, key=lambda ids: (-widest[ids], -len(ids), ids))
    ends = end_tokens(network.generation_config, tokenizer)
    padding = padding_token(tokenizer, ends)
    found: dict[tuple[int, ...], list[int]] = {}
    progress(0, len(different))
    for first in range(0, len(different), batch_size):
        batch = different[first : first + batch_size]
        ids, mask = pad_left(batch, padding)
        output = network.generate(
            input_ids=ids.to(network.device),
            attention_mask=mask.to(network.device),
            max_new_tokens=max(widest[context] for context in batch),
            eos_token_id=ends,
            pad_token_id=padding,
            # A model's own generation settings must not turn this into something else: a penalty on repetition, for
            # one, would forbid the answer to repeat the numbers of the steps.
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        found.update(zip(batch, output[:, ids.shape[1] :].tolist(), strict=True))
        progress(len(found), len(different))
    return [_answer(found[key][:room], ends, tokenizer) for key, room in zip(keys, rooms, strict=True)]


def _answer(written: list[int], ends: list[int], tokenizer: PreTrainedTokenizerBase) -> Answer:
    length = next((place for place, token in enumerate(written) if token in ends), None)
    finished = length is not None
    ids = written[:length]
    return Answer(decode_completion(tokenizer, ids), len(ids) + finished, finished)
