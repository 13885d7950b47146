"""A trace as tokens of a model: prompt and response, the positions of its steps and of its final answer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from attnpo.attention.capture import score_steps
from attnpo.errors import InputError
from attnpo.steps.formats import BY_MARKS, THINK, Form, ThinkingFormat
from attnpo.steps.offsets import token_offsets
from attnpo.steps.response import split_response, thinking_of
from attnpo.traces.steps import steps_of

Span = tuple[int, int]


@dataclass(frozen=True)
class PreparedTrace:
    """One trace as tokens: prompt and response `ids`, spans as positions in them. `skipped`: why it is not scored.

    `where`: its name in errors. `form`: its thinking format.
    """

    ids: list[int]
    steps: list[dict[str, Any]]
    spans: list[Span]
    answer: Span | None
    skipped: str | None
    where: str = "a trace"
    form: ThinkingFormat = THINK

    @property
    def answer_tokens(self) -> int:
        """|F|, the number of tokens after the marks that end the thinking and open the answer, end token included."""
        return 0 if self.answer is None else self.answer[1] - self.answer[0]


def prepare_trace(
    row: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    lexicon: str = "paper",
    max_length: int | None = None,
    where: str = "row",
    form: Form = BY_MARKS,
) -> PreparedTrace:
    """Return tokens and spans of one trace. "completion_ids" of the row are used if present; otherwise the response is
    tokenised and the end token added. Existing steps keep their offsets. Raises InputError for malformed fields."""
    response: str = row["response"]
    form = form.of(response)
    steps = steps_of(row, lexicon, where=where, form=form)
    ids = _response_ids(row, tokenizer, where)
    text, starts = token_offsets(tokenizer, ids)
    parts = split_response(text, form)
    prompt = prompt_ids(row["problem"], tokenizer, opens_itself=parts.thinking_start > 0, form=form)
    spans = [
        (
            len(prompt) + bisect_left(starts, parts.thinking_start + step["start"]),
            len(prompt) + bisect_left(starts, parts.thinking_start + step["end"]),
        )
        for step in steps
    ]
    answer, skipped = None, None
    if parts.answer_start is None:
        skipped = "no closing tag"
    elif text[parts.thinking_start : parts.thinking_end] != thinking_of(response, form):
        skipped = "the tokens do not decode to the response"
    else:
        answer = (len(prompt) + bisect_left(starts, parts.answer_start), len(prompt) + len(ids))
        if max_length is not None and len(prompt) + len(ids) > max_length:
            skipped = f"longer than {max_length} tokens"
    return PreparedTrace([*prompt, *ids], steps, spans, answer, skipped, where, form)


def prompt_ids(
    problem: str, tokenizer: PreTrainedTokenizerBase, *, opens_itself: bool, form: ThinkingFormat = THINK
) -> list[int]:
    """Return the problem in the tokenizer's chat template as token ids. `opens_itself`: the response has its own
    opening mark, so an opening mark at the end of the template is left out."""
    if tokenizer.chat_template is None:
        raise InputError("--model: its tokenizer has no chat template, which the prompt needs")
    message = [{"role": "user", "content": problem}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    return _encode(form.without_opening(text) if opens_itself else text, tokenizer)


def score_traces(
    network: nn.Module, traces: Sequence[PreparedTrace], heads: Sequence[tuple[int, int]], batch_size: int
) -> Iterator[tuple[int, Float[Tensor, "H S_i"]]]:
    """Yield (index in `traces`, S(l,h,s_k) of every head and step), on the host, in batches of similar length, longest
    first.

    Skipped traces are left out. One forward per batch; only the answers' rows of its attention are computed, layer by
    layer inside the forward (`attnpo.attention.capture`).
    Raises InputError, naming trace and head, for scores that are not finite: in comparisons they would count as low.
    """
    todo = [i for i, trace in enumerate(traces) if trace.skipped is None]
    todo.sort(key=lambda i: len(traces[i].ids), reverse=True)
    device = next(network.parameters()).device
    for first in range(0, len(todo), batch_size):
        batch = todo[first : first + batch_size]
        ids, mask = pad_right([traces[i].ids for i in batch])
        scores = score_steps(
            network,
            ids.to(device),
            mask.to(device),
            steps=[traces[i].spans for i in batch],
            answers=[traces[i].answer for i in batch],
            heads=heads,
        )
        for i, score in zip(batch, scores, strict=True):
            _check_finite(score, heads, traces[i].where)
            yield i, score.cpu()


def _check_finite(scores: Float[Tensor, "H S"], heads: Sequence[tuple[int, int]], where: str) -> None:
    finite = torch.isfinite(scores)
    if finite.all():
        return
    place, step = (~finite).nonzero()[0].tolist()
    layer, head = heads[place]
    raise InputError(
        f"{where}: layer {layer}, head {head} scores step {step} {scores[place, step].item()}, expected a finite "
        "number; is the model damaged?"
    )


def pad_right(rows: Sequence[Sequence[int]]) -> tuple[Int64[Tensor, "B T"], Int64[Tensor, "B T"]]:
    """Return token ids and attention mask of a batch, on the host; the padding's ids are arbitrary."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def _response_ids(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, where: str) -> list[int]:
    ids = row.get("completion_ids")
    if ids is None:
        ids = _encode(row["response"], tokenizer)
        end = tokenizer.eos_token_id
        return ids if not isinstance(end, int) or ids[-1:] == [end] else [*ids, end]
    if not isinstance(ids, list) or not all(type(token) is int and 0 <= token < len(tokenizer) for token in ids):
        raise InputError(
            f"{where}: field 'completion_ids', expected a list of token ids from 0 to {len(tokenizer) - 1}"
        )
    return ids


def _encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    encoded: Any = tokenizer(text, add_special_tokens=False)
    return list(encoded["input_ids"])
