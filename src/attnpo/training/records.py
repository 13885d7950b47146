"""The run folder: who writes into it, and what is written down about a run: one record per response, one line of
metrics per step.

One process writes into a run folder at a time. The lock is the operating system's and goes with the process that holds
it, however it ends; the file it is on says who. The report only reads these files. Formats: docs/flow.md.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import math
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attnpo.attention.heads import HEADS
from attnpo.data.jsonl import drop_unfinished_line, json_line, read_jsonl, write_whole
from attnpo.data.targets import TARGET_COLUMN
from attnpo.errors import InputError
from attnpo.steps.spans import LocatedSteps

Record = dict[str, Any]

WARNINGS = "warnings.jsonl"  # what a user should know about the run, one line each: step, message, perhaps more
HISTORY = "config-history.jsonl"  # what the configuration was until a step, one line per resumption that changed it
HEADS_TRACES = "heads-traces.jsonl.gz"  # beside heads.json: the responses on which a run has found its heads


def response_record(
    located: LocatedSteps,
    *,
    split: str,
    step: int,
    group: int,
    index: int,
    prompt_tokens: int,
    completion_tokens: int,
    truncated: bool,
    row: Mapping[str, Any],
) -> Record:
    """The record of one response before rewards and scores are known; those are added as they come."""
    parts = located.parts
    answer_tokens = 0 if located.answer is None else located.answer[1] - located.answer[0]
    return {
        "step": step,
        "split": split,
        "group": group,
        "index": index,
        "id": row.get("id"),
        "prompt": prompt_text(row.get("prompt", "")),  # absent where an environment owns it
        "text": located.text,
        "reference": row.get("reference"),
        **({TARGET_COLUMN: row[TARGET_COLUMN]} if TARGET_COLUMN in row else {}),
        "truncated": truncated,
        "answered": located.answer is not None and located.has_answer_text,
        "tokens": {
            "prompt": prompt_tokens,
            "completion": completion_tokens,
            "thinking": sum(end - start for start, end in located.spans),
            "answer": answer_tokens,
        },
        "thinking_start": parts.thinking_start,
        "thinking_end": parts.thinking_end,
        "answer_start": parts.answer_start,
        "answer_end": parts.answer_end,
        "baseline": None,
        "steps": [
            {
                "start": piece.start,
                "end": piece.end,
                "kind": piece.kind,
                "tokens": end - start,
                "score": None,
                "scale": None,
            }
            for piece, (start, end) in zip(located.steps, located.spans, strict=True)
        ],
    }


def prompt_text(prompt: Any) -> str:
    """A prompt as text: as it is, or the messages of a conversation one after the other."""
    return prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)


def add_rewards(
    record: Record, rewards: Mapping[str, float], *, total: float, correct: bool, verdict: str | None
) -> None:
    """Put into a record what its response was worth; a missing reward is left out, a missing total null."""
    record.update(
        rewards={name: value for name, value in rewards.items() if not math.isnan(value)},
        reward=None if math.isnan(total) else total,
        correct=correct,
        verdict=verdict,
        advantage=0.0,
    )


def add_credit(record: Record, numbers: Mapping[str, Any]) -> None:
    """Put into a record what the credit method found: the mean token advantage, scores, scales, the baseline.

    Responses of fewer than two steps or without an answer are not scored; their scores stay null.
    """
    if "mean" in numbers:
        record["mean_token_advantage"] = numbers["mean"]
    scored = len(record["steps"]) >= 2 and record["answered"]
    for k, step in enumerate(record["steps"]):
        if scored and "scores" in numbers:
            step["score"] = numbers["scores"][k]
        if "scales" in numbers:
            step["scale"] = numbers["scales"][k]
        if "step_advantages" in numbers:
            step["advantage"] = numbers["step_advantages"][k]
    baseline = numbers.get("baseline")
    if baseline is not None and not math.isnan(baseline):
        record["baseline"] = baseline


def step_effect(step: Mapping[str, Any], advantage: float) -> str:
    """What credit did to one recorded step: attenuated, protected or untouched."""
    if step["scale"] is None or step["scale"] == 1 or advantage == 0:
        return "untouched"
    return "attenuated" if advantage > 0 else "protected"


class RunFolder:
    """Writes metrics.jsonl, evaluations.jsonl and rollouts/ of one run.

    Every line is flushed as it is written, so a killed run loses at most the line being written.
    """

    def __init__(self, path: str | os.PathLike[str], *, rollouts: bool = True):
        self.path = Path(path)
        self.keeps_rollouts = rollouts
        self.listeners: list[Callable[[str, Sequence[Record]], None]] = []  # told of all records, written or not

    def check_free(self, go_on: str = "--resume_from_checkpoint true") -> None:
        """Raises InputError if the folder holds a run already; `go_on`: the command's option to continue it."""
        old = self._old_run()
        if old:
            raise InputError(
                f"option output_dir: {self.path} already holds a run ({old[0].name}). Continue it with "
                f"{go_on}, choose another folder, or replace it with --overwrite_run true"
            )

    def check_writable(self) -> None:
        """Make the folder; InputError if it cannot be made or written to. To be told before a model is loaded."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(f"option output_dir: {self.path} cannot be written to: {error.strerror}") from None

    def clear(self, keep: Path | None = None) -> None:
        """Remove the run the folder holds; other files stay, and so does `keep`.

        Heads go with their run, or with the responses they were found on: heads.json alone may be anyone's.
        """
        old = self._old_run()
        (self.path / WARNINGS).unlink(missing_ok=True)
        heads, traces = self.path / HEADS, self.path / HEADS_TRACES
        if old or traces.exists():
            old += [path for path in (heads, traces) if path.is_file()]
        if old:  # what a run leaves beside its records: the trained model, what it was told and began with
            old += [path for path in (self.path / HISTORY, *self.path.glob("*.safetensors*")) if path.is_file()]
        for path in old:
            if keep is None or not path.samefile(keep):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def keep_heads(self, file: Path, *, traces: bool) -> None:
        """The head file of this run, and with `traces` what it was found on; nothing to do where it lies here."""
        if file.resolve() != (self.path / HEADS).resolve():
            write_whole(self.path / HEADS, file.read_bytes())
            if traces:
                write_whole(self.path / HEADS_TRACES, file.with_name(HEADS_TRACES).read_bytes())

    @property
    def heads_of_a_start(self) -> Path | None:
        """The head file of a run that found its heads and ended before it wrote anything else; None: there is none."""
        heads = self.path / HEADS
        return heads if heads.is_file() and (self.path / HEADS_TRACES).is_file() and not self._old_run() else None

    def _old_run(self) -> list[Path]:
        names = ("metrics.jsonl", "evaluations.jsonl", "rollouts")
        return [p for name in names if (p := self.path / name).exists()] + sorted(self.path.glob("checkpoint-*"))

    def write_rollouts(self, name: str, records: Sequence[Record]) -> None:
        """rollouts/{name}.jsonl.gz, put in place whole."""
        for listener in self.listeners:
            listener(name, records)
        if not self.keeps_rollouts:
            return
        folder = self.path / "rollouts"
        folder.mkdir(parents=True, exist_ok=True)
        lines = b"".join(map(json_line, records))
        write_whole(folder / f"{name}.jsonl.gz", gzip.compress(lines, compresslevel=4, mtime=0))

    def append(self, name: str, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl, evaluations.jsonl or warnings.jsonl."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / name, "ab") as file:
            file.write(json_line(values))

    def forget_start(self) -> None:
        """Drop the records of a run that has no checkpoint to go on from; heads that it found stay."""
        for name in ("metrics.jsonl", "evaluations.jsonl", WARNINGS):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / "rollouts", ignore_errors=True)

    def forget_after(self, step: int) -> None:
        """Drop what was written after `step`: a run resumed there writes those steps again, once."""
        for name in ("metrics.jsonl", "evaluations.jsonl", WARNINGS):
            file = self.path / name
            if file.exists():
                rows = read_jsonl(file, ("step",)) if drop_unfinished_line(file) else []
                write_whole(file, b"".join(json_line(row) for row in rows if row["step"] <= step))
        for file in (self.path / "rollouts").glob("*-*.jsonl.gz"):
            if int(file.name.split("-")[1].split(".")[0]) > step:
                file.unlink()


LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        InputError: another process holds it; says which, on which machine, since when.
    """
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"option output_dir: a run is writing into {folder} already: {_holder(file.read())}. Wait for it, "
                "or take another folder"
            ) from None
        except OSError:
            yield  # a file system without locks: better a run than none
            return
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = {"process": os.getpid(), "machine": platform.node(), "since": since, "command": sys.argv}
        file.write(json.dumps(holder) + "\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _holder(text: str) -> str:
    """Who holds a lock, out of what its file says."""
    try:
        holder = json.loads(text)
        return f"process {holder['process']} on {holder['machine']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # being written this very moment
        return "another process"
