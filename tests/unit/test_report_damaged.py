"""Partial runs give a page that lists what is missing; errors about malformed files name file and row."""

from __future__ import annotations

import base64
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpo.data.jsonl import read_unfinished_jsonl
from attnpo.errors import InputError
from attnpo.report.page import report_html
from attnpo.report.run import read_run
from attnpo.report.selection import collect


@pytest.fixture
def run_folder(example_run, tmp_path):
    return example_run.write_run(tmp_path / "run", steps=10, groups=1)


@pytest.mark.parametrize(
    ("name", "consequence"),
    [
        ("config.yaml", "the model and the method are not known"),
        ("environment.json", "versions and seeds are not known"),
        ("metrics.jsonl", "there are no training curves"),
        ("evaluations.jsonl", "nothing was measured on held-out problems"),
    ],
)
def test_a_missing_or_empty_file_is_a_notice(run_folder, name, consequence):
    (run_folder / name).unlink()
    assert f"No {name}: {consequence}." in report_html([run_folder])
    (run_folder / name).write_text("")
    if name.endswith(".jsonl"):
        assert f"{name} is empty: {consequence}." in report_html([run_folder])


def test_without_rollouts(run_folder):
    for path in (run_folder / "rollouts").iterdir():
        path.unlink()
    page = report_html([run_folder])
    assert "there are no training responses to show" in page
    assert "No responses were recorded." in page
    (run_folder / "rollouts").rmdir()
    assert report_html([run_folder]) == page


def test_a_bare_configuration_gives_a_page(tmp_path):
    (tmp_path / "config.yaml").write_text("model_name_or_path: m\n")
    page = report_html([tmp_path])
    assert "Nothing was measured yet." in page
    assert "No curves" in page


def test_null_scores_and_missing_counts(run_folder, example_run):
    for path in (run_folder / "rollouts").iterdir():
        rows = example_run.read_jsonl(path)
        for row in rows:
            row["steps"] = [
                {"start": s["start"], "end": s["end"], "kind": s["kind"], "score": None} for s in row["steps"]
            ]
            for key in ("tokens", "rewards", "verdict", "baseline", "reward", "reference", "group_accuracy"):
                del row[key]
        example_run.write_jsonl(path, rows)
    assert 'id="chunk-0-train-1"' in report_html([run_folder])
    (shelf,) = collect([read_run(run_folder)])
    for chunk in shelf.chunks:
        content = json.loads(gzip.decompress(base64.b64decode(chunk.data)))
        steps = [step for response in content["responses"] for step in response["pieces"]]
        assert {step["level"] for step in steps} == {step["score"] for step in steps} == {None}


def test_an_unfinished_last_line_is_tolerated_and_reported(run_folder):
    path = run_folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    run = read_run(run_folder)
    assert len(run.metrics) == 9
    assert any("metrics.jsonl: the last line is unfinished" in notice for notice in run.notices)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"step": 3, "accuracy"', "not valid JSON"),
        (b"[3]", "found a list, expected one JSON object per line"),
        (b'{"accuracy": 1}', "'step' is None"),
        (b'{"step": 2.5}', "'step' is 2.5"),
        (b'{"step": 3, "accuracy": "high"}', "'accuracy' is 'high'"),
        (b'{"step": 3, "truncated": true}', "'truncated' is True"),
        (b'{"step": 3, "x": "\xff"}', "not UTF-8 text"),
    ],
)
@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluations.jsonl"])
def test_a_malformed_line_is_named(run_folder, name, line, message):
    path = run_folder / name
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"\n" + b"".join(rest))
    with pytest.raises(InputError) as caught:
        read_run(run_folder)
    assert f"{name}, row 2" in str(caught.value)
    assert message in str(caught.value)
    # The same at the end, but finished with a newline: no crash while writing does that.
    path.write_bytes(first + line + b"\n")
    with pytest.raises(InputError, match="row 2"):
        read_run(run_folder)


def test_values_that_are_not_finite_are_gaps(run_folder):
    (run_folder / "metrics.jsonl").write_text('{"step": 1, "accuracy": NaN}\n{"step": 2, "accuracy": 0.5}\n')
    assert [row["accuracy"] for row in read_run(run_folder).metrics] == [None, 0.5]
    assert "NaN" not in report_html([run_folder]).split('id="data"')[1].split("</script>")[0]


