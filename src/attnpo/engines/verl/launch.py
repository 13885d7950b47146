"""`attnpo verl`: set verl's keys, check everything, and start verl.

Everything that can be checked is checked before Ray starts. Then verl's own `run_ppo` runs, with a task runner that
registers this package's trainer.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attnpo.attention.heads import HEADS
from attnpo.credentials import hide
from attnpo.engines.verl import checks
from attnpo.engines.verl.data import check_data, use_of, write_problems
from attnpo.engines.verl.options import VerlOptions
from attnpo.engines.verl.settings import Asked, compose, put, read_arguments
from attnpo.errors import InputError, RunError
from attnpo.training.problems import ProblemSets, overlap_warnings, without_bars

PACKAGES = ("attnpo", "verl", "ray", "TransferQueue", "torch", "transformers", "vllm", "sglang", "flash-attn")
HANDED_ON = (
    "VERL_PLATFORM",
    "VERL_USE_EXTERNAL_MODULES",
    "TOKENIZERS_PARALLELISM",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
)
"""Environment variables that verl's processes get on every node."""


def main(argv: Sequence[str]) -> Path:
    """Do one run; return its folder.

    Raises:
        InputError: wrong options, keys, versions, model, heads or data, before Ray starts.
        RunError: the run failed; verl's messages are printed above.
    """
    checks.check_versions()
    asked = read_arguments(argv)
    for_platform(asked)
    config = compose(asked)
    options = VerlOptions.of(config.attnpo)
    checks.check_silently_wrong(config)
    checks.check_batch(config)
    heads = checks.check_model(config, options)
    with ExitStack() as stack:
        stack.enter_context(without_bars())
        with TemporaryDirectory(prefix="attnpo-verl-") as temporary:
            written = prepare(config, options, Path(temporary))
            check_data(config, None if written is None else written.folder)
            check_by_verl(config)
            if asked.check_only:
                print("everything that can be checked beforehand is in order")
                return Path(options.output_dir)
            describe(config, options, heads, argv, stack, written=written)
        run(config)
    return Path(options.output_dir)


def for_platform(asked: Asked) -> None:
    """Set environment variables for verl's processes. Call it before verl is imported."""
    if asked.keys.get("trainer.device") == "cpu":
        os.environ["VERL_PLATFORM"] = "cpu"
        os.environ["VERL_USE_EXTERNAL_MODULES"] = "attnpo.engines.verl.cpu"
    # Each of Ray's worker processes inherits this; a tokenizer's own threads would take one core each.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True)
class Written:
    """The problems of `dataset_name`, and the folder with their files in verl's format."""

    folder: Path
    sets: ProblemSets


def prepare(config: Any, options: VerlOptions, temporary: Path) -> Written | None:
    """Resolve model names that verl does not know, and convert the problems of `dataset_name` to verl's format.

    They are written into `temporary`: the run folder may belong to another run, and only `describe` writes there.
    None: no `dataset_name`, since verl reads its own files.
    """
    from attnpo.models import resolve_model

    path = resolve_model(str(config.actor_rollout_ref.model.path))
    put(config, "actor_rollout_ref.model.path", path)
    if options.dataset_name is not None:
        from transformers import AutoTokenizer

        trust = config.actor_rollout_ref.model.trust_remote_code
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust)
        train, held_out = (temporary / Path(config.data[key]).name for key in ("train_files", "val_files"))
        return Written(temporary, write_problems(options, use_of(config), tokenizer, train, held_out, print))
    if options.eval_dataset_name is not None:
        raise InputError("option eval_dataset_name: found without dataset_name; with verl's files use data.val_files")
    return None


