"""The page of `attnpo report`: its content, and that text from models is never active in it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from plotly.offline import get_plotlyjs

from attnpo.report.elements import Table, embedded_json, esc, render, visible
from attnpo.report.page import report_html, write_report

EVIL = "</script><script>alert('x')</script><img src=http://evil.example/ onerror=alert(1)>&lt;$title ${body}\u2028"
VOID = {"meta", "link", "img", "br", "input"}
VIEWS = ["overview", "compare", "responses", "heads", "behaviour", "configuration"]


class Page(HTMLParser):
    """Elements with attributes, visible text, and the contents of scripts by id; complains about wrong nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: dict[str, str] = {}
        self.script = ""
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.script = dict(attrs).get("id") or "own"
            self.scripts[self.script] = ""

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without an open element"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[self.script] += data
        elif not self.open or self.open[-1] != "style":
            self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts["data"])

    def unpacked(self, script: str) -> str:
        return gzip.decompress(base64.b64decode(self.scripts[script])).decode()


@pytest.fixture(scope="module")
def run_folder(example_run, tmp_path_factory) -> Path:
    return example_run.write_run(tmp_path_factory.mktemp("report") / "run", steps=20)


@pytest.fixture(scope="module")
def page(run_folder) -> Page:
    return Page(report_html([run_folder]))


def test_the_page_names_model_and_method(page):
    for part in ("attnpo-demo", "tiny-overthinker", "AttnPO", "rloo", "tlmre", "Response length", "Mean scale γ"):
        assert part in page.text
    assert page.all("html", lang="en")
    assert page.all("meta", name="viewport")
    assert [len(page.all(tag)) for tag in ("h1", "main", "nav", "dialog")] == [1, 1, 1, 1]
    assert [a["id"] for _, a in page.elements if "view" in (a.get("class") or "").split()] == VIEWS
    assert [a["href"] for a in page.all("a") if (a.get("id") or "").startswith("tab-")] == [f"#{v}" for v in VIEWS]


def test_credentials_are_not_shown(example_run, tmp_path):
    folder = example_run.write_run(tmp_path / "run", steps=1, groups=1)
    environment = {
        "command": "attnpo train --hub_token=hf_in_the_command1 --x 'a b' --openai_api_key sk-secondsecret",
        "note": "https://me:pass@example.org and hf_abcdefghijk",
        "inner": {"password": "third-secret"},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    text = report_html([folder])
    for secret in ("hf_not_to_be_shown", "in_the_command", "secondsecret", "me:pass", "hf_abc", "third-secret"):
        assert secret not in text
    for kept in ("hub_token", "--x &#x27;a b&#x27;", "example.org", "(hidden)"):
        assert kept in text


def test_no_heading_level_is_skipped(page):
    levels = [int(tag[1]) for tag, _ in page.elements if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit()]
    assert levels[0] == 1
    assert all(deeper <= level + 1 for level, deeper in pairwise(levels))


def test_ids_are_unique(page):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_nothing_is_fetched(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert policy.count("sha256-") == 3
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_plotly_is_there_and_packed(page, run_folder):
    assert page.unpacked("plotly") == get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    assert len(report_html([run_folder])) < 3_500_000  # plotly alone has 4.8 MB


def test_the_same_run_gives_the_same_page(run_folder):
    assert report_html([run_folder]) == report_html([run_folder])


def test_views_without_content_have_no_tab(tmp_path):
    (tmp_path / "config.yaml").write_text("model_name_or_path: m\n")
    page = Page(report_html([tmp_path]))
    views = [a["id"] for _, a in page.elements if "view" in (a.get("class") or "").split()]
    assert views == ["overview", "compare", "responses", "configuration"]


def test_options_that_differ_come_first(example_run, tmp_path):
    folders = [example_run.write_run(tmp_path / name, name=name, steps=1, groups=1) for name in ("a", "b")]
    page = Page(report_html(folders))
    assert "Where the runs differ" in page.text
    first = page.text[page.text.index("Where the runs differ") :]
    assert "run_name" in first[: first.index("Command")]
    assert "max_completion_length" not in first[: first.index("Command")]


# --- escaping


def test_text_of_a_model_is_never_markup(example_run, tmp_path):
    folder = example_run.write_run(tmp_path / "run", steps=2, groups=1)
    ordinary = Page(report_html([folder]))
    for path in (folder / "rollouts").iterdir():
        rows = example_run.read_jsonl(path)
        for row in rows:
            row["text"] = EVIL + row["text"] + EVIL
            row["thinking_end"] += len(EVIL)
            row["steps"] = [{**s, "kind": EVIL, "start": s["start"] and s["start"] + len(EVIL)} for s in row["steps"]]
            for step in row["steps"]:
                step["end"] += len(EVIL)
            row |= {"prompt": EVIL, "id": row["id"] + EVIL, "reference": EVIL, "verdict": EVIL, "rewards": {EVIL: 1.0}}
        example_run.write_jsonl(path, rows)
    config = {"run_name": EVIL, "model_name_or_path": EVIL, "credit": EVIL, EVIL: EVIL}
    (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps({EVIL: [EVIL, {EVIL: EVIL}]}), encoding="utf-8")
    page = Page(report_html([folder]))
    assert page.scripts.keys() == ordinary.scripts.keys()
    assert page.scripts["own"] == ordinary.scripts["own"]
    assert [tag for tag, _ in page.elements].count("img") == 0
    assert page.text.count("<script>alert('x')</script>") > 5
    assert "<" not in page.scripts["data"]
    assert page.data["shelves"][0]["run"] == EVIL
    content = json.loads(page.unpacked("chunk-0-train-2"))
    assert EVIL.strip() in content["problems"][0]
    assert EVIL in content["responses"][0]["pieces"][0]["kind"]


@given(st.text())
def test_escaped_text_round_trips(text):
    page = Page(f'<p title="{esc(text)}">{esc(text)}</p>')
    (_, attributes) = page.elements[0]
    assert len(page.elements) == 1
    assert page.text == attributes["title"] == visible(text)


def traces_with(text: str) -> Page:
    """The view of traces with `text` in every place that takes one."""
    table = Table(("", text), [(text, text), ("row", f"{text} [{text}]")], text)
    return Page(str(render("traces.html", files=[{"name": text, "numbers": table, "kinds": table}])))


@given(st.text(min_size=1))
def test_templates_print_text_and_no_markup(text):
    # An interval is the one part of a cell that becomes an element.
    found, plain = traces_with(text), traces_with("x")
    assert [tag for tag, _ in found.elements if tag != "small"] == [tag for tag, _ in plain.elements if tag != "small"]
    assert found.text.count(visible(text)) >= plain.text.count("x") == 13
    assert {a["aria-label"] for a in found.all("div")} == {visible(text), f"{visible(text)}, kinds of steps"}


def test_a_value_that_a_template_lacks_is_an_error():
    with pytest.raises(UndefinedError, match="'curves' is undefined"):
        render("behaviour.html")


@given(st.text())
def test_characters_that_affect_the_text_around_them_are_shown_by_name(text):
    shown = visible(text)
    assert all(ord(c) >= 32 or c in "\t\n" for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x7f")
    assert visible(shown) == shown


def test_visible_by_hand():
    assert visible("a\x00b\x7f\u202ec\n\té") == "a␀b␡⟨U+202E⟩c\n\té"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x)))
