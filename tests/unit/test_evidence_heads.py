"""Stability, transfer and sets of heads by hand, and the three commands on a tiny model."""

from __future__ import annotations

import csv
import json
import random

import numpy as np
import pytest
import torch

from attnpo.cli.main import main
from attnpo.errors import InputError
from attnpo.evidence.head_sets import best_of, check_numbers, cross_fitted, head_sets_table, layer_thirds, random_heads
from attnpo.evidence.output import Table
from attnpo.evidence.probing import HeadScores, correlation
from attnpo.evidence.stability import Stage, split_half, stability_table, stages_of_run
from attnpo.evidence.transfer import transfer_table
from attnpo.probe.sra import step_ranking_accuracy

ESSENTIAL = torch.tensor([True, False])


def scores(*traces: list[list[float]], problems: str | None = None, layers=(0, 1)) -> HeadScores:
    """Traces of two steps, the first essential; each is a list of [S(essential), S(redundant)] by head."""
    names = tuple(problems or (chr(97 + i) for i in range(len(traces))))
    return HeadScores([torch.tensor(trace) for trace in traces], [ESSENTIAL] * len(traces), layers, names)


RIGHT, WRONG, TIE = [2.0, 1.0], [1.0, 2.0], [1.0, 1.0]


def test_a_set_is_judged_by_its_mean_score():
    # Head (0, 0) is wrong by 1 and (1, 0) right by 3: together right by 1, whatever each is alone.
    found = scores([WRONG, [4.0, 1.0]])
    assert found.table.mean() == {(0, 0): 0.0, (1, 0): 1.0}
    together = found.of_set([(0, 0), (1, 0)])
    assert together.mean() == {(0, 0): 1.0}
    assert together.figures.flatten().tolist() == [1.0, 2.5, 1.5]
    assert found.of_set([(1, 0)]).figures.flatten().tolist() == [1.0, 4.0, 1.0]


def test_sets_equal_a_loop_over_random_scores():
    generator = torch.Generator().manual_seed(0)
    essential = [torch.rand(n, generator=generator) < 0.5 for n in (5, 7, 9)]
    for labels in essential:
        labels[0], labels[1] = True, False
    values = [torch.rand(6, len(labels), generator=generator) for labels in essential]
    found = HeadScores(values, essential, (3, 5), ("a", "b", "a"))
    assert found.heads == [(3, 0), (3, 1), (3, 2), (5, 0), (5, 1), (5, 2)]
    chosen = [(3, 2), (5, 0), (5, 2)]
    expected = [
        float(step_ranking_accuracy((value[2] + value[3] + value[5])[None] / 3, labels)[0])
        for value, labels in zip(values, essential, strict=True)
    ]
    assert found.of_set(chosen).figures[:, 0].flatten().tolist() == pytest.approx(expected)
    assert found.table.mean()[5, 1] == pytest.approx(
        np.mean([float(step_ranking_accuracy(v[4:5], e)[0]) for v, e in zip(values, essential, strict=True)])
    )


def test_cross_fitting_measures_heads_where_they_were_not_chosen():
    # Even problems (a, c) choose head (0, 0), odd ones (b, d) head (1, 0); each is wrong on the other half.
    found = scores([RIGHT, WRONG], [WRONG, RIGHT], [RIGHT, WRONG], [WRONG, RIGHT])
    assert best_of(found, 1, found.heads) == [(0, 0)]  # a tie over all: the lower layer
    assert cross_fitted(found, 1, "x.jsonl").sra == 0.0
    assert cross_fitted(found, 1, "x.jsonl", among=[(0, 0)]).sra == 0.5
    with pytest.raises(InputError, match=r"x\.jsonl: found usable traces of 1 problem, expected at least 2"):
        cross_fitted(scores([RIGHT, RIGHT], [RIGHT, TIE], problems="aa"), 1, "x.jsonl")


def test_random_sets_are_a_sample_of_all_sets():
    # 4 heads of accuracies 1, 1, 0 and 0.5: the mean over single heads is 0.625.
    found = scores([RIGHT, RIGHT, WRONG, TIE], [RIGHT, RIGHT, WRONG, TIE])
    measured = random_heads(found, 1, found.heads)
    assert measured.sra == pytest.approx(0.625, abs=0.12)
    assert (measured.low, measured.high) == (0.0, 1.0)
    again = random.Random(0)
    expected = [found.of_set(again.sample(found.heads, 2)).mean()[0, 0] for _ in range(100)]
    assert random_heads(found, 2, found.heads).sra == pytest.approx(np.mean(expected))


