"""The objects of an evaluation, in order: questions, prompts, requests, completions and graded samples; and the
interface of an engine (`attnpo.evaluation.engines` implements it).

Batches are fixed before sampling starts, and each has requests of one benchmark only, so the samples of a benchmark do
not depend on which others are in the same evaluation.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import jinja2

from attnpo.errors import InputError
from attnpo.rewards.verdict import Verdict
from attnpo.steps.formats import THINK, Form, ThinkingFormat
from attnpo.steps.response import decode_completion, split_response
from attnpo.steps.spans import token_offsets

if TYPE_CHECKING:
    from transformers import GenerationConfig

AnswerKind = Literal["math", "choice", "code"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One problem of a benchmark, in the form that all benchmarks share.

    Attributes:
        benchmark: its short name, e.g. "math500".
        id: as in the data set; unique within the benchmark.
        problem: the statement alone, without instructions or choices.
        kind: how its answers are checked.
        reference: the gold answer (a letter for choices); None if there is none to check against.
        choices: of a multiple-choice question, in the order shown.
        level: the group it counts to in a breakdown (a level, a difficulty, a subject); None: no breakdown.
        tests: of a code question, as `attnpo.evaluation.grading.code` reads them.
        extra: other data needed for checking (unit, answer type, starter code …), JSON values only.
    """

    benchmark: str
    id: str
    problem: str
    kind: AnswerKind
    reference: str | None
    choices: tuple[str, ...] = ()
    level: str | None = None
    tests: tuple[dict[str, Any], ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


def letter_of(index: int) -> str:
    """A, B, C … for 0, 1, 2 …"""
    return chr(ord("A") + index)


def fingerprint(questions: Iterable[Question]) -> str:
    """A hash of all fields of the questions, to detect changed data."""
    text = json.dumps([asdict(question) for question in questions], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Prompter:
    """Writes prompts.

    Attributes:
        tokenizer: one with a chat template, unless `template` is given.
        template: a text containing {problem}, which is replaced by the benchmark's message (choices and instructions
            included): the user message in a conversation, the whole prompt without a chat template.
        options: for the chat template, e.g. {"enable_thinking": False}.
        form: how the model marks its thinking.
    """

    tokenizer: Any
    template: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    form: ThinkingFormat = THINK

    def __post_init__(self) -> None:
        """Raises InputError for a template without {problem}, and if there is neither kind of template."""
        if self.template is not None and "{problem}" not in self.template:
            raise InputError(f"--prompt-template: found {self.template!r}, expected a text containing {{problem}}")
        if self.template is None and not self._conversational:
            raise InputError(
                f"the tokenizer of {getattr(self.tokenizer, 'name_or_path', '') or 'this model'} has no chat template; "
                "give --prompt-template, a text containing {problem}, e.g. 'Problem: {problem}\\n<think>\\n'"
            )
        if self.options and not self._conversational:
            raise InputError("--chat-template-kwargs: found options, but the tokenizer has no chat template")

    def encode(self, message: str) -> list[int]:
        """The token ids of the prompt with a benchmark's message."""
        # A chat template writes the special tokens itself; to plain text the tokenizer adds them.
        return self.tokenizer(self.text(message), add_special_tokens=not self._conversational)["input_ids"]

    def text(self, message: str) -> str:
        """The prompt as text. Raises InputError if the chat template raises an error."""
        if self.template is not None:
            message = self.template.replace("{problem}", message)
        if not self._conversational:
            return message
        try:
            return self.tokenizer.apply_chat_template(
                [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True, **self.options
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise InputError(f"the chat template cannot be used: {error}") from error

    def opens_thinking(self) -> bool | None:
        """Whether the prompt opens the thinking part; None: it contains no mark.

        False if the prompt also closes it, as chat templates do when thinking is disabled.
        """
        return self.form.opened_by(self.text(_ANY).rpartition(_ANY)[2])

    @property
    def _conversational(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))


_ANY = "QUESTION"


Key = tuple[str, str, int]
"""Benchmark, id of the question, number of the sample: identifies a line of `samples/BENCHMARK.jsonl`."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One response to be sampled.

    Attributes:
        sample: number of the response to this question, from 0.
        seed: of this response alone.
        prompt: token ids.
        room: the maximum number of tokens of the response, its end token included.
    """

    question: Question
    sample: int
    seed: int
    prompt: tuple[int, ...]
    room: int

    @property
    def key(self) -> Key:
        return (self.question.benchmark, self.question.id, self.sample)


@dataclass(frozen=True)
class Plan:
    """Batches of requests, longest prompts of a benchmark first; why questions of a benchmark were left out."""

    batches: list[list[Request]]
    left_out: dict[str, list[str]]

    @property
    def requests(self) -> list[Request]:
        return [request for batch in self.batches for request in batch]

    @property
    def size(self) -> int:
        """Total number of responses."""
        return len(self.requests)

    @property
    def problems(self) -> Counter[str]:
        """Questions per benchmark."""
        return Counter(benchmark for benchmark, _ in dict.fromkeys(request.key[:2] for request in self.requests))


def sample_seed(run_seed: int, key: Key) -> int:
    """The seed of one response: 48 bits of a hash, so that it depends on nothing else of the run."""
    text = json.dumps([run_seed, *key])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big")


def make_plan(
    questions: Mapping[str, Sequence[Question]],
    encode: Callable[[Question], Sequence[int]],
    *,
    samples: Mapping[str, int],
    seed: int,
    max_tokens: int,
    context: int | None,
    batch_size: int,
) -> Plan:
    """Requests for `samples[benchmark]` responses to every question.

    A response may have max_tokens, or as many as the model's context leaves after the prompt. A question whose prompt
    leaves no room is left out, as a truncated prompt would be a different question.

    Args:
        encode: returns the prompt of a question, in tokens.
        context: maximum tokens of prompt and response together; None: no known limit.
    """
    batches: list[list[Request]] = []
    left_out: dict[str, list[str]] = {}
    for benchmark, asked in questions.items():
        requests: list[Request] = []
        for question in asked:
            prompt = tuple(encode(question))
            room = max_tokens if context is None else min(max_tokens, context - len(prompt))
            if room < 1:
                reason = f"{benchmark}, problem {question.id}: a prompt of {len(prompt)} tokens, expected less than "
                left_out.setdefault(benchmark, []).append(f"{reason}{context}, the model's context")
                continue
            for sample in range(samples[benchmark]):
                own = sample_seed(seed, (benchmark, question.id, sample))
                requests.append(Request(question=question, sample=sample, seed=own, prompt=prompt, room=room))
        requests.sort(key=lambda request: -len(request.prompt))  # stable: prompts of equal length keep their order
        batches += [requests[first : first + batch_size] for first in range(0, len(requests), batch_size)]
    return Plan(batches, left_out)


DEFAULT_BATCH_SIZE = {"transformers": 32, "vllm": 512}
"""Responses per batch. vLLM forms its own batches from the requests it receives."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; temperature 0 is greedy."""

    temperature: float = 0.6
    top_p: float = 0.95


@dataclass(frozen=True)
class Completion:
    """The token ids of one response, its end token included; `finished`: it ended with one, not at its limit."""

    ids: list[int]
    finished: bool


Deliver = Callable[[Request, Completion], None]


class Engine(Protocol):
    """A loaded model.

    Attributes:
        facts: for environment.json: device, dtype, kind of seeds …
        notes: messages for the user, e.g. which of the model's own settings are not used.
    """

    tokenizer: Any
    facts: dict[str, Any]
    notes: list[str]

    def generate(self, batch: Sequence[Request], *, deliver: Deliver, tick: Callable[[int], None]) -> None:
        """Sample every request and deliver each once, as soon as it is complete. `tick`: takes the number of new
        tokens.
        """
        ...


_NO_CHOICE = {"eos_token_id", "pad_token_id", "bos_token_id", "use_cache", "transformers_version"}


def unused_settings(config: GenerationConfig, sampling: Sampling) -> list[str]:
    """One message that lists the model's generation settings that are not used here; empty if there are none."""
    done = {"temperature": sampling.temperature, "top_p": sampling.top_p, "do_sample": sampling.temperature > 0}
    unused = {
        name: value
        for name, value in config.to_diff_dict().items()
        if name not in _NO_CHOICE
        and not name.startswith("_")
        and value not in (None, False)
        and done.get(name) != value
    }
    if not unused:
        return []
    listed = ", ".join(f"{name} {unused[name]}" for name in sorted(unused))
    return [f"the model's own generation settings are not used: {listed}"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sampled response, graded: a line of `samples/BENCHMARK.jsonl`.

    Attributes:
        sample: number of the response to this question, from 0.
        seed: of this response alone.
        text: the whole response, thinking included; `tokens` counts it with its end token.
        thinking_tokens, answer_tokens: before and after the closing mark; a response without a mark, of a model that
            does not think, is all answer.
        truncated: it reached the token limit.
        extracted: the answer that was read from it, for display; None if none was found.
        verdict: None only if the question has no reference or tests to check against.
    """

    benchmark: str
    id: str
    sample: int
    seed: int
    text: str
    prompt_tokens: int
    tokens: int
    thinking_tokens: int
    answer_tokens: int
    truncated: bool
    extracted: str | None
    verdict: Verdict | None
    reference: str | None
    level: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Graded:
    """The verdict on a response, and the answer that was read from it.

    Attributes:
        verdict: None only for a question without a reference or tests.
        extracted: for display; None if no answer was found.
        fired: rules of the verifier that were applied (mathematics).
    """

    verdict: Verdict | None
    extracted: str | None
    fired: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Reading:
    """`answer`: the text to be graded, None if the response has none. Thinking: tokens before the closing mark."""

    text: str
    answer: str | None
    thinking_tokens: int
    answer_tokens: int


def read_response(tokenizer: Any, ids: Sequence[int], thinks: bool | None, form: ThinkingFormat = THINK) -> Reading:
    """Split a response into thinking and answer by its sampled ids, end token included.

    Args:
        thinks: whether the model thinks; None: it does if the response contains a mark of its format.
        form: how it marks its thinking.
    """
    text = decode_completion(tokenizer, ids, form)
    if thinks is False or (thinks is None and not has_mark(text, form)):
        return Reading(text, text, 0, len(ids))
    whole, starts = token_offsets(tokenizer, ids)  # end and padding tokens included, after the text
    if thinks:
        form = replace(form, prompt_opens=True)  # without a closing mark it is thinking that was cut off
    parts = split_response(whole, form)
    if parts.answer_start is None:
        return Reading(text, None, len(ids), 0)
    thinking, answer = bisect_left(starts, parts.thinking_end), bisect_left(starts, parts.answer_start)
    return Reading(text, text[parts.answer_start : parts.answer_end], thinking, len(ids) - answer)


def has_mark(text: str, form: Form = THINK) -> bool:
    """Whether a response contains a mark of its thinking format."""
    return form.of(text).shows_in(text)
