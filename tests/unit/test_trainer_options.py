"""Which of TRL's options work with per-token advantages, and that the others are refused by name."""

from __future__ import annotations

import sys

import pytest

from attnpo import AttnPOConfig
from attnpo.errors import InputError
from attnpo.training.options import parse

REFUSED = {
    "loss_type": [{"loss_type": "vespo"}, {"loss_type": "luspo"}],
    "importance_sampling_level": [{"importance_sampling_level": "sequence"}],
    "off_policy_mask_threshold": [{"off_policy_mask_threshold": 0.5}],
    "multi_objective_aggregation": [
        {"multi_objective_aggregation": "normalize_then_sum"},
        {"multi_objective_aggregation": "normalize_then_sum", "credit": "outcome"},
    ],
    "scale_rewards": [
        {"scale_rewards": "group"},
        {"scale_rewards": "batch"},
        {"scale_rewards": True},
        {"scale_rewards": "none", "advantage": "grpo"},
    ],
    "num_generations": [{"num_generations": 1}],
    "credit": [{"credit": "magic"}],
    "advantage": [{"advantage": "magic"}],
    "length_reward": [{"length_reward": "magic"}],
    "lexicon": [{"lexicon": "magic"}],
    "length_alpha": [{"length_alpha": 1.0}, {"length_alpha": -0.1}],
    "credit_beta": [{"credit_beta": -1.0}],
    "credit_lambda": [{"credit_lambda": -1.0}],
    "credit_delta": [{"credit_delta": 1.5}, {"credit_delta": float("nan")}],
    "credit_delay": [{"credit_delay": -1}],
    "credit_positive": [{"credit_positive": 3}],
    "credit_yardstick": [{"credit_yardstick": "metre"}],
    "credit_threshold": [
        {"credit_threshold": "high"},
        {"credit_threshold": -1},
        {"credit_threshold": "heads", "credit_yardstick": "thinking"},
    ],
    "verifier_workers": [{"verifier_workers": 0}],
    "verifier_timeout": [{"verifier_timeout": 0.0}],
    "max_minutes": [{"max_minutes": 0.0}, {"max_minutes": float("nan")}],
    "bf16": [{"compile_rollouts": True, "bf16": True}],
    "cache_implementation": [{"compile_rollouts": True, "cache_implementation": "offloaded"}],
    "use_vllm": [{"compile_rollouts": True, "use_vllm": True}],
}


@pytest.mark.parametrize(("option", "changes"), [(name, case) for name, cases in REFUSED.items() for case in cases])
def test_refused(option, changes, tmp_path):
    with pytest.raises(InputError, match=rf"\b{option}\b"):
        AttnPOConfig(str(tmp_path), use_cpu=True, **changes)


def test_sequence_level_options_remain_for_the_outcome_credit(tmp_path):
    for changes in ({"loss_type": "luspo"}, {"importance_sampling_level": "sequence"}):
        AttnPOConfig(str(tmp_path), use_cpu=True, credit="outcome", **changes)


def test_scale_rewards_follows_the_advantage(tmp_path):
    for given, advantage, scaling in (
        ("auto", "rloo", "none"),
        ("none", "rloo", "none"),
        (False, "dr_grpo", "none"),
        ("auto", "grpo", "group"),
        (True, "grpo", "group"),
    ):
        args = AttnPOConfig(str(tmp_path), use_cpu=True, advantage=advantage, scale_rewards=given)
        assert args.scale_rewards == scaling


# name -> (options, a per-token weight by hand: what multiplies −A·log π at ratio 1, up to the normaliser)
WORKING = {
    "delta": {"delta": 1.5},
    "epsilon_high": {"epsilon_high": 0.28},
    "entropy bonus": {"entropy_coef": 0.01},
    "adaptive entropy": {"use_adaptive_entropy": True},
    "masked truncated": {"mask_truncated_completions": True},
    "top entropy": {"top_entropy_quantile": 0.5},
    "grpo loss": {"loss_type": "grpo"},
    "bnpo loss": {"loss_type": "bnpo"},
    "dr_grpo loss": {"loss_type": "dr_grpo"},
    "cispo loss": {"loss_type": "cispo", "epsilon_high": 5.0},
    "sapo loss": {"loss_type": "sapo"},
}