def test_layers_in_thirds():
    assert layer_thirds(range(9)) == {"0–2": (0, 1, 2), "3–5": (3, 4, 5), "6–8": (6, 7, 8)}
    assert layer_thirds((0, 1, 2, 3)) == {"0": (0,), "1–2": (1, 2), "3": (3,)}
    assert layer_thirds((4, 5)) == {"4": (4,), "5": (5,)}


def test_numbers_that_the_model_cannot_give():
    found = scores([RIGHT, WRONG])
    assert check_numbers([2, 1, 2], found) == [1, 2]
    with pytest.raises(InputError, match="--numbers: found 3, expected 1 to 2, the heads of the model"):
        check_numbers([1, 3], found)


def test_the_table_of_sets_has_a_control_beside_each_unless_it_is_all_heads():
    found = scores([RIGHT, WRONG, TIE, RIGHT], [RIGHT, WRONG, TIE, WRONG])
    rows = [row[:3] for row in head_sets_table(found, [1, 4], 2, "x").rows]
    assert rows == [
        ("best", "0–1", 1),
        ("random", "0–1", 1),
        ("best", "0–1", 4),
        ("best", "0", 2),
        ("best", "1", 2),
    ]


def test_transfer():
    easy = scores([RIGHT, WRONG], [RIGHT, WRONG], [RIGHT, WRONG])
    hard = scores([RIGHT, RIGHT], [WRONG, RIGHT], [RIGHT, RIGHT], [WRONG, RIGHT])
    table = transfer_table(easy, hard, 1, ("e", "h"))
    found = {row[:2]: row[2] for row in table.rows}
    assert found["easy (half)", "easy"] == 1.0
    assert found["easy", "hard"] == 0.5  # head (0, 0)
    # Even problems of the hard ones know of no difference and take (0, 0), wrong on the odd; odd ones take (1, 0).
    assert found["hard (half)", "hard"] == 0.5
    assert found["random", "hard"] == pytest.approx(0.75, abs=0.05)


def test_correlation_and_stability():
    first = scores([RIGHT, WRONG, TIE, RIGHT]).table  # 1, 0, 0.5, 1
    other = scores([WRONG, RIGHT, TIE, WRONG]).table  # its mirror image
    last = scores([RIGHT, WRONG, WRONG, TIE]).table  # 1, 0, 0, 0.5
    assert correlation(first, first) == pytest.approx(1.0)
    assert correlation(first, other) == pytest.approx(-1.0)
    expected = np.corrcoef([1, 0, 0.5, 1], [1, 0, 0, 0.5])[0, 1]
    rows = stability_table([Stage("a", ""), Stage("b", ""), Stage("c", "")], [first, other, last], top=2).rows
    assert rows[0] == ("a", None, None, 1.0, 0.75, 1.0, 2)
    assert rows[1] == pytest.approx(("b", -1.0, -1.0, 1.0, 0.25, 0.0, 0))
    assert rows[2] == pytest.approx(("c", expected, -expected, 1.0, 0.25, 0.75, 2))
    with pytest.raises(InputError, match="all of a table have the same"):
        correlation(first, scores([TIE, TIE, TIE, TIE]).table)
    with pytest.raises(InputError, match="found 4 and 2, expected two tables of the same heads"):
        correlation(first, scores([RIGHT, WRONG]).table)
    assert split_half(first) is None
    assert split_half(scores([RIGHT, WRONG], [RIGHT, WRONG]).table) == pytest.approx(1.0)


def test_stages_of_a_run(tmp_path):
    with pytest.raises(InputError, match=r"config\.yaml cannot be read"):
        stages_of_run(tmp_path)
    (tmp_path / "config.yaml").write_text("output_dir: x\n")
    with pytest.raises(InputError, match="has no model_name_or_path"):
        stages_of_run(tmp_path)
    (tmp_path / "config.yaml").write_text("model_name_or_path: base\n")
    with pytest.raises(InputError, match="no folder checkpoint-"):
        stages_of_run(tmp_path)
    for name in ("checkpoint-100", "checkpoint-20", "checkpoint-old", "rollouts"):
        (tmp_path / name).mkdir()
    assert [stage.name for stage in stages_of_run(tmp_path)] == ["start", "checkpoint-20", "checkpoint-100"]
    assert stages_of_run(tmp_path)[0].model == "base"


