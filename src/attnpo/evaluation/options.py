"""The options of an evaluation: checked, resolved, and compared with those a folder was begun with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from attnpo.checks import read_escapes
from attnpo.errors import InputError
from attnpo.evaluation.benchmarks import get_benchmark
from attnpo.evaluation.plan import DEFAULT_BATCH_SIZE, fingerprint
from attnpo.evaluation.samples import Question
from attnpo.models import model_name
from attnpo.models.loading import usual_device, usual_dtype
from attnpo.steps.formats import AUTO, load_format

THINKING = ("auto", "yes", "no")
WRITTEN = ("every-eval-ever", "lighteval")
"""Formats of others that an evaluation is written in beside our own."""

DTYPES = ("float32", "bfloat16", "float16")
FREE = ("name", "base", "budgets", "data_dir")
"""Options that change no sample, so that a run can be continued with others."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What `attnpo eval` is asked to do; its help describes every option. None: a default that depends on others."""

    model: str
    benchmarks: Sequence[str]
    output: Path
    data_dir: Path | None = None
    samples: int | None = None
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 32768
    limit: int | None = None
    seed: int = 0
    engine: str = "transformers"
    batch_size: int | None = None
    dtype: str | None = None
    attn_implementation: str | None = None
    device: str | None = None
    thinking: str = "auto"
    thinking_format: str = AUTO
    prompt_template: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    base: Path | None = None
    budgets: Sequence[int] | None = None
    name: str | None = None
    overwrite: bool = False
    trust_remote_code: bool = False
    revision: str | None = None
    answer_judge: str | None = None
    answer_judge_key_env: str | None = None
    write: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raises InputError for a value out of range, or options that contradict each other; names the option."""
        if self.prompt_template is not None:
            object.__setattr__(self, "prompt_template", read_escapes(self.prompt_template))
        if not self.benchmarks:
            raise InputError("--benchmarks: found none, expected at least one name")
        twice = {name for name in self.benchmarks if list(self.benchmarks).count(name) > 1}
        if twice:
            raise InputError(f"--benchmarks: {', '.join(sorted(twice))} stands there twice")
        object.__setattr__(self, "benchmarks", [get_benchmark(name).name for name in self.benchmarks])
        lowest: Mapping[str, float] = {"samples": 1, "temperature": 0, "max_tokens": 1, "limit": 1, "batch_size": 1}
        for option, low in lowest.items():
            value = getattr(self, option)
            if value is not None and not low <= value < math.inf:  # so that NaN is refused
                raise InputError(f"--{option.replace('_', '-')}: found {value}, expected at least {low}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"--top-p: found {self.top_p}, expected a number above 0 and at most 1")
        if self.temperature == 0 and (self.samples or 1) > 1:
            raise InputError(f"--samples: found {self.samples} at temperature 0, where all samples would be the same")
        if self.device is not None and self.engine == "transformers":
            try:
                torch.empty(0, device=self.device)
            except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
                raise InputError(f"--device {self.device}: cannot be used: {str(error).splitlines()[0]}") from error
        if self.thinking_format != AUTO:
            load_format(self.thinking_format)
        for form in self.write:
            if form not in WRITTEN:
                raise InputError(f"--write: found {form!r}, expected {', '.join(WRITTEN)}")
        choices = {"engine": tuple(DEFAULT_BATCH_SIZE), "thinking": THINKING}
        if self.dtype is not None:
            choices["dtype"] = DTYPES
        for option, known in choices.items():
            if getattr(self, option) not in known:
                raise InputError(f"--{option}: found {getattr(self, option)!r}, expected one of {', '.join(known)}")

    @property
    def resolved_device(self) -> str:
        return self.device or usual_device()

    @property
    def resolved_dtype(self) -> str:
        return self.dtype or usual_dtype(self.resolved_device)

    @property
    def resolved_batch_size(self) -> int:
        return self.batch_size or DEFAULT_BATCH_SIZE[self.engine]

    def samples_of(self, benchmark: str) -> int:
        """Responses per problem."""
        return 1 if self.temperature == 0 else self.samples or get_benchmark(benchmark).samples

    def resolved(self, questions: Mapping[str, Sequence[Question]]) -> dict[str, Any]:
        """Every option with the value of this run, as eval.yaml has it."""
        path = Path(self.model).expanduser()
        model = str(path.resolve()) if path.exists() else self.model
        return {
            "name": self.name or _short_name(model_name(model)),
            "model": model_name(model),
            "revision": self.revision,
            "trust_remote_code": self.trust_remote_code,
            "benchmarks": {
                name: {"samples": self.samples_of(name), "problems": len(asked), "questions": fingerprint(asked)}
                for name, asked in questions.items()
            },
            "data_dir": None if self.data_dir is None else str(self.data_dir.resolve()),
            "limit": self.limit,
            "seed": self.seed,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "engine": self.engine,
            "batch_size": self.resolved_batch_size,
            "device": self.resolved_device,
            "dtype": self.resolved_dtype,
            "attn_implementation": self.attn_implementation,
            "thinking": self.thinking,
            "thinking_format": self.thinking_format,
            "prompt_template": self.prompt_template,
            "chat_template_kwargs": dict(self.chat_template_kwargs),
            "answer_judge": self.answer_judge,
            "base": None if self.base is None else str(self.base.resolve()),
            "budgets": None if self.budgets is None else list(self.budgets),
        }


def check_same(found: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> None:
    """Whether a run begun with `found` can go on with `asked` (both as `EvalOptions.resolved` gives them).

    Benchmarks may be added, as the samples of one do not depend on the others.

    Raises:
        InputError: options differ that change results; names each as typed, with the folder's value and the new one.
    """
    differing = [
        _difference(name, value, asked[name])
        for name, value in found.items()
        if name in asked and name not in (*FREE, "benchmarks") and asked[name] != value
    ]
    for benchmark, begun in found["benchmarks"].items():
        if benchmark not in asked["benchmarks"]:
            differing.append(f"--benchmarks has {benchmark} in the folder, and now lacks it")
            continue
        wanted = asked["benchmarks"][benchmark]
        # A greedy run has one sample, and a limit decides on the questions: what follows is not said again.
        if begun["samples"] != wanted["samples"] and 0 not in (found.get("temperature"), asked["temperature"]):
            differing.append(_difference("samples", begun["samples"], wanted["samples"]) + f" (of {benchmark})")
        if begun["questions"] != wanted["questions"] and found.get("limit") == asked["limit"]:
            differing.append(f"the questions of {benchmark} have changed since")
    if differing:
        raise InputError(
            f"{folder}: begun with other options: {'; '.join(differing)}. It cannot be extended: batches, and so the "
            "last digits of all numbers, would differ from those of one run. Give the folder's options to go on, "
            "another folder, or --overwrite to begin anew"
        )


def _difference(name: str, begun: Any, given: Any) -> str:
    """`--limit is 12 in the folder, now 20`."""
    return f"--{name.replace('_', '-')} is {_typed(begun)} in the folder, now {_typed(given)}"


def _typed(value: Any) -> str:
    return "not given" if value is None else json.dumps(value) if isinstance(value, dict | bool) else str(value)


def _short_name(model: str) -> str:
    """The last part of a path or Hub name; of a checkpoint, its run too."""
    path = Path(model)
    return f"{path.parent.name}-{path.name}" if path.name.startswith("checkpoint-") else path.name.removesuffix(".gguf")
