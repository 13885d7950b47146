"""`attnpo compare`: runs side by side on the problems they share, from folders to files and the screen."""

from __future__ import annotations

import csv
import io
import json

import pytest
from matplotlib.text import Annotation, Text

from attnpo.cli.main import main
from attnpo.evaluation.compare import compare, read_runs
from attnpo.evaluation.frontier import draw_frontier
from attnpo.evaluation.options import sampling_notice, sampling_notices
from example_evaluation import sample_row, write_evaluation, write_samples
from example_run import read_jsonl, write_jsonl, write_run


def compared(*folders, **options):
    runs, notices = read_runs(folders)
    return compare(runs, notices=notices, **options)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluations")
    return write_evaluation(root / "base"), write_evaluation(root / "short", accuracy=0.7, tokens=500, seed=1)


def write_one(folder, *answers, benchmark="b"):
    """One sample for each (tokens, verdict), of problems p0, p1, …"""
    rows = [sample_row(benchmark, f"p{i}", 0, tokens, verdict) for i, (tokens, verdict) in enumerate(answers)]
    write_samples(folder, benchmark, rows)
    return folder


def test_the_command_writes_its_files_and_shows_them(two, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["compare", *map(str, two), "-o", str(tmp_path), "--budgets", "512,1024"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    for words in ("against base", "all (30 problems)", "on the frontier", "AES", " *", "1024"):
        assert words in shown
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert (found["base"], list(found["runs"]), list(found["benchmarks"])) == (
        "base",
        ["base", "short"],
        ["aime24", "math500"],
    )
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [(row["benchmark"], row["run"]) for row in rows[-2:]] == [("all", "base"), ("all", "short")]
    assert float(rows[-1]["aes"]) == found["all"]["against_base"]["short"]["aes"]["value"]
    assert "| all | short |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_names_may_contain_markup(two, tmp_path, capsys):
    names = ["base [/x]", r"short $\frac$"]
    assert main(["compare", *map(str, two), "-o", str(tmp_path), "--names", ",".join(names)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)


def test_differences_are_those_of_the_runs(two):
    found = compared(*two)
    for part in (*found["benchmarks"].values(), found["all"]):
        versus = part["against_base"]["short"]
        for name in ("accuracy", "tokens"):
            base, short = (part["runs"][run][name]["value"] for run in ("base", "short"))
            assert versus[name]["value"] == pytest.approx(short - base)


def test_the_macro_average_counts_benchmarks_the_same(two):
    found = compared(*two)
    for run in ("base", "short"):
        values = [part["runs"][run]["tokens"]["value"] for part in found["benchmarks"].values()]
        assert found["all"]["runs"][run]["tokens"]["value"] == pytest.approx(sum(values) / 2)


def test_the_base_can_be_chosen(two):
    one, other = compared(*two)["all"], compared(*two, base="short")["all"]
    forth, back = one["against_base"]["short"]["tokens"], other["against_base"]["base"]["tokens"]
    assert back["value"] == pytest.approx(-forth["value"])
    assert (back["low"], back["high"]) == pytest.approx((-forth["high"], -forth["low"]))
    assert back["p"] == pytest.approx(forth["p"])


def test_only_problems_of_all_runs_are_compared(tmp_path):
    more = write_one(tmp_path / "more", (100, "right"), (100, "wrong"), (900, "wrong"))
    fewer = write_one(tmp_path / "fewer", (50, "right"), (50, "right"))
    found = compared(more, fewer)
    assert found["benchmarks"]["b"]["problems"] == 2
    assert found["benchmarks"]["b"]["runs"]["more"]["tokens"]["value"] == 100
    assert found["notices"] == ["b: compared on the 2 problems that all have (3 of more, 2 of fewer)."]
    assert found["all"] is None  # of one benchmark


def test_benchmarks_of_one_run_only_are_omitted_and_reported(tmp_path):
    one, other = write_one(tmp_path / "one", (100, "right")), write_one(tmp_path / "other", (100, "right"))
    write_one(one, (10, "right"), benchmark="extra")
    found = compared(one, other)
    assert list(found["benchmarks"]) == ["b"]
    assert found["notices"] == ["extra: only one has it; left out."]


def test_run_with_other_problems_is_omitted_and_reported(tmp_path):
    one, other = write_one(tmp_path / "one", (100, "right")), write_one(tmp_path / "other", (50, "right"))
    write_samples(tmp_path / "odd", "b", [sample_row("b", "q0")])
    found = compared(tmp_path / "odd", one, other)
    assert list(found["benchmarks"]["b"]["runs"]) == ["one", "other"]
    assert found["notices"] == ["b: odd left out: no problem in common with one, other."]
    assert found["benchmarks"]["b"]["against_base"] == {}  # the base has other problems
    assert found["all"] is None


def test_training_run_on_other_problems_next_to_two_evaluations(tmp_path, capsys):
    folders = [write_evaluation(tmp_path / name, benchmarks={"held-out": 5}, results=False) for name in ("a", "b")]
    run = write_run(tmp_path / "run", name="trained", steps=10)
    assert main(["compare", *map(str, [*folders, run]), "-o", str(tmp_path / "out")]) == 0
    said = "held-out: trained@0, trained@10 left out: no problem in common with a, b."
    assert said in " ".join(capsys.readouterr().out.split())


def test_different_sampling_is_reported_everywhere(tmp_path, capsys):
    sampling = {
        "cool": {"temperature": 0.6, "max_tokens": 4096, "dtype": "bfloat16"},
        "hot": {"temperature": 1.0, "max_tokens": 4096, "dtype": "float32"},
    }
    folders = [
        write_evaluation(tmp_path / name, benchmarks={"math500": 5}, results=False, options=options)
        for name, options in sampling.items()
    ]
    assert main(["compare", *map(str, folders), "-o", str(tmp_path / "out")]) == 0
    said = "sampled with different options: temperature 0.6 (cool), 1.0 (hot); dtype bfloat16 (cool), float32 (hot)."
    assert said in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["notices"] == [said]
    assert f"- {said}\n" in (tmp_path / "out" / "table.md").read_text()


def test_options_that_are_the_same_or_not_recorded_are_no_difference():
    def counts(samples):
        return {"benchmarks": {"b": {"samples": samples}, "c": {"samples": 1}}}

    assert sampling_notice({"a": {"temperature": 1, "top_p": 0.9}, "b": {"temperature": 1.0}}, ["b"]) is None
    assert sampling_notice({"a": counts(4), "b": counts(2)}, ["c"]) is None  # b is not compared
    said = sampling_notice({"a": counts(4), "b": counts(2), "old": {"benchmarks": ["b", "c"]}}, ["b", "c"])
    assert said == "sampled with different options: samples per problem of b 4 (a), 2 (b)."


def test_groups_that_differ_name_their_benchmarks():
    options = {"a": {"top_p": 0.9}, "b": {"top_p": 1.0}, "c": {"top_p": 1.0}}
    assert sampling_notices(options, {"x": ["a", "b"], "y": ["b", "c"], "z": ["a", "b"]}) == [
        "x, z: sampled with different options: top_p 0.9 (a), 1.0 (b)."
    ]


def test_a_training_run_is_its_first_and_last_evaluation(tmp_path):
    run = write_run(tmp_path / "a", name="attnpo", steps=20)
    runs, _ = read_runs([run])
    assert [(one.name, one.step) for one in runs] == [("attnpo@0", 0), ("attnpo@20", 20)]
    recorded = read_jsonl(run / "rollouts" / "eval-000020.jsonl.gz")
    found = compare(runs)["benchmarks"]["held-out"]
    tokens = [row["tokens"]["completion"] for row in recorded]
    assert found["runs"]["attnpo@20"]["tokens"]["value"] == pytest.approx(sum(tokens) / len(tokens))
    assert found["against_base"]["attnpo@20"]["tokens"]["value"] < 0


def test_the_same_start_of_two_runs_is_shown_once(tmp_path):
    one, other = (write_run(tmp_path / name, name=name, steps=10) for name in "ab")
    rows = read_jsonl(other / "rollouts" / "eval-000010.jsonl.gz")
    write_jsonl(other / "rollouts" / "eval-000010.jsonl.gz", [row | {"verdict": "wrong"} for row in rows])
    runs, notices = read_runs([one, other])
    assert [run.name for run in runs] == ["a@0", "a@10", "b@10"]
    assert notices == ["b@0 has the same responses as a@0: shown once."]


def test_runs_can_be_named(two, tmp_path, capsys):
    assert main(["compare", *map(str, two), "-o", str(tmp_path), "--names", "A, B", "--base", "B"]) == 0
    assert "against B" in capsys.readouterr().out


def test_weights_of_aes_are_options(two, tmp_path):
    options = ["--aes-length", "0", "--aes-gain", "0", "--aes-loss", "0"]
    assert main(["compare", *map(str, two), "-o", str(tmp_path), *options]) == 0
    assert json.loads((tmp_path / "comparison.json").read_text())["all"]["against_base"]["short"]["aes"]["value"] == 0


def test_ungraded_runs_have_empty_cells(tmp_path, capsys):
    one = write_one(tmp_path / "one", (100, "timed_out"), (90, "timed_out"))
    other = write_one(tmp_path / "other", (50, "right"), (60, "right"))
    assert main(["compare", str(one), str(other), "-o", str(tmp_path / "out")]) == 0
    versus = json.loads((tmp_path / "out" / "comparison.json").read_text())["benchmarks"]["b"]["against_base"]["other"]
    assert (versus["accuracy"]["value"], versus["aes"]["value"], versus["tokens"]["value"]) == (None, None, -40)
    assert "2 of 2 responses of one are ungraded" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("close", [0.0, 0.02])
def test_labels_of_the_frontier_do_not_overlap(close):
    def value(x):
        return {"value": x, "low": x * 0.9, "high": x * 1.1}

    runs = {
        f"a run with a name {i}": {"tokens": value(500 * (1 + i * close)), "accuracy": value(0.5 + i * close / 4)}
        for i in range(5)
    }
    part = {"problems": 9, "runs": runs}
    figure = draw_frontier({"runs": runs, "benchmarks": {"b": part}, "all": None})
    renderer = figure.canvas.get_renderer()
    labels = [child for child in figure.axes[0].get_children() if isinstance(child, Annotation)]
    boxes = [Text.get_window_extent(label, renderer) for label in labels]
    assert len(boxes) == 5
    inside = figure.axes[0].get_window_extent(renderer)
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])
        assert inside.x0 <= box.x0 <= box.x1 <= inside.x1
