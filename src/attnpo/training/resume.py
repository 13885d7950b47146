"""Going on with a run: what must be as it was, what may change, and the history of what did.

A resumed run that takes another reward, other problems or another group size in silence is no longer one run, and a
table of its beginning and its end compares two things.
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
"""environment.json: what the problems of a run were, by split, in few characters."""

FREE = frozenset(
    [
        # where and for how long
        *("output_dir", "run_name", "max_steps", "num_train_epochs", "max_minutes", "patience", "overwrite_run"),
        *("stop_notice", "max_skipped"),
        # what is kept and shown
        *("save_strategy", "save_steps", "save_minutes", "save_total_limit", "save_only_model", "report_to", "project"),
        *("logging_steps", "logging_strategy", "logging_first_step", "record_rollouts", "disable_tqdm", "do_eval"),
        *("log_completions", "num_completions_to_print", "push_to_hub", "hub_model_id", "hub_strategy", "log_level"),
        # when is evaluated; on which problems is another matter
        *("eval_strategy", "eval_steps", "eval_on_start", "eval_delay", "eval_examples", "per_device_eval_batch_size"),
        # on which machine, as long as an update is the same size (`update_size`)
        *("use_cpu", "bf16", "fp16", "tf32", "gradient_checkpointing", "attn_implementation", "compile_rollouts"),
        *("per_device_train_batch_size", "gradient_accumulation_steps", "cache_implementation"),
        *("vllm_server_host", "vllm_server_port", "vllm_server_base_url", "vllm_server_timeout", "vllm_group_port"),
        *("vllm_gpu_memory_utilization", "vllm_tensor_parallel_size", "local_rank", "log_level_replica", "do_train"),
        *("do_predict", "torch_compile", "torch_compile_backend", "torch_compile_mode", "ddp_backend"),
        "hub_always_push",
        *("dataloader_num_workers", "dataloader_pin_memory", "verifier_workers", "ddp_timeout", "model_init_kwargs"),
        "answer_judge_key_env",
        # decided in one place with the heads a run has found (known_heads)
        *("heads", "heads_count", "heads_traces"),
    ]
)
"""Options that may change without a word when a run is resumed."""

MEASURED = frozenset(
    [
        *("eval problems", "eval_dataset_name", "dataset_test_split", "eval_problems", "num_generations_eval"),
        *("temperature", "max_completion_length", "prompt_template", "problem_column", "reference_column"),
        *("max_prompt_length", "correct_reward", "correct_threshold"),
    ]
)
"""Changes after which evaluations are no longer comparable with those before."""

Changes = dict[str, tuple[Any, Any]]


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """Twelve hexadecimal digits that change with any prompt or reference, and with their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.get("prompt"), row.get("reference")], sort_keys=True).encode())
    return digest.hexdigest()[:12]


def described(options: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is made of, to be compared: its options, those that followed from others, and its problems."""
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
    """Names of what is another now, with both values; what may change freely, or is known on one side only, aside.

    An option that neither run gives has no entry; one that only one of them gives is compared with None, unless it is
    new, of a later version of this package, and has its default now.
    """
    names = [name for name in {**before, **now} if name not in FREE]
    return {
        name: (before.get(name), now.get(name))
        for name in names
        if before.get(name) != now.get(name)
        and not (name.endswith(" problems") and (name in before) != (name in now))  # an earlier version has none
        and not (name not in before and name in defaults and now[name] == defaults[name])
    }


def read_description(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config.yaml and environment.json of a run folder; nothing of a file that is not there."""
    config, environment = folder / "config.yaml", folder / "environment.json"
    options = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None
    about = json.loads(environment.read_text(encoding="utf-8")) if environment.is_file() else None
    return options or {}, about or {}


def keep_delay(trainer: Any, checkpoint: str | None) -> None:
    """A resumed run goes on with the T it began with, where that follows from `max_steps`, which may have changed."""
    args = trainer.args
    if checkpoint is None or "credit_delay" not in args.derived or not isinstance(trainer.credit, AttnPOCredit):
        return
    _, about = read_description(Path(checkpoint).resolve().parent)
    delay = (about.get("derived") or {}).get("credit_delay")
    if isinstance(delay, int):
        args.credit_delay = args.derived["credit_delay"] = delay
        trainer.credit = replace(trainer.credit, delay=delay)


def check_changes(found: Changes, *, accepted: bool) -> None:
    """Raises InputError, with the differences, where a run would go on as another and nobody said it may."""
    if not found or accepted:
        return
    listed = "".join(f"\n  {name}: was {old!r}, is {new!r}" for name, (old, new) in sorted(found.items()))
    raise InputError(
        f"option resume_from_checkpoint: the run would go on with other settings:{listed}\nGive those it began with "
        "(--config RUN/config.yaml), take another --output_dir, or confirm with --resume_with_changes true"
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
    """Note down in the run folder what its configuration was until a checkpoint, before config.yaml is written anew."""
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
    """The step from which the evaluations of a run are of the same problems and limits as the last one."""
    history = folder / HISTORY
    if not history.is_file():
        return 0
    rows = read_jsonl(history, ("until_step", "changes"))
    return max([0, *(row["until_step"] + 1 for row in rows if any(map(_is_measured, row["changes"])))])


def _is_measured(name: str) -> bool:
    """Whether a change of it makes other evaluations; held-out sets of a dict are called `eval NAME problems`."""
    return name in MEASURED or (name.startswith("eval ") and name.endswith(" problems"))
