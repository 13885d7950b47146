"""Recipes and the command line composed to verl's configuration, and settings that are refused before Ray starts."""

from __future__ import annotations

import os

os.environ["VERL_PLATFORM"] = "cpu"
os.environ["VERL_USE_EXTERNAL_MODULES"] = "attnpo.engines.verl.cpu"

import json
from pathlib import Path

import pytest
import yaml

from attnpo.engines.verl import checks
from attnpo.engines.verl.launch import check_by_verl, main
from attnpo.engines.verl.options import VerlOptions
from attnpo.engines.verl.settings import compose, read_arguments
from attnpo.errors import InputError

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes" / "verl").glob("*.yaml"))


def composed(*words: object):
    return compose(read_arguments([str(word) for word in words]))


@pytest.fixture
def model(tiny_folder, tmp_path) -> list[str]:
    """Words of a run that would work: the tiny model, heads, problems."""
    heads = tmp_path / "heads.json"
    heads.write_text(json.dumps({"heads": [[1, 0], [2, 3]]}), encoding="utf-8")
    words = ["trainer.device=cpu", "trainer.n_gpus_per_node=1", "trainer.total_training_steps=1"]
    words += [
        "data.train_batch_size=2",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.rollout.n=4",
    ]
    words += ["data.max_response_length=100", f"actor_rollout_ref.model.path={tiny_folder}"]
    words += ["--output_dir", str(tmp_path / "run"), "--heads", str(heads), "--dataset_name", "task"]
    return [*words, "--train_problems", "8", "--eval_problems", "4"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_compose_and_pass_all_checks(recipe, monkeypatch, tmp_path):
    """Everything but what needs weights: parsed, composed, checked here and by verl."""
    config = composed("--config", recipe, "--output_dir", tmp_path / "run")
    checks.check_silently_wrong(config)
    checks.check_batch(config)
    check_by_verl(config)
    asked = yaml.safe_load(recipe.read_text(encoding="utf-8"))["verl"]
    assert config.trainer.nnodes == asked["trainer"]["nnodes"]
    assert config.algorithm.adv_estimator == config.trainer.v1.trainer_mode == "attnpo"
    assert config.actor_rollout_ref.model.external_lib == "attnpo.engines.verl.engine"
    assert config.attnpo.max_completion_length == config.data.max_response_length
    workers = config.trainer.n_gpus_per_node * config.trainer.nnodes
    assert workers % (config.actor_rollout_ref.rollout.tensor_model_parallel_size or 1) == 0


def test_the_four_nodes_share_rows_by_eight():
    (recipe,) = [path for path in RECIPES if "4nodes" in path.stem]
    config = composed("--config", recipe)
    assert config.actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size == 8
    assert config.trainer.n_gpus_per_node * config.trainer.nnodes == 32


def test_command_line_overrides_the_recipe():
    (recipe,) = [path for path in RECIPES if "tiny" in path.stem]
    config = composed("--credit", "outcome", "actor_rollout_ref.rollout.n=4", "--config", recipe, "--credit_beta=1")
    assert config.attnpo.credit == "outcome"
    assert config.attnpo.credit_beta == 1.0
    assert config.attnpo.length_alpha == 0.8
    assert config.actor_rollout_ref.rollout.n == 4
    assert config.ray_kwargs.ray_init.num_gpus == 2


def test_a_learning_rate_is_a_number():
    asked = read_arguments(["actor_rollout_ref.actor.optim.lr=1e-6", "--length_alpha", "2e-1", "data.seed="])
    assert asked.keys == {"actor_rollout_ref.actor.optim.lr": 1e-6, "data.seed": None}
    assert asked.options == {"length_alpha": 0.2}


REFUSED = [
    (
        "algorithm.rollout_correction.bypass_mode=true",
        "bypass_mode of verl's configuration: found True, expected false",
    ),
    ("algorithm.use_kl_in_reward=true", "use_kl_in_reward of verl's configuration: found True"),
    ("actor_rollout_ref.actor.strategy=megatron", "strategy of verl's configuration: found 'megatron', expected fsdp2"),
    ("trainer.v1.trainer_mode=separate_async", "found 'separate_async', expected 'attnpo'"),
    ("trainer.v1.trainer_mode=colocate_async", "found 'colocate_async', expected 'attnpo'"),
    ("trainer.use_v1=false", "key trainer.use_v1 of verl's configuration: found False, expected True"),
    ("algorithm.adv_estimator=grpo", "found 'grpo', expected 'attnpo'"),
    ("actor_rollout_ref.rollout.multi_turn.enable=true", "multi_turn.enable"),
    ("actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent", "default_agent_loop"),
    ("actor_rollout_ref.model.use_fused_kernels=true", "use_fused_kernels"),
    ("actor_rollout_ref.actor.policy_loss.loss_mode=gspo", "loss_mode of verl's configuration: found 'gspo'"),
    (
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2",
        "attn_implementation of verl's configuration: found 'sdpa'",
    ),
    ("reward.reward_model.enable=true", "reward_model.enable"),
    ("critic.enable=true", "critic.enable"),
    ("custom_reward_function.path=my.py", "found 'my.py', expected null: .* under reward.custom_reward_function"),
    ("reward_model.reward_manager=dapo", "found 'dapo', expected null: .* or reward.reward_manager"),
    ("reward_model.enable=true", "key reward_model.enable of .* found True"),
    ("sandbox_fusion.url=http://x", "key sandbox_fusion.url of .* under reward.sandbox_fusion"),
    (
        "data.train_files=mine.parquet",
        "data.train_files of .* found 'mine.parquet' with the option dataset_name 'task'",
    ),
    ("data.val_files=mine.parquet", "data.val_files of .* found 'mine.parquet' with the option dataset_name 'task'"),
    ("actor_rollout_ref.rollout.n=1", "num_generations: found 1, expected at least 2"),
    ("actor_rollout_ref.actor.ppo_mini_batch_size=3", "ppo_mini_batch_size of verl's configuration: found 3"),
    ("data.train_batch_siz=2", "verl has no key data.train_batch_siz; did you mean data.train_batch_size"),
    ("data.train_batch_size=64", "found 8 problems, expected at least data.train_batch_size, 64"),
    ("--credit=shape", "option credit: 'shape' needs"),
    ("--length_reward=l1_exact", "writes a length into every prompt"),
    ("--credit_bet=2", "unknown option credit_bet; did you mean credit_beta"),
    ("--credit_beta=often", "option credit_beta: found 'often'"),
    ("--heads=/nowhere/heads.json", "/nowhere/heads.json: cannot be read"),
    ("--thinking_format=pondering", "pondering"),
    ("--dataset_name=/nowhere/problems.jsonl", "/nowhere/problems.jsonl"),
    ("actor_rollout_ref.model.path=/nowhere", "path of verl's configuration: no model '/nowhere'"),
    ("model", "found 'model', expected --option VALUE of this package, or verl.key=VALUE"),
]


@pytest.mark.parametrize(("word", "message"), REFUSED, ids=[word.split("=")[0] for word, _ in REFUSED])
def test_refused_before_ray_starts(model, word, message, monkeypatch):
    import attnpo.engines.verl.launch as launch

    def started(config):
        raise AssertionError("Ray would have been started")

    monkeypatch.setattr(launch, "run", started)
    extra = ["actor_rollout_ref.actor.ppo_mini_batch_size=64"] if "size=64" in word else []
    with pytest.raises(InputError, match=message):
        main([*model, *extra, word])


def test_heads_that_the_model_lacks_are_refused(model, tmp_path):
    (tmp_path / "heads.json").write_text(json.dumps({"heads": [[7, 0]]}), encoding="utf-8")
    with pytest.raises(InputError, match=r"/heads.json: \(7, 0\): no layer 7"):
        main([*model, "--check"])


def test_row_without_ground_truth_is_refused(model, tmp_path):
    file = tmp_path / "problems.jsonl"
    row = {"data_source": "x", "prompt": [{"role": "user", "content": "1 + 1?"}], "reward_model": {"ground_truth": "2"}}
    rows = [row, {**row, "reward_model": {"ground_truth": ""}}]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = [word for word in model if word not in ("--dataset_name", "task")]
    with pytest.raises(InputError, match=r"problems.jsonl: row 2: column 'reward_model' is .*expected .*ground_truth"):
        main([*words, f"data.train_files={file}", f"data.val_files={file}", "--check"])


def test_untested_release_is_refused(monkeypatch):
    real = checks.version
    monkeypatch.setattr(checks, "version", lambda package: "0.10.0" if package == "verl" else real(package))
    with pytest.raises(InputError, match=r"verl: found 0.10.0, expected 0.9.1"):
        checks.check_versions()
    monkeypatch.setattr(checks, "version", lambda package: "5.23.0" if package == "transformers" else real(package))
    with pytest.raises(InputError, match=r"transformers: found 5.23.0, expected at least 5.5.3 and below 5.11"):
        checks.check_versions()


def test_valid_run_passes_the_check(model, capsys, tmp_path):
    main([*model, "--check"])
    assert "everything that can be checked beforehand is in order" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_data_files_are_not_overwritten(model, tmp_path):
    file = tmp_path / "mine.parquet"
    file.write_bytes(b"mine")
    with pytest.raises(InputError, match="expected one of the two"):
        main([*model, f"data.train_files={file}", f"data.val_files={file}"])
    assert file.read_bytes() == b"mine"


def test_refused_run_does_not_change_the_run_folder(model, tmp_path, monkeypatch):
    """A run's problems stay when a second is only checked, finds the folder taken, or finds it locked."""
    import attnpo.engines.verl.launch as launch
    from attnpo.training.records import locked

    monkeypatch.setattr(launch, "run", lambda config: None)
    main(model)
    run = tmp_path / "run"
    assert {file.name for file in (run / "data").iterdir()} == {"train.parquet", "eval.parquet"}

    def contents() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != ".lock"}

    before = contents()
    main([*model, "--train_problems", "9", "--check"])
    assert contents() == before
    (run / "metrics.jsonl").write_text("{}\n", encoding="utf-8")
    before = contents()
    with pytest.raises(InputError, match=r"already contains a run .*with --resume true, choose"):
        main([*model, "--train_problems", "9"])
    assert contents() == before
    with locked(run), pytest.raises(InputError, match="a run is already writing into"):
        main([*model, "--train_problems", "9", "--overwrite_run", "true"])
    assert contents() == before
    main([*model, "--train_problems", "9", "--overwrite_run", "true"])
    assert (run / "data" / "train.parquet").read_bytes() != before[run / "data" / "train.parquet"]


