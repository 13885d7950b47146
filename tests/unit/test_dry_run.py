"""`attnpo train --dry_run`: its figures are those of the run."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from transformers import Qwen2Config, training_args

from attnpo.cli.main import main
from attnpo.errors import InputError
from attnpo.training import dry_run as module
from attnpo.training.dry_run import GB, OWN, Machine, batches, dry_run, given_settings, make_shapes
from attnpo.training.options import parse

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").rglob("*.yaml"))
NOT_HERE = {  # data and models of those files that are on the Hub, the user's own, or made by a script
    "agentica-org/DeepScaleR-Preview-Dataset",
    "problems.jsonl",
    "held_out.jsonl",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "runs/overthinker-wide",
}


@pytest.fixture
def run(new_tiny_qwen2, tiny_tokenizer, trainer_kit, tmp_path, monkeypatch, session_pool):
    """(arguments of a run, output of its dry run, its return value)."""
    from contextlib import nullcontext

    monkeypatch.setattr(module, "VerifierPool", lambda *args, **kwargs: nullcontext(session_pool))
    folder = trainer_kit.save_model(tmp_path / "model", new_tiny_qwen2(), tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "data.jsonl", 12)
    words = trainer_kit.command(folder, data, tmp_path / "run")[1:]

    def dry(*more: str, machine: Machine | None = None) -> tuple[list[str], str, Any]:
        screen = io.StringIO()
        argv = [*words, *more]
        need = dry_run(argv, machine or Machine(), console=Console(file=screen, width=200))
        return argv, screen.getvalue(), need

    return dry


@pytest.fixture
def laptop(monkeypatch):
    """A machine without GPU, vLLM and bitsandbytes."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "vllm" else find(name, *more))
    monkeypatch.setattr("attnpo.training.options.is_bitsandbytes_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    for check in ("is_torch_bf16_gpu_available", "is_torch_tf32_available"):
        monkeypatch.setattr(training_args, check, lambda: False)


@pytest.fixture
def plan(tiny_tokenizer, tmp_path, monkeypatch, repository, session_pool):
    """(arguments, output, return value) of a dry run of a file of configs/, with stand-ins for what is `NOT_HERE`.

    The model's folder has a tokenizer and the layers and heads of DeepSeek-R1-Distill-Qwen-1.5B, and no weights.
    """
    from contextlib import nullcontext

    monkeypatch.setattr(module, "VerifierPool", lambda *args, **kwargs: nullcontext(session_pool))
    monkeypatch.chdir(repository)
    rows = [{"problem": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(32)]
    data, model = tmp_path / "data.jsonl", tmp_path / "model"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_tokenizer.save_pretrained(model)

    def dry(file: Path, *more: str, memory: int | None = None, **shape: int) -> tuple[list[str], str, Any]:
        layers = {"num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2}
        size = {"vocab_size": len(tiny_tokenizer), "hidden_size": 48, "intermediate_size": 64}
        Qwen2Config(**layers, **{**size, **shape}, tie_word_embeddings=False).save_pretrained(model)
        given = yaml.safe_load(file.read_text())
        stands_in = {"model_name_or_path": model, "dataset_name": data, "eval_dataset_name": data}
        replaced = [(f"--{name}", str(other)) for name, other in stands_in.items() if given.get(name) in NOT_HERE]
        argv = ["--config", str(file), *(word for pair in replaced for word in pair), *more]
        screen = io.StringIO()
        need = dry_run(argv, Machine(memory=memory), console=Console(file=screen, width=200))
        return argv, screen.getvalue(), need

    return dry


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_configuration_on_a_laptop(file, plan, laptop):
    """It is counted as on its GPU, and no setting is listed that neither the file nor the command line has."""
    argv, said, need = plan(file)
    given = yaml.safe_load(file.read_text())
    parts = parse(argv, planned=True)
    assert parts[1].bf16 is not given.get("use_cpu", False)
    assert parts[1].use_cpu is given.get("use_cpu", False)
    assert set(given_settings(parts, parse([], planned=True))) <= set(given)
    assert "accelerator_config" not in said
    assert need.reference == (need.weights if given.get("beta") else 0)
    assert ("vLLM's share" in said) == (given.get("vllm_mode") == "colocate")


def test_the_real_run_needs_its_gpu_and_packages(plan, laptop, tmp_path, capsys):
    (file,) = (file for file in CONFIGS if file.stem == "one-gpu-80gb")
    argv, _, _ = plan(file)
    for more, message in (
        ([], "doesn't support bf16/gpu"),
        (["--use_cpu", "true"], "the package vllm is not installed"),
        (["--use_cpu", "true", "--use_peft", "true", "--load_in_4bit", "true"], "bitsandbytes is not installed"),
        (["--use_cpu", "true", "--vllm_mode", "server"], "found 'server' on a CPU"),
        (["--use_cpu", "true", "--tf32", "true"], "tf32"),
    ):
        assert main(["train", *argv, "--output_dir", str(tmp_path / "run"), *more]) == 2
        assert message in capsys.readouterr().err, more
    _, said, _ = plan(file, "--use_peft", "true", "--load_in_4bit", "true", "--tf32", "true", "--report_to", "wandb")
    assert "option load_in_4bit: weights are counted as if they were not quantised" in said
    with pytest.raises(InputError, match="found 'server' on a CPU"):
        plan(file, "--use_cpu", "true", "--vllm_mode", "server")
    with pytest.raises(InputError, match="option report_to: found nonsense"):
        plan(file, "--report_to", "nonsense")
    with pytest.raises(InputError, match=r"option optim: the states of 'adamw_8bit' cannot be counted: .*bitsandbytes"):
        plan(file, "--optim", "adamw_8bit")


def test_memory_of_the_gpu_for_a_billion_parameters(plan, laptop):
    """The file's own figures (docs/scaling.md), in the true shape of its model; without bf16 they are the same."""
    (file,) = (file for file in CONFIGS if file.stem == "one-gpu-80gb")
    shape = {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960}
    _, said, need = plan(file, memory=80 * GB, **shape)
    assert f"{(need.update + need.cache + OWN) / GB:.1f}" == "60.2"
    assert "fits into 80 GB" in said
    assert "not counted" not in said
    _, said, other = plan(file, **shape)
    assert "vLLM's share" in said
    assert "not counted: 0.3 of the GPU; give --gpu_memory" in said
    assert "at most while updating (with 1.5 GB of CUDA itself, without vLLM's share)" in said
    assert (other.update, other.cache) == (need.update, 0)


def test_bf16_that_is_not_given_is_that_of_a_gpu(run, laptop):
    needs = [run("--use_cpu", "false", *more)[2] for more in ([], ["--bf16", "true"], ["--bf16", "false"])]
    assert needs[0] == needs[1]
    assert (needs[0].mask, needs[2].mask) == (4 * 1032**2 * (1 + 2), 4 * 1032**2 * (1 + 4))  # the mask as numbers
    assert run("--bf16", "false")[2] == run()[2] == needs[2]  # of a run on a CPU
    assert run("--use_cpu", "false", "--compile_rollouts", "true")[2] == needs[2]  # in the precision of the weights


def test_settings_that_are_listed_were_given(run, laptop):
    _, said, _ = run("--accelerator_config", '{"split_batches": true}')
    assert said.count("'split_batches': True") == said.count("'split_batches': False") == 1
    _, said, _ = run()
    for name in ("accelerator_config", "bf16", "dataloader_pin_memory", "learning_rate"):
        assert name not in said


def test_reference_model_of_the_kl_term(run, trainer_kit, tiny_tokenizer, tmp_path):
    """A second copy of the weights, as TRL loads it; the base of an adapter is there already."""
    _, _, plain = run()
    _, said, need = run("--beta", "0.1")
    assert need.reference == need.weights == plain.weights
    assert need.update - plain.update == need.rollout - plain.rollout == plain.weights
    assert f"reference model (beta) │ {need.reference / GB:.2f} GB" in " ".join(said.split())
    folder = str(tmp_path / "model")
    trainer = trainer_kit.make_trainer(folder, tiny_tokenizer, tmp_path / "trainer", beta=0.1)
    assert need.reference == sum(p.numel() * p.itemsize for p in trainer.ref_model.parameters())
    _, said, need = run("--beta", "0.1", machine=Machine(gpus=4, sharded=True))
    assert need.reference == -(-plain.weights // 4)


def test_no_reference_model_beside_an_adapter(run):
    pytest.importorskip("peft")
    _, said, need = run("--beta", "0.1", "--use_peft", "true", "--lora_target_modules", "q_proj", "v_proj")
    assert need.reference == 0
    assert "reference model" not in said


def test_rows_of_heads_that_are_yet_to_be_found(run, tmp_path):
    """As for so many heads of one layer; none where the credit reads no attention."""
    heads = tmp_path / "h.json"
    heads.write_text('{"heads": [[0, 0], [0, 1], [0, 2]]}')
    _, said, known = run("--heads", str(heads))
    assert "assumed" not in said
    assert known.rows == 16 * 4 * 3 * 512 * (1024 + 8)  # four float32 temporaries, four responses, three heads
    _, said, need = run("--heads", "auto")
    assert need == known
    assert "(heads are yet to be found: 3 in one layer assumed)" in said
    _, said, need = run("--heads", "auto", "--credit", "outcome")
    assert need.rows == 0
    assert "assumed" not in said


def test_printed_summary(run, tmp_path):
    argv, said, need = run("--gradient_accumulation_steps", "2", "--max_steps", "-1", "--num_train_epochs", "2")
    _, _, model_config = parse(argv)
    model = make_shapes(str(tmp_path / "model"), model_config, trust_remote_code=False)
    count = sum(p.numel() for p in model.parameters())
    assert 25_000 < count < 45_000
    assert all(p.is_meta for p in model.parameters())
    assert f"{count:,} parameters, {count:,} of them trained" in said
    assert "8 responses: 4 problems x 2" in said
    assert "6 (2.00 epochs)" in said  # 12 problems x 2 / 8, twice
    assert "per_device_train_batch_size" in said
    assert "4  (default: 8)" in said
    assert "learning_rate" not in said
    assert need.weights == need.gradients == 4 * count
    assert need.optimiser == 8 * count + 4 * len(list(model.parameters()))
    assert not (tmp_path / "run").exists()


def test_parameters_and_batches_are_those_of_the_trainer(run, new_tiny_qwen2, tiny_tokenizer, trainer_kit, tmp_path):
    """Several updates a generation, several iterations: the steps that transformers takes in an epoch."""
    for more in (
        {"steps_per_generation": 2, "num_iterations": 2, "per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    ):
        trainer = trainer_kit.make_trainer(
            new_tiny_qwen2(),
            tiny_tokenizer,
            tmp_path / "trainer",
            responses=trainer_kit.MIXED,
            data=trainer_kit.problems(16),
            max_steps=-1,
            num_train_epochs=1,
            **more,
        )
        found = batches(trainer.args, 16, gpus=1)
        trainer.train()
        assert trainer.state.global_step == found.updates, more
    assert sum(p.numel() for p in trainer.model.parameters()) == sum(
        p.numel() for p in make_shapes(str(tmp_path / "model"), parse([])[2], trust_remote_code=False).parameters()
    )


def test_lora_trains_the_adapter_only(run):
    pytest.importorskip("peft")
    _, said, need = run("--use_peft", "true", "--lora_r", "4", "--lora_target_modules", "q_proj", "v_proj")
    trained = 3 * ((32 * 4 + 4 * 32) + (32 * 4 + 4 * 16))
    assert f"{trained:,} of them trained" in said
    assert need.gradients == 4 * trained
    assert need.weights > 20 * need.gradients


@pytest.mark.parametrize("gpus", [1, 4])
def test_an_update_does_not_grow_with_the_gpus(gpus, trainer_kit, tmp_path):
    """Unless the batch is given: 16 problems, as the run itself takes."""
    sizes = {"per_device_train_batch_size": 4, "num_generations": 4}
    left_open = trainer_kit.options(tmp_path, gradient_accumulation_steps=None, **sizes)
    module.spread(left_open, gpus)
    found = module.batches(left_open, 100, gpus)
    assert (found.update, found.generation) == (64, 64)
    given = trainer_kit.options(tmp_path, gradient_accumulation_steps=2, **sizes)
    module.spread(given, gpus)
    assert module.batches(given, 100, gpus).update == 8 * gpus


def test_sharded_over_gpus(run):
    _, _, alone = run()
    _, said, shared = run(machine=Machine(gpus=4, sharded=True, memory=10**9))
    for name in ("weights", "gradients", "optimiser"):
        assert getattr(shared, name) == -(-getattr(alone, name) // 4)
    assert shared.gathered > 0
    assert shared.activations == alone.activations
    assert "16 responses: 8 problems x 2" in said
    assert "does not fit into 1 GB" in said  # what CUDA takes for itself


def test_input_refused_by_train_is_refused(run, tmp_path):
    heads = tmp_path / "h.json"
    heads.write_text('{"heads": [[9, 0]]}')
    with pytest.raises(InputError, match="no layer 9"):
        run("--heads", str(heads))
    pytest.importorskip("peft")
    with pytest.raises(InputError, match=r"option use_peft: .* Target modules .*nowhere.* not found in the base model"):
        run("--use_peft", "true", "--lora_target_modules", "nowhere", "neither")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "2"], "option --gpus: belongs to --dry_run"),
        (["--dry_run", "--gpus", "0"], "option --gpus: found 0"),
        (["--dry_run", "--model_name_or_path", "./nowhere"], "no folder ./nowhere"),
    ],
)
def test_bad_input(words, message, capsys, tmp_path):
    assert main(["train", "--use_cpu", "true", "--output_dir", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err
