"""The heads of a run on its page."""

from __future__ import annotations

import json

import pytest

from attnpo.errors import InputError
from attnpo.report.heads import head_figures, heads_html
from attnpo.report.page import report_html
from attnpo.report.data.run import read_runs

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


def test_map_and_table(folder):
    runs = write(folder)
    (figure,) = head_figures(runs)
    # Layer 3 has no head 1: an empty cell.
    assert (figure["layers"], figure["map"], figure["chosen"]) == ([2, 3], [[0.5, 0.91], [0.42, None]], [(2, 1)])
    page = heads_html(runs)
    assert f'id="{figure["id"]}"' in page
    assert '<th scope="row">layer 2, head 1</th><td>0.91</td><td>1.50</td><td>0.25</td>' in page
    assert "3 heads, median 0.50, on 64 responses; labels: &lt;b&gt;causal&lt;/b&gt;" in page
    assert page in report_html([folder])


def test_heads_without_figures_have_a_table_and_no_map(folder):
    runs = write(folder, sra={})
    assert head_figures(runs) == []
    assert "<td>–</td><td>1.50</td>" in heads_html(runs)
    assert 'class="plot"' not in heads_html(runs)


def test_a_run_without_heads_has_no_such_section(folder):
    (folder / "heads.json").unlink()
    assert "Attention heads" not in report_html([folder])


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
