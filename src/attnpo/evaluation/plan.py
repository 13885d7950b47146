"""What is going to be sampled: one request per question and sample, in batches that are fixed before anything runs.

Batches are of one benchmark, so that its samples are the same whichever others run beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from attnpo.evaluation.records import Question

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
