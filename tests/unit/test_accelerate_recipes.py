"""The shipped configurations of `accelerate launch` are ones that Accelerate understands."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "accelerate"
KINDS = {
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "zero2": DistributedType.DEEPSPEED,
    "zero3": DistributedType.DEEPSPEED,
}


def test_every_recipe_has_a_test():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_every_recipe(name):
    """Every key is known (Accelerate ignores none), and so are those of its parts, which become launch options."""
    file = RECIPES / f"{name}.yaml"
    config = ClusterConfig.from_yaml_file(yaml_file=str(file))
    assert config.distributed_type == KINDS[name]
    parser = launch_command_parser()
    known = {option for action in parser._actions for option in action.option_strings}
    given = yaml.safe_load(file.read_text())
    for part in ("fsdp_config", "deepspeed_config"):
        assert {f"--{key}" for key in given.get(part, {})} <= known
    command = f"accelerate launch --config_file recipes/accelerate/{name}.yaml -m attnpo train"
    assert command in file.read_text()
    args = parser.parse_args(["--config_file", str(file), "-m", "attnpo", "train"])
    assert args.training_script == "attnpo"
