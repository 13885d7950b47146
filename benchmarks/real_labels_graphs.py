"""ReasoningFlow for `real_labels.py`: responses as graphs of nodes, each node an ancestor of the conclusion or not.

A row: {"problem", "response", "steps": [{"start", "end", "label", "essential"}], "annotator", "model", "domain"}; start
and end are characters of the response, which the nodes tile. Their labels: reasoning, planning, reflection,
restatement, fact, assumption, example, conclusion. "essential" marks the ancestors of the last conclusion and the
conclusion itself, which is thus the last essential node.

The thinking is the text before </think>, the final answer the text after it. Without such a tag (models that
do not mark their thinking), the answer is the conclusion with the nodes of the kind conclusion immediately before it,
the thinking is everything before them, and the text after the conclusion is cut off, since attention is causal.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from real_labels_data import Labelled, Scored, label_rows
from torch import Tensor

from attnpo.heads.table import step_ranking_accuracy
from attnpo.steps.response import CLOSE_TAG, OPEN_TAG, split_response, thinking_of
from attnpo.steps.segment import segment_steps
from attnpo.traces.labelled import has_both_kinds

KINDS = ("nodes", "segments")
"""Kinds of steps: annotated nodes, or steps that the package finds in the thinking."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Graph:
    """One row as a response with a closing tag; spans are characters of its thinking text (`thinking_of`)."""

    response: str
    nodes: list[Span]
    essential: list[bool]


def read_graphs(left_out: Counter[str]) -> list[Labelled]:
    """Read the rows, cut into the pieces that nodes and segments have in common, so that one forward scores both.

    Label "nodes: step" is the node that a piece is part of (−1: none), "nodes: redundant" whether that node is no
    ancestor of the conclusion; the same for segments. Of a response annotated twice the first row is used.
    """
    rows = label_rows("reasoningflow.jsonl")
    found, seen = [], set()
    for row in rows:
        if row["response"] in seen:
            left_out["the same response once more"] += 1
            continue
        seen.add(row["response"])
        graph = as_graph(row)
        thinking = thinking_of(graph.response)
        segments = [(step.start, step.end) for step in segment_steps(thinking)]
        steps = {"nodes": graph.nodes, "segments": segments}
        essential = {"nodes": graph.essential, "segments": mostly_essential(segments, graph.nodes, graph.essential)}
        bounds = sorted({0, len(thinking), *(x for spans in steps.values() for span in spans for x in span)})
        pieces = list(pairwise(bounds))
        labels: dict[str, list[float]] = {}
        for kind in KINDS:
            owners = owners_of(pieces, steps[kind])
            labels[f"{kind}: step"] = [float(owner) for owner in owners]
            labels[f"{kind}: redundant"] = [float(owner >= 0 and not essential[kind][owner]) for owner in owners]
        trace = {
            "problem": row["problem"],
            "response": graph.response,
            "steps": [{"start": start, "end": end} for start, end in pieces],
        }
        annotator = "people" if row["annotator"].startswith("Human") else "a model"
        about = {"annotated by": annotator, "response by": row["model"].split("/")[-1], "domain": row["domain"]}
        found.append(Labelled(trace, labels, row["problem"], about))
    return found


def as_graph(row: dict[str, Any]) -> Graph:
    """Return the row with its thinking between tags and its answer after them, without nodes outside the thinking.

    A space before a node is part of it, as it is part of its first token (rows put it at the end of the node before).
    """
    text, nodes = row["response"], row["steps"]
    parts = split_response(text)
    begin, end, answer = parts.thinking_start, parts.thinking_end, text[parts.answer_start or 0 :]
    if not parts.has_close:
        last = max(place for place, node in enumerate(nodes) if node["essential"])
        first = last
        while first > 0 and nodes[first - 1]["label"] == "conclusion":
            first -= 1
        end, answer = nodes[first]["start"], text[nodes[first]["start"] : nodes[last]["end"]]
    thinking = text[begin:end]
    begin += len(thinking) - len(thinking.lstrip())
    thinking = thinking.strip()

    def moved(place: int) -> int:
        place = min(max(place - begin, 0), len(thinking))
        place -= 0 < place < len(thinking) and thinking[place - 1] == " " and not thinking[place].isspace()
        return place + 1  # the line break after the opening tag

    spans = [(moved(node["start"]), moved(node["end"])) for node in nodes]
    response = f"{OPEN_TAG}\n{thinking}\n{CLOSE_TAG}\n\n{answer.strip()}"
    kept = [place for place, (a, b) in enumerate(spans) if thinking_of(response)[a:b].strip()]
    return Graph(response, [spans[place] for place in kept], [bool(nodes[place]["essential"]) for place in kept])


def mostly_essential(steps: Sequence[Span], nodes: Sequence[Span], essential: Sequence[bool]) -> list[bool]:
    """Whether more than half of a step's characters are in essential nodes."""
    marked = [span for span, yes in zip(nodes, essential, strict=True) if yes]
    return [2 * sum(max(0, min(end, b) - max(start, a)) for a, b in marked) > end - start for start, end in steps]


def owners_of(pieces: Sequence[Span], steps: Sequence[Span]) -> list[int]:
    """Return the step of each piece, −1 if none; steps are in order, and no piece crosses a step's bounds."""
    starts = [start for start, _ in steps]
    found = []
    for start, end in pieces:
        owner = bisect_right(starts, start) - 1
        found.append(owner if owner >= 0 and end <= steps[owner][1] else -1)
    return found


def steps_of_pieces(trace: Scored, kind: str) -> Scored:
    """Return the trace with its steps of this kind instead of pieces: S is a mean over tokens, so a step's is the mean
    of its pieces' weighted by tokens. Labels: "redundant" and "essential", 0 or 1."""
    owners = trace.labels[f"{kind}: step"].long()
    inside = owners >= 0
    owners, lengths = owners[inside], trace.lengths[inside]
    count = int(owners.max()) + 1
    summed = torch.zeros(len(trace.scores), count, dtype=torch.float64)
    summed.index_add_(1, owners, trace.scores[:, inside].double() * lengths)
    tokens = torch.zeros(count, dtype=torch.int64).index_add_(0, owners, lengths)
    redundant = torch.zeros(count, dtype=torch.float64)
    redundant[owners] = trace.labels[f"{kind}: redundant"][inside]
    labels = {"redundant": redundant, "essential": 1 - redundant}
    return Scored(summed / tokens.clamp(min=1), tokens, labels, trace.group, trace.about)


def annotated_twice() -> list[float]:
    """Return how well one annotation ranks the nodes of another of the same response (SRA), an upper bound for scores
    on these few responses. The score of a node is the share of its characters that the other marks essential."""
    first: dict[str, Graph] = {}
    found = []
    for row in label_rows("reasoningflow.jsonl"):
        graph = as_graph(row)
        other = first.setdefault(row["response"], graph)
        if other is not graph and has_both_kinds(torch.tensor(graph.essential)):
            accuracy = step_ranking_accuracy(shares(graph.nodes, other), torch.tensor(graph.essential))
            found.append(accuracy.item())
    return found


def shares(nodes: Sequence[Span], other: Graph) -> Tensor:
    """Return [1, S]: the share of each node's characters that is in essential nodes of another annotation."""
    marked = [span for span, yes in zip(other.nodes, other.essential, strict=True) if yes]
    covered = [sum(max(0, min(end, b) - max(start, a)) for a, b in marked) / (end - start) for start, end in nodes]
    return torch.tensor([covered])
