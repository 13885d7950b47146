"""A training run's own evaluations, read as if `attnpo eval` had made them: its first and its last one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attnpo.data.jsonl import check_field, read_numbered_jsonl, row_name, type_name
from attnpo.errors import InputError
from attnpo.evaluation.folder import Evaluation, read_options, read_verdict, sample_from_json
from attnpo.evaluation.records import Sample
from attnpo.rewards.verdict import Verdict

_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_completion_length"}
"""Options of an evaluation, and what a training run calls them."""
_EVALUATION = re.compile(r"eval-(\d+)\.jsonl\.gz")


def is_training_run(path: Path) -> bool:
    return (path / "rollouts").is_dir()


def read_training_run(path: Path, name: str | None = None) -> list[Evaluation]:
    """The first and the last held-out evaluation of a run folder, named NAME@STEP; one where there is but one.

    The benchmark is called after the held-out problems of its configuration.

    Raises:
        InputError: the run has no evaluation, or a row is not a recorded response (names file, row and field).
    """
    found = (path / "rollouts").iterdir()
    files = {int(match[1]): file for file in found if (match := _EVALUATION.fullmatch(file.name))}
    if not files:
        raise InputError(f"{path}: a training run without rollouts/eval-*.jsonl.gz; nothing was evaluated in it")
    options = read_options(path / "config.yaml")
    problems = options.get("eval_dataset_name") or options.get("dataset_name") or "held-out"
    benchmark = Path(str(problems)).name.split(".")[0]
    sampling = {ours: options[theirs] for ours, theirs in _SAMPLING.items() if options.get(theirs) is not None}
    name = name or str(options.get("run_name") or path.resolve().name)
    return [
        Evaluation(
            name=f"{name}@{step}",
            model=f"{options.get('model_name_or_path', 'model not recorded')}, trained for {step} steps",
            path=path,
            samples={benchmark: _read(files[step], benchmark, options.get("seed", 0))},
            step=step,
            options=sampling,
        )
        for step in sorted({min(files), max(files)})
    ]


def _read(file: Path, benchmark: str, seed: int) -> list[Sample]:
    rows = read_numbered_jsonl(file, ("text",))
    return [_sample(row, row_name(file, number), benchmark, seed) for number, row in rows]


def _sample(row: dict[str, Any], where: str, benchmark: str, seed: int) -> Sample:
    """A recorded response as a sample. A problem without an id is known by its text."""
    problem = row.get("id") if row.get("id") is not None else row.get("prompt")
    counts = row.get("tokens")
    if not isinstance(counts, dict):
        raise InputError(f"{where}: field 'tokens' is {type_name(counts)}, expected an object of counts")
    for name in ("prompt", "completion", "thinking", "answer"):
        check_field(counts, name, f"{where}, tokens")
    fields = {
        "benchmark": benchmark,
        "id": str(problem),
        "sample": row.get("index"),
        "seed": seed,  # of the whole evaluation: a run records none per response
        "text": row["text"],
        "prompt_tokens": counts["prompt"],
        "tokens": counts["completion"],
        "thinking_tokens": counts["thinking"],
        "answer_tokens": counts["answer"],
        "truncated": row.get("truncated"),
        "extracted": None,
        "verdict": _verdict(row, where),
        "reference": row.get("reference"),
        "level": None,
    }
    return sample_from_json(fields, where)


def _verdict(row: dict[str, Any], where: str) -> Verdict | None:
    """As recorded; a run with reward functions of its own has no verdicts, but knows what was correct."""
    if row.get("verdict") is not None:
        return read_verdict(row["verdict"], where)
    correct = row.get("correct")
    return None if correct is None else Verdict.RIGHT if correct else Verdict.WRONG
