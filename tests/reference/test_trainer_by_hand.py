"""One training step against arithmetic redone here, step by step, with nothing of the package in it.

Responses are put together from pieces, so their spans are known; attention comes from an eager copy of the model that
returns all of it, one response at a time; sums are plain loops.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch

ALPHA, BETA, LAM = 0.2, 2.0, 2.0


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def rewards_by_hand(right: list[bool], lengths: list[int]) -> list[float]:
    """Accuracy + TLMRE of one group."""
    those = [n for n, ok in zip(lengths, right, strict=True) if ok]
    mean = sum(those) / len(those)
    std = math.sqrt(sum((n - mean) ** 2 for n in those) / len(those))
    z = [(n - mean) / std if std else 0.0 for n in lengths]
    return [1 - ALPHA * sigmoid(z[i]) if ok else 0.0 for i, ok in enumerate(right)]


def rloo_by_hand(rewards: list[float]) -> list[float]:
    n = len(rewards)
    return [r - sum(rewards[:i] + rewards[i + 1 :]) / (n - 1) for i, r in enumerate(rewards)]


def step_scores_by_hand(model, prompt: list[int], completion: list[int], spans, answer, heads) -> list[float]:
    """S(s_k) by the definition: sums over answer and step positions, mean over heads."""
    output = model(input_ids=torch.tensor([prompt + completion]), output_attentions=True)
    scores = []
    for start, end in spans:
        total = 0.0
        for layer, head in heads:
            attention = output.attentions[layer][0, head].tolist()
            for m in range(len(prompt) + answer[0], len(prompt) + answer[1]):
                for n in range(len(prompt) + start, len(prompt) + end):
                    total += attention[m][n]
        scores.append(total / (end - start) / len(heads))
    return scores


def scale_by_hand(score: float, baseline: float, advantage: float, p: float) -> float:
    if advantage > 0 and score < baseline:
        return p**LAM * score / baseline + 1 - p**LAM
    if advantage < 0 and score > baseline:
        return 0.0
    return 1.0


@pytest.fixture
def step(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """One on-policy step on the mixed batch, and the same by hand."""
    kit, tokenizer = trainer_kit, tiny_tokenizer
    model = kit.sharpen(tiny_qwen2)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    trainer = kit.make_trainer(model, tokenizer, tmp_path, responses=kit.MIXED)
    seen = kit.spy(trainer)
    trainer.train()

    prompts = [tokenizer(row["prompt"])["input_ids"] for row in kit.problems(2)]
    expected, scales = [], []
    with torch.no_grad():
        for group in range(2):
            responses = kit.MIXED[4 * group : 4 * group + 4]
            completions = [r.ids(tokenizer) for r in responses]
            right = [r.answer == kit.RIGHT for r in responses]
            advantages = rloo_by_hand(rewards_by_hand(right, [len(ids) for ids in completions]))
            p = sum(right) / 4
            for response, ids, ok, advantage in zip(responses, completions, right, advantages, strict=True):
                tokens = [advantage] * len(ids)
                if ok:
                    spans, answer = response.spans(tokenizer), response.answer_span(tokenizer)
                    scores = step_scores_by_hand(eager, prompts[group], ids, spans, answer, kit.HEADS)
                    baseline = p**BETA * (answer[1] - answer[0]) / (len(prompts[group]) + len(ids))
                    for (start, end), score in zip(spans, scores, strict=True):
                        scale = scale_by_hand(score, baseline, advantage, p)
                        scales.append((scale, advantage))
                        tokens[start:end] = [scale * advantage] * (end - start)
                expected.append((prompts[group], ids, tokens))
    return trainer, seen, eager, expected, scales


def test_advantages_loss_and_gradients(step):
    _trainer, seen, eager, expected, scales = step
    # The batch has every case in it; otherwise the comparison below would prove little.
    assert any(0 < scale < 1 and a > 0 for scale, a in scales), "no attenuated step"
    assert any(scale == 0 and a < 0 for scale, a in scales), "no protected step"
    assert any(scale == 1 for scale, _ in scales), "no untouched step"
    assert {len(set(tokens)) == 1 for _, _, tokens in expected} == {True, False}

    found = seen.rows()
    for prompt, ids, tokens in expected:
        torch.testing.assert_close(found[tuple(prompt + ids)], torch.tensor(tokens), atol=2e-6, rtol=1e-4)

    count = sum(len(ids) for _, ids, _ in expected)
    # On-policy every ratio is 1: the value is −ΣA/Σtokens, the gradient that of −ΣA·log π/Σtokens.
    value = -sum(sum(tokens) for _, _, tokens in expected) / count
    assert seen.losses == [pytest.approx(value, abs=1e-6)]
    loss = torch.zeros(())
    for prompt, ids, tokens in expected:
        logits = eager(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        logps = torch.log_softmax(logits.float(), dim=-1)[range(len(ids)), ids]
        loss = loss - (logps * torch.tensor(tokens)).sum() / count
    loss.backward()
    (gradients,) = seen.gradients
    by_hand = {name: p.grad for name, p in eager.named_parameters()}
    assert gradients.keys() == by_hand.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, by_hand[name], atol=2e-6, rtol=2e-3, msg=lambda m, n=name: f"{n}: {m}")