@pytest.mark.parametrize("name", WORKING)
def test_working_options_use_every_token_advantage(name, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """The gradient is linear in the per-token advantages: that of the rescaled ones is what TRL's loss, given them
    as plain numbers, has.

    The second trainer gets the first one's advantages as outcome credit; it must end at the same gradients.
    """
    import torch

    kit = trainer_kit
    model = kit.sharpen(tiny_qwen2)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    results = []
    for credit in ("attnpo", "outcome"):
        model.load_state_dict(state)
        trainer = kit.make_trainer(
            model, tiny_tokenizer, tmp_path / credit, responses=kit.MIXED, credit=credit, **WORKING[name]
        )
        seen = kit.spy(trainer)
        if results:
            rows, inner = results[0].rows(), trainer._give_credit

            def give(batch, signals, inner=inner, rows=rows):
                inner(batch, signals)
                batch["advantages"] = batch["completion_mask"] * 0.0
                for i, prompt in enumerate(batch["prompt_ids"]):
                    mask = batch["completion_mask"][i].bool()
                    key = tuple(
                        prompt[batch["prompt_mask"][i].bool()].tolist() + batch["completion_ids"][i][mask].tolist()
                    )
                    batch["advantages"][i, mask] = rows[key]

            trainer._give_credit = give
        trainer.train()
        results.append(seen)
    first, second = results
    assert any(len(row.unique()) > 1 for row in first.rows().values())
    assert first.losses == pytest.approx(second.losses, abs=1e-6)
    for key, gradient in first.gradients[0].items():
        torch.testing.assert_close(gradient, second.gradients[0][key], atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_compiled_rollouts(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """TRL's ban is lifted: the step of `generate` is compiled, once for all its calls of one batch size."""
    import torch
    from transformers import CompileConfig

    trainer = trainer_kit.make_trainer(
        tiny_qwen2,
        tiny_tokenizer,
        tmp_path,
        max_steps=3,
        max_completion_length=16,
        compile_rollouts=True,
        generation_kwargs={"max_cache_len": 128},
    )
    assert trainer.generation_config.cache_implementation == "static"
    # As on a GPU, except for the compiler back end and the device type.
    config = CompileConfig(backend="eager", mode="default", dynamic=False)
    config._compile_all_devices = True
    trainer.generation_config.compile_config = config
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    trainer.train()
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_compile_rollouts_chooses_what_it_needs(tmp_path):
    args = AttnPOConfig(str(tmp_path), use_cpu=True, compile_rollouts=True)
    assert (args.cache_implementation, args.bf16) == ("static", False)
    args = AttnPOConfig(str(tmp_path), use_cpu=True)
    assert args.cache_implementation is None


def test_truncated_responses_can_be_masked(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    kit = trainer_kit
    trainer = kit.make_trainer(
        tiny_qwen2, tiny_tokenizer, tmp_path, responses=kit.MIXED, mask_truncated_completions=True
    )
    seen = kit.spy(trainer)
    trainer.train()
    (batch,) = seen.batches
    masked = batch["completion_mask"].sum(dim=1) == 0
    assert masked.sum() == 1
    assert (batch["advantages"][masked] == 0).all()


def test_processors_are_refused(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    from transformers import ProcessorMixin

    class Processor(ProcessorMixin):
        def __init__(self, tokenizer):
            self.tokenizer = tokenizer

    model = tiny_qwen2
    model.config.image_token_id = 0
    with pytest.raises(InputError, match="processing_class: found Processor, expected a tokenizer"):
        trainer_kit.make_trainer(model, Processor(tiny_tokenizer), tmp_path)


@pytest.mark.parametrize("name", ["tools", "rollout_func", "environment_factory"])
def test_interleaved_text_is_refused(name, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    value = [print] if name == "tools" else print
    with pytest.raises(InputError, match="one uninterrupted response"):
        trainer_kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, trainer_options={name: value})


def test_heads_are_checked(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    with pytest.raises(InputError, match=r"\(3, 0\): no layer 3"):
        trainer_kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, heads=[(3, 0)])
    trainer = trainer_kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, credit="outcome")
    assert trainer.heads is None


def test_too_few_problems(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    with pytest.raises(InputError, match="found 1 problems, expected at least 2"):
        trainer_kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, data=trainer_kit.problems(1))


@pytest.mark.parametrize("equals", [False, True])
def test_options_of_a_method_that_the_command_line_replaces_are_left_out(tmp_path, equals):
    """A file's α is of the file's length reward: nobody asked for it with another one."""
    file = tmp_path / "run.yaml"
    file.write_text("length_alpha: 0.8\ncredit: shape\ncredit_kwargs: {segments: 4}\nuse_cpu: true\n")
    start = ["--config", str(file), "--output_dir", str(tmp_path / "run")]
    line = (
        ["--length_reward=shorterbetter", "--credit=outcome"]
        if equals
        else ["--length_reward", "shorterbetter", "--credit", "outcome"]
    )
    _, args, _ = parse([*start, *line])
    assert (args.length_alpha, args.credit_kwargs) == (None, None)
    _, args, _ = parse([*start, "--length_reward", "tlmre"])
    assert (args.length_alpha, args.credit_kwargs) == (0.8, {"segments": 4})
    _, args, _ = parse([*start, *line, "--length_alpha", "1.5"])
    assert args.length_alpha == 1.5


def test_modules_of_ones_own_are_found_in_the_current_folder(tmp_path, monkeypatch):
    for name in ("own_method_1", "own_method_2"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.chdir(tmp_path)
    given = ["--output_dir", str(tmp_path / "run"), "--use_cpu", "true", "--credit", "outcome", "--credit_module"]
    parse([*given, "own_method_1, own_method_2"])
    assert {"own_method_1", "own_method_2"} <= set(sys.modules)
    with pytest.raises(InputError, match=r"option credit_module: 'none_such' cannot be imported"):
        parse([*given, "none_such"])
