"""Resuming a run: settings that must not change, settings that may, and the history of changes.

A run silently resumed with another reward, other problems or another group size is no longer one run, and comparing its
beginning with its end is meaningless.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from attnpo.credit.attnpo import AttnPOCredit
from attnpo.data.jsonl import json_line, read_jsonl
from attnpo.errors import InputError
from attnpo.training.checkpoints import state_of_checkpoint
from attnpo.training.records import HISTORY

PROBLEMS = "problem_fingerprints"
"""Key of environment.json: fingerprints of the problems of a run, by split."""

FREE = frozenset(
    [
        # place and duration
        *("output_dir", "run_name", "max_steps", "num_train_epochs", "max_minutes", "patience", "overwrite_run"),
        *("stop_notice", "max_skipped"),
        # output
        *("save_strategy", "save_steps", "save_minutes", "save_total_limit", "save_only_model", "report_to", "project"),
        *("logging_steps", "logging_strategy", "logging_first_step", "record_rollouts", "disable_tqdm", "do_eval"),
        *("log_completions", "num_completions_to_print", "push_to_hub", "hub_model_id", "hub_strategy", "log_level"),
        # times of evaluations (their problems must not change)
        *("eval_strategy", "eval_steps", "eval_on_start", "eval_delay", "eval_examples", "per_device_eval_batch_size"),
        # the machine, as long as the responses per update stay the same (`described`)
        *("use_cpu", "bf16", "fp16", "tf32", "gradient_checkpointing", "attn_implementation", "compile_rollouts"),
        *("per_device_train_batch_size", "gradient_accumulation_steps", "cache_implementation"),
        *("vllm_server_host", "vllm_server_port", "vllm_server_base_url", "vllm_server_timeout", "vllm_group_port"),
        *("vllm_gpu_memory_utilization", "vllm_tensor_parallel_size", "local_rank", "log_level_replica", "do_train"),
        *("do_predict", "torch_compile", "torch_compile_backend", "torch_compile_mode", "ddp_backend"),
        "hub_always_push",
        *("dataloader_num_workers", "dataloader_pin_memory", "verifier_workers", "ddp_timeout", "model_init_kwargs"),
        "answer_judge_key_env",
        # handled with the heads that a run has found (known_heads)
        *("heads", "heads_count", "heads_traces"),
    ]
)
"""Options that may change without confirmation when a run is resumed."""

MEASURED = frozenset(
    [
        *("eval problems", "eval_dataset_name", "dataset_test_split", "eval_problems", "num_generations_eval"),
        *("temperature", "max_completion_length", "prompt_template", "problem_column", "reference_column"),
        *("max_prompt_length", "correct_reward", "correct_threshold"),
    ]
)
"""Options whose change makes later evaluations incomparable with earlier ones."""

Changes = dict[str, tuple[Any, Any]]


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return twelve hexadecimal digits that change with any prompt or reference, and with their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.get("prompt"), row.get("reference")], sort_keys=True).encode())
    return digest.hexdigest()[:12]


def described(options: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run to compare: its options, derived options, and its problems."""
    derived = environment.get("derived") or {}
    found = {**{name: value for name, value in derived.items() if name not in ("credit_delay",)}, **options}
    found.update({f"{split} problems": value for split, value in (environment.get(PROBLEMS) or {}).items()})
    processes = environment.get("processes") or 1
    sizes = [found.get("per_device_train_batch_size", 8), found.get("gradient_accumulation_steps", 1), processes]
    found["responses per update"] = sizes[0] * sizes[1] * sizes[2]
    return found


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})
) -> Changes:
    """Return the names of changed settings with both values, except those that may change (`FREE`).

    An option that only one run has is compared with None, unless a later version of this package added it and it has
    its default now. Problems that only one run has recorded are not compared.
    """
    names = [name for name in {**before, **now} if name not in FREE]
    return {
        name: (before.get(name), now.get(name))
        for name in names
        if before.get(name) != now.get(name)
        and not (
            name.endswith(" problems") and (name in before) != (name in now)
        )  # an earlier version does not record them
        and not (name not in before and name in defaults and now[name] == defaults[name])
    }


def read_description(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read config.yaml and environment.json of a run folder; {} for a missing file."""
    config, environment = folder / "config.yaml", folder / "environment.json"
    options = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None
    about = json.loads(environment.read_text(encoding="utf-8")) if environment.is_file() else None
    return options or {}, about or {}


def keep_delay(trainer: Any, checkpoint: str | None) -> None:
    """Keep the T that a resumed run began with where T was derived from `max_steps`, which may have changed."""
    args = trainer.args
    if checkpoint is None or "credit_delay" not in args.derived or not isinstance(trainer.credit, AttnPOCredit):
        return
    _, about = read_description(Path(checkpoint).resolve().parent)
    delay = (about.get("derived") or {}).get("credit_delay")
    if isinstance(delay, int):
        args.credit_delay = args.derived["credit_delay"] = delay
        trainer.credit = replace(trainer.credit, delay=delay)


def check_changes(found: Changes, *, accepted: bool) -> None:
    """Raise InputError, with the differences, where settings changed and this is not `accepted`."""
    if not found or accepted:
        return
    listed = "".join(f"\n  {name}: was {old!r}, is {new!r}" for name, (old, new) in sorted(found.items()))
    raise InputError(
        f"option resume_from_checkpoint: the run would resume with other settings:{listed}\nGive those it began with "
        "(--config RUN/config.yaml), choose another --output_dir, or confirm with --resume_with_changes true"
    )


def accepted_changes(
    checkpoint: str | None,
    options: Mapping[str, Any],
    environment: Mapping[str, Any],
    defaults: Mapping[str, Any],
    *,
    accepted: bool,
    ignored: Collection[str] = (),
) -> Changes:
    """`changes` between the run of a checkpoint and a run with these options, except `ignored`; none for a new run.

    Raises:
        InputError: there are changes and `accepted` is false (`check_changes`).
    """
    before, about = ({}, {}) if checkpoint is None else read_description(Path(checkpoint).resolve().parent)
    found = changes(described(before, about), described(options, environment), defaults) if before else {}
    found = {name: values for name, values in found.items() if name not in ignored}
    check_changes(found, accepted=accepted)
    return found


def keep_history(folder: Path, checkpoint: str, found: Changes) -> None:
    """Append the configuration until a checkpoint to the history, before config.yaml is overwritten."""
    config, _ = read_description(folder)
    if not found or not config:
        return
    step = state_of_checkpoint(checkpoint)["global_step"]
    row = {
        "until_step": step,
        "changes": {name: list(pair) for name, pair in sorted(found.items())},
        "config": config,
    }
    with open(folder / HISTORY, "ab") as file:
        file.write(json_line(row))


def comparable_from(folder: Path) -> int:
    """Return the step from which the evaluations of a run have the same problems and limits as the last one."""
    history = folder / HISTORY
    if not history.is_file():
        return 0
    rows = read_jsonl(history, ("until_step", "changes"))
    return max([0, *(row["until_step"] + 1 for row in rows if any(map(_is_measured, row["changes"])))])


def _is_measured(name: str) -> bool:
    """Whether changing it changes the evaluations; held-out sets of a dict are called `eval NAME problems`."""
    return name in MEASURED or (name.startswith("eval ") and name.endswith(" problems"))
