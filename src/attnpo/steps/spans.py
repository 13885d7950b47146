"""Steps and final answer of a sampled response, as spans of its token ids."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from attnpo.steps.formats import THINK, ThinkingFormat, known_marks, mark_tokens
from attnpo.steps.offsets import as_ids, token_offsets
from attnpo.steps.response import ResponseParts, split_response
from attnpo.steps.segment import Step, segment_steps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["LocatedSteps", "locate_steps", "token_offsets"]


@dataclass(frozen=True, slots=True)
class LocatedSteps:
    """The text, steps and answer of one sampled response.

    Token spans are half-open and relative to the first completion token.

    Attributes:
        text: the decoded response, without special tokens other than the marks of the thinking format.
        parts: thinking and answer, as characters of `text`.
        steps: steps, as characters of the thinking text.
        spans: the tokens of each step. They tile the thinking tokens; a step whose characters are all part of a token
            that begins in an earlier step has the empty span (s, s).
        answer: the final-answer tokens, from the first token after the closing tag to the last given id (end token
            included); None without a closing tag.
        has_answer_text: whether anything but whitespace and special tokens follows the closing tag.
    """

    text: str
    parts: ResponseParts
    steps: list[Step]
    spans: list[tuple[int, int]]
    answer: tuple[int, int] | None
    has_answer_text: bool

    @property
    def step_texts(self) -> list[str]:
        """The text of every step; together they are the thinking text."""
        begin = self.parts.thinking_start
        return [self.text[begin + step.start : begin + step.end] for step in self.steps]


def locate_steps(
    tokenizer: PreTrainedTokenizerBase,
    completion_ids: Iterable[int],
    lexicon: str = "paper",
    form: ThinkingFormat = THINK,
) -> LocatedSteps:
    """Segment a sampled response and map the steps to its token ids.

    A token belongs to the step that contains its first character. A token with the end of the thinking and the start of
    the closing mark belongs to the last step; one with the end of the mark and the start of the answer belongs to the
    mark.

    Args:
        tokenizer: a transformers tokenizer.
        completion_ids: the sampled ids of one response, without padding after its end token.
        lexicon: see `segment_steps`.
        form: the thinking format of the response.

    Raises:
        InputError: unknown lexicon, a negative id, or a tokenizer that cannot be decoded piece by piece.
    """
    ids = as_ids(completion_ids)
    text, starts = token_offsets(tokenizer, ids, skip=_ids_without_text(tokenizer, set(ids), form))
    parts = split_response(text, form)
    steps = segment_steps(text[parts.thinking_start : parts.thinking_end], lexicon)
    cuts = [bisect_left(starts, parts.thinking_start + step.start) for step in steps]
    cuts.append(bisect_left(starts, parts.thinking_end))
    answer, has_answer_text = None, False
    if parts.answer_start is not None:
        answer = (bisect_left(starts, parts.answer_start), len(ids))
        has_answer_text = bool(text[parts.answer_start : parts.answer_end].strip())
    return LocatedSteps(
        text=text,
        parts=parts,
        steps=steps,
        spans=list(pairwise(cuts)),
        answer=answer,
        has_answer_text=has_answer_text,
    )


def _ids_without_text(tokenizer: PreTrainedTokenizerBase, used: set[int], form: ThinkingFormat) -> frozenset[int]:
    """The special tokens among `used`, without those that are a mark of the thinking or a piece of one.

    Marks of other formats count as text too (except the tokenizer's own end token), so that a response in another
    format than `form` can be recognised.
    """
    added = tokenizer.added_tokens_decoder
    special = {token for token in used if token in added and added[token].special}
    special |= used & set(tokenizer.all_special_ids)
    if special:
        special -= mark_tokens(tokenizer, form)
    names = {token: str(tokenizer.convert_ids_to_tokens(token)) for token in special}
    marks, ends = (*form.opening, *form.closing), (tokenizer.eos_token_id, tokenizer.pad_token_id)
    return frozenset(
        token
        for token, name in names.items()
        if not any(mark in name for mark in marks) and (token in ends or name not in known_marks())
    )