def test_grpo_without_norm_by_std_is_refused(model):
    key = "algorithm.norm_adv_by_std_in_grpo=false"
    checks.check_silently_wrong(composed(*model, key, "--advantage", "dr_grpo"))
    with pytest.raises(InputError, match=r"norm_adv_by_std_in_grpo of .* found False, .*--advantage dr_grpo"):
        checks.check_silently_wrong(composed(*model, key, "--advantage", "grpo"))


def test_relative_output_dir_becomes_absolute(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = composed(*model, "--output_dir", "here")
    assert config.attnpo.output_dir == str(tmp_path / "here")
    assert config.trainer.default_local_dir == str(tmp_path / "here" / "verl")


def test_head_search_gets_valid_options(model, tmp_path):
    from attnpo.engines.verl.find_heads import arguments
    from attnpo.training.options import parse

    config = composed(*model, "--heads", "auto", "--heads_count", "2")
    data, args, _ = parse(arguments(config, VerlOptions.of(config.attnpo), tmp_path / "search"))
    assert (args.heads, args.heads_count, args.num_generations) == ("auto", 2, 4)
    assert data.dataset_name == str(tmp_path / "run" / "data" / "train.parquet")
    assert args.use_cpu


def test_importing_the_package_imports_no_verl():
    import subprocess
    import sys

    code = "import sys, attnpo, attnpo.engines.verl.ledger, attnpo.engines.verl.settings, attnpo.engines.verl.checks\n"
    code += "print([name for name in ('verl', 'ray', 'trl') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_options_round_trip():
    options = VerlOptions.of({"credit": "outcome", "output_dir": "x"})
    assert VerlOptions.of(options.given()) == options
