"""The options of an evaluation: stated once with their help (`attnpo eval` is built from `EvalOptions`), checked,
resolved, and compared with those that a folder was started with or that other evaluations were sampled with.

Importing this module imports no torch: `attnpo eval --help` and the report read it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnpo.checks import read_escapes
from attnpo.errors import InputError

if TYPE_CHECKING:
    from attnpo.evaluation.samples import Question

THINKING = ("auto", "yes", "no")
WRITTEN = ("every-eval-ever", "lighteval")
"""Formats of other projects that an evaluation can be written in, in addition to our own."""

DTYPES = ("float32", "bfloat16", "float16")
FREE = ("name", "base", "budgets", "data_dir")
"""Options that change no sample, so that a run can be continued with other values."""

ALIKE = (
    *("temperature", "top_p", "max_tokens", "thinking", "engine", "dtype"),
    *("prompt_template", "chat_template_kwargs"),
)
"""Options of eval.yaml that change a model's responses, in addition to the samples per problem of each benchmark."""


def _words(text: str) -> list[str]:
    return [word for word in _words_or_empty(text) if word]


def _words_or_empty(text: str) -> list[str]:
    """Return the words with empty ones, which are refused later like any unknown word."""
    return [word.strip() for word in text.split(",")]


def read_budgets(text: str) -> list[int]:
    """Token budgets as given on a command line: `2048,4096`. Raises InputError for anything else."""
    words = _words_or_empty(text)
    for word in words:
        if not word.isdecimal() or int(word) < 1:
            raise InputError(f"--budgets: found {word!r}, expected whole numbers of at least 1, separated by commas")
    return sorted({int(word) for word in words})


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"--chat-template-kwargs: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"--chat-template-kwargs: found {text!r}, expected an object")
    return found


