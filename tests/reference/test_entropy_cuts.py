"""Entropies at which responses are cut, and the positions of the cuts, compared with loops over plain logits."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from datasets import Dataset

from attnpo.training.policy import Policy
from attnpo.training.stages.potentials import read

TEMPERATURES = (1.0, 0.5)
QUANTILE, SEGMENTS = 0.83, 4
PROMPTS = ("1 + 1?", "What is 12 + 30, and why?", "Add twelve to thirty, please. " * 3, "12 + 30 =")


def vary(model: Any, kit: Any) -> Any:
    """Entropies that differ from token to token; a random model's are all but those of the uniform distribution."""
    with torch.no_grad():
        model.model.norm.weight.mul_(20)
    return kit.sharpen(model)


@torch.no_grad()
def plain_entropies(model: Any, ids: list[int], temperature: float) -> list[float]:
    """Per token, in nats, of softmax(logits / temperature) at the token before it. Nothing is before the first one."""
    logits = model(input_ids=torch.tensor([ids])).logits[0].double() / temperature
    logps = logits.log_softmax(dim=-1)
    return [math.nan] + [-sum(math.exp(x) * x for x in logps[t - 1].tolist()) for t in range(1, len(ids))]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_entropies_of_read(temperature, share, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """Of rows of different lengths, with a cache to be shared and without."""
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(250, (n,), generator=generator).tolist() for n in (31, 5, 2, 48, 17)]
    model = vary(tiny_qwen2, trainer_kit)
    trainer = trainer_kit.make_trainer(model, tiny_tokenizer, tmp_path, credit="shape", temperature=temperature)
    reading = read(Policy(trainer), sequences, entropy=True, share=share)
    assert (reading.cache is not None) == share
    assert reading.entropy is not None
    for ids, row in zip(sequences, reading.entropy.tolist(), strict=True):
        expected = plain_entropies(model, ids, temperature)[1:]
        assert row[0] == 0
        assert row[1 : len(ids)] == pytest.approx(expected, abs=1e-4)
        assert len(expected) == 1 or max(expected) - min(expected) > 0.1


def quantile(values: list[float], q: float) -> float:
    """Linear between neighbours in order."""
    place = q * (len(values) - 1)
    low = int(place)
    ordered = [*sorted(values), math.nan]
    return ordered[low] + (place - low) * (ordered[low + 1] - ordered[low])


def slow_cuts(entropies: list[float], q: float, segments: int) -> list[int]:
    """Cuts of a thinking that begins with the response, from the entropies of its tokens."""
    limit = quantile(entropies, q)
    assert min(abs(h - limit) for h in entropies) > 1e-5, "too close to call"
    above = [t for t, h in enumerate(entropies) if h > limit and t > 0]
    count = segments - 1
    if len(above) <= count:
        return above
    # As many equal groups by rank; of each the one in the middle.
    return [above[math.floor((group + 0.5) / count * len(above) + 1e-9)] for group in range(count)]


@pytest.mark.parametrize("way", ["shared", "anew", "captured"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_cuts_of_a_step(way, temperature, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """Segments that reach the loss: prompts and responses of different lengths, in more than one chunk."""
    kit = trainer_kit
    model = vary(tiny_qwen2, kit)
    before = copy.deepcopy(model)
    rows = [{"prompt": prompt, "reference": "42", "id": f"p{i}"} for i, prompt in enumerate(PROMPTS)]
    trainer = kit.make_trainer(
        model,
        tiny_tokenizer,
        tmp_path,
        responses=kit.MIXED,
        data=Dataset.from_list(rows),
        credit="shape",
        credit_kwargs={
            "segments": SEGMENTS,
            "quantile": QUANTILE,
            "rollouts": 1,
            "rollout_tokens": 2,
            "share_prefixes": way == "shared",
        },
        length_reward="none",
        temperature=temperature,
        num_generations=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_iterations=2 if way == "captured" else 1,
    )
    seen = kit.spy(trainer)
    trainer.train()
    metrics = (tmp_path / "metrics.jsonl").read_text()
    assert ('"extra/prefix_tokens_saved"' in metrics) == (way == "shared")
    assert ('"extra/forward_tokens"' in metrics) == (way != "captured")
    thinking = {tuple(r.ids(tiny_tokenizer)): r.spans(tiny_tokenizer)[-1][1] for r in kit.MIXED}
    found = []
    for batch in seen.batches:
        for i, segments in enumerate(batch["signal/segments"]):
            prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist()
            mask = batch["completion_mask"][i].bool()
            response = batch["completion_ids"][i][mask].tolist()
            entropies = plain_entropies(before, prompt + response, temperature)[len(prompt) :]
            cuts = slow_cuts(entropies[: thinking[tuple(response)]], QUANTILE, SEGMENTS)
            assert len(cuts) == SEGMENTS - 1
            expected = [sum(cut <= t for cut in cuts) for t in range(len(response))]
            assert segments[mask].tolist() == expected
            assert set(segments[~mask].tolist()) <= {SEGMENTS}
            found.append((len(prompt), len(response)))
    assert len(found) == 8
    assert len({length for length, _ in found}) == len(PROMPTS)
