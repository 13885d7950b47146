"""The Trimmed view: removed steps struck through, text escaped, other files refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attnpo.errors import InputError
from attnpo.report.page import report_html


def row(**trim: Any) -> dict[str, Any]:
    steps = [
        {"start": 0, "end": 5, "kind": "forward", "score": 0.25, "removed": False, "kept_for_value": True},
        {"start": 5, "end": 15, "kind": "confused", "score": 0.01, "removed": True, "kept_for_value": False},
    ]
    trim = {
        "ranking": "attention",
        "verify": "sample",
        "reason": "1 of 2 steps removed: all that may be removed",
        "answer": "It is <b>42</b>.",
        "drop": None,
        "tokens": {"long": 1200, "short": 300},
        "response": "Keep.<i>Gone</i></think>It is 42.",
        "steps": steps,
        **trim,
    }
    return {"id": "a1", "problem": "12 + 30?", "response": "Keep.</think>It is 42.", "trim": trim}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_removed_steps_are_struck_through(tmp_path):
    page = report_html([write(tmp_path / "short.jsonl", row(), row(drop=0.05, answer=None))])
    for part in (
        "<del data-maths>&lt;i&gt;Gone&lt;/i</del>",
        '<div class="words"><span data-maths>Keep.</span></div>',
        "kept: a later step uses its value",
        "a1: 1,200 → 300 tokens, 2 steps. 1 of 2 steps removed: all that may be removed",
        "It is &lt;b&gt;42&lt;/b&gt;.",
        "0.05 nats",
        "score 0.25",
        '<a href="#trimmed"',
        "short.jsonl",
    ):
        assert part in page
    assert page.count("<del ") == 2
    assert 'href="#overview"' not in page


def test_a_page_of_a_run_and_a_trimmed_file(tmp_path, example_run):
    folder = example_run.write_run(tmp_path / "run", steps=1, groups=1)
    page = report_html([folder, write(tmp_path / "short.jsonl", row())])
    assert page.index('href="#overview"') < page.index('href="#trimmed"')


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"problem": "x", "response": "y"}, "row 1: field 'trim' is missing, expected a file of `attnpo trim`"),
        (row(steps=None), "row 1: field 'trim' lacks response, steps or tokens"),
        (row(steps=[3]), "row 1, step 0: found 3"),
        (row(thinking_format="x"), "row 1: field 'thinking_format' of 'trim' is 'x', expected an object"),
        (
            row(thinking_format={"closing": 5}),
            "row 1: field 'thinking_format' of 'trim': thinking_format: field 'closing'",
        ),
        (row(steps=[{"start": 0, "end": -1}]), "row 1, step 0: 'end' is -1"),
    ],
)
def test_other_files_are_refused(found, message, tmp_path):
    with pytest.raises(InputError, match=message):
        report_html([write(tmp_path / "x.jsonl", found)])