def _cli(
    help: str, metavar: str | None = None, *, group: str = "", read: Callable[[str], Any] | None = None, flag: str = ""
) -> dict[str, Any]:
    """Metadata of an option for the command line. `read`: makes the value from the text; None: argparse does, by the
    field's type. `flag`: a short name in addition.
    """
    return {"help": help, "metavar": metavar, "group": group, "read": read, "flag": flag}


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """The options of `attnpo eval`, each with its help. None: a default that depends on other options."""

    output: Path = field(metadata=_cli("the folder to write, or to continue", "DIR", flag="-o"))
    benchmarks: Sequence[str] = field(metadata=_cli("names, separated by commas", "A,B,…", read=_words))
    data_dir: Path | None = field(
        default=None, metadata=_cli("folder with the benchmarks' files (default: the Hub)", "DIR")
    )
    limit: int | None = field(default=None, metadata=_cli("a fixed subset of N problems of every benchmark", "N"))
    name: str | None = field(
        default=None, metadata=_cli("name of the model in results (default: the last part of its path or Hub name)")
    )
    base: Path | None = field(default=None, metadata=_cli("the evaluation of the model to compare with (AES)", "DIR"))
    budgets: Sequence[int] | None = field(
        default=None,
        metadata=_cli("token budgets to report accuracies for (default: 2048 … 32768)", "N,N,…", read=read_budgets),
    )
    write: Sequence[str] = field(
        default=(),
        metadata=_cli(
            "also write it in formats of other projects: every-eval-ever, lighteval, or both with a comma",
            "FORMAT",
            read=_words_or_empty,
        ),
    )
    overwrite: bool = field(default=False, metadata=_cli("start anew if the folder contains an evaluation"))
    answer_judge: str | None = field(
        default=None,
        metadata=_cli(
            "an OpenAI-compatible endpoint that is asked about mathematical answers the verifier cannot decide; its "
            "verdicts are judged_right and judged_wrong (default: none)",
            "URL#MODEL",
        ),
    )
    answer_judge_key_env: str | None = field(
        default=None, metadata=_cli("environment variable with its key (default: no key is sent)", "VAR")
    )

    model: str = field(
        metadata=_cli("overthinker, smollm2, a folder, a Hub name, a PEFT adapter or a GGUF file", "M", group="model")
    )
    revision: str | None = field(default=None, metadata=_cli("of a model of the Hub", group="model"))
    trust_remote_code: bool = field(default=False, metadata=_cli("run code that comes with the model", group="model"))
    engine: str = field(default="transformers", metadata=_cli("transformers (default) or vllm", group="model"))
    device: str | None = field(default=None, metadata=_cli("default: cuda if there is a GPU, else cpu", group="model"))
    dtype: str | None = field(
        default=None,
        metadata=_cli("float32, bfloat16 or float16 (default: float32 on a CPU, else bfloat16)", group="model"),
    )
    attn_implementation: str | None = field(
        default=None, metadata=_cli("as in transformers: sdpa, flash_attention_2, …", "A", group="model")
    )
    batch_size: int | None = field(
        default=None, metadata=_cli("responses per batch (default: 32, vLLM: 512)", "N", group="model")
    )

    samples: int | None = field(
        default=None,
        metadata=_cli("responses per problem (default: the benchmark's own, 4 or 16)", "N", group="sampling"),
    )
    temperature: float = field(
        default=0.6, metadata=_cli("0: greedy, one sample (default: %(default)s)", "T", group="sampling")
    )
    top_p: float = field(default=0.95, metadata=_cli("nucleus sampling (default: %(default)s)", "P", group="sampling"))
    max_tokens: int = field(
        default=32768,
        metadata=_cli(
            "of a response (default: %(default)s; never more than the model's context leaves)", "N", group="sampling"
        ),
    )
    seed: int = field(
        default=0,
        metadata=_cli("every response has its own seed, derived from it (default: %(default)s)", group="sampling"),
    )
    prompt_template: str | None = field(
        default=None,
        metadata=_cli(
            r"text containing {problem}: the user message, or the whole prompt (\n: line break)",
            "TEXT",
            group="sampling",
        ),
    )
    chat_template_kwargs: Mapping[str, Any] = field(
        default_factory=dict,
        metadata=_cli(
            "for the chat template, e.g. '{\"enable_thinking\": false}'", "JSON", group="sampling", read=_json_object
        ),
    )
    thinking_format: str = field(
        default="auto",  # `attnpo.steps.formats.AUTO`
        metadata=_cli(
            "how the model marks its thinking (docs/thinking-formats.md; default: auto, by its tokenizer)",
            "NAME|FILE.yaml",
            group="sampling",
        ),
    )
    thinking: str = field(
        default="auto",
        metadata=_cli(
            "yes: only what follows the end of the thinking is an answer; no: the whole response is; auto (default): "
            "according to the prompt or, if it contains no mark, to the responses",
            group="sampling",
        ),
    )

    def __post_init__(self) -> None:
        """Raises InputError for a value out of range, or options that contradict each other; names the option."""
        # Imported here, as in the methods below: `--help` reads the fields alone.
        from attnpo.evaluation.benchmarks import get_benchmark
        from attnpo.evaluation.samples import DEFAULT_BATCH_SIZE
        from attnpo.steps.formats import AUTO, load_format

        if self.prompt_template is not None:
            object.__setattr__(self, "prompt_template", read_escapes(self.prompt_template))
        if not self.benchmarks:
            raise InputError("--benchmarks: found none, expected at least one name")
        twice = {name for name in self.benchmarks if list(self.benchmarks).count(name) > 1}
        if twice:
            raise InputError(f"--benchmarks: {', '.join(sorted(twice))} was given twice, expected every name once")
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
            _check_device(self.device)
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
        from attnpo.models.loading import usual_device

        return self.device or usual_device()

    @property
    def resolved_dtype(self) -> str:
        from attnpo.models.loading import usual_dtype

        return self.dtype or usual_dtype(self.resolved_device)

    @property
    def resolved_batch_size(self) -> int:
        from attnpo.evaluation.samples import DEFAULT_BATCH_SIZE

        return self.batch_size or DEFAULT_BATCH_SIZE[self.engine]

    def samples_of(self, benchmark: str) -> int:
        """Responses per problem."""
        from attnpo.evaluation.benchmarks import get_benchmark

        return 1 if self.temperature == 0 else self.samples or get_benchmark(benchmark).samples

    def resolved(self, questions: Mapping[str, Sequence[Question]]) -> dict[str, Any]:
        """Every option that a result may depend on, with its value in this run: the content of eval.yaml."""
        from attnpo.evaluation.samples import fingerprint
        from attnpo.models import model_name

        path = Path(self.model).expanduser()
        model = model_name(str(path.resolve()) if path.exists() else self.model)
        given = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in _NOT_RECORDED}
        return given | {
            "name": self.name or _short_name(model),
            "model": model,
            "benchmarks": {
                name: {"samples": self.samples_of(name), "problems": len(asked), "questions": fingerprint(asked)}
                for name, asked in questions.items()
            },
            "data_dir": None if self.data_dir is None else str(self.data_dir.resolve()),
            "base": None if self.base is None else str(self.base.resolve()),
            "budgets": None if self.budgets is None else list(self.budgets),
            "chat_template_kwargs": dict(self.chat_template_kwargs),
            "batch_size": self.resolved_batch_size,
            "device": self.resolved_device,
            "dtype": self.resolved_dtype,
        }


# `samples` is recorded for each benchmark; the others change nothing in the results.
_NOT_RECORDED = ("samples", "output", "write", "overwrite", "answer_judge_key_env")


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter if torch was built without it
        raise InputError(f"--device {device}: cannot be used: {str(error).splitlines()[0]}") from error


