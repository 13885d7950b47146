"""Accuracy as a reward function in TRL's shape: 1 for a verified final answer, 0 for a wrong or absent one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from attnpo.data.references import read_reference
from attnpo.errors import InputError
from attnpo.rewards.pool import VerifierPool
from attnpo.rewards.verdict import REWARD_OF, Verdict
from attnpo.steps.formats import THINK, ThinkingFormat, load_format, recognise
from attnpo.steps.response import answer_of, decode_completion, message_parts, message_text

WHOLE = load_format("none")


class AccuracyReward:
    """`accuracy(prompts=…, completions=…, reference=…)` → one reward per completion, None where it is unknown.

    Args:
        pool: the workers; by default a pool is started on first use and ended by :meth:`close`.
        column: data set column with the reference answers.
        tokenizer: if set, and the caller passes ``completion_ids``, the text is decoded from the sampled ids. TRL's own
            completion text is decoded without special tokens, and in some models ``</think>`` is one: every answer
            would be lost.
        form: the thinking format of the model; `WHOLE`: the complete response is its answer. Default: with a tokenizer
            ``<think>``. Without one the marks in the responses decide: if most of the responses with marks have one
            format, all are read by it, else each by its own, and a response without marks is all answer. (Text that
            comes with ``completion_ids`` may have lost its marks; such a text without marks has no answer.)

    Attributes:
        last_verdicts: the verdicts of the last call, in order.
    """

    def __init__(
        self,
        pool: VerifierPool | None = None,
        *,
        column: str = "reference",
        tokenizer: Any = None,
        form: ThinkingFormat | None = None,
    ) -> None:
        self.__name__ = "accuracy"
        self.column = column
        self.tokenizer, self.form = tokenizer, form
        self._seen: Counter[ThinkingFormat] = Counter()  # formats of the responses so far, if none was given
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
        """The reward of every completion.

        Raises InputError if the reference column is absent, naming it and the columns found.
        """
        references = self._references(columns, len(completions))
        if self.tokenizer is not None and completion_ids is not None:
            form = self.form or THINK
            answers = [answer_of(decode_completion(self.tokenizer, ids, form), form) for ids in completion_ids]
        else:
            answers = self._answers(completions, may_lack_marks=completion_ids is not None)
        if self._pool is None:
            self._pool = VerifierPool()
        self.last_verdicts = self._pool.verify(zip(answers, references, strict=True))
        if log_extra is not None:
            log_extra("verdict", [verdict.value for verdict in self.last_verdicts])
        return [REWARD_OF[verdict] for verdict in self.last_verdicts]

    def _answers(self, completions: Sequence[Any], *, may_lack_marks: bool) -> list[str | None]:
        """The answers in completions that are texts or messages. `may_lack_marks`: special tokens may be missing."""
        parts = [message_parts(_last_message(completion)) for completion in completions]
        form = self.form or self._usual_format([content for thought, content in parts if thought is None])

        def answer(content: str) -> str | None:
            own = form or recognise(content)
            return answer_of(content, own) if own is not None else None if may_lack_marks else content

        return [content if thought is not None else answer(content) for thought, content in parts]

    def _usual_format(self, texts: Sequence[str]) -> ThinkingFormat | None:
        """The format of more than half of the responses with marks seen so far (a model has one format); else None."""
        found = [form for text in texts if (form := recognise(text)) is not None]
        self._seen.update(found)
        usual = self._seen.most_common(1)
        return usual[0][0] if usual and 2 * usual[0][1] > self._seen.total() else None

    def _references(self, columns: dict[str, Any], count: int) -> list[str | None]:
        if self.column not in columns:
            # TRL's own keyword arguments are not columns of the data set.
            found = ", ".join(sorted(set(columns) - {"trainer_state", "environments", "log_metric"})) or "none"
            raise InputError(f"the data set has no column {self.column!r} with reference answers; it has: {found}")
        references = columns[self.column]
        if len(references) != count:
            raise InputError(f"column {self.column!r}: found {len(references)} references for {count} completions")
        return [_as_text(reference) for reference in references]

    def validate_references(self, references: Sequence[str]) -> list[str]:
        """The references that cannot be read, for a check before a run."""
        if self._pool is None:
            self._pool = VerifierPool()
        return self._pool.validate_references([str(reference) for reference in references])

    def close(self) -> None:
        """End the workers, if this object started them."""
        if self._owns_pool and self._pool is not None:
            self._pool.close()
            self._pool = None


def _as_text(reference: Any) -> str | None:
    """A cell of the reference column as the verifier takes it: texts unchanged, lists and numbers written out."""
    if reference is None or isinstance(reference, str):
        return reference
    read = read_reference(reference)
    return str(reference) if read is None else read.text


def completion_text(completion: Any, form: ThinkingFormat = THINK) -> str:
    """The text of a completion: a string, or the last assistant message of a conversation.

    Thinking in a separate field of the message is put before its content, with the marks of `form`.

    Raises:
        InputError: `completion` is neither.
    """
    return message_text(_last_message(completion), form)


def _last_message(completion: Any) -> dict[str, Any]:
    if isinstance(completion, str):
        return {"content": completion}
    if isinstance(completion, Sequence) and all(isinstance(message, dict) for message in completion):
        return next((m for m in reversed(completion) if m.get("role", "assistant") == "assistant"), {})
    raise InputError(f"completion: found a {type(completion).__name__}, expected a string or a list of messages")
