"""What is going to be sampled, and what samples it: questions as token ids, one request per question and sample, and
what an evaluation asks of an engine (`attnpo.evaluation.engines` has them).

Batches are fixed before anything runs and are of one benchmark, so that its samples are the same whichever others
run in the same evaluation.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import jinja2
from transformers import GenerationConfig

from attnpo.errors import InputError
from attnpo.evaluation.benchmarks import user_message
from attnpo.evaluation.samples import Question
from attnpo.steps.formats import THINK, ThinkingFormat


@dataclass(frozen=True)
class Prompter:
    """Writes prompts.

    Attributes:
        tokenizer: one with a chat template, unless `template` is given.
        template: a text containing {problem}, which stands for the benchmark's message, choices and instructions
            included: the user message in a conversation, the whole prompt without a chat template.
        options: for the chat template, e.g. {"enable_thinking": False}.
        form: how the model marks its thinking.
    """

    tokenizer: Any
    template: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    form: ThinkingFormat = THINK

    def __post_init__(self) -> None:
        """Raises InputError for a template without {problem}, and where there is neither kind of template."""
        if self.template is not None and "{problem}" not in self.template:
            raise InputError(f"--prompt-template: found {self.template!r}, expected a text containing {{problem}}")
        if self.template is None and not self._conversational:
            raise InputError(
                f"the tokenizer of {getattr(self.tokenizer, 'name_or_path', '') or 'this model'} has no chat template; "
                "give --prompt-template, a text containing {problem}, e.g. 'Problem: {problem}\\n<think>\\n'"
            )
        if self.options and not self._conversational:
            raise InputError("--chat-template-kwargs: found options, but the tokenizer has no chat template")

    def encode(self, question: Question) -> list[int]:
        """The prompt of a question, in tokens."""
        # A chat template writes the special tokens itself; plain text gets those that the tokenizer adds.
        text = self.text(user_message(question))
        return self.tokenizer(text, add_special_tokens=not self._conversational)["input_ids"]

    def text(self, message: str) -> str:
        """The prompt as text. Raises InputError where the chat template refuses."""
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
        """Whether a response begins in an opened thinking part; None: the prompt does not say.

        False where the prompt closes it itself, as templates do that are told not to think.
        """
        return self.form.opened_by(self.text(_ANY).rpartition(_ANY)[2])

    @property
    def _conversational(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))


_ANY = "QUESTION"


Key = tuple[str, str, int]
"""Benchmark, id of the question, number of the sample: what a line of `samples/BENCHMARK.jsonl` is known by."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One response to be sampled.

    Attributes:
        sample: number of the response to this question, from 0.
        seed: of this response alone.
        prompt: token ids.
        room: the most tokens the response may have, its end token included.
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
        """Responses in all."""
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

    A response may have max_tokens, or what the model's context leaves behind the prompt; a question whose prompt leaves
    nothing is left out, as a cut prompt would be another question.

    Args:
        encode: the prompt of a question, in tokens.
        context: tokens of prompt and response together; None: no limit is known.
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
        requests.sort(key=lambda request: -len(request.prompt))  # stable: equal ones stay in order
        batches += [requests[first : first + batch_size] for first in range(0, len(requests), batch_size)]
    return Plan(batches, left_out)


def fingerprint(questions: Iterable[Question]) -> str:
    """A hash of everything that is asked and checked against, to recognise changed data."""
    text = json.dumps([asdict(question) for question in questions], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


DEFAULT_BATCH_SIZE = {"transformers": 32, "vllm": 512}
"""Responses of a batch. vLLM makes its own batches out of what it is handed."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; temperature 0 is greedy."""

    temperature: float = 0.6
    top_p: float = 0.95


@dataclass(frozen=True)
class Completion:
    """The token ids of one response, its end token included; `finished`: it ended by itself, not at its limit."""

    ids: list[int]
    finished: bool


Deliver = Callable[[Request, Completion], None]


class Engine(Protocol):
    """A loaded model.

    Attributes:
        facts: for environment.json: device, dtype, kind of seeds …
        notes: for people: what of the model's own settings is not used, and the like.
    """

    tokenizer: Any
    facts: dict[str, Any]
    notes: list[str]

    def generate(self, batch: Sequence[Request], *, deliver: Deliver, tick: Callable[[int], None]) -> None:
        """Sample every request; each is delivered once, as soon as it is there. `tick`: so many new tokens."""
        ...


_NO_CHOICE = {"eos_token_id", "pad_token_id", "bos_token_id", "use_cache", "transformers_version"}


def unused_settings(config: GenerationConfig, sampling: Sampling) -> list[str]:
    """What a model's settings ask for and the evaluation does not do, for people to read."""
    done = {"temperature": sampling.temperature, "top_p": sampling.top_p, "do_sample": sampling.temperature > 0}
    asked = {
        name: value
        for name, value in config.to_diff_dict().items()
        if name not in _NO_CHOICE
        and not name.startswith("_")
        and value not in (None, False)
        and done.get(name) != value
    }
    if not asked:
        return []
    listed = ", ".join(f"{name} {asked[name]}" for name in sorted(asked))
    return [f"the model's own generation settings are not used: {listed}"]
