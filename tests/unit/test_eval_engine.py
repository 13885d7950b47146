"""Sampling with transformers: rows that end at different times, too little memory, the model's own settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from attnpo.errors import RunError
from attnpo.evaluation.engines.transformers_engine import TransformersEngine
from attnpo.evaluation.samples import Completion, Question, Request, Sampling, unused_settings
from attnpo.models.loading import end_tokens

ENDS = range(40, 60)  # a random model hardly ever ends by itself; with so many end tokens it does


def request(number: int, *, prompt: int = 4, room: int = 40) -> Request:
    asked = Question(benchmark="task", id=str(number), problem="", kind="math", reference="1")
    ids = tuple((7 * number + step) % 250 for step in range(prompt))
    return Request(question=asked, sample=0, seed=1000 + number, prompt=ids, room=room)


@pytest.fixture
def new_engine(new_tiny_qwen2, tiny_tokenizer) -> Callable[..., TransformersEngine]:
    def make(temperature: float = 1.0, top_p: float = 1.0, settings: Any = None) -> TransformersEngine:
        model = new_tiny_qwen2()
        model.generation_config = GenerationConfig(eos_token_id=list(ENDS), **(settings or {}))
        said: list[str] = []
        engine = TransformersEngine(model, tiny_tokenizer, Sampling(temperature, top_p), warn=said.append)
        engine.said = said  # type: ignore[attr-defined]
        return engine

    return make


def sample(engine: TransformersEngine, batch: list[Request]) -> dict[str, Completion]:
    found: dict[str, Completion] = {}

    def deliver(request: Request, completion: Completion) -> None:
        assert request.question.id not in found, "delivered twice"
        found[request.question.id] = completion

    engine.generate(batch, deliver=deliver, tick=lambda count: None)
    return found


def test_rows_end_at_the_end_token_or_their_token_limit(new_engine):
    batch = [request(n, prompt=3 + n, room=5 + 4 * n) for n in range(12)]
    engine = new_engine()
    found = sample(engine, batch)
    assert list(found) == sorted(found, key=lambda name: len(found[name].ids))  # delivered as they end
    for asked in batch:
        completion = found[asked.question.id]
        ended = [token in engine.ends for token in completion.ids]
        assert not any(ended[:-1])
        assert completion.finished == ended[-1]
        assert len(completion.ids) == asked.room or (completion.finished and len(completion.ids) < asked.room)
    assert {completion.finished for completion in found.values()} == {True, False}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batch_mates_change_nothing(new_engine, temperature: float):
    batch = [request(n, prompt=3 + n, room=60) for n in range(8)]
    together = sample(new_engine(temperature), batch)
    alone = {n: c for asked in batch for n, c in sample(new_engine(temperature), [asked]).items()}
    assert alone == together


def test_greedy_is_the_likeliest_token(new_engine):
    asked = request(1, room=6)
    engine = new_engine(0.0)
    ids = sample(engine, [asked])["1"].ids
    with torch.no_grad():
        logits = engine.network(torch.tensor([[*asked.prompt, *ids]])).logits[0, len(asked.prompt) - 1 : -1]
    assert logits.argmax(dim=-1).tolist() == ids


def test_samples_follow_the_model(new_engine):
    """First tokens of many samples against the probabilities of a plain forward."""
    engine = new_engine(temperature=0.5, top_p=0.3)
    one = request(1, room=1)
    many = [replace(one, sample=n, seed=n) for n in range(2000)]
    first: list[int] = []
    engine.generate(many, deliver=lambda request, completion: first.append(completion.ids[0]), tick=lambda count: None)
    with torch.no_grad():
        logits = engine.network(torch.tensor([many[0].prompt])).logits[0, -1] / 0.5
    probabilities = logits.softmax(dim=-1)
    order = probabilities.argsort(descending=True)
    inside = order[: int((probabilities[order].cumsum(0) < 0.3).sum()) + 1]
    expected = torch.zeros_like(probabilities)
    expected[inside] = probabilities[inside] / probabilities[inside].sum()
    shares = torch.tensor(first).bincount(minlength=len(expected)) / len(first)
    assert set(first) <= set(inside.tolist())
    assert 0.5 * (shares - expected).abs().sum() < 0.1


class Memory:
    """Lets a model fail, as a GPU or the C library would, for more than `rows` rows once `step` tokens were written."""

    def __init__(self, network: Any, rows: int, step: int, error: Exception) -> None:
        self.tried: list[int] = []
        real, count = network.forward, {"calls": 0}

        def forward(*args: Any, **kwargs: Any):
            ids = kwargs["input_ids"]
            count["calls"] = 0 if ids.shape[1] > 1 else count["calls"] + 1
            if ids.shape[1] > 1:
                self.tried.append(ids.shape[0])
            if ids.shape[0] > rows and count["calls"] == step:
                raise error
            return real(*args, **kwargs)

        network.forward = forward


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to …"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("step", [0, 3])
def test_too_little_memory_halves_the_batch(new_engine, error: Exception, step: int):
    batch = [request(n, prompt=9 - n // 2, room=30) for n in range(8)]
    expected = sample(new_engine(), batch)
    engine = new_engine()
    memory = Memory(engine.network, rows=3, step=step, error=error)
    assert sample(engine, batch) == expected
    assert memory.tried[:3] == [8, 4, 2]
    assert max(memory.tried[2:]) == 2
    assert engine.said == ["out of memory with 8 responses at once: continuing with half of them"]
    # As long a batch is not tried whole again; a much shorter one is.
    memory.tried.clear()
    sample(engine, batch)
    assert max(memory.tried) == 2
    memory.tried.clear()
    sample(engine, [request(n, prompt=2, room=2) for n in range(4)])
    assert memory.tried[0] == 4


def test_one_response_too_large(new_engine):
    engine = new_engine()
    Memory(engine.network, rows=0, step=0, error=OUT_OF_MEMORY[0])
    with pytest.raises(RunError, match="a single response of up to 44 tokens; lower --max-tokens"):
        sample(engine, [request(1), request(2)])


def test_other_faults_are_not_hidden(new_engine):
    engine = new_engine()
    Memory(engine.network, rows=0, step=0, error=RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        sample(engine, [request(1)])


def test_generation_config_of_the_model_is_reported_and_ignored(new_engine):
    plain = sample(new_engine(0.0), [request(1)])
    settings = {"repetition_penalty": 5.0, "top_k": 20, "do_sample": True, "temperature": 0.6}
    engine = new_engine(0.0, settings=settings)
    assert engine.notes == [
        "the model's own generation settings are not used: do_sample True, repetition_penalty 5.0, temperature 0.6, "
        "top_k 20"
    ]
    assert sample(engine, [request(1)]) == plain
    agreeing = GenerationConfig(eos_token_id=3, do_sample=True, temperature=0.6, top_p=0.95)
    assert unused_settings(agreeing, Sampling(0.6, 0.95)) == []


def test_end_tokens_of_model_and_tokenizer(tiny_tokenizer):
    own = tiny_tokenizer.eos_token_id
    assert end_tokens(GenerationConfig(eos_token_id=[3, own]), tiny_tokenizer) == [3, own]
    assert end_tokens(GenerationConfig(eos_token_id=3), tiny_tokenizer) == [3, own]
    assert end_tokens(GenerationConfig(), tiny_tokenizer) == [own]