def check_by_verl(config: Any) -> None:
    """Run verl's own checks. Raises InputError with verl's message."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    auto_set_device(config)
    try:
        validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    except (ValueError, AssertionError, KeyError, TypeError) as error:
        raise InputError(f"verl's configuration: {error}") from error
    except Exception as error:  # Hydra wraps the errors of verl's dataclasses
        if type(error).__module__.startswith(("hydra", "omegaconf")):
            raise InputError(f"verl's configuration: {error}") from error
        raise


def describe(
    config: Any,
    options: VerlOptions,
    heads: Path | None,
    argv: Sequence[str],
    stack: ExitStack,
    *,
    written: Written | None,
) -> None:
    """Check and lock the run folder; write the problems in `written`, config.yaml, environment.json and heads.json."""
    from omegaconf import OmegaConf

    from attnpo.training.known_heads import found_already
    from attnpo.training.records import WARNINGS, RunFolder, locked

    folder = RunFolder(options.output_dir)
    checkpoints = Path(config.trainer.default_local_dir)
    going_on = config.trainer.resume_mode != "disable" and (checkpoints / "latest_checkpointed_iteration.txt").is_file()
    if not going_on and not options.overwrite_run:
        folder.check_free(go_on="--resume true")
        if any(checkpoints.glob("global_step_*")):
            raise InputError(f"option output_dir: {checkpoints} has checkpoints of a run; continue with --resume true")
    folder.check_writable()
    stack.enter_context(locked(folder.path))
    if options.overwrite_run and not going_on:
        folder.clear(keep=heads)
        shutil.rmtree(checkpoints, ignore_errors=True)
    if written is not None:
        for file in (Path(config.data.train_files), Path(config.data.val_files)):
            file.parent.mkdir(exist_ok=True)
            shutil.copyfile(written.folder / file.name, file)
        if not going_on:
            (folder.path / WARNINGS).unlink(missing_ok=True)
            for message in overlap_warnings(written.sets.by_name()):
                print(f"warning: {message}")
                folder.append(WARNINGS, {"step": 0, "message": message})
    needs = "attention" in options.make_credit().signals
    own, found = folder.path / HEADS, folder.heads_of_a_start
    if found is not None and not going_on and not (needs and (heads is None or heads.samefile(found))):
        raise found_already(found)
    if needs and not (going_on and own.is_file()):
        if heads is None:
            from attnpo.engines.verl.find_heads import find

            find(config, options, own)
        else:
            folder.keep_heads(heads, traces=False)
    resolved = OmegaConf.to_container(config, resolve=True)
    describe_run(folder.path, config, options, argv, resolved, None if written is None else written.sets)


def describe_run(
    folder: Path, config: Any, options: VerlOptions, argv: Sequence[str], resolved: Any, sets: ProblemSets | None
) -> None:
    """Write config.yaml: this package's options, under the names that the report page reads, and verl's
    configuration."""
    import platform

    from attnpo.training.description import problems_of, write_description
    from attnpo.versions import versions_of

    data, rollout = config.data, config.actor_rollout_ref.rollout
    resolved.pop("attnpo", None)
    options_of_run = {
        **{name: value for name, value in options.given().items() if value is not None},
        "engine": "verl",
        "model_name_or_path": str(config.actor_rollout_ref.model.path),
        "num_generations": rollout.n,
        "max_completion_length": data.max_response_length,
        "max_steps": config.trainer.total_training_steps,
        "learning_rate": config.actor_rollout_ref.actor.optim.lr,
        "temperature": rollout.temperature,
        "verl": resolved,
    }
    for name in ("overwrite_run", "resume"):
        options_of_run.pop(name, None)
    environment = {
        "command": hide(shlex.join(["attnpo", "verl", *argv])),
        "versions": versions_of(PACKAGES),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processes": config.trainer.n_gpus_per_node * config.trainer.nnodes,
        **({} if sets is None else problems_of(sets.notes, sets.by_name())),
    }
    write_description(folder, options_of_run, environment)


def run(config: Any) -> None:
    """Run verl, in a new Ray unless one is running. A Ray started here is shut down afterwards, also on failure."""
    import ray
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    started = not ray.is_initialized()
    for name in HANDED_ON:
        if name in os.environ:  # workers on other nodes do not have this machine's environment
            put(config, f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}", os.environ[name])
    try:
        run_ppo(config, task_runner_class=ray.remote(with_own_trainer(TaskRunnerV1.__ray_metadata__.modified_class)))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        what = cause if cause is not None else error
        print(error, file=sys.stderr)  # with the traceback of the process that failed
        raise RunError(f"the run on verl failed: {type(what).__name__}: {what}"[:4000]) from error
    finally:
        if started:
            ray.shutdown()


def with_own_trainer(runner: type) -> type:
    """Return verl's task runner with this package's trainer and estimator registered."""

    class AttnPOTaskRunner(runner):
        def run(self, config: Any) -> None:
            import attnpo.engines.verl.trainer  # noqa: F401 - registers both

            super().run(config)

    return AttnPOTaskRunner
