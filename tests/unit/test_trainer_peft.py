"""LoRA, and a KL term: the policy is scored, never the reference."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def lora():
    peft = pytest.importorskip("peft")
    # Weights that change the output from the start: else policy and reference would be the same model.
    return peft.LoraConfig(
        r=4, target_modules=["q_proj", "k_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )


def scores_by_package(kit, model, tokenizer, response, prompt: str) -> list[float]:
    """Mean over the heads, by a forward of its own through `model`."""
    from attnpo import score_steps

    prompt_ids = tokenizer(prompt)["input_ids"]
    at = len(prompt_ids)
    ids = torch.tensor([prompt_ids + response.ids(tokenizer)])
    steps = [[(at + start, at + end) for start, end in response.spans(tokenizer)]]
    start, end = response.answer_span(tokenizer)
    (scores,) = score_steps(model, ids, None, steps=steps, answers=[(at + start, at + end)], heads=kit.HEADS)
    return scores.mean(dim=0).tolist()


@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_lora_trains_the_adapter_and_scores_the_policy(
    beta, iterations, lora, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, read_rollouts
):
    kit = trainer_kit
    base = {name: value.clone() for name, value in kit.sharpen(tiny_qwen2).state_dict().items()}
    trainer = kit.make_trainer(
        tiny_qwen2,
        tiny_tokenizer,
        tmp_path,
        responses=kit.MIXED,
        beta=beta,
        num_iterations=iterations,
        trainer_options={"peft_config": lora},
    )
    assert trainer.ref_model is None
    prompt = kit.problems(1)["prompt"][0]
    adapter = scores_by_package(kit, trainer.model, tiny_tokenizer, kit.USUAL, prompt)
    with trainer.model.disable_adapter():
        without = scores_by_package(kit, trainer.model, tiny_tokenizer, kit.USUAL, prompt)
    assert adapter != pytest.approx(without, rel=1e-3)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert before
    assert all("lora_" in name for name in before)
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    for name, value in base.items():
        inside = trainer.model.get_base_model().state_dict()
        found = inside.get(name, inside.get(name.replace("_proj.", "_proj.base_layer.")))
        assert torch.equal(value, found), name
    records = read_rollouts(tmp_path, "train-000001")
    recorded = next(r for r in records if r["group"] == 0 and r["text"] == kit.USUAL.text)
    assert [s["score"] for s in recorded["steps"]] == pytest.approx(adapter, rel=1e-4)


@pytest.mark.parametrize("iterations", [1, 2])
def test_reference_model_is_not_scored(iterations, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, read_rollouts):
    kit = trainer_kit
    tiny_qwen2.save_pretrained(tmp_path / "reference")  # TRL loads the reference by the policy's name
    tiny_qwen2.config._name_or_path = str(tmp_path / "reference")
    policy = kit.sharpen(tiny_qwen2)
    trainer = kit.make_trainer(
        policy, tiny_tokenizer, tmp_path / "run", responses=kit.MIXED, beta=0.05, num_iterations=iterations
    )
    assert trainer.ref_model is not None
    prompt = kit.problems(1)["prompt"][0]
    expected = scores_by_package(kit, policy, tiny_tokenizer, kit.USUAL, prompt)
    reference = scores_by_package(kit, trainer.ref_model, tiny_tokenizer, kit.USUAL, prompt)
    assert expected != pytest.approx(reference, rel=1e-3)
    seen = kit.spy(trainer)
    trainer.train()
    records = read_rollouts(tmp_path / "run", "train-000001")
    recorded = next(r for r in records if r["group"] == 0 and r["text"] == kit.USUAL.text)
    assert [s["score"] for s in recorded["steps"]] == pytest.approx(expected, rel=1e-4)
    assert seen.batches[0]["ref_per_token_logps"].shape == seen.batches[0]["completion_mask"].shape
