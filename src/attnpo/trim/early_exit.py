"""End thinking as soon as the answer is known: short branches at step boundaries, for transformers' `generate`.

At the end of each step (once for several empty lines) the thinking is closed in a separate branch, the model generates
its answer greedily, and a rule is applied to the answers of all boundaries so far. If it is met, the response ends
there with that answer; otherwise thinking continues and the branch has no influence on it. Rules:

- `confident(c)`: the geometric mean of the probabilities of the answer's tokens is at least c ("Dynamic Early Exit in
  Reasoning Models", DEER, arXiv 2504.15895; applied after every step rather than at words such as "Wait").
- `agreeing(n)`: the last n boundaries gave the same answer.
- `never`: a plain budget; thinking that has not ended at the limit is closed and answered.

The marks are those of the model's thinking format (`attnpo.steps.formats`), by default the one detected from its
tokenizer. Branches are made only during thinking: not in a response without thinking, nor in tool calls after its end.

The cost of a branch is one forward of its prefix (with the other rows at a boundary) and the decoding of an answer;
`Response` has the counts.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from attnpo.checks import check_number, check_whole
from attnpo.errors import InputError
from attnpo.models.loading import GREEDY, end_tokens, pad_left, padding_token
from attnpo.rewards.accuracy import decode_completion
from attnpo.steps.answers import final_answer
from attnpo.steps.detect import check_marks, choose_format
from attnpo.steps.formats import AUTO, ThinkingFormat
from attnpo.steps.offsets import token_offsets
from attnpo.steps.response import ResponseParts, split_response, thinking_of

BOUNDARY = "\n\n"
"""End of a step's text."""
TAIL = 4
"""Number of last tokens that are decoded to detect a boundary."""


@dataclass(frozen=True)
class Branch:
    """An answer generated before thinking has ended.

    Attributes:
        ids: its tokens, including the end token if it has one; closing: the tokens that closed the thinking.
        confidence: geometric mean of the probabilities of `ids`; 0 if the answer did not end within its room.
        thinking: number of sampled tokens before `closing`.
    """

    ids: list[int]
    text: str
    confidence: float
    thinking: int
    closing: list[int] = field(default_factory=list)


Rule = Callable[[Sequence[Branch]], bool]
"""The branches of a response so far, the newest last -> whether thinking may end."""


def confident(threshold: float) -> Rule:
    """Return a rule: the last answer has at least this confidence. Raises InputError unless it is a probability."""
    check_number("threshold", threshold, low=0, high=1)
    return lambda branches: branches[-1].confidence >= threshold


def agreeing(count: int) -> Rule:
    """Return a rule: the last `count` answers are equal, as read by `attnpo.steps.answers.final_answer`.

    Raises InputError for a count below 1.
    """
    check_whole("count", count, low=1)

    def agree(branches: Sequence[Branch]) -> bool:
        answers = [final_answer(branch.text) for branch in branches[-count:]]
        return len(answers) == count and answers[0] is not None and len(set(answers)) == 1

    return agree


def never(branches: Sequence[Branch]) -> bool:
    """Never end thinking before the limit."""
    return False


