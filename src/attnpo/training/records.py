"""The run folder: its lock, one record per response, one line of metrics per step.

One process writes into a run folder at a time. The lock is the operating system's and ends with the process that holds
it, however that ends; the locked file names the process. The report only reads these files. Formats: docs/flow.md.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import math
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attnpo.attention.heads import HEADS
from attnpo.credentials import hide
from attnpo.data.jsonl import drop_unfinished_line, json_line, read_jsonl, write_whole
from attnpo.data.targets import TARGET_COLUMN
from attnpo.errors import InputError
from attnpo.steps.spans import LocatedSteps

Record = dict[str, Any]

WARNINGS = "warnings.jsonl"  # warnings about the run, one per line: step, message, perhaps more
HISTORY = "config-history.jsonl"  # the configuration until a step, one line per resumption that changed it
# Prefix of checkpoints that a run resumed from an earlier one will not use; push_to_hub uploads no name with _.
REPLACED = "_replaced-"
HEADS_TRACES = "heads-traces.jsonl.gz"  # next to heads.json: the responses on which a run has found its heads


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
    """Create the record of one response; rewards and scores are added when known."""
    parts = located.parts
    answer_tokens = 0 if located.answer is None else located.answer[1] - located.answer[0]
    return {
        "step": step,
        "split": split,
        "group": group,
        "index": index,
        "id": row.get("id"),
        "prompt": prompt_text(row.get("prompt", "")),  # absent where an environment provides it
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
    """Return a prompt as text; the messages of a conversation are joined by line breaks."""
    return prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)


def add_rewards(
    record: Record, rewards: Mapping[str, float], *, total: float, correct: bool, verdict: str | None
) -> None:
    """Add the rewards of a response to its record; a missing reward is left out, a missing total is null."""
    record.update(
        rewards={name: value for name, value in rewards.items() if not math.isnan(value)},
        reward=None if math.isnan(total) else total,
        correct=correct,
        verdict=verdict,
        advantage=0.0,
    )


def add_credit(record: Record, numbers: Mapping[str, Any]) -> None:
    """Add the credit of a response to its record: mean token advantage, scores, scales, baseline.

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
    """Return the effect of credit on a recorded step: attenuated, protected or untouched."""
    if step["scale"] is None or step["scale"] == 1 or advantage == 0:
        return "untouched"
    return "attenuated" if advantage > 0 else "protected"


class RunFolder:
    """Writes metrics.jsonl, evaluations.jsonl and rollouts/ of one run.

    Every line is flushed when written, so a killed run loses at most the line being written.
    """

    def __init__(self, path: str | os.PathLike[str], *, rollouts: bool = True):
        self.path = Path(path)
        self.keeps_rollouts = rollouts
        self.listeners: list[Callable[[str, Sequence[Record]], None]] = []  # called with all records, written or not

    def check_free(self, go_on: str = "--resume_from_checkpoint true") -> None:
        """Raise InputError if the folder already contains a run; `go_on`: the command's option to resume it."""
        old = self._old_run()
        if old:
            raise InputError(
                f"option output_dir: {self.path} already contains a run ({old[0].name}). Resume it with "
                f"{go_on}, choose another folder, or replace it with --overwrite_run true"
            )

    def check_writable(self) -> None:
        """Create the folder; InputError if it cannot be created or written to. Checked before a model is loaded."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(f"option output_dir: {self.path} cannot be written to: {error.strerror}") from None

    def clear(self, keep: Path | None = None) -> None:
        """Remove the run in the folder; other files and `keep` stay.

        Heads are removed together with a run or with the responses they were found on; heads.json alone stays, because
        the user may have put it there.
        """
        old = self._old_run()
        (self.path / WARNINGS).unlink(missing_ok=True)
        heads, traces = self.path / HEADS, self.path / HEADS_TRACES
        if old or traces.exists():
            old += [path for path in (heads, traces) if path.is_file()]
        if old:  # other files of a run: the trained model and earlier configurations
            old += [path for path in (self.path / HISTORY, *self.path.glob("*.safetensors*")) if path.is_file()]
            old += self.path.glob(f"{REPLACED}checkpoint-*")
        for path in old:
            if keep is None or not path.samefile(keep):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def keep_heads(self, file: Path, *, traces: bool) -> None:
        """Copy the head file into this folder, with `traces` also the responses it was found on, unless it is here."""
        if file.resolve() != (self.path / HEADS).resolve():
            write_whole(self.path / HEADS, file.read_bytes())
            if traces:
                write_whole(self.path / HEADS_TRACES, file.with_name(HEADS_TRACES).read_bytes())

    @property
    def heads_of_a_start(self) -> Path | None:
        """Head file of a run that found its heads and ended before it wrote anything else; None: there is none."""
        heads = self.path / HEADS
        return heads if heads.is_file() and (self.path / HEADS_TRACES).is_file() and not self._old_run() else None

    def _old_run(self) -> list[Path]:
        names = ("metrics.jsonl", "evaluations.jsonl", "rollouts")
        return [p for name in names if (p := self.path / name).exists()] + sorted(self.path.glob("checkpoint-*"))

    def write_rollouts(self, name: str, records: Sequence[Record]) -> None:
        """Write rollouts/{name}.jsonl.gz, complete or not at all."""
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
        """Remove the records of a run that has no checkpoint to resume from; heads that it found stay."""
        for name in ("metrics.jsonl", "evaluations.jsonl", WARNINGS):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / "rollouts", ignore_errors=True)

    def forget_after(self, step: int) -> None:
        """Remove everything written after `step`, because a run resumed there writes those steps again."""
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
    """Hold the folder's lock inside the block.

    Raises:
        InputError: another process holds it; names the process, its machine and since when.
    """
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"option output_dir: a run is already writing into {folder}: {_holder(file.read())}. Wait for it, "
                "or choose another folder"
            ) from None
        except OSError:
            yield  # a file system without locks: run without one
            return
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        command = hide(shlex.join(sys.argv))
        holder = {"process": os.getpid(), "machine": platform.node(), "since": since, "command": command}
        file.write(json.dumps(holder) + "\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _holder(text: str) -> str:
    """Return the holder of a lock from the content of its file."""
    try:
        holder = json.loads(text)
        return f"process {holder['process']} on {holder['machine']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # being written this very moment
        return "another process"
