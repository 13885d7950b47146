"""Scores are captured in forwards that run anyway."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from attnpo.attention.positions import OwnPositions, depends_on_positions


def count_forwards(trainer: Any) -> list[bool]:
    """A list that grows by one entry per forward of the policy: whether it builds a graph."""
    calls: list[bool] = []
    trainer._capture._positions = OwnPositions(needed=False)  # else two forwards of 8 tokens, once, ask for it
    trainer.model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    return calls


SETTINGS = {
    "on-policy": ({}, [True]),
    "accumulated": ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, [True] * 4),
    "two iterations": ({"num_iterations": 2, "max_steps": 2}, [False, True, True]),
    "two updates per generation": (
        {"per_device_train_batch_size": 4, "steps_per_generation": 2, "max_steps": 2},
        # TRL takes the old log-probabilities in batches of the training size.
        [False, False, True, True],
    ),
    "gradient checkpointing": ({"gradient_checkpointing": True}, [True]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_no_additional_forward(name, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    changes, expected = SETTINGS[name]
    for credit in ("outcome", "attnpo"):
        trainer = trainer_kit.make_trainer(
            tiny_qwen2, tiny_tokenizer, tmp_path / credit, responses=trainer_kit.MIXED, credit=credit, **changes
        )
        seen = trainer_kit.spy(trainer)
        calls = count_forwards(trainer)
        trainer.train()
        assert calls == expected, credit
        rescaled = [len(row.unique()) > 1 for row in seen.rows().values()]
        assert any(rescaled) == (credit == "attnpo")


def test_second_iteration_uses_the_scales_of_the_sampling_policy(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    kit = trainer_kit
    trainer = kit.make_trainer(
        kit.sharpen(tiny_qwen2), tiny_tokenizer, tmp_path, responses=kit.MIXED, num_iterations=2, max_steps=2
    )
    seen = kit.spy(trainer)
    trainer.train()
    first, second = seen.batches
    assert (first["advantages"] == second["advantages"]).all()
    # The policy did move in between, so equal scales are no accident.
    assert seen.losses[0] != seen.losses[1]


def test_off_policy_scales_are_those_of_the_on_policy_run(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """Scored in the old-log-prob forward or in the loss forward: same weights, same scales."""
    import torch

    kit = trainer_kit
    model = kit.sharpen(tiny_qwen2)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rows = []
    for iterations in (1, 2):
        model.load_state_dict(state)
        folder = tmp_path / str(iterations)
        trainer = kit.make_trainer(
            model, tiny_tokenizer, folder, responses=kit.MIXED, num_iterations=iterations, max_steps=1
        )
        seen = kit.spy(trainer)
        trainer.train()
        rows.append(seen.rows())
    assert rows[0].keys() == rows[1].keys()
    for ids, advantages in rows[0].items():
        torch.testing.assert_close(advantages, rows[1][ids], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_models_that_count_positions_are_given_them(dtype, new_tiny_qwen2):
    size = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, "vocab_size": 97}
    learned = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=None, eos_token_id=None))
    torch.nn.init.normal_(learned.transformer.wpe.weight, std=0.5)
    assert depends_on_positions(learned.to(dtype))
    rotary = new_tiny_qwen2()
    rotary.config.max_position_embeddings = 32768  # far from the origin
    assert not depends_on_positions(rotary.to(dtype))


def test_positions_are_those_of_the_generation(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """Log-probabilities of a left-padded row are those of the row alone, also with learned positions."""
    torch.manual_seed(0)
    size = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, "vocab_size": len(tiny_tokenizer)}
    ends = {"pad_token_id": tiny_tokenizer.pad_token_id, "eos_token_id": tiny_tokenizer.eos_token_id}
    learned = GPT2LMHeadModel(GPT2Config(**size, **ends, bos_token_id=None))
    torch.nn.init.normal_(learned.transformer.wpe.weight, std=0.5)
    ids = torch.randint(3, 100, (1, 20))
    padded, mask = torch.cat([torch.zeros_like(ids[:, :6]), ids], dim=1), torch.ones(1, 26, dtype=torch.int64)
    mask[:, :6] = 0
    for model, needed in ((learned, True), (tiny_qwen2, False)):
        trainer = trainer_kit.make_trainer(model, tiny_tokenizer, tmp_path / model.config.model_type)
        trainer.model.eval()  # GPT-2 has dropout
        alone, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, torch.ones_like(ids), 8)
        together, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, padded, mask, 8)
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
        assert trainer._capture._positions._needed is needed
        with torch.no_grad():
            counted = trainer.model(input_ids=padded, attention_mask=mask).logits[:, -9:-1].log_softmax(dim=-1)
        stock = counted.gather(2, padded[:, -8:, None]).squeeze(2)
        assert bool((stock - alone).abs().max() > 1e-3) is needed
