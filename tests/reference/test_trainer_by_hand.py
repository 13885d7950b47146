"""One training step against arithmetic redone here, step by step, with nothing of the package in it.

Responses are put together from pieces, so their spans are known; attention comes from an eager copy of the model that
returns all of it, one response at a time; sums are plain loops.
"""

from __future__ import annotations

import copy

import pytest
import torch

from by_hand import BETA, rewards_by_hand, rloo_by_hand, scale_by_hand, step_scores_by_hand


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
