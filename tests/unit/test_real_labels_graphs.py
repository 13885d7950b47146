"""The pure functions of benchmarks/real_labels_graphs.py: thinking and answer of a graph, its steps, their labels."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnpo.steps.response import answer_of, thinking_of


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, repository: Path):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def graphs(load) -> ModuleType:
    return load("real_labels_graphs")


def graph_row(*nodes: tuple[str, str, bool]) -> dict[str, Any]:
    """A row whose response is the texts of these nodes (text, label, essential) in a row."""
    steps, text = [], ""
    for piece, label, essential in nodes:
        steps.append({"start": len(text), "end": len(text) + len(piece), "label": label, "essential": essential})
        text += piece
    return {
        "problem": "2 + 2?",
        "response": text,
        "steps": steps,
        "annotator": "Human D",
        "model": "a/b",
        "domain": "c",
    }


def texts(graph: Any) -> list[str]:
    return [thinking_of(graph.response)[start:end] for start, end in graph.nodes]


def test_without_a_tag_the_answer_is_the_last_conclusion_and_what_follows_it_goes(graphs):
    row = graph_row(
        ("Let us add. ", "planning", True),
        ("So it is 5?\n\n", "conclusion", False),
        ("No. ", "reflection", False),
        ("2 + 2 = 4.\n\n", "reasoning", True),
        ("It is 4. ", "conclusion", True),
        ("The answer: 4. ", "conclusion", True),
        ("Looks good.", "reflection", False),
    )
    graph = graphs.as_graph(row)
    assert answer_of(graph.response) == "\n\nIt is 4. The answer: 4."
    assert thinking_of(graph.response) == "\nLet us add. So it is 5?\n\nNo. 2 + 2 = 4.\n"
    # The space between two nodes is part of the second's first token; line breaks stay with the first.
    assert texts(graph) == ["Let us add.", " So it is 5?\n\n", "No.", " 2 + 2 = 4."]
    assert graph.essential == [True, False, False, True]


def test_the_conclusion_may_be_of_another_kind(graphs):
    row = graph_row(("So 4. ", "conclusion", False), ("a ", "fact", True), ("Four.", "reasoning", True))
    graph = graphs.as_graph(row)
    assert (texts(graph), answer_of(graph.response)) == (["So 4.", " a"], "\n\nFour.")


def test_a_tag_ends_the_thinking_also_within_a_node(graphs):
    row = graph_row(
        ("<think>\n", "planning", True),
        ("Add them. ", "planning", False),
        ("So 4.\n</think>\n\nWe add. ", "conclusion", True),
        ("It is 4.", "conclusion", True),
    )
    graph = graphs.as_graph(row)
    assert thinking_of(graph.response) == "\nAdd them. So 4.\n"
    assert answer_of(graph.response) == "\n\nWe add. It is 4."
    assert (texts(graph), graph.essential) == (["Add them.", " So 4."], [False, True])


def test_a_step_is_essential_if_more_than_half_of_it_is(graphs):
    nodes, essential = [(0, 4), (4, 10), (10, 20)], [True, False, True]
    steps = [(0, 8), (0, 7), (6, 14), (8, 13), (4, 10), (20, 24)]
    # 4 of 8 characters, 4 of 7, 4 of 8, 3 of 5, none of 6, none of 4
    assert graphs.mostly_essential(steps, nodes, essential) == [False, True, False, True, False, False]


def test_pieces_belong_to_the_step_around_them(graphs):
    assert graphs.owners_of([(0, 1), (1, 3), (3, 5), (5, 6), (6, 9)], [(1, 5), (6, 9)]) == [-1, 0, 0, -1, 1]
    assert graphs.owners_of([(0, 2)], []) == [-1]


@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    owners=st.data(),
    heads=st.integers(1, 3),
)
def test_scores_of_steps_are_means_over_their_tokens(repository, lengths, owners, heads):
    """Against a mean over tokens written out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository / "benchmarks"))
        graphs, data = importlib.import_module("real_labels_graphs"), importlib.import_module("real_labels_data")
    # Steps in order, all with at least one piece; −1 in front: in no step.
    owner, owned = 0, []
    for _ in lengths:
        owned.append(owner)
        owner += owners.draw(st.integers(0, 1))
    owned = [-1, *owned]
    lengths = [2, *lengths]
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(heads, len(lengths), generator=generator)
    redundant = [float(step % 2 == 1 and step >= 0) for step in owned]
    labels = {"x: step": torch.tensor(owned).double(), "x: redundant": torch.tensor(redundant).double()}
    found = graphs.steps_of_pieces(data.Scored(scores, torch.tensor(lengths), labels, "a", {"b": "c"}), "x")
    for step in range(max(owned) + 1):
        of_tokens = [scores[:, k] for k, of in enumerate(owned) if of == step for _ in range(lengths[k])]
        expected = torch.stack(of_tokens).double().mean(dim=0) if of_tokens else torch.zeros(heads).double()
        torch.testing.assert_close(found.scores[:, step], expected)
        assert found.lengths[step] == len(of_tokens)
    assert found.labels["redundant"].tolist() == [float(step % 2) for step in range(max(owned) + 1)]
    assert (found.labels["essential"] + found.labels["redundant"]).tolist() == [1] * (max(owned) + 1)
    assert (found.group, found.about) == ("a", {"b": "c"})


