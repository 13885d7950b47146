"""Causal labels from the shipped model, compared with the gold labels of the task."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
import torch

from attnpo.heads.table import mean_step_ranking_accuracy, step_ranking_accuracy
from attnpo.labels.causal import label_file, without_endings
from attnpo.labels.hiding import step_drops
from attnpo.models import resolve_model
from attnpo.models.loading import load_model
from attnpo.task.dataset import build_dataset
from attnpo.traces.labelled import has_both_kinds
from attnpo.traces.prepared import prepare_trace, score_traces


def label(tmp_path, count: int, seed: int):
    rows = build_dataset(count, seed=seed, split="test")
    bare = [
        {**row, "steps": [{key: step[key] for key in ("start", "end", "role")} for step in row["steps"]]}
        for row in rows
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in bare))
    assert label_file(source, target, batch_size=16) == {"labelled": count}
    return rows, [json.loads(line) for line in target.read_text().splitlines()]


def test_drops_find_the_computations_that_the_answer_needs(tmp_path):
    rows, labelled = label(tmp_path, 10, seed=31)
    accuracies, drops = [], defaultdict(list)
    for row, result in zip(rows, labelled, strict=True):
        gold = torch.tensor([step["essential"] for step in row["steps"]])
        found = torch.tensor([step["drop"] for step in result["steps"]])
        accuracies.append(float(step_ranking_accuracy(found[None], gold)[0]))
        for step in result["steps"]:
            drops[step["role"]].append(step["drop"])
    assert sum(accuracies) / len(accuracies) >= 0.93
    assert torch.tensor(drops["computation"]).median() > 0.3
    for role in ("check", "remark", "recap", "plan", "restatement"):
        assert torch.tensor(drops[role]).median().abs() < 0.01, role


def test_hiding_the_last_line_break_lowers_the_answer_likelihood_for_any_step():
    """Why endings stay in sight: idle remarks at the end would pass for the most essential steps of all."""
    network, tokenizer = load_model(resolve_model())
    rows = [row for row in build_dataset(40, seed=32, split="test") if row["steps"][-1]["role"] == "remark"][:5]
    assert len(rows) == 5
    whole = [prepare_trace(row, tokenizer) for row in rows]
    with_break = torch.stack([drop[-1] for drop in step_drops(network, whole, 16) if drop is not None])
    cut = [without_endings(trace, tokenizer) for trace in whole]
    without_break = torch.stack([drop[-1] for drop in step_drops(network, cut, 16) if drop is not None])
    assert with_break.median() > 3
    assert without_break.abs().max() < 0.1


@pytest.mark.slow
def test_heads_rank_alike_under_causal_and_under_gold_labels(tmp_path):
    rows, labelled = label(tmp_path, 40, seed=33)
    network, tokenizer = load_model(resolve_model())
    heads = [(layer, head) for layer in range(4) for head in range(10)]
    scores = dict(score_traces(network, [prepare_trace(row, tokenizer) for row in rows], heads, 16))
    tables = []
    for source in (rows, labelled):
        labels = [torch.tensor([step["essential"] for step in row["steps"]]) for row in source]
        assert sum(map(has_both_kinds, labels)) >= 36
        tables.append(mean_step_ranking_accuracy((scores[i], labels[i]) for i in range(len(rows))).accuracy)
    gold, causal = tables
    assert float(torch.corrcoef(torch.stack([t.argsort().argsort().double() for t in tables]))[0, 1]) > 0.9
    assert set(causal.topk(3).indices.tolist()) <= set(gold.topk(8).indices.tolist())
