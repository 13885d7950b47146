"""`attnpo train --dry_run`: its figures are those of the run."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from attnpo.cli.main import main
from attnpo.errors import InputError
from attnpo.training import dry_run as module
from attnpo.training.dry_run import Machine, batches, dry_run, make_shapes
from attnpo.training.options import parse


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