def test_a_resumed_run_counts_the_later_record(run_folder):
    (run_folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": s, "accuracy": a}) + "\n" for s, a in [(1, 0.1), (2, 0.2), (3, 0.3), (2, 0.8)])
    )
    run = read_run(run_folder)
    assert [row["accuracy"] for row in run.metrics] == [0.1, 0.8, 0.3]
    assert any("records of 1 step (2 to 2) occur more than once" in notice for notice in run.notices)


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.9])
@pytest.mark.parametrize("name", ["eval-000010.jsonl.gz", "train-000010.jsonl.gz"])
def test_a_truncated_rollout_file_is_tolerated_and_reported(run_folder, name, keep):
    path = run_folder / "rollouts" / name
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    page = report_html([run_folder])
    assert f"{name}: the" in page


def test_a_rollout_file_of_several_gzip_members(run_folder):
    path = run_folder / "rollouts" / "eval-000010.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(b"".join(gzip.compress(line) for line in lines))
    rows, notice = read_unfinished_jsonl(path)
    assert (len(rows), notice) == (24, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, "'text' is None"),
        ({"thinking_end": 10**6}, "expected to lie in a text of"),
        ({"thinking_start": -1}, "'thinking_start' is -1"),
        ({"steps": [{"start": 0, "end": 10**6}]}, "step 0: [0, 1000000)"),
        ({"steps": [{"start": 0, "end": 9}, {"start": 8, "end": 12}]}, "step 1: [8, 12) overlaps"),
        ({"steps": [{"start": 0, "end": 9, "score": "much"}]}, "step 0: 'score' is 'much'"),
        ({"steps": [3]}, "step 0: found 3"),
        ({"tokens": 7}, "'tokens' is 7"),
        ({"advantage": []}, "'advantage' is []"),
    ],
)
def test_a_rollout_row_that_does_not_fit_is_named(run_folder, example_run, change, message):
    path = run_folder / "rollouts" / "eval-000010.jsonl.gz"
    rows = example_run.read_jsonl(path)
    rows[4] |= change
    example_run.write_jsonl(path, rows)
    with pytest.raises(InputError) as caught:
        report_html([run_folder])
    assert "eval-000010.jsonl.gz, row 5" in str(caught.value)
    assert message in str(caught.value)


def test_no_run_folder(tmp_path):
    with pytest.raises(InputError, match=r"config\.yaml, metrics\.jsonl, evaluations\.jsonl or rollouts"):
        read_run(tmp_path)
    with pytest.raises(InputError, match="found nothing, expected a run folder"):
        read_run(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="found a file, expected a run folder"):
        read_run(tmp_path / "file")


@pytest.mark.parametrize(("name", "text"), [("config.yaml", "a: [1"), ("environment.json", "{"), ("heads.json", "[1]")])
def test_malformed_mappings_are_named(run_folder, name, text):
    (run_folder / name).write_text(text)
    with pytest.raises(InputError, match=name):
        read_run(run_folder)


ROWS = st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=3), max_size=5)


@given(rows=ROWS, cut=st.integers(0, 400), zipped=st.booleans())
def test_any_cut_leaves_the_rows_before_it(rows, cut, zipped, tmp_path_factory):
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    data = b"".join(line + b"\n" for line in lines)
    path = tmp_path_factory.mktemp("cut") / ("a.jsonl.gz" if zipped else "a.jsonl")
    complete = gzip.compress(data) if zipped else data
    path.write_bytes(complete[:cut])
    found, notice = read_unfinished_jsonl(path)
    assert [row for _, row in found] == rows[: len(found)]
    if len(found) < len(rows) and zipped:
        assert notice is not None
    if not zipped:
        assert len(found) >= data[:cut].count(b"\n")
        rest = data[:cut].rpartition(b"\n")[2]
        # A row that lacks only its line break is complete.
        assert (notice is not None) == (rest not in (b"", *lines))


LATER = (
    "mean_token_advantage",
    "group_accuracy",
    "verdict",
    "baseline",
    "rewards",
    "answered",
    "answer_start",
    "answer_end",
)


@pytest.mark.parametrize("absent", [*LATER, "steps", "tokens"])
def test_records_of_an_earlier_version(absent, run_folder, example_run):
    """A field that an earlier version did not write is a gap, not an error."""
    for path in (run_folder / "rollouts").iterdir():
        rows = example_run.read_jsonl(path)
        example_run.write_jsonl(path, [{k: v for k, v in row.items() if k != absent} for row in rows])
    assert "</html>" in report_html([run_folder])


def test_a_record_that_cannot_be_read_is_named(run_folder, example_run):
    path = sorted((run_folder / "rollouts").iterdir())[-1]
    rows = example_run.read_jsonl(path)
    del rows[2]["thinking_end"]  # written since the first version
    example_run.write_jsonl(path, rows)
    with pytest.raises(InputError, match=r"train-000010\.jsonl\.gz, row 3: 'thinking_end' is None, expected a whole"):
        report_html([run_folder])