def test_a_table_is_written_for_people_and_for_programs():
    table = Table(("a", "b"), [("x", 0.12345), ("y", None), ("z", 3)])
    assert table.markdown() == "| a | b |\n| --- | --- |\n| x | 0.123 |\n| y |  |\n| z | 3 |\n"
    assert table.csv() == "a,b\nx,0.12345\ny,\nz,3\n"


# The commands


@pytest.fixture
def traces(tmp_path):
    """A file of labelled traces of three problems, two kinds of step in each."""
    path = tmp_path / "in.jsonl"
    thinking = "First 1 + 1 = 2. Wait, is it? Yes. So it is 2."
    steps = [
        {"start": 0, "end": 17, "essential": True},
        {"start": 17, "end": 35, "essential": False},
        {"start": 35, "end": len(thinking), "essential": True},
    ]
    rows = [
        {"problem": f"What is {i} + 1?", "response": f"{thinking}</think>The answer is {i}.", "steps": steps}
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def models(tmp_path, new_tiny_qwen2, tiny_tokenizer):
    """Two folders with tiny models of different weights."""
    folders = []
    for index in range(2):
        model, folder = new_tiny_qwen2(), tmp_path / f"model-{index}"
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(index))
        model.save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        folders.append(str(folder))
    return folders


def rows_of(folder):
    with open(folder / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_commands(tmp_path, traces, models, capsys):
    out = tmp_path / "out"
    common = ["--batch-size", "2", "-o", str(out)]
    assert main(["evidence", "heads", traces, "--model", models[0], "--numbers", "1", "3", "--top", "1", *common]) == 0
    assert {row["number"] for row in rows_of(out)} == {"1", "3"}
    assert main(["evidence", "transfer", traces, traces, "--model", models[0], *common]) == 0
    assert [row["traces"] for row in rows_of(out)] == ["4"] * 4
    assert main(["evidence", "stability", traces, "--models", *models, models[0], *common]) == 0
    rows = rows_of(out)
    assert [row["model"] for row in rows] == ["model-0", "model-1", "model-0"]
    assert float(rows[2]["Pearson with the first"]) == pytest.approx(1.0)
    assert -1 <= float(rows[1]["Pearson with the first"]) < 0.999
    assert (out / "table.md").read_text().count("\n") == 5
    assert (out / "figure.png").stat().st_size > 10_000
    assert "heads along the run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["heads", "IN", "--batch-size", "0"], "--batch-size is 0, expected at least 1"),
        (["heads", "IN", "--numbers", "99"], "--numbers: found 99, expected 1 to 12"),
        (["stability", "IN", "--models", "one"], "--models: found 1, expected at least 2"),
        (["stability", "IN", "--run", "nowhere"], "--run nowhere: config.yaml cannot be read"),
        (["transfer", "IN", "nothing.jsonl"], "nothing.jsonl"),
    ],
)
def test_bad_options(options, message, tmp_path, traces, models, capsys):
    words = [traces if word == "IN" else word for word in options]
    model = ["--model", models[0]] if options[0] == "heads" else []
    assert main(["evidence", *words, *model, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_labels_must_cover_the_text(tmp_path, models, capsys):
    path, steps = tmp_path / "in.jsonl", [{"start": 0, "end": 4, "essential": True}]
    row = {"problem": "?", "response": "One. Two. Three.</think>3"}
    for case, found in (
        (steps, "'Two. Three.' at characters 4 to 16, after the last step"),
        ([*steps, {"start": 10, "end": 16, "essential": False}], "'Two.' at characters 4 to 10, before steps[1]"),
    ):
        path.write_text(json.dumps({**row, "steps": case}) + "\n")
        assert main(["probe", str(path), "--model", models[0], "-o", str(tmp_path / "h.json")]) == 2
        assert found in capsys.readouterr().err


def test_without_a_tool_or_with_an_unknown_one(capsys):
    for words in (["evidence"], ["evidence", "removed"]):
        with pytest.raises(SystemExit) as leaving:
            main(words)
        assert leaving.value.code == 2
    assert "TOOL" in capsys.readouterr().err
    with pytest.raises(SystemExit) as leaving:
        main(["evidence", "--help"])
    assert leaving.value.code == 0
    assert "stability" in capsys.readouterr().out