def at_boundary(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> bool:
    """Return whether these tokens end at the end of a step."""
    return str(tokenizer.decode(list(ids[-TAIL:]))).rstrip(" ").endswith(BOUNDARY)


@dataclass(frozen=True)
class Closing:
    """How a branch requests an answer: `text` closes the thinking, then the model may generate `room` tokens.

    form: the model's thinking format; default: detected from its tokenizer (`choose_format`); the chat template shows
    whether prompts open the thinking. text: default: the format's marks that end the thinking and open the answer.

    White space at the end of the thinking is left out, because `text` has its own. If it is part of a token (a full
    stop and the empty line after it), the rest of that token is tokenised with the text, as the model writes it.

    Raises:
        InputError: a format without thinking, or one whose marks the tokenizer cannot write.
    """

    network: Any
    tokenizer: PreTrainedTokenizerBase
    text: str | None = None
    room: int = 64
    form: ThinkingFormat | None = None

    def __post_init__(self) -> None:
        if not self.marks.ends:
            raise InputError(f"early exit: thinking format {self.marks.name} has no thinking that could be ended")
        if self.form is not None:
            check_marks(self.form, self.tokenizer)

    @cached_property
    def marks(self) -> ThinkingFormat:
        """The given format, otherwise the one detected from the tokenizer."""
        return self.form or choose_format(AUTO, self.tokenizer).form

    @property
    def closing(self) -> str:
        """The text that is written after the thinking."""
        return self.marks.ending if self.text is None else self.text

    @property
    def ids(self) -> list[int]:
        encoded: Any = self.tokenizer(self.closing, add_special_tokens=False)
        return list(encoded["input_ids"])

    def read(self, ids: Sequence[int]) -> ResponseParts:
        """Return the parts of a response, or of its beginning, given by its sampled tokens."""
        return split_response(self.decode(ids), self.marks)

    def decode(self, ids: Sequence[int]) -> str:
        """Return its text, without end and padding tokens after it."""
        return decode_completion(self.tokenizer, ids, self.marks)

    @property
    def ends(self) -> list[int]:
        return end_tokens(self.network.generation_config, self.tokenizer)

    @torch.no_grad()
    def answers(self, rows: Sequence[tuple[Sequence[int], int]]) -> list[Branch]:
        """Return the greedy answers after (prompt with some thinking, number of its thinking tokens) pairs."""
        padding = padding_token(self.tokenizer, self.ends)
        closed = [self._closed(row, thinking) for row, thinking in rows]
        ids, mask = pad_left([[*row, *closing] for row, _, closing in closed], padding)
        device = self.network.device
        output = self.network.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=self.room,
            eos_token_id=self.ends,
            pad_token_id=padding,
            **GREEDY,
            output_logits=True,
            return_dict_in_generate=True,
        )
        written = output.sequences[:, ids.shape[1] :]
        logits = torch.stack(output.logits, dim=1).float().log_softmax(dim=-1)  # [B, T, V]
        chosen = logits.gather(2, written[..., None])[..., 0].tolist()
        branches = []
        for (_, thinking, closing), tokens, log_probs in zip(closed, written.tolist(), chosen, strict=True):
            length = next((i + 1 for i, token in enumerate(tokens) if token in self.ends), None)
            kept = tokens[:length]
            confidence = 0.0 if length is None else math.exp(sum(log_probs[:length]) / length)
            text = self.decode([token for token in kept if token not in self.ends])
            branches.append(Branch(kept, text, confidence, thinking, closing))
        return branches

    def _closed(self, row: Sequence[int], thinking: int) -> tuple[Sequence[int], int, list[int]]:
        """Return prompt and thinking without white space or an end mark at the end, the number of thinking tokens, and
        the tokens that close it."""
        last = ""
        while thinking:
            last = str(self.tokenizer.decode([row[-1]]))
            if last.strip() and last not in self.marks.closing:  # the end of a channel, after which another may begin
                break
            row, thinking = row[:-1], thinking - 1
        if not thinking or last == last.rstrip():
            return row, thinking, self.ids
        encoded: Any = self.tokenizer(last.rstrip() + self.closing, add_special_tokens=False)
        return row[:-1], thinking - 1, list(encoded["input_ids"])


@dataclass
class _Thinking:
    """The state of one row of a batch. start: first position of its prompt in the padded row; asked: its thinking at
    the last branch, without white space at the end."""

    start: int
    closed: bool = False
    asked: str = ""
    branches: list[Branch] = field(default_factory=list)
    exit: Branch | None = None


