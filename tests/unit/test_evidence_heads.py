"""Stability, transfer and sets of heads by hand, and the three commands on a tiny model."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from attnpo.cli.main import main
from attnpo.errors import InputError
from attnpo.heads.figures import draw_head_sets, draw_stability, draw_transfer
from attnpo.heads.sets import (
    HeadScores,
    Measured,
    cross_fitted,
    head_sets_table,
    layer_thirds,
    notes,
    of_other_problems,
    random_heads,
    transfer_table,
)
from attnpo.heads.stability import Stage, correlation, correlation_interval, named, stability_table, stages_of_run
from attnpo.heads.table import step_ranking_accuracy
from attnpo.tables import Table

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
    assert found.table.best(1, found.heads) == [(0, 0)]  # a tie over all: the lower layer
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


def test_table_of_sets_has_a_control_for_each_unless_it_is_all_heads():
    found = scores([RIGHT, WRONG, TIE, RIGHT], [RIGHT, WRONG, TIE, WRONG])
    table = head_sets_table(found, [4, 1], 2, "x")
    rows = [(*row[:3], row[-1]) for row in table.rows]
    assert rows == [
        ("best", "0–1", 1, "problems"),
        ("random", "0–1", 1, "sets"),
        ("best", "0–1", 4, "problems"),
        ("best", "0", 2, "problems"),
        ("best", "1", 2, "problems"),
    ]
    # Figures in their columns, and random heads of the row's own layers only.
    assert table.columns[3:8] == ("SRA", "low", "high", "essential", "redundant")
    assert tuple(field.lower() for field in table.columns[3:8]) == Measured._fields
    assert table.rows[0][3:8] == cross_fitted(found, 1, "x")
    assert table.rows[1][3:8] == random_heads(found, 1, found.heads)
    assert table.rows[4][3:8] == cross_fitted(found, 2, "x", among=[(1, 0), (1, 1)])
    of_thirds = head_sets_table(found, [1], 1, "x").rows[3]
    assert of_thirds[:3] == ("random", "0", 1)
    assert of_thirds[3:8] == random_heads(found, 1, [(0, 0), (0, 1)])
    for numbers, top, message in (([5], 1, "--numbers: found 5, expected at most 4"), ([1], 3, "--top: found 3")):
        with pytest.raises(InputError, match=message):
            head_sets_table(found, numbers, top, "x")


def test_summary_of_the_traces():
    found = scores([RIGHT, WRONG], [RIGHT, WRONG], problems="aa")
    found.counts.update({"used": 2, "no labels": 3})
    assert notes("x.jsonl", found) == [
        "x.jsonl: 2 traces of 1 problems; 3 left out (no labels)",
        "x.jsonl: 2 traces are few to choose heads by (fewer than 16)",
    ]


def test_transfer():
    easy = scores([RIGHT, WRONG], [RIGHT, WRONG], [RIGHT, WRONG])
    hard = scores([RIGHT, RIGHT], [WRONG, RIGHT], [RIGHT, RIGHT], [WRONG, RIGHT], problems="wxyz")
    table = transfer_table(easy, hard, 1, ("e", "h"))
    found = {row[:2]: row[2] for row in table.rows}
    assert found["easy (half)", "easy"] == 1.0
    assert found["easy", "hard"] == 0.5  # head (0, 0)
    # Even problems of the hard ones know of no difference and take (0, 0), wrong on the odd; odd ones take (1, 0).
    assert found["hard (half)", "hard"] == 0.5
    assert found["random", "hard"] == pytest.approx(0.75, abs=0.05)
    assert [row[-1] for row in table.rows] == ["problems", "problems", "problems", "sets"]
    figure = draw_transfer(table, easy.table, hard.table)
    bars = figure.axes[1].containers[0]
    assert bars.lines[0].get_ydata().tolist() == [row[2] for row in table.rows]
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()][1] == "easy → hard"


def test_hard_traces_of_easy_problems_are_left_out():
    easy, hard = scores([RIGHT, WRONG], problems="b"), scores([RIGHT, TIE], [TIE, TIE], [WRONG, TIE], problems="abc")
    kept = of_other_problems(hard, easy, "h")
    assert kept.problems == ("a", "c")
    assert kept.table.mean() == hard.part([0, 2]).table.mean()
    with pytest.raises(InputError, match="h: all problems are among the easy ones too"):
        of_other_problems(hard, hard, "h")


def test_correlation_and_stability():
    first = scores([RIGHT, WRONG, TIE, RIGHT]).table  # 1, 0, 0.5, 1
    other = scores([WRONG, RIGHT, TIE, WRONG]).table  # its mirror image
    last = scores([RIGHT, WRONG, WRONG, TIE]).table  # 1, 0, 0, 0.5
    assert correlation(first, first) == pytest.approx(1.0)
    assert correlation(first, other) == pytest.approx(-1.0)
    expected = np.corrcoef([1, 0, 0.5, 1], [1, 0, 0, 0.5])[0, 1]
    table = stability_table([Stage("a", ""), Stage("b", ""), Stage("c", "")], [first, other, last], top=2)
    assert table.rows[0] == ("a", 1, None, None, None, None, 1.0, 0.75, 1.0, 2)
    assert table.rows[1] == pytest.approx(("b", 1, -1.0, None, None, -1.0, 1.0, 0.25, 0.0, 0))
    assert table.rows[2] == pytest.approx(("c", 1, expected, None, None, -expected, 1.0, 0.25, 0.75, 2))
    assert correlation(first, scores([TIE, TIE, TIE, TIE]).table) is None
    with pytest.raises(InputError, match="2 layers of 2 heads and 2 layers of 1 heads"):
        correlation(first, scores([RIGHT, WRONG]).table)
    left, right = draw_stability(table, [first, other, last]).axes
    assert list(left.lines[1].get_ydata()) == [1.0, 0.0, 0.0, 0.5]  # the last model's, against the first's
    assert list(left.lines[1].get_xdata()) == [1.0, 0.0, 0.5, 1.0]
    assert list(right.lines[1].get_ydata()) == pytest.approx([-1.0, expected])


def test_interval_of_a_correlation_is_that_of_a_loop_over_resampled_problems():
    generator = torch.Generator().manual_seed(3)
    problems = "aabbbcddefgh"
    tables = [scores(*torch.rand(12, 8, 2, generator=generator).tolist(), problems=problems).table for _ in range(2)]
    low, high = correlation_interval(*tables, draws=3000)
    rng, names, values = np.random.default_rng(0), sorted(set(problems)), []
    one, two = (table.figures[:, 0].flatten(1).numpy() for table in tables)
    for _ in range(3000):
        places = [i for name in rng.choice(names, len(names)) for i, own in enumerate(problems) if own == name]
        values.append(np.corrcoef(one[places].mean(axis=0), two[places].mean(axis=0))[0, 1])
    assert (low, high) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.05)
    assert correlation_interval(tables[0], scores([RIGHT] * 8, [WRONG] * 8).table) is None  # other traces


def test_names_of_models_that_end_alike():
    assert [stage.name for stage in named(["a/x", "b/y"])] == ["x", "y"]
    assert [stage.name for stage in named(["c/a/x", "c/b/x", "c/b/y"])] == ["a/x", "b/x", "b/y"]
    assert [(stage.name, stage.model) for stage in named(["a/x", "a/x"])] == [("x (1)", "a/x"), ("x (2)", "a/x")]


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
    assert Table(("a",), [("x|y\nz",)]).markdown() == "| a |\n| --- |\n| x\\|y z |\n"
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
    others = tmp_path / "others.jsonl"
    text = Path(traces).read_text()
    others.write_text(text.replace("What is", "How much is") + text.splitlines()[0])
    assert main(["evidence", "transfer", traces, str(others), "--model", models[0], *common]) == 0
    assert "1 traces left out (their problem is among the easy ones)" in " ".join(capsys.readouterr().out.split())
    assert [row["traces"] for row in rows_of(out)] == ["4"] * 4
    assert main(["evidence", "stability", traces, "--models", *models, models[0], *common]) == 0
    rows = rows_of(out)
    assert [row["model"] for row in rows] == ["model-0 (1)", "model-1 (2)", "model-0 (3)"]
    assert float(rows[2]["Pearson"]) == pytest.approx(1.0)
    assert -1 <= float(rows[1]["Pearson"]) < 0.999
    assert (out / "table.md").read_text().count("\n") == 5
    assert (out / "figure.png").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert "heads along the run" in said
    assert "best 3 in the first model: (" in said
    assert "written: " in said


def test_the_picture_of_head_sets_shows_the_table():
    found = scores([RIGHT, WRONG, TIE, RIGHT], [RIGHT, WRONG, TIE, WRONG])
    table = head_sets_table(found, [1, 2], 1, "x")
    left, right = draw_head_sets(table, found.table).axes
    best, control = left.containers
    assert (best.get_label(), control.get_label()) == ("best", "random")
    assert best.lines[0].get_xydata().tolist() == [[1, table.rows[0][3]], [2, table.rows[2][3]]]
    assert control.lines[0].get_xydata().tolist() == [[1, table.rows[1][3]], [2, table.rows[3][3]]]
    assert list(right.lines[0].get_ydata()) == list(found.table.mean().values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["heads", "IN", "--batch-size", "0"], "--batch-size is 0, expected at least 1"),
        (["heads", "IN", "--numbers", "99"], "--numbers: found 99, expected 1 to 12"),
        (["stability", "IN", "--models", "one"], "--models: found 1, expected at least 2"),
        (["heads", "IN", "--top", "99"], "--top: found 99, expected 1 to 12"),
        (["stability", "IN", "--run", "nowhere"], "--run nowhere: config.yaml cannot be read"),
        (["stability", "IN", "--models", "nowhere", "nothing"], "model nowhere: cannot be loaded"),
        (["transfer", "IN", "nothing.jsonl"], "nothing.jsonl"),
        (["transfer", "IN", "IN"], "all problems are among the easy ones too"),
    ],
)
def test_bad_options(options, message, tmp_path, traces, models, capsys):
    words = [traces if word == "IN" else word for word in options]
    model = ["--model", models[0]] if options[0] != "stability" else []
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
        assert "stability" in capsys.readouterr().err  # both list the tools
    with pytest.raises(SystemExit) as leaving:
        main(["evidence", "--help"])
    assert leaving.value.code == 0
    assert "stability" in capsys.readouterr().out
