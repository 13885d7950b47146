"""The engine samples from the policy as it is now: after an optimiser step, and after a change of any kind of weights.

Compared are log-probabilities: those that vLLM has for the tokens it sampled (in bfloat16), and those of transformers'
model for the same tokens (in float32); and which token is most likely.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

ROUNDING = 0.03
"""Nats per token in the mean. bfloat16 makes about 0.005; another model is off by more than ten times this."""

TOKENS = 64
PROMPTS = ["12 + 30", "What is 7 * 8 - 3?", "25 - 9 + 4", "60 + 17"]


def sampled(trainer: Any) -> list[tuple[list[int], list[int], list[float]]]:
    """Prompt, response and vLLM's log-probabilities, through TRL's code, which hands over the weights if they moved."""
    tokenizer = trainer.processing_class
    prompts = [[{"role": "user", "content": text}] for text in PROMPTS]
    ids = trainer._tokenize_prompts(prompts)[0]
    assert tokenizer.decode(ids[0]).count("12 + 30") == 1
    usual, trainer.vllm_generation.max_completion_length = trainer.vllm_generation.max_completion_length, TOKENS
    try:
        responses, logps = trainer._generate_single_turn(ids, None, {}, 1)
    finally:
        trainer.vllm_generation.max_completion_length = usual
    return list(zip(ids, responses, logps, strict=True))


def off_by(model: Any, responses: list[tuple[list[int], list[int], list[float]]]) -> float:
    """Mean distance of the engine's log-probabilities from a model's, in nats per token."""
    distances = []
    for prompt, response, logps in responses:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].float()
        own = torch.log_softmax(logits, dim=-1)[range(len(response)), response]
        distances.append((own - torch.tensor(logps)).abs())
    return torch.cat(distances).mean().item()


def most_likely(model: Any, responses: list[tuple[list[int], list[int], list[float]]]) -> float:
    """Share of the responses' tokens that are the model's most likely ones."""
    same = []
    for prompt, response, _ in responses:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        same += (logits.argmax(-1) == torch.tensor(response)).tolist()
    return sum(same) / len(same)


def frozen(trainer: Any) -> Any:
    """The policy as it is now, as a model of its own. (A deep copy's forward would still be the trainer's.)"""
    model = AutoModelForCausalLM.from_pretrained(trainer.model.name_or_path, dtype=torch.float32).eval()
    model.load_state_dict(trainer.model.state_dict())
    return model


def matrices(model: Any) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.ndim > 1]


def moved(trainer: Any, change) -> None:
    """Change weights as an update does: in place, and one step later."""
    with torch.no_grad():
        change(trainer.model)
    trainer.state.global_step += 1


@pytest.fixture
def restored(trainer):
    """The trainer, whose weights are put back afterwards."""
    before = copy.deepcopy(trainer.model.state_dict())
    yield trainer
    moved(trainer, lambda model: model.load_state_dict(before))
    trainer.vllm_generation.sync_weights()


def test_sampling_uses_the_seed_of_the_run(started):
    assert started.seed == started.trainer.args.seed != 0  # vLLM sets 0 as it starts


def test_after_an_optimiser_step(restored):
    trainer = restored
    old = frozen(trainer)
    trainer.train()
    assert trainer.state.global_step == 1
    responses = sampled(trainer)
    assert off_by(frozen(trainer), responses) < ROUNDING
    assert off_by(old, responses) > 10 * ROUNDING


def test_greedy_output_after_an_update(restored, monkeypatch):
    trainer = restored
    old = frozen(trainer)
    torch.manual_seed(0)
    moved(trainer, lambda model: [p.add_(torch.randn_like(p) * 0.2 * p.std()) for p in matrices(model)])
    monkeypatch.setattr(trainer.vllm_generation, "temperature", 0.0)
    responses = sampled(trainer)
    assert most_likely(frozen(trainer), responses) > 0.95  # but for ties in bfloat16
    assert most_likely(old, responses) < 0.9


def test_stale_weights_are_detected(restored, monkeypatch):
    """The same comparison where nothing is handed over fails: what was sampled is the old policy's."""
    trainer = restored
    old = frozen(trainer)
    with monkeypatch.context() as suppressed:
        suppressed.setattr(trainer.vllm_generation, "sync_weights", lambda: None)
        trainer.train()
        responses = sampled(trainer)
    assert off_by(frozen(trainer), responses) > 10 * ROUNDING
    assert off_by(old, responses) < ROUNDING


KINDS = [
    "embed_tokens.weight",  # the output head too
    "layers.1.self_attn.q_proj.weight",
    "layers.1.self_attn.k_proj.bias",
    "layers.2.self_attn.v_proj.weight",
    "layers.2.self_attn.o_proj.weight",
    "layers.0.mlp.gate_proj.weight",
    "layers.3.mlp.up_proj.weight",
    "layers.3.mlp.down_proj.weight",
    "layers.1.input_layernorm.weight",
    "model.norm.weight",
]


@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_all_weight_types_arrive(restored, kind):
    trainer = restored
    old = frozen(trainer)

    def change(model: Any) -> None:
        (found,) = [p for name, p in model.named_parameters() if name.endswith(kind)]
        torch.manual_seed(0)
        noise = torch.randn_like(found)
        found.add_(noise * (1.0 if found.std() == 0 else max(0.8 * found.std().item(), 0.5 * (found.ndim == 1))))

    moved(trainer, change)
    responses = sampled(trainer)
    new, before = off_by(frozen(trainer), responses), off_by(old, responses)
    assert new < ROUNDING
    assert before > 3 * new