class EarlyExit(StoppingCriteria):
    """Ends rows of a running `generate`; passed in `stopping_criteria` (`generate_with_exit` does it).

    mask: the attention mask of the padded prompts. Afterwards `exit_of(row)` is the branch that a row ended with, None
    if it ended with an end token or reached the limit; `branches_of(row)` returns all branches.
    """

    def __init__(self, closing: Closing, rule: Rule, mask: Int64[Tensor, "B P"]):
        self.closing, self.rule, self.width = closing, rule, mask.shape[1]
        self._ends = set(closing.ends)
        self.rows = [_Thinking(int(row.argmax())) for row in mask]

    def exit_of(self, row: int) -> Branch | None:
        return self.rows[row].exit

    def branches_of(self, row: int) -> list[Branch]:
        return self.rows[row].branches

    def __call__(self, input_ids: Int64[Tensor, "B T"], scores: Any, **kwargs: Any) -> Bool[Tensor, "B"]:
        waiting = []
        for row, state in zip(input_ids.tolist(), self.rows, strict=True):
            state.closed = state.closed or row[-1] in self._ends
            if state.exit is not None or state.closed or not at_boundary(self.closing.tokenizer, row[self.width :]):
                continue
            # Marks may be several tokens, in more than one tokenisation: the text is checked.
            text = self.closing.decode(row[self.width :])
            state.closed = split_response(text, self.closing.marks).has_close
            thinking = thinking_of(text, self.closing.marks).rstrip()
            # Several empty lines are one boundary: a second branch would be the first one again.
            if not state.closed and thinking != state.asked:
                state.asked = thinking
                waiting.append((row, state))
        if waiting and self.rule is not never:
            thinking = input_ids.shape[1] - self.width
            found = self.closing.answers([(row[state.start :], thinking) for row, state in waiting])
            for (_, state), branch in zip(waiting, found, strict=True):
                state.branches.append(branch)
                if self.rule(state.branches):
                    state.exit = branch
        return torch.tensor([state.exit is not None for state in self.rows], device=input_ids.device)


@dataclass(frozen=True)
class Response:
    """A complete response.

    Attributes:
        text: thinking, the text that closes it, and answer.
        tokens: number of its tokens; thinking: number of those before the closing text.
        asked: number of branches; spent: tokens of answers generated in branches that are not in the response.
        exited: whether thinking was ended, by the rule or at the limit.
    """

    text: str
    tokens: int
    thinking: int
    asked: int
    spent: int
    exited: bool


def generate_with_exit(
    closing: Closing, prompts: Sequence[Sequence[int]], rule: Rule, *, max_new_tokens: int, **sampling: Any
) -> list[Response]:
    """Generate responses of a batch whose thinking ends according to the rule, at the latest after `max_new_tokens`.

    prompts: token ids up to the response. sampling: options of `generate`, such as do_sample and temperature. Rows
    share one batch, so samples depend on the batch as with `generate`.
    Raises InputError for no prompt, a prompt without tokens, or a limit below 1.
    """
    empty = [place for place, prompt in enumerate(prompts) if not len(prompt)]
    if not prompts or empty:
        raise InputError(f"prompts: found {f'no token in prompt {empty[0]}' if empty else 'none'}, expected token ids")
    check_whole("max_new_tokens", max_new_tokens, low=1)
    network, tokenizer, ends = closing.network, closing.tokenizer, closing.ends
    padding = padding_token(tokenizer, ends)
    ids, mask = pad_left(prompts, padding)
    criterion = EarlyExit(closing, rule, mask)
    with torch.no_grad():
        output = network.generate(
            input_ids=ids.to(network.device),
            attention_mask=mask.to(network.device),
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=padding,
            stopping_criteria=StoppingCriteriaList([criterion]),
            **sampling,
        )
    written = [row[: _length(row, ends)] for row in output[:, ids.shape[1] :].tolist()]
    exits = [criterion.exit_of(row) for row in range(len(prompts))]
    late = [
        row
        for row, tokens in enumerate(written)
        if exits[row] is None and tokens[-1] not in ends and not closing.read(tokens).has_close
    ]
    if late:
        found = closing.answers([([*prompts[row], *written[row]], len(written[row])) for row in late])
        for row, branch in zip(late, found, strict=True):
            exits[row] = branch
    return [
        _response(closing, tokens, branch, criterion.branches_of(row))
        for row, (tokens, branch) in enumerate(zip(written, exits, strict=True))
    ]


def _response(closing: Closing, written: list[int], branch: Branch | None, branches: Sequence[Branch]) -> Response:
    if branch is None:
        text = closing.decode(written)
        _, starts = token_offsets(closing.tokenizer, written)
        thinking, tokens = bisect_left(starts, split_response(text, closing.marks).thinking_end), len(written)
    else:
        thinking = branch.thinking
        text = closing.decode([*written[:thinking], *branch.closing]) + branch.text
        tokens = thinking + len(branch.closing) + len(branch.ids)
    spent = sum(len(one.ids) for one in branches if one is not branch)
    return Response(text, tokens, thinking, len(branches), spent, branch is not None)


def _length(row: list[int], ends: Sequence[int]) -> int:
    """Return the number of tokens up to and including the end token; all without one."""
    return next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
