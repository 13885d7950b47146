"""Importance correction of vLLM's rollouts with an advantage per token, against arithmetic redone here.

Tokens are sampled by the engine (bfloat16) and trained on by the policy (float32); what a token or a response counts is
weighed by exp(policy's log-probability − engine's). The engine's numbers are taken from vLLM's own answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from by_hand import BETA, rewards_by_hand, rloo_by_hand, scale_by_hand, step_scores_by_hand


@dataclass
class Answers:
    """What vLLM answered in one call: prompts, sampled ids, and the log-probability of each."""

    prompts: list[list[int]]
    ids: list[list[int]]
    logps: list[list[float]]


@pytest.fixture
def answers(trainer, monkeypatch) -> list[Answers]:
    """Every answer of the engine from now on, as vLLM gave it."""
    seen: list[Answers] = []
    llm = trainer.vllm_generation.llm
    generate = llm.generate

    def recorded(*args: Any, **kwargs: Any):
        outputs = generate(*args, **kwargs)
        rows = [output.outputs[0] for output in outputs]
        logps = [[lp[i].logprob for i, lp in zip(row.token_ids, row.logprobs, strict=True)] for row in rows]
        prompts = [list(output.prompt_token_ids) for output in outputs]
        seen.append(Answers(prompts, [list(row.token_ids) for row in rows], logps))
        return outputs

    monkeypatch.setattr(llm, "generate", recorded)
    return seen


def eager(trainer: Any) -> Any:
    """The policy as a model of its own that hands out its attention."""
    name = trainer.model.name_or_path
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, attn_implementation="eager").eval()
    model.load_state_dict(trainer.model.state_dict())
    return model


def policy_logps(model: Any, prompt: list[int], ids: list[int]) -> list[float]:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, dim=-1)[range(len(ids)), ids].tolist()


def advantages_by_hand(trainer: Any, model: Any, answers: Answers, batch: dict[str, Any]) -> list[list[float]]:
    """Advantage of every token, a list per response, from lengths, verdicts, and attention of one at a time."""
    expected: list[list[float]] = []
    heads, size = list(trainer.heads), trainer.num_generations
    for first in range(0, len(answers.ids), size):
        rows = range(first, first + size)
        records = [trainer._batch.records[i] for i in rows]
        right = [record["verdict"] == "right" for record in records]
        lengths = [len(answers.ids[i]) for i in rows]
        outcome = rloo_by_hand(rewards_by_hand(right, lengths)) if any(right) else [0.0] * size
        p = sum(right) / size
        for i, advantage, ok in zip(rows, outcome, right, strict=True):
            ids = answers.ids[i]
            tokens = [advantage] * len(ids)
            expected.append(tokens)
            steps = batch["step_ids"][i].tolist()[: len(ids)]
            count = int(batch["num_steps"][i])
            if not ok or count < 2:
                continue
            spans = [(steps.index(k), len(ids) - steps[::-1].index(k)) for k in range(count)]
            answer = tuple(batch["answer_spans"][i].tolist())
            with torch.no_grad():
                scores = step_scores_by_hand(model, answers.prompts[i], ids, spans, answer, heads)
            baseline = p**BETA * (answer[1] - answer[0]) / (len(answers.prompts[i]) + len(ids))
            for (start, end), score in zip(spans, scores, strict=True):
                tokens[start:end] = [scale_by_hand(score, baseline, advantage, p) * advantage] * (end - start)
    return expected


def ratios_by_hand(
    mode: str, low: float | None, high: float | None, own: list[float], engine: list[float]
) -> list[float]:
    """Weight of every token of one response."""
    differences = [a - b for a, b in zip(own, engine, strict=True)]
    if mode.startswith("sequence"):
        differences = [sum(differences)] * len(differences)
    ratios = [math.exp(d) for d in differences]
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    if mode.endswith("truncate"):
        return [min(max(r, low), high) for r in ratios]
    return [r if low <= r <= high else 0.0 for r in ratios]


@pytest.mark.parametrize(
    ("mode", "low", "high"),
    [
        ("sequence_mask", None, 3.0),  # the default
        ("sequence_truncate", None, 1.0),
        ("token_truncate", 0.9, 0.99),
        ("token_mask", 0.99, 1.01),
    ],
)
def test_loss(trainer, answers, monkeypatch, mode, low, high):
    for name, value in (("mode", mode), ("clip_min", low), ("clip_max", high)):
        monkeypatch.setattr(trainer, f"vllm_importance_sampling_{name}", value)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    torch.manual_seed(3)
    rows = next(iter(trainer.get_train_dataloader()))
    batch = trainer._generate_and_score_completions(rows)
    (answered,) = answers

    # What goes into the loss are the tokens that vLLM sampled, in order, the last one included.
    lengths = batch["completion_mask"].sum(dim=1).tolist()
    found = [row[:n] for row, n in zip(batch["completion_ids"].tolist(), lengths, strict=True)]
    assert found == answered.ids == trainer._batch.completion_ids
    assert len({tuple(ids) for ids in found}) > len(found) // 2
    assert len(found) == 16

    model = eager(trainer)
    advantages = advantages_by_hand(trainer, model, answered, batch)
    assert any(len(set(tokens)) > 1 for tokens in advantages), "no response has more than one advantage"
    total, weights = 0.0, []
    for i, tokens in enumerate(advantages):
        torch.testing.assert_close(batch["advantages"][i][: lengths[i]], torch.tensor(tokens), atol=3e-5, rtol=2e-4)
        own = policy_logps(model, answered.prompts[i], answered.ids[i])
        ratios = ratios_by_hand(mode, low, high, own, answered.logps[i])
        weights += ratios
        total += sum(ratio * advantage for ratio, advantage in zip(ratios, tokens, strict=True))
    assert len(set(weights)) > 2, "the engine agrees with the policy to the last bit: nothing was corrected"
    if low is not None or high <= 1.0:
        assert any(w in (0.0, low, high) for w in weights), "nothing was cut"
    with torch.no_grad():
        loss = trainer._compute_loss(trainer.model, batch).item()
    by_hand = -total / sum(lengths)
    plain = -sum(map(sum, advantages)) / sum(lengths)
    assert loss == pytest.approx(by_hand, abs=2e-6, rel=2e-4)
    assert abs(loss - by_hand) < 0.1 * abs(loss - plain)


def test_no_weights_without_correction(trainer, monkeypatch):
    monkeypatch.setattr(trainer, "vllm_importance_sampling_correction", False)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    torch.manual_seed(3)
    batch = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad():
        loss = trainer._compute_loss(trainer.model, batch).item()
    mask = batch["completion_mask"]
    assert batch["advantages"].shape == mask.shape
    assert loss == pytest.approx(-((batch["advantages"] * mask).sum() / mask.sum()).item(), abs=2e-6)