def check_same(found: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> None:
    """Check that a run started with `found` can be continued with `asked` (both from `EvalOptions.resolved`).

    Benchmarks may be added, as the samples of one do not depend on the others.

    Raises:
        InputError: options differ that change results; names each as typed, with the folder's value and the new one.
    """
    differing = [
        _difference(name, value, asked[name])
        for name, value in found.items()
        if name in asked and name not in (*FREE, "benchmarks") and asked[name] != value
    ]
    for benchmark, started in found["benchmarks"].items():
        if benchmark not in asked["benchmarks"]:
            differing.append(f"--benchmarks has {benchmark} in the folder, and now lacks it")
            continue
        wanted = asked["benchmarks"][benchmark]
        # A greedy run has one sample, and a limit selects the questions: their consequences are not listed again.
        if started["samples"] != wanted["samples"] and 0 not in (found.get("temperature"), asked["temperature"]):
            differing.append(_difference("samples", started["samples"], wanted["samples"]) + f" (of {benchmark})")
        if started["questions"] != wanted["questions"] and found.get("limit") == asked["limit"]:
            differing.append(f"the questions of {benchmark} have changed since")
    if differing:
        raise InputError(
            f"{folder}: started with other options: {'; '.join(differing)}. It cannot be extended: batches, and so the "
            "last digits of all numbers, would differ from those of one run. Use the folder's options to continue, "
            "another folder, or --overwrite to start anew"
        )


def _difference(name: str, before: Any, now: Any) -> str:
    """`--limit is 12 in the folder, now 20`."""
    return f"--{name.replace('_', '-')} is {_typed(before)} in the folder, now {_typed(now)}"


def _typed(value: Any) -> str:
    return "not given" if value is None else json.dumps(value) if isinstance(value, dict | bool) else str(value)


def _short_name(model: str) -> str:
    """The last part of a path or Hub name; of a checkpoint, its run too."""
    path = Path(model)
    return f"{path.parent.name}-{path.name}" if path.name.startswith("checkpoint-") else path.name.removesuffix(".gguf")


def sampling_notice(options: Mapping[str, Mapping[str, Any]], benchmarks: Sequence[str]) -> str | None:
    """One sentence on the options in which evaluations differ; None if they were sampled alike.

    Differences between their results may then be due to the options and not to the models.

    Args:
        options: eval.yaml by name of the evaluation. An option that one does not record is not compared for it.
        benchmarks: those whose samples per problem are compared.

    >>> sampling_notice({"cool": {"temperature": 0.6}, "hot": {"temperature": 1.0}, "older": {}}, [])
    'sampled with different options: temperature 0.6 (cool), 1.0 (hot).'
    """
    differing = [f"{option} {found}" for option in ALIKE if (found := _differing(options, option))]
    samples: dict[str, list[str]] = {}
    for benchmark in benchmarks:
        if found := _differing({name: _recorded(values, benchmark) for name, values in options.items()}, "samples"):
            samples.setdefault(found, []).append(benchmark)
    differing += [f"samples per problem of {', '.join(names)} {found}" for found, names in samples.items()]
    return f"sampled with different options: {'; '.join(differing)}." if differing else None


def sampling_notices(options: Mapping[str, Mapping[str, Any]], having: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for every group of evaluations that are compared; it names its benchmarks if there are several groups.

    `having`: the evaluations of each benchmark.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for benchmark, names in having.items():
        groups.setdefault(tuple(names), []).append(benchmark)
    found = []
    for names, benchmarks in groups.items():
        if notice := sampling_notice({name: options[name] for name in names}, benchmarks):
            found.append(notice if len(groups) == 1 else f"{', '.join(benchmarks)}: {notice}")
    return found


def _differing(options: Mapping[str, Mapping[str, Any]], option: str) -> str:
    """Every value with the names of the evaluations that have it; empty if there is only one value."""
    names: dict[str | float, list[str]] = {}
    for name, values in options.items():
        if option in values:
            names.setdefault(_plain(values[option]), []).append(name)
    return ", ".join(f"{value} ({', '.join(having)})" for value, having in names.items()) if len(names) > 1 else ""


def _plain(value: Any) -> str | float:
    """A number unchanged, so that 1 and 1.0 are the same; anything else as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value, default=str)


def _recorded(options: Mapping[str, Any], benchmark: str) -> Mapping[str, Any]:
    """The entry of one benchmark in eval.yaml; empty if only names are recorded."""
    recorded = options.get("benchmarks")
    found = recorded.get(benchmark) if isinstance(recorded, Mapping) else None
    return found if isinstance(found, Mapping) else {}
