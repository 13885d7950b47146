"""Layouts and head files by hand."""

from __future__ import annotations

import json

import torch

from attnpo.attention.heads import load_heads, save_heads
from attnpo.attention.layout import StepLayout


def test_golden_layout():
    mask = torch.tensor([[0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    layout = StepLayout.from_spans([[(2, 4), (4, 4), (4, 5)], [(0, 2)], []], [(5, 7), (3, 5), None], mask)
    assert layout.step_ids.tolist() == [[3, 3, 0, 0, 2, 3, 3], [0, 0, 3, 3, 3, 3, 3], [3] * 7]
    assert layout.answers.tolist() == [[5, 7], [3, 5], [0, 0]]
    assert layout.step_lengths.tolist() == [[2, 0, 1], [2, 0, 0], [0, 0, 0]]
    assert (layout.longest_answer, layout.most_steps, layout.rows, layout.width) == (2, 3, 3, 7)
    part = layout[1:]
    assert part.answers.tolist() == [[3, 5], [0, 0]]
    assert part.longest_answer == 2


def test_no_steps_at_all_leaves_room_for_one():
    layout = StepLayout.from_spans([[], []], [None, (1, 3)], torch.ones(2, 3))
    assert layout.step_lengths.tolist() == [[0], [0]]
    assert layout.step_ids.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_head_files(tmp_path):
    path = tmp_path / "heads.json"
    path.write_text('{"heads": [[16, 2], [20, 9]]}')
    assert load_heads(path) == [(16, 2), (20, 9)]
    save_heads(path, [(1, 2)], sra={(1, 2): 0.96, (0, 3): 0.5}, model="M", labels="task", traces=200)
    assert load_heads(path) == [(1, 2)]
    content = json.loads(path.read_text())
    assert content["sra"] == {"1,2": 0.96, "0,3": 0.5}
    assert (content["model"], content["labels"], content["traces"]) == ("M", "task", 200)
