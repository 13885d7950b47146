"""Which responses the page contains, and in which form."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpo.report import selection
from attnpo.report.packing import HEAD, PIECE, level, pack
from attnpo.report.rollouts import Response, response_of
from attnpo.report.run import read_run
from attnpo.report.selection import collect, ends_first, evenly, pick_evaluated, pick_pairs


def response(**changes) -> Response:
    row = {
        **{"id": "a", "text": "First step.\nSecond.</think>4", "thinking_start": 0, "thinking_end": 19},
        "steps": [
            {"start": 0, "end": 12, "kind": "forward", "tokens": 6, "score": 0.05, "scale": 0.4},
            {"start": 12, "end": 19, "kind": "answer", "tokens": 3, "score": 0.2, "scale": 1.0},
        ],
        **{"advantage": 0.3, "verdict": "right", "baseline": 0.1},
        "tokens": {"prompt": 80, "completion": 120, "answer": 20},
    }
    return response_of({**row, **changes}, "here")


def unpacked(chunk) -> dict:
    return json.loads(gzip.decompress(base64.b64decode(chunk.data)))


def packed(one: Response) -> dict:
    return unpacked(pack("train-1", "train", 1, [one], 1))["responses"][0]


# --- the form


def test_colour_levels_are_multiples_of_an_even_spread():
    one = response()  # |F| / |o| = 20 / 200 = 0.1
    assert one.even_share == pytest.approx(0.1)
    assert [level(one, step) for step in one.steps] == [3, 5]  # 0.5 times and 2 times: the lower edge belongs
    assert level(one, replace(one.steps[0], score=None)) is None
    assert level(response(tokens={}), one.steps[0]) is None


@pytest.mark.parametrize(
    ("advantage", "effects"),
    [(0.3, ["attenuated", "untouched"]), (-0.3, ["protected", "untouched"]), (0.0, ["untouched", "untouched"])],
)
def test_effects_follow_from_scale_and_advantage(advantage, effects):
    one = response(advantage=advantage)
    chunk = pack("train-1", "train", 1, [one], 1)
    steps = unpacked(chunk)["responses"][0]["pieces"]
    assert [step["effect"] for step in steps] == effects
    assert [(step["score"], step["scale"], step["level"]) for step in steps] == [(0.05, 0.4, 3), (0.2, 1.0, 5)]
    assert chunk.catalogue[0]["marks"] == [name for name in effects[:1] if name != "untouched"]


def test_steps_and_gaps_are_the_complete_thinking_in_order():
    one = packed(response(steps=[{"start": 2, "end": 7, "kind": "forward", "score": None, "scale": None}]))
    assert [piece["text"] for piece in one["pieces"]] == ["Fi", "rst s", "tep.\nSecond."]
    assert ["kind" in piece for piece in one["pieces"]] == [False, True, False]
    assert one["answer"] == "4"


def test_a_response_without_closing_tag_or_steps():
    one = response(text="Still think", thinking_end=11, steps=[], truncated=True, verdict="no_answer", tokens={})
    chunk = pack("train-1", "train", 1, [one], 1)
    assert chunk.catalogue[0] | {"marks": ["truncated"], "verdict": "no_answer", "tokens": None} == chunk.catalogue[0]
    assert unpacked(chunk)["responses"][0]["pieces"] == [{"text": "Still think"}]
    assert unpacked(chunk)["responses"][0]["answer"] == ""


def test_the_middle_of_a_long_response_is_left_out_and_reported():
    text = "".join(f"{number:04d}" + "x" * 996 for number in range(100))
    steps = [{"start": 1000 * k, "end": 1000 * k + 1000, "kind": "forward"} for k in range(100)]
    pieces = packed(response(text=text, thinking_end=len(text), steps=steps))["pieces"]
    assert [piece.get("left_out") for piece in pieces if "left_out" in piece] == [[60, 60_000]]
    kept = [int(piece["text"][:4]) for piece in pieces if "text" in piece]
    assert kept == [*range(30), *range(90, 100)]


@pytest.mark.parametrize("steps", [[], [{"start": 0, "end": 100_000, "kind": "forward"}]])
def test_one_piece_of_100k_characters_is_clipped(steps):
    pieces = packed(response(text="y" * 100_000, thinking_end=100_000, steps=steps))["pieces"]
    assert len(pieces) == 1
    assert pieces[0]["text"] == "y" * PIECE + " … [90,000 characters left out]"


@settings(deadline=None)
@given(st.lists(st.integers(1, 4 * HEAD), max_size=12))
def test_every_omission_is_reported(lengths):
    ends = [sum(lengths[: k + 1]) for k in range(len(lengths))]
    steps = [{"start": end - n, "end": end, "kind": "k"} for end, n in zip(ends, lengths, strict=True)]
    pieces = packed(response(text="z" * sum(lengths), thinking_end=sum(lengths), steps=steps))["pieces"]
    left_out = sum(piece["left_out"][0] for piece in pieces if "left_out" in piece)
    assert left_out + sum("kind" in piece for piece in pieces) == len(lengths)
    assert sum(len(piece.get("text", "")) for piece in pieces) <= HEAD + 10_000 + 3 * (PIECE + 50)


# --- the choice


@given(st.integers(0, 60))
def test_ends_first_is_an_order_of_all(count):
    found = list(ends_first(count))
    assert sorted(found) == list(range(count))
    assert found[:2] == [0, count - 1][:count] if count != 1 else found == [0]


@given(st.integers(0, 200), st.integers(1, 30))
def test_evenly_includes_the_ends_and_as_many_as_wanted(count, wanted):
    found = evenly(count, wanted)
    assert len(found) == len(set(found)) == min(count, wanted)
    assert found == sorted(found)
    if count and wanted > 1:
        assert (found[0], found[-1]) == (0, count - 1)


def test_pairs_go_from_the_strongest_change_to_the_weakest():
    def at(step: int, lengths: dict[str, int], scored: bool = True) -> list[Response]:
        steps = [{"start": 0, "end": 12, "kind": "forward", "score": 0.1 if scored else None}]
        return [response(id=k, step=step, steps=steps, tokens={"completion": n}) for k, n in lengths.items()]

    first = at(0, {"a": 100, "b": 100, "c": 100, "gone": 9}) + at(0, {"d": 100, "e": 100}, scored=False)
    last = at(9, {"a": 90, "b": 40, "c": 120, "new": 9}) + at(9, {"d": 50, "e": 20}, scored=False)
    assert [pair.before.id for pair in pick_pairs(first, last)] == ["b", "a", "c", "e", "d"]
    assert [pair.before.id for pair in pick_pairs(first, last, wanted=4)] == ["b", "a", "c", "e"]
    assert [pair.after.step for pair in pick_pairs(first, last, wanted=2)] == [9, 9]
    assert pick_pairs(first, []) == []


def test_pairs_of_an_evaluation_come_before_other_scored_responses():
    rows = [response(id=k) for k in "ab"] + [response(id=k, steps=[]) for k in "cd"]
    assert [r.id for r in pick_evaluated(rows, ["d", "b"])] == ["d", "b", "a"]
    assert [r.id for r in pick_evaluated(rows[2:], [])] == ["c", "d"]


def test_the_page_contains_all_of_a_small_run(example_run, tmp_path):
    run = read_run(example_run.write_run(tmp_path / "run", steps=20))
    (shelf,) = collect([run])
    assert [chunk.key for chunk in shelf.chunks] == [
        *("eval-0", "eval-10", "eval-20"),
        *(f"train-{step}" for step in range(1, 21)),
    ]
    assert shelf.left_out == [
        "3 of 3 recorded evaluations, and 72 of their 72 responses",
        "20 of 20 recorded training steps, and 640 of their 640 responses",
    ]
    first, last = shelf.chunks[0], shelf.chunks[2]
    assert [row["id"] for row in first.catalogue] == [row["id"] for row in last.catalogue] == shelf.pairs


def test_a_small_budget_keeps_the_ends(example_run, tmp_path, monkeypatch):
    run = read_run(example_run.write_run(tmp_path / "run", steps=20))
    complete = sum(len(chunk.data) for chunk in collect([run])[0].chunks)
    monkeypatch.setattr(selection, "BUDGET", complete // 4)
    (shelf,) = collect([run])
    assert sum(len(chunk.data) for chunk in shelf.chunks) <= complete // 4
    assert {"eval-0", "eval-20", "train-1", "train-20"} <= {chunk.key for chunk in shelf.chunks}
    assert len(shelf.chunks) < 23
    assert "of 20 recorded training steps" in shelf.left_out[1]
    monkeypatch.setattr(selection, "BUDGET", 0)
    assert collect([run])[0].chunks == []


def test_only_chosen_rollouts_are_read(example_run, tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "TRAIN_STEPS", 3)
    folder = example_run.write_run(tmp_path / "run", steps=20)
    for step in set(range(1, 21)) - {1, 11, 20}:  # the indices 0, 9.5 → 10 and 19
        (folder / "rollouts" / f"train-{step:06d}.jsonl.gz").write_bytes(b"reading this would fail")
    (shelf,) = collect([read_run(folder)])
    assert [chunk.step for chunk in shelf.chunks if chunk.split == "train"] == [1, 11, 20]
    assert shelf.left_out[1] == "3 of 20 recorded training steps, and 96 of their 96 responses"
