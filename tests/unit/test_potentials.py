"""Potentials at the boundaries of responses: through the trainer, with a policy whose continuations are given."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

CLOSING = "</think>\nThe answer is \\boxed{"
OPTIONS = {"cuts": "steps", "rollouts": 2, "closing": CLOSING, "rollout_tokens": 5, "token_weights": False}


def script(trainer: Any) -> list[str]:
    """Continue prefixes by a script: right after a 42 in the response; half of the time at the prompt; else wrong.

    Returns the list of prefixes, as text, that continuations were asked for.
    """
    canned, tokenizer, asked = trainer._generate_single_turn, trainer._tokenizer, []

    def generate(prompt_ids: list[list[int]], *args: Any, **kwargs: Any):
        texts = [tokenizer.decode(ids) for ids in prompt_ids]
        if not texts[0].endswith(CLOSING):
            return canned(prompt_ids, *args, **kwargs)
        answers = []
        for i, text in enumerate(texts):
            response = text.rpartition("<think>\n")[2] if "<think>\n" in text else text.rpartition("?")[2]
            right = "42" in response or (response == CLOSING and i % 2 == 0)
            answers.append("42}." if right else "41}.")
        asked.extend(texts)
        return [[*tokenizer(a, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for a in answers], None

    trainer._generate_single_turn = generate
    return asked


def rows_of(seen: Any, name: str) -> torch.Tensor:
    return torch.cat([batch[name] for batch in seen.batches])


@pytest.fixture
def trained(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """One step on MIXED with scripted continuations; the trainer, what its loss saw, the prefixes asked for."""

    def train(credit: str = "shape", responses: Any = None, reward: Any = None, changes: Any = None, **options: Any):
        trainer = trainer_kit.make_trainer(
            tiny_qwen2,
            tiny_tokenizer,
            tmp_path,
            responses=responses or trainer_kit.MIXED,
            reward=reward or trainer_kit.says_42,
            advantage="grpo",
            length_reward="none",
            credit=credit,
            credit_kwargs={**OPTIONS, "share_prefixes": False, **options},
            **(changes or {}),
        )
        seen, asked = trainer_kit.spy(trainer), script(trainer)
        trainer.train()
        return trainer, seen, asked

    return train


def test_potentials_of_a_scripted_policy(trained, trainer_kit, tiny_tokenizer):
    kit = trainer_kit
    _, seen, asked = trained()
    # Eight responses have 4 + 2 + 3 + 2 and 3 + 2 + 3 + 2 steps: 13 cuts; and two prompts; twice each.
    assert len(asked) == 2 * (13 + 2)
    assert len(set(asked)) < len(asked)
    total = sum(len(response.ids(tiny_tokenizer)) for response in kit.MIXED)
    mean = total / 21
    for batch in seen.batches:
        assert batch["signal/mean_segment"].tolist() == pytest.approx([mean] * len(batch["signal/mean_segment"]))
    # Every first step but none of the prompts holds a 42.
    table = {
        tuple(ids[mask.bool()].tolist()): phi
        for batch in seen.batches
        for ids, mask, phi in zip(
            batch["completion_ids"], batch["completion_mask"], batch["signal/potential"].tolist(), strict=True
        )
    }
    for response in kit.MIXED:
        outcome = float(response.answer == kit.RIGHT)
        inner = [1.0] * (len(response.steps) - 1)
        assert table[tuple(response.ids(tiny_tokenizer))] == [0.5, *inner, *[outcome] * (8 - len(inner))]
    # R of the second group: one right of four, (1 - 0.25)/(0.5 + 1e-4) and -0.25/(0.5 + 1e-4); of the first: 0.
    expected = {}
    for i, response in enumerate(kit.MIXED):
        right = response.answer == kit.RIGHT
        advantage = 0.0 if i < 4 else (float(right) - 0.25) / (0.5 + 1e-4)
        ids = response.ids(tiny_tokenizer)
        ends = [0.5, *[1.0] * (len(response.steps) - 1), float(right)]
        starts = [0, *[start for start, _ in response.spans(tiny_tokenizer)][1:], len(ids)]
        tokens = []
        for k in range(len(response.steps)):
            length = starts[k + 1] - starts[k]
            gamma = max(0.9, 1 - length / mean * 0.1)
            tokens += [advantage + 0.3 * (gamma * ends[k + 1] - ends[k])] * length
        expected.setdefault(tuple(ids), []).append(tokens)
    found = [
        (tuple(ids[mask.bool()].tolist()), row[mask.bool()].tolist())
        for batch in seen.batches
        for ids, mask, row in zip(batch["completion_ids"], batch["completion_mask"], batch["advantages"], strict=True)
    ]
    assert len(found) == 8
    for ids, tokens in found:
        match = [other for other in expected[ids] if tokens == pytest.approx(other, abs=1e-5)]
        assert match, tiny_tokenizer.decode(ids)


def test_metrics_contain_the_cost(trained, tmp_path, tiny_tokenizer):
    import json

    trained()
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    right, wrong = (1 + len(tiny_tokenizer(a, add_special_tokens=False)["input_ids"]) for a in ("42}.", "41}."))
    assert line["extra/rollout_tokens"] == 28 * right + 2 * wrong  # one wrong per prompt
    assert line["extra/prefix_tokens"] > 0
    assert "extra/forward_tokens" not in line  # step cuts need no entropies
    assert line["seconds/stages"] > 0
    assert line["segments/per_response"] == 21 / 8
    # FALSE, ENDLESS and SILENT fall from 1 to 0 in their last segment.
    assert line["segments/falling"] == pytest.approx(3 / 21)
    assert line["potential/at_prompt"] == 0.5


def test_response_without_a_verdict_has_no_potentials(trained, trainer_kit, tiny_tokenizer):
    def reward(completions: list[Any], **kwargs: Any) -> list[float | None]:
        """Cannot judge what has exactly the two steps of SHORT: not the response, nor a continuation of it."""
        judged = trainer_kit.says_42(completions)
        other = [trainer_kit.CHECK in str(c) or trainer_kit.OTHER in str(c) for c in completions]
        return [value if sure else None for value, sure in zip(judged, other, strict=True)]

    reward.__name__ = "accuracy"
    _, seen, asked = trained(reward=reward)
    assert len(asked) == 2 * (2 + 3 + 2 + 2 + 1 + 2)  # prompts, and the cuts of the others
    short = tuple(trainer_kit.SHORT.ids(tiny_tokenizer))
    for batch in seen.batches:
        for ids, mask, phi, row in zip(
            batch["completion_ids"],
            batch["completion_mask"],
            batch["signal/potential"],
            batch["advantages"],
            strict=True,
        ):
            assert math.isnan(phi[0])  # no continuation of a prompt holds a step to judge by
            if tuple(ids[mask.bool()].tolist()) == short:
                assert phi.isnan().all()
                assert not row.any()


def test_entropies_are_not_computed_twice(trained, tmp_path, trainer_kit):
    """Where TRL runs an old-log-prob forward anyway, its entropies are used for the cuts."""
    import json

    trained("shape", cuts="entropy", quantile=0.5, changes={"num_iterations": 2, "max_steps": 2})
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["segments/per_response"] == 8
    assert "extra/forward_tokens" not in first


def test_cut_by_entropy_and_weighed_by_it(trained, tmp_path):
    import json

    _, seen, _ = trained(cuts="entropy", quantile=0.5, segments=3, token_weights=True)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert line["segments/per_response"] == 3
    assert line["extra/forward_tokens"] > 0
    for batch in seen.batches:
        for segments, mask, row in zip(
            batch["signal/segments"], batch["completion_mask"], batch["advantages"], strict=True
        ):
            first = row[(segments == 0) & mask.bool()]
            assert len(first.unique()) > 1 or not first.any()
            assert (first >= 0).all() or (first <= 0).all()  # weights change no sign
            assert not row[~mask.bool()].any()


@pytest.mark.parametrize("credit", ["mrt", "shape"])
def test_sampled_continuations(credit, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """Two steps of everything by the model itself, from its cache."""
    import json

    trainer = trainer_kit.make_trainer(
        tiny_qwen2,
        tiny_tokenizer,
        tmp_path,
        credit=credit,
        credit_kwargs={"rollouts": 2, "segments": 3, "rollout_tokens": 4},
        max_completion_length=24,
        max_steps=2,
    )
    assert trainer.policy.can_share_prefixes
    with pytest.warns(UserWarning, match=f"credit='{credit}': no continuation of this batch is right"):
        trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) >= 2
    for line in lines[:2]:
        assert line["extra/prefix_tokens_saved"] > 0
        assert 0 < line["extra/rollout_tokens"] <= 8 * 3 * 2 * 4
        assert line["potential/at_prompt"] == line["potential/mean"] == 0.0