def test_embedded_json_comes_back_and_cannot_close_a_script(value):
    text = embedded_json(value)
    assert json.loads(text) == value
    assert "<" not in text


def test_lone_surrogates_do_not_stop_the_page(example_run, tmp_path):
    folder = example_run.write_run(tmp_path / "run", steps=1, groups=1)
    (folder / "config.yaml").write_text('run_name: "bad \\ud800 name"\n', encoding="utf-8")
    path = folder / "rollouts" / "train-000001.jsonl.gz"
    rows = example_run.read_jsonl(path)
    path.write_bytes(gzip.compress("".join(json.dumps(row | {"prompt": "x\ud83dy"}) + "\n" for row in rows).encode()))
    write_report([folder], tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "bad ? name" in page.text
    assert json.loads(page.unpacked("chunk-0-train-1"))["problems"] == ["x?y"]


def test_watching_writes_the_page_when_a_run_continues(example_run, tmp_path, monkeypatch, capsys):
    from attnpo.cli import report
    from attnpo.cli.main import main

    run = example_run.write_run(tmp_path / "run", steps=2)
    page, sizes = tmp_path / "page.html", []

    def sleep(seconds: float) -> None:
        """Replace waiting: the second call adds a line of metrics, the fourth ends watching."""
        sizes.append(page.stat().st_mtime_ns)
        if len(sizes) == 2:
            with open(run / "metrics.jsonl", "a") as file:
                file.write('{"step": 3, "accuracy": 0.123, "length/completion": 4567}\n')
        if len(sizes) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", sleep)
    assert main(["report", str(run), "-o", str(page), "--watch", "5"]) == 0
    assert "watching every 5 s" in capsys.readouterr().out
    assert sizes[0] == sizes[1]
    assert sizes[2] > sizes[1]
    assert sizes[3] == sizes[2]
    assert main(["report", str(run), "-o", str(page), "--watch", "0"]) == 2


def test_temml_is_there_with_its_licence_and_only_where_there_are_texts(page, tmp_path):
    static = resources.files("attnpo.report").joinpath("static")
    assert page.unpacked("temml") == static.joinpath("temml.min.js").read_text(encoding="utf-8")
    assert "MIT" in static.joinpath("temml-LICENSE.txt").read_text(encoding="utf-8")
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    digest = base64.b64encode(hashlib.sha256(page.unpacked("temml").encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    (tmp_path / "config.yaml").write_text("model_name_or_path: m\n")
    assert "temml" not in Page(report_html([tmp_path])).scripts


def test_watching_sees_samples_and_traces_and_survives_a_half_written_file(example_run, tmp_path, monkeypatch, capsys):
    from attnpo.cli import report
    from attnpo.cli.main import main
    from example_evaluation import sample_row, write_samples

    page, times = tmp_path / "page.html", []
    file = write_samples(tmp_path / "evaluation", "math500", [sample_row(id="a")])
    traces = tmp_path / "scored.jsonl"
    example_run.write_jsonl(traces, [{"id": 1, "response": "a</think>b", "steps": []}])

    def sleep(seconds: float) -> None:
        times.append(page.stat().st_mtime_ns)
        complete = file.read_text(encoding="utf-8")
        if len(times) == 1:
            file.write_text(complete + json.dumps(sample_row(id="b"))[:40], encoding="utf-8")
        if len(times) == 2:
            file.write_text(complete.splitlines()[0] + "\n" + json.dumps(sample_row(id="b")) + "\n", encoding="utf-8")
        if len(times) == 3:
            example_run.write_jsonl(traces, [{"id": 1, "response": "anew</think>b", "steps": []}])
        if len(times) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", sleep)
    assert main(["report", str(tmp_path / "evaluation"), str(traces), "-o", str(page), "--watch", "5"]) == 0
    assert "the page was not updated" in capsys.readouterr().err
    assert times[0] == times[1] < times[2] < times[3] == times[4]
    assert "2 of 2 problems" in page.read_text(encoding="utf-8")
