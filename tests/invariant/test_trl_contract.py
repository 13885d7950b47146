"""With `credit=outcome` and no length reward, `AttnPOTrainer` is TRL's GRPOTrainer: same tokens, losses and weights.

Both trainers run in this process, from the same weights and seed, and sample for themselves. Compared for every
configuration: what each micro-batch held, its loss, the numbers both log, and the weights at the end (plain SGD, so
that a small difference stays small). Every option that GRPOConfig adds to those of transformers is in `CASES`, or in
`ELSEWHERE` with the reason, so that a new release of TRL cannot bring one in unseen.
"""

from __future__ import annotations

import copy
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM, TrainingArguments
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from attnpo import AttnPOConfig, AttnPOTrainer

# name -> (TRL's options, this package's own); what the two trainers share is in `run`.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as TRL has it": ({}, {}),
    # the loss
    "grpo": ({"loss_type": "grpo"}, {}),
    "bnpo": ({"loss_type": "bnpo"}, {}),
    "dr_grpo": ({"loss_type": "dr_grpo"}, {}),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 5.0, "num_iterations": 2}, {}),
    "sapo": ({"loss_type": "sapo", "sapo_temperature_pos": 0.7, "sapo_temperature_neg": 1.3, "num_iterations": 2}, {}),
    "vespo": (
        {
            "loss_type": "vespo",
            "vespo_k_pos": 1.5,
            "vespo_k_neg": 2.5,
            "vespo_lambda_pos": 2.0,
            "vespo_lambda_neg": 1.5,
            "num_iterations": 2,
        },
        {},
    ),
    "luspo": ({"loss_type": "luspo", "importance_sampling_level": "sequence"}, {}),
    "luspo by token": ({"loss_type": "luspo", "num_iterations": 2}, {}),
    "gspo": ({"importance_sampling_level": "sequence", "loss_type": "grpo", "num_iterations": 2}, {}),
    "clip higher": ({"epsilon": 0.01, "epsilon_high": 0.02, "num_iterations": 2}, {}),
    "two-sided clipping": ({"delta": 1.01, "epsilon": 0.01, "num_iterations": 2}, {}),
    "truncated masked": ({"mask_truncated_completions": True}, {}),
    "truncated masked, grpo": ({"mask_truncated_completions": True, "loss_type": "grpo"}, {}),
    "off-policy mask": ({"off_policy_mask_threshold": 1e-7, "num_iterations": 2}, {}),
    "high entropy": ({"top_entropy_quantile": 0.4}, {}),
    "entropy bonus": ({"entropy_coef": 0.05}, {}),
    "adaptive entropy": (
        {
            "use_adaptive_entropy": True,
            "entropy_target": 5.0,
            "entropy_coef": 0.02,
            "entropy_coef_delta": 0.01,
            "entropy_coef_min": 0.01,
            "entropy_coef_max": 0.2,
        },
        {},
    ),
    # advantages
    "unscaled": ({"scale_rewards": "none"}, {"advantage": "dr_grpo"}),
    "unscaled, bnpo": ({"scale_rewards": False, "loss_type": "bnpo"}, {"advantage": "dr_grpo"}),
    "weighted rewards": ({"reward_weights": [1.0, 0.3]}, {"rewards": 2}),
    "a reward that is sometimes missing": ({"reward_weights": [1.0, 0.5]}, {"rewards": 3}),
    "groups of two": ({"num_generations": 2}, {}),
    # a reference
    "kl": ({"beta": 0.1}, {}),
    "kl, off-policy": ({"beta": 0.1, "num_iterations": 2, "use_bias_correction_kl": False}, {}),
    "kl, moving reference": (
        {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 0.5},
        {},
    ),
    # how a batch is cut up and used again
    "accumulated": ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, {}),
    "accumulated, grpo": (
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "loss_type": "grpo"},
        {},
    ),
    "two updates a generation": ({"per_device_train_batch_size": 4, "steps_per_generation": 2}, {}),
    "two updates, twice": (
        {"per_device_train_batch_size": 4, "steps_per_generation": 2, "num_iterations": 2, "max_steps": 4},
        {},
    ),
    "two generations an update": (
        {
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 4,
            "steps_per_generation": 2,
            "num_generations": 4,
        },
        {},
    ),
    "generation batch": ({"per_device_train_batch_size": 4, "generation_batch_size": 8}, {}),
    "three iterations": ({"num_iterations": 3, "max_steps": 3}, {}),
    "checkpointing": ({"gradient_checkpointing": True}, {}),
    "clipped gradients": ({"max_grad_norm": 0.05}, {}),
    "padded": ({"pad_to_multiple_of": 16}, {}),
    # sampling
    "sampling": ({"temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.001, "repetition_penalty": 1.1}, {}),
    "hot, off-policy": ({"temperature": 1.4, "num_iterations": 2}, {}),
    "generation_kwargs": ({"generation_kwargs": {"no_repeat_ngram_size": 2}}, {}),
    "static cache": ({"cache_implementation": "static"}, {}),
    "not shuffled": ({"shuffle_dataset": False}, {}),
    # the model
    "lora": ({}, {"lora": True}),
    "lora, kl": ({"beta": 0.1, "num_iterations": 2}, {"lora": True}),
    "dropout": ({}, {"dropout": 0.2}),
    "dropout off": ({"disable_dropout": True}, {"dropout": 0.2}),
    "bf16": ({"bf16": True}, {}),
    "bf16 weights": ({"model_init_kwargs": {"dtype": "bfloat16"}}, {}),
    "head in float32": ({"bf16": True, "cast_lm_head_to_fp32": True}, {"untied": True}),
    "linear schedule": ({"lr_scheduler_type": "linear", "max_steps": 3}, {}),
}

REFUSED = {"multi_objective_aggregation", "trust_remote_code"}
"""By design: the first is another advantage than the one chosen; the second is asked for on the command line only."""

ELSEWHERE = {
    "chat_template_kwargs": "prompts are templated by TRL; tests/unit/test_train_data.py",
    "ds3_gather_for_generation": "DeepSpeed",
    "num_generations_eval": "evaluations sample and grade, by another loop on purpose (`prediction_step`)",
    "max_completion_length": "in every case",
    "router_aux_loss_coef": "mixtures of experts; the loss forward's third value is passed on (training/capture.py)",
    "log_completions": "prints",
    "log_multimodal": "images, which are refused",
    "log_unique_prompts": "prints",
    "log_completions_hub_repo": "uploads",
    "num_completions_to_print": "prints",
    "max_tool_calling_iterations": "tools, which are refused with credit per step",
    "use_transformers_continuous_batching": "another sampler of TRL's, not touched",
    "transformers_continuous_batching_config": "another sampler of TRL's, not touched",
    "use_transformers_paged": "deprecated by TRL",
    "use_vllm": "needs vLLM",
}


def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that differs between random responses: the share of even ids."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def short(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [1 / len(ids) for ids in completion_ids]


def short_or_missing(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    return [None if ids[0] % 3 == 0 else 1 / len(ids) for ids in completion_ids]


REWARDS = {1: [even_share], 2: [even_share, short], 3: [even_share, short_or_missing]}
MARK = "rewards", "lora", "dropout", "untied"  # settings of the test, not options of AttnPOConfig


@pytest.fixture(scope="module")
def folders(new_tiny_qwen2, tiny_tokenizer, tmp_path_factory) -> dict[str, Path]:
    """Model folders: TRL makes its reference model from the name of the policy's."""
    found = {}
    for name in ("tied", "untied", "dropout"):
        model = new_tiny_qwen2()
        if name != "tied":
            config = copy.deepcopy(model.config)
            config.tie_word_embeddings = name != "untied"
            config.attention_dropout = 0.2 if name == "dropout" else 0.0
            torch.manual_seed(0)
            model = Qwen2ForCausalLM(config)
        # One token in ten ends a response, so that a random model writes long and short ones.
        ends = [tiny_tokenizer.eos_token_id, *range(5, len(tiny_tokenizer), 10)]
        model.generation_config.eos_token_id = ends
        found[name] = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(found[name])
        tiny_tokenizer.save_pretrained(found[name])
    return found


class Seen:
    """What one run did."""

    def __init__(self) -> None:
        self.tokens: list[list[list[int]]] = []
        self.masks: list[list[list[int]]] = []
        self.losses: list[float] = []
        self.logged: list[dict[str, float]] = []
        self.weights: dict[str, torch.Tensor] = {}


def run(trainer_class: Any, config_class: Any, folders: Any, data: Any, output: Path, case: str) -> Seen:
    options, own = CASES[case]
    common = {
        "output_dir": str(output),
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_generations": 4,
        "max_steps": 2,
        "max_completion_length": 12,
        "optim": "sgd",
        "learning_rate": 0.5,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 3,
    }
    options = {**common, **options}
    options["model_init_kwargs"] = {"dtype": "float32", **options.get("model_init_kwargs", {})}
    if config_class is AttnPOConfig:
        chosen = {name: value for name, value in own.items() if name not in MARK}
        options = {**options, "advantage": "grpo", "length_reward": "none", "credit": "outcome", **chosen}
        options.pop("scale_rewards", None)
        options.update(patience=0, thinking="no")
    more: dict[str, Any] = {}
    if own.get("lora"):
        peft = pytest.importorskip("peft")
        more["peft_config"] = peft.LoraConfig(
            r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=True, task_type="CAUSAL_LM"
        )
    name = "untied" if own.get("untied") else "dropout" if own.get("dropout") else "tied"
    torch.manual_seed(0)
    trainer = trainer_class(
        model=str(folders[name]),
        reward_funcs=REWARDS[own.get("rewards", 1)],
        args=config_class(**options),
        train_dataset=data,
        **more,
    )
    seen, inner = Seen(), trainer._compute_loss

    def compute_loss(model, inputs):
        loss = inner(model, inputs)
        seen.tokens.append(inputs["completion_ids"].tolist())
        seen.masks.append(inputs["completion_mask"].tolist())
        seen.losses.append(loss.item())
        return loss

    trainer._compute_loss = compute_loss
    trainer.train()
    seen.logged = [row for row in trainer.state.log_history if "loss" in row]
    seen.weights = {key: value.detach().float() for key, value in trainer.model.state_dict().items()}
    return seen


CLOCK = ("step_time", "runtime", "second")


@pytest.mark.parametrize("case", CASES)
def test_same_as_trl(case, folders, trainer_kit, tmp_path):
    data = trainer_kit.problems(8)
    stock = run(GRPOTrainer, GRPOConfig, folders, data, tmp_path / "trl", case)
    ours = run(AttnPOTrainer, AttnPOConfig, folders, data, tmp_path / "attnpo", case)
    assert stock.tokens == ours.tokens
    assert stock.masks == ours.masks
    exact = 1e-6 * max(1.0, *(abs(loss) for loss in stock.losses))
    assert ours.losses == pytest.approx(stock.losses, abs=exact)
    assert len(ours.logged) == len(stock.logged)
    for theirs, mine in zip(stock.logged, ours.logged, strict=True):
        for key, value in theirs.items():
            if not any(word in key for word in CLOCK):
                found = mine[key]
                same = found == pytest.approx(value, abs=2e-5, rel=1e-5) or (math.isnan(found) and math.isnan(value))
                assert same, f"{key}: {found}, TRL {value}"
    assert stock.weights.keys() == ours.weights.keys()
    for name, value in stock.weights.items():
        torch.testing.assert_close(ours.weights[name], value, atol=2e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_cases_have_truncation_reward_differences_and_updates(folders, trainer_kit, tmp_path):
    """The responses end and are cut off, rewards differ, and the loss sees them: a case that learns nothing proves
    nothing."""
    data = trainer_kit.problems(8)
    seen = run(GRPOTrainer, GRPOConfig, folders, data, tmp_path, "three iterations")
    lengths = {sum(row) for batch in seen.masks for row in batch}
    assert min(lengths) < 12
    assert max(lengths) == 12
    assert seen.logged[0]["reward_std"] > 0
    assert all(row["grad_norm"] > 1e-3 for row in seen.logged)
    assert len(set(seen.losses)) == 3
    before = AutoModelForCausalLM.from_pretrained(folders["tied"], dtype=torch.float32).state_dict()
    assert max((seen.weights[name] - before[name]).abs().max() for name in before) > 1e-4


def test_rloo_is_trl_unscaled_times_a_factor(folders, trainer_kit, tmp_path):
    """TRL has no leave-one-out: it is the deviation from the mean of all, times G/(G − 1)."""
    data = trainer_kit.problems(8)
    CASES["rloo"] = ({"scale_rewards": "none", "max_steps": 1, "loss_type": "grpo"}, {"advantage": "rloo"})
    try:
        stock = run(GRPOTrainer, GRPOConfig, folders, data, tmp_path / "trl", "rloo")
        ours = run(AttnPOTrainer, AttnPOConfig, folders, data, tmp_path / "attnpo", "rloo")
    finally:
        del CASES["rloo"]
    assert stock.tokens == ours.tokens
    assert ours.losses == pytest.approx([4 / 3 * loss for loss in stock.losses], abs=1e-7)
    assert ours.logged[0]["grad_norm"] == pytest.approx(4 / 3 * stock.logged[0]["grad_norm"], rel=1e-4)


def test_every_trl_option_is_tested_or_listed():
    of_trl = {option.name for option in fields(GRPOConfig)} - {option.name for option in fields(TrainingArguments)}
    compared = {name for options, _ in CASES.values() for name in options}
    unseen = {name for name in of_trl - compared - REFUSED - set(ELSEWHERE) if not name.startswith("vllm_")}
    assert not unseen, f"options of TRL that no case compares: {sorted(unseen)}"
    assert not set(ELSEWHERE) - of_trl, "options that TRL has no more"
