"""Accuracy as a reward function in TRL's shape: 1 for a verified final answer, 0 for a wrong or absent one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attnpo.data.references import read_reference
from attnpo.errors import InputError
from attnpo.rewards.pool import VerifierPool
from attnpo.rewards.verdict import REWARD_OF, Verdict
from attnpo.steps.response import CLOSE_TAG, OPEN_TAG, answer_of


class AccuracyReward:
    """`accuracy(prompts=…, completions=…, reference=…)` → one reward per completion, None where it is unknown.

    Args:
        pool: workers to verify in; by default one is started on first use and ended by :meth:`close`.
        column: data set column with the reference answers.
        tokenizer: if set, and the caller passes ``completion_ids``, the text is decoded from the sampled ids. TRL's own
            completion text is decoded without special tokens, and in some models ``</think>`` is one: every answer
            would be lost.

    Attributes:
        whole: the whole response is the answer (a model without a thinking part); else what follows the thinking.
        last_verdicts: the verdicts of the last call, in order.
    """

    def __init__(self, pool: VerifierPool | None = None, *, column: str = "reference", tokenizer: Any = None) -> None:
        self.__name__ = "accuracy"
        self.column = column
        self.whole = False
        self.tokenizer = tokenizer
        self.last_verdicts: list[Verdict] = []
        self._pool, self._owns_pool = pool, pool is None

    def __call__(
        self,
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Any] = (),
        completion_ids: Sequence[Sequence[int]] | None = None,
        *,
        log_extra: Callable[[str, list], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Raises InputError if the reference column is absent; names it and the columns there are."""
        references = self._references(columns, len(completions))
        if self.tokenizer is not None and completion_ids is not None:
            texts = [decode_completion(self.tokenizer, ids) for ids in completion_ids]
        else:
            texts = [completion_text(completion) for completion in completions]
        if self._pool is None:
            self._pool = VerifierPool()
        answers = list(texts) if self.whole else [answer_of(text) for text in texts]
        self.last_verdicts = self._pool.verify(zip(answers, references, strict=True))
        if log_extra is not None:
            log_extra("verdict", [verdict.value for verdict in self.last_verdicts])
        return [REWARD_OF[verdict] for verdict in self.last_verdicts]

    def _references(self, columns: dict[str, Any], count: int) -> list[str | None]:
        if self.column not in columns:
            # What TRL adds of its own is no column of the data set.
            found = ", ".join(sorted(set(columns) - {"trainer_state", "environments", "log_metric"})) or "none"
            raise InputError(f"the data set has no column {self.column!r} with reference answers; it has: {found}")
        references = columns[self.column]
        if len(references) != count:
            raise InputError(f"column {self.column!r}: found {len(references)} references for {count} completions")
        return [_as_text(reference) for reference in references]

    def validate_references(self, references: Sequence[str]) -> list[str]:
        """Those that cannot be read: to be told before a run, not after."""
        if self._pool is None:
            self._pool = VerifierPool()
        return self._pool.validate_references([str(reference) for reference in references])

    def close(self) -> None:
        """End the workers, if this object started them."""
        if self._owns_pool and self._pool is not None:
            self._pool.close()
            self._pool = None


def _as_text(reference: Any) -> str | None:
    """A cell of the reference column as the verifier takes it: a text as it stands, lists and numbers written out."""
    if reference is None or isinstance(reference, str):
        return reference
    read = read_reference(reference)
    return str(reference) if read is None else read.text


def completion_text(completion: Any) -> str:
    """The text of a completion: a string, or the last assistant message of a conversation.

    Raises:
        InputError: neither of the two.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Sequence) and all(isinstance(message, dict) for message in completion):
        message = next((m for m in reversed(completion) if m.get("role", "assistant") == "assistant"), {})
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "".join(block.get("text", "") for block in content)
        # A parsed response keeps its thinking apart, without the tags.
        thinking = message.get("reasoning_content")
        return content if thinking is None else f"{OPEN_TAG}{thinking}{CLOSE_TAG}{content}"
    raise InputError(f"completion: found a {type(completion).__name__}, expected a string or a list of messages")


def decode_completion(tokenizer: Any, ids: Sequence[int]) -> str:
    """The sampled text with special tokens kept, but for end and padding tokens at its end."""
    ids = [int(token) for token in ids]
    ending = {tokenizer.eos_token_id, tokenizer.pad_token_id, *tokenizer.all_special_ids}
    ending -= {tokenizer.convert_tokens_to_ids(CLOSE_TAG)}
    while ids and ids[-1] in ending:
        ids.pop()
    # Without clean-up, so that the text is the one that steps are found in (steps/offsets.py).
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
