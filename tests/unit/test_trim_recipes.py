"""TRL's own commands accept the recipes for the output of `attnpo trim`, and a step of DPO runs on the pairs."""

from __future__ import annotations

import importlib
import json

import pytest


@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_the_command_takes_the_recipe(command, repository, tmp_path):
    parser = importlib.import_module(f"trl.scripts.{command}").make_parser()
    recipe = str(repository / "recipes" / f"{command}_trimmed.yaml")
    given = ["--config", recipe, "--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", str(tmp_path)]
    _, training, model, _, *unknown = parser.parse_args_and_config(given, return_remaining_strings=True)
    assert unknown in ([], [[]])
    assert (model.model_name_or_path, training.max_length, training.use_cpu) == ("m", 2048, True)


def test_a_step_on_pairs_prefers_the_short_response(repository, tmp_path, new_tiny_qwen2, tiny_tokenizer):
    import yaml
    from datasets import load_dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    new_tiny_qwen2().save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    pair = {"prompt": "12 + 30?", "chosen": "It is 42.</think>42", "rejected": "It is 42. Wait, 42.</think>42"}
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({**pair, "trim": {"tokens": {"long": 9, "short": 5}}}) + "\n")
    options = yaml.safe_load((repository / "recipes" / "dpo_trimmed.yaml").read_text())
    options |= {"max_steps": 3, "warmup_steps": 0, "learning_rate": 1e-3, "logging_steps": 1, "disable_tqdm": True}
    trainer = DPOTrainer(
        str(tmp_path / "model"),
        args=DPOConfig(str(tmp_path / "out"), **options),
        train_dataset=load_dataset("json", data_files=str(file), split="train"),
    )
    trainer.train()
    margins = [line["rewards/margins"] for line in trainer.state.log_history if "rewards/margins" in line]
    assert margins[0] == pytest.approx(0, abs=1e-3)
    assert margins[-1] > 0
