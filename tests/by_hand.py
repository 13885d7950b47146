"""The arithmetic of one training step, independent of the package: plain loops over plain numbers."""

from __future__ import annotations

import math

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