@pytest.fixture
def file_of(load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def write(*rows: dict[str, Any]) -> None:
        monkeypatch.setattr(load("real_labels_data"), "DATA", tmp_path)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "reasoningflow.jsonl").write_text(text, encoding="utf-8")

    return write


def test_nodes_and_segments_are_cut_from_the_same_pieces(graphs, file_of):
    first, second = "We add the two numbers that the problem names, one after the other, as it asks us to. ", "Two and "
    third, fourth = "two. ", "Wait, is this right? Let me add the numbers once more: 2 + 2 = 4, the same as before. "
    row = graph_row(
        (first, "planning", True),
        (second, "fact", True),
        (third, "fact", False),
        (fourth, "reflection", False),
        ("It is 4.", "conclusion", True),
    )
    file_of(row, {**row, "annotator": "a machine"})
    left_out: Counter[str] = Counter()
    (found,) = graphs.read_graphs(left_out)
    assert left_out == {"the same response once more": 1}
    thinking = thinking_of(found.row["response"])
    pieces = [thinking[piece["start"] : piece["end"]] for piece in found.row["steps"]]
    assert "".join(pieces) == thinking
    # The package cuts before "Wait", the node also has the space before it: a piece of its own, in both alike.
    assert pieces == ["\n", first[:-1], " Two and", " two.", " ", fourth[:-1], "\n"]
    assert found.labels["nodes: step"] == [-1, 0, 1, 2, 3, 3, -1]
    assert found.labels["nodes: redundant"] == [0, 0, 0, 1, 1, 1, 0]
    assert found.labels["segments: step"] == [0, 0, 0, 0, 0, 1, 1]
    assert found.labels["segments: redundant"] == [0, 0, 0, 0, 0, 1, 1]
    assert found.about == {"annotated by": "people", "response by": "b", "domain": "c"}


def test_a_second_annotation_ranks_the_nodes_of_the_last(graphs, file_of):
    """One of three redundant nodes is also called essential by the first: half a pair lost against an essential one."""
    nodes = [("One. ", True), ("Two. ", False), ("Three. ", False), ("Four. ", False)]
    end = ("So.", "conclusion", True)
    once = graph_row(*((text, "fact", yes) for text, yes in nodes), end)
    again = graph_row(*((text, "fact", yes or text == "Three. ") for text, yes in nodes), end)
    file_of(again, once)
    assert graphs.annotated_twice() == pytest.approx([(1 + 0.5 + 1) / 3])


def test_heads_are_measured_on_a_subset_alone(load):
    data, script = load("real_labels_data"), load("real_labels")
    generator = torch.Generator().manual_seed(3)
    rows = []
    for number in range(12):
        redundant = (torch.arange(9) % 3 == 1).double()
        scores = torch.rand(5, 9, generator=generator)
        easy = number % 3 == 0
        scores[:3] -= redundant if easy else -redundant * (number % 2 == 0)
        rows.append(data.Scored(scores, torch.full((9,), 2), {"x": redundant}, str(number), {"kind": str(easy)}))
    masks = script.subsets(rows)
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "kind False": [number % 3 != 0 for number in range(12)],
        "kind True": [number % 3 == 0 for number in range(12)],
    }
    found = script.compare(rows, {"SRA": script.ranking("x")}, [(0, head) for head in range(5)], masks)["SRA"]
    easy, hard = found["subsets"]["kind True"], found["subsets"]["kind False"]
    assert (easy["traces"], hard["traces"]) == (4, 8)
    whole = found["chosen by SRA"]["mean"]
    assert (4 * easy["chosen"]["mean"] + 8 * hard["chosen"]["mean"]) / 12 == pytest.approx(whole)
    assert easy["chosen"]["mean"] > hard["chosen"]["mean"]
    assert easy["best control"]["mean"] == found["controls"][easy["best control"]["name"]]["mean"]
