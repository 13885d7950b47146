"""The data of `real_labels.py`: traces with labels, and the scores of every head on them, cached on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnpo.attention.model import all_heads
from attnpo.models.loading import CHAT_TEMPLATE, load_model, load_smollm2
from attnpo.steps.response import CLOSE_TAG, OPEN_TAG, split_response, thinking_of
from attnpo.traces.prepared import PreparedTrace, prepare_trace, score_traces

Head = tuple[int, int]
DATA = Path(os.environ.get("ATTNPO_DATA", Path(__file__).resolve().parents[2] / "shared")) / "data" / "labels"

IMPORTANCE = (
    "counterfactual_importance_kl",
    "counterfactual_importance_accuracy",
    "resampling_importance_kl",
    "resampling_importance_accuracy",
    "forced_importance_kl",
    "forced_importance_accuracy",
)


@dataclass(frozen=True)
class Labelled:
    """A trace with steps, one list of labels per name, its problem, and other metadata."""

    row: dict[str, Any]
    labels: dict[str, list[float]]
    group: str
    about: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scored:
    """Model results on a labelled trace: S of every head and step, and the steps' lengths in tokens."""

    scores: Tensor  # [H, S]
    lengths: Tensor  # [S]
    labels: dict[str, Tensor]  # [S] each
    group: str
    about: dict[str, str] = field(default_factory=dict)


def locate_chunks(thinking: str, chunks: Sequence[str]) -> list[tuple[int, int]] | None:
    """Return the character span of each chunk in the thinking text, in order; None if one is not found.

    White space may differ. A space before a chunk is part of it, because it is part of its first token; line breaks
    between chunks are part of none.
    """
    spans, last = [], 0
    for chunk in chunks:
        words = chunk.split()
        found = re.compile(r"\s*".join(map(re.escape, words))).search(thinking, last) if words else None
        if found is None:
            return None
        start = found.start() - (found.start() > last and thinking[found.start() - 1] == " ")
        spans.append((start, found.end()))
        last = found.end()
    return spans


def read_anchors(left_out: Counter[str]) -> list[Labelled]:
    """Read the traces with an importance of every sentence. Changes in accuracy are absolute values: a sentence that
    makes the answer worse is important too (divergences are not negative)."""
    found = []
    for row in label_rows("thought_anchors.jsonl"):
        response = OPEN_TAG + "\n" + row["response"]
        if not split_response(response).has_close:
            left_out["no final answer"] += 1
            continue
        spans = locate_chunks(thinking_of(response), [chunk["chunk"] for chunk in row["chunks"]])
        if spans is None:
            left_out["a sentence is not in the text"] += 1
            continue
        labels = {name: [abs(float(chunk[name])) for chunk in row["chunks"]] for name in IMPORTANCE}
        found.append(Labelled(_trace(row["problem"], response, spans), labels, row["problem"]))
    return found


def read_prmbench(kind: str, limit: int, left_out: Counter[str]) -> list[Labelled]:
    """Read solutions with injected steps of this kind (label 1), at most `limit`, evenly spaced over the file."""
    rows = [row for row in label_rows("prmbench_redundancy.jsonl") if row["classification"] == kind]
    found = []
    for row in evenly_spaced(rows, limit):
        steps, wrong = [step.strip() for step in row["modified_process"]], set(row["error_steps"])
        if not wrong or not 1 <= min(wrong) <= max(wrong) <= len(steps):
            left_out["an injected step that does not exist"] += 1
        elif len(steps) in wrong:
            left_out["the last step is injected"] += 1
        elif len(wrong) == len(steps) - 1:
            left_out["every step is injected"] += 1
        elif not all(steps):
            left_out["an empty step"] += 1
        else:
            response = f"{OPEN_TAG}\n" + "\n\n".join(steps[:-1]) + f"\n{CLOSE_TAG}\n\n{steps[-1]}"
            spans = locate_chunks(thinking_of(response), steps[:-1])
            assert spans is not None
            labels = {kind: [float(number in wrong) for number in range(1, len(steps))]}
            trace = _trace(row["modified_question"], response, spans)
            found.append(Labelled(trace, labels, row["original_question"]))
    return found


def label_rows(name: str) -> list[dict[str, Any]]:
    """Read the rows of a file of labels; if it is missing, exit with a message about its source."""
    if not (DATA / name).is_file():
        sys.exit(
            f"{DATA / name}: no such file. Set ATTNPO_DATA to the folder that holds data/labels/{name}: the rows of "
            "interp-reasoning/thought-anchors.com (MIT), ssmisya/PRMBench (Apache-2.0) or jinulee-v/reasoningflow (see "
            "its data card), one JSON object per line"
        )
    with open(DATA / name, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def evenly_spaced(rows: Sequence[Any], limit: int) -> list[Any]:
    """Return at most `limit` of the rows, at equal distances."""
    return [rows[i * len(rows) // limit] for i in range(limit)] if len(rows) > limit else list(rows)


def load(folder: str | None) -> tuple[Any, Any]:
    """Load model and tokenizer: SmolLM2-135M-Instruct, or those of a folder."""
    network, tokenizer = load_smollm2() if folder is None else load_model(folder)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHAT_TEMPLATE
    return network.eval(), tokenizer


def score_labelled(
    network: Any,
    tokenizer: Any,
    rows: Sequence[Labelled],
    cache: Path,
    batch_size: int,
    left_out: Counter[str],
    max_length: int | None = None,
) -> list[Scored]:
    """Return the scores of every head on the rows that can be scored, in their order; cached ones are reused.

    max_length: tokens of prompt and response; None: the model's maximum."""
    longest = min(max_length or network.config.max_position_embeddings, network.config.max_position_embeddings)
    traces = [prepare_trace(x.row, tokenizer, max_length=longest) for x in rows]
    left_out.update(trace.skipped for trace in traces if trace.skipped is not None)
    cache.mkdir(parents=True, exist_ok=True)
    weights = _fingerprint(network)
    files = [cache / f"{_digest(weights, trace)}.pt" for trace in traces]
    todo = [i for i, trace in enumerate(traces) if trace.skipped is None and not files[i].exists()]
    todo.sort(key=lambda i: len(traces[i].ids))  # so that an interrupted run has scored most of the traces
    started, done = time.perf_counter(), 0
    for first in range(0, len(todo), batch_size):
        batch = todo[first : first + batch_size]
        for place, scores in score_traces(network, [traces[i] for i in batch], all_heads(network), batch_size):
            unfinished = files[batch[place]].with_suffix(".unfinished")
            torch.save(scores.clone(), unfinished)
            unfinished.replace(files[batch[place]])
        done += len(batch)
        if done // 10 > (done - len(batch)) // 10 or done == len(todo):
            print(f"{done}/{len(todo)} scored, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return [
        Scored(
            torch.load(file),
            torch.tensor([end - start for start, end in trace.spans]),
            {name: torch.tensor(values, dtype=torch.float64) for name, values in row.labels.items()},
            row.group,
            row.about,
        )
        for row, trace, file in zip(rows, traces, files, strict=True)
        if trace.skipped is None
    ]


def _trace(problem: str, response: str, spans: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {"problem": problem, "response": response, "steps": [{"start": a, "end": b} for a, b in spans]}


def _fingerprint(network: Any) -> str:
    """Identify the weights, since the contents of a folder may change."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in network.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _digest(weights: str, trace: PreparedTrace) -> str:
    return hashlib.blake2b(repr((weights, trace.ids, trace.spans, trace.answer)).encode(), digest_size=16).hexdigest()
