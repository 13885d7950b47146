"""The Heads view of the page."""

from __future__ import annotations

import json

import pytest

from attnpo.errors import InputError
from attnpo.report.page import report_html
from attnpo.report.run import read_runs
from attnpo.report.views.heads import chosen_table, find_stability, head_charts, stability_chart

CONTENT = {
    "heads": [[2, 1]],
    "sra": {"2,0": 0.5, "2,1": 0.91, "3,0": 0.42},
    "labels": "<b>causal</b>",
    "traces": 64,
    "essential_over_uniform": {"2,1": 1.5},
    "redundant_over_uniform": {"2,1": 0.25},
}


@pytest.fixture
def folder(example_run, tmp_path):
    return example_run.write_run(tmp_path / "run")


def write(folder, **changes):
    (folder / "heads.json").write_text(json.dumps({**CONTENT, **changes}))
    return read_runs([folder])


def test_map_order_and_table(folder):
    runs = write(folder, sra_interval={"2,1": [0.85, 0.95]})
    heads, order = head_charts(runs[0], 0)
    # Layer 3 has no head 1: an empty cell.
    assert (heads.traces[0]["y"], heads.traces[0]["z"]) == (["2", "3"], [[0.5, 0.91], [0.42, None]])
    assert [(ring["x"], ring["y"]) for ring in heads.traces[1:]] == [([1], ["2"])] * 2
    chosen, others = order.traces
    assert (chosen["x"], chosen["y"], others["x"], others["y"]) == ([1], [0.91], [2, 3], [0.5, 0.42])
    assert (chosen["error_y"]["array"], chosen["error_y"]["arrayminus"]) == ([0.04], [0.06])
    assert chosen_table(runs[0]).rows == [("layer 2, head 1", "0.91", "[0.85, 0.95]", "1.50", "0.25")]
    page = report_html([folder])
    assert 'id="plot-heads-0"' in page
    assert "3 heads, median 0.50, on 64 responses; labels: &lt;b&gt;causal&lt;/b&gt;" in page


def test_heads_without_figures_have_a_table_and_no_map(folder):
    runs = write(folder, sra={})
    assert head_charts(runs[0], 0) == []
    table = chosen_table(runs[0])
    assert (table.columns[:2], table.rows[0][:3]) == (("Chosen", "Accuracy"), ("layer 2, head 1", "–", "1.50"))
    assert "plot-heads" not in report_html([folder])


def test_a_run_without_heads_has_no_view_of_heads(folder):
    (folder / "heads.json").unlink()
    assert 'id="heads"' not in report_html([folder])


STABILITY = "model,traces,Pearson,low,high,first's\nstart,200,,,,0.96\ncheckpoint-12,200,0.996,0.994,0.997,0.95\n"


@pytest.mark.parametrize("place", ["stability", "evidence/stability", "../elsewhere"])
def test_stability_is_found_in_the_run_or_in_a_separate_folder(folder, place):
    (folder / place).mkdir(parents=True)
    (folder / place / "table.csv").write_text(STABILITY)
    page = report_html([folder] if ".." not in place else [folder, folder / place])
    assert 'id="plot-stability-0"' in page
    assert "checkpoint-12" in page


def test_stability_has_the_recorded_numbers(tmp_path):
    (tmp_path / "table.csv").write_text(STABILITY)
    stability = find_stability(tmp_path, "s")
    assert stability is not None
    (trace,) = stability_chart(stability, 0).traces
    assert (trace["x"], trace["y"]) == (["checkpoint-12"], [0.996])
    assert trace["error_y"]["arrayminus"] == pytest.approx([0.002])


def test_tables_of_other_tools_are_ignored_and_bad_ones_named(tmp_path):
    (tmp_path / "table.csv").write_text("heads,SRA\nbest,0.9\n")
    assert find_stability(tmp_path, "s") is None
    (tmp_path / "table.csv").write_text(STABILITY.replace("0.994", "low"))
    with pytest.raises(InputError, match=r"table\.csv, row 3: 'low' is 'low', expected a number"):
        find_stability(tmp_path, "s")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sra", [1], 'field "sra": found list, expected "layer,head"'),
        ("sra", {"2-1": 0.5}, "found '2-1': 0.5, expected \"layer,head\""),
        ("sra", {"2,1": 1.5}, "found '2,1': 1.5, expected"),
        ("sra", {"2,1": True}, "found '2,1': True, expected"),
        ("heads", [[1]], r'field "heads": found [[1]], expected [layer, head] pairs'),
        ("heads", 3, 'field "heads": found 3, expected'),
    ],
)
def test_malformed_head_files(folder, field, value, message):
    with pytest.raises(InputError) as error:
        report_html([write(folder, **{field: value})[0].path])
    assert message in str(error.value)
    assert "heads.json" in str(error.value)
