"""The record of a run of `law.py`: one small file, from which all tables and figures are made.

    {"command": …, "seconds": …, "versions": …,
     "updates": [{"tokens": […], "right": […], "redundant": […], "essential": […], "finished": […], "p": […],
                  "effects": {"redundant": {"attenuated": n, "protected": n, "all": n}, "essential": {…}},
                  "scale": mean γ of the redundant steps of rescaled responses with A > 0}, …],
     "held_out": {"0": {"tokens": […], "right": […], "redundant": […], "essential": […]}, "64": …}}

Lists have one entry per response, in the order of the batch (held out: of the problems). Steps are essential or
redundant by the rule of gold_labels.py, which needs no label: a step is essential if it is the last one to write the
equation of some event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gold_labels import written_labels

from attnpo.data.jsonl import read_jsonl, write_whole

RECORDS = Path(__file__).resolve().parent / "law_records"


def record_file(folder: Path, cell: str, arm: str, seed: int) -> Path:
    return folder / cell / f"{arm}-{seed}.json"


def read_records(folder: Path, cell: str, arm: str) -> dict[int, dict[str, Any]]:
    """Return the records of an arm by seed; empty if there are none."""
    found = {}
    for file in (folder / cell).glob(f"{arm}-*.json"):
        if (seed := file.stem[len(arm) + 1 :]).isdigit():
            found[int(seed)] = json.loads(file.read_text(encoding="utf-8"))
    return dict(sorted(found.items()))


def write_record(target: Path, run: Path, seconds: float) -> None:
    """Write the record of the finished run in a folder."""
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    record = {
        "command": re.sub(r"/\S*/", "", environment["command"]),  # paths carry no information
        "seconds": round(seconds),
        "versions": {name: environment["versions"].get(name) for name in ("torch", "transformers", "trl")},
        "updates": [read_update(list(read_jsonl(file))) for file in sorted((run / "rollouts").glob("train-*"))],
        "held_out": {
            str(int(file.name[5:11])): read_responses(sorted(read_jsonl(file), key=lambda row: row["id"]))
            for file in sorted((run / "rollouts").glob("eval-*"))
        },
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, (json.dumps(record, separators=(",", ":")) + "\n").encode())


def read_responses(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return length, verdict and kinds of steps of every response."""
    labels = [labels_of(row) for row in rows]
    return {
        "tokens": [row["tokens"]["completion"] for row in rows],
        "right": [int(row["correct"]) for row in rows],
        "redundant": [sum(not essential for essential in found) for found in labels],
        "essential": [sum(found) for found in labels],
        "finished": [int(not row["truncated"]) for row in rows],
    }


def read_update(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the responses of an update, and the effects of credit on their steps."""
    kinds = {kind: {"attenuated": 0, "protected": 0, "all": 0} for kind in ("essential", "redundant")}
    scales = []
    for row in rows:
        # Credit changes right responses only; shares are of all of their steps.
        if not row["correct"] or row["advantage"] == 0:
            continue
        for step, essential in zip(row["steps"], labels_of(row), strict=True):
            counts = kinds["essential" if essential else "redundant"]
            counts["all"] += 1
            scale = step["scale"]
            if scale is not None and scale != 1:
                counts["attenuated" if row["advantage"] > 0 else "protected"] += 1
            if scale is not None and row["advantage"] > 0 and not essential:
                scales.append(scale)
    return {
        **read_responses(rows),
        "p": [round(row["group_accuracy"], 3) for row in rows],
        "effects": kinds,
        "scale": round(sum(scales) / len(scales), 4) if scales else None,
    }


def labels_of(row: dict[str, Any]) -> list[bool]:
    """Whether each step of a recorded response is essential."""
    thinking = row["text"][row["thinking_start"] : row["thinking_end"]]
    return written_labels([thinking[step["start"] : step["end"]] for step in row["steps"]])
