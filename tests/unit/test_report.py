"""The page of `attnpo report`: what it says, and that nothing a model wrote can act in it."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpo.report.curves import charts, figures
from attnpo.report.examples import kind_of, pick_pairs, pick_training
from attnpo.report.page import report_html, write_report
from attnpo.report.responses import level, response_html
from attnpo.report.data.rollouts import Response
from attnpo.report.data.run import read_run, read_runs
from attnpo.report.words import embedded_json, esc

EVIL = "</script><script>alert('x')</script><img src=http://evil.example/ onerror=alert(1)>&lt;$title ${body}\u2028"
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Elements with attributes, visible text, and the contents of scripts; complains about wrong nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without an open element"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]

    def classes(self, name: str) -> int:
        return sum(name in (attributes.get("class") or "").split() for _, attributes in self.elements)


@pytest.fixture(scope="module")
def run_folder(example_run, tmp_path_factory) -> Path:
    return example_run.write_run(tmp_path_factory.mktemp("report") / "run", steps=20)


@pytest.fixture(scope="module")
def page(run_folder) -> Page:
    return Page(report_html([run_folder]))


def response(**changes) -> Response:
    row = {
        **{"id": "a", "text": "First step.\nSecond.</think>4", "thinking_start": 0, "thinking_end": 19},
        "steps": [
            {"start": 0, "end": 12, "kind": "forward", "tokens": 6, "score": 0.05, "scale": 0.4},
            {"start": 12, "end": 19, "kind": "answer", "tokens": 3, "score": 0.2, "scale": 1.0},
        ],
        **{
            "advantage": 0.3,
            "verdict": "right",
            "baseline": 0.1,
            "tokens": {"prompt": 80, "completion": 120, "answer": 20},
        },
    }
    from attnpo.report.data.rollouts import _response

    return _response({**row, **changes}, "here")


# --- the page


def test_the_page_says_what_the_run_was(page):
    for part in ("attnpo-demo", "tiny-overthinker", "AttnPO", "rloo", "tlmre", "Response length", "Mean scale γ"):
        assert part in page.text
    assert page.all("html", lang="en")
    assert page.all("meta", name="viewport")
    assert [len(page.all(tag)) for tag in ("h1", "main", "nav")] == [1, 1, 1]
    assert {"curves", "pairs", "training", "details"} <= {a.get("id") for _, a in page.elements}
    assert "hf_not_to_be_shown" not in page.text
    assert "hub_token" in page.text


def test_heading_levels_leave_nothing_out(page):
    levels = [int(tag[1]) for tag, _ in page.elements if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit()]
    assert levels[0] == 1
    assert all(deeper <= level + 1 for level, deeper in pairwise(levels))


def test_nothing_is_fetched(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert policy.count("sha256-") == 2
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_curves_carry_the_recorded_numbers_and_a_table(page, run_folder, example_run):
    drawn = json.loads(page.scripts[0])
    assert [figure["id"] for figure in drawn] == ["plot-length", "plot-accuracy", "plot-effects", "plot-scale"]
    training, held_out = drawn[0]["traces"]
    recorded = example_run.read_jsonl(run_folder / "metrics.jsonl")
    assert training["x"] == [row["step"] for row in recorded]
    assert training["y"] == pytest.approx([row["length/completion"] for row in recorded], rel=1e-5)
    assert held_out["y"] == [261, 205, 149]
    assert held_out["error_y"]["array"] == [5, 5, 5]
    assert held_out["error_y"]["arrayminus"] == [4, 4, 4]
    assert len(page.all("figure")) == 4
    assert "205 [201, 210]" in page.text


def test_several_runs_are_overlaid_with_distinct_names(example_run, tmp_path):
    folders = [example_run.write_run(tmp_path / name, steps=2, name="same") for name in ("one", "two")]
    runs = read_runs([*folders, folders[0]])
    assert [run.name for run in runs] == ["same (one)", "same (two)", "same (one) #2"]
    length = figures(charts(runs))[0]
    assert len(length["traces"]) == 6
    assert len({trace["line"]["color"] for trace in length["traces"]}) == 3
    page = Page(report_html(folders))
    assert "same (two), held-out problems" in page.text
    assert len(page.all("h1")) == 1


def test_the_same_run_gives_the_same_page(run_folder):
    assert report_html([run_folder]) == report_html([run_folder])


# --- responses


def test_colour_levels_are_multiples_of_an_even_spread():
    one = response()  # |F| / |o| = 20 / 200 = 0.1
    assert one.even_share == pytest.approx(0.1)
    assert [level(one, step) for step in one.steps] == [3, 5]  # 0.5 times and 2 times: the lower edge belongs
    assert level(one, replace(one.steps[0], score=None)) is None
    assert level(response(tokens={}), one.steps[0]) is None


@pytest.mark.parametrize(
    ("advantage", "effects"), [(0.3, ["attenuated", "untouched"]), (-0.3, ["protected", "untouched"])]
)
def test_effects_follow_from_scale_and_advantage(advantage, effects):
    one = response(advantage=advantage)
    assert [one.effect(step) for step in one.steps] == effects
    shown = Page(response_html(one, "t", show_effects=True))
    assert [shown.classes(effect) for effect in effects] == [2, 2]  # the block and its label
    assert f"{effects[0]}, γ = 0.4" in shown.text
    titles = [a["title"] for _, a in shown.elements if "title" in a]
    assert f"token advantage {'+' if advantage > 0 else '−'}0.12" in (titles[0] or "")


def test_steps_and_gaps_show_the_whole_thinking_in_order():
    one = response(steps=[{"start": 2, "end": 7, "kind": "forward", "score": None, "scale": None}])
    text = Page(response_html(one, "t")).text
    assert text.index("Fi") < text.index("rst s") < text.index("tep.") < text.index("Second.") < text.index("4")
    assert "no score" in text
    assert "</think>" not in text


def test_a_response_without_closing_tag_or_steps():
    one = response(text="Still think", thinking_end=11, steps=[], truncated=True, verdict="no_answer", tokens={})
    text = Page(response_html(one, "t")).text
    for part in ("Not split into steps", "Still think", "No final answer", "no answer", "cut off"):
        assert part in text


def test_long_responses_are_cut_and_say_so():
    text = "x" * 30_000
    steps = [{"start": s, "end": s + 10_000, "kind": "forward"} for s in (0, 10_000, 20_000)]
    shown = response_html(response(text=text, thinking_end=len(text), steps=steps), "t")
    assert "1 further step left out" in shown
    assert len(shown) < 25_000


def test_examples_show_every_kind_that_occurs(run_folder):
    run = read_run(run_folder)
    chosen, notices = pick_training(run.train_files)
    assert notices == []
    assert [kind_of(response) for response in chosen] == ["attenuated", "protected", "other"]
    assert all(response.advantage for response in chosen)


def test_pairs_are_spread_over_the_changes(run_folder):
    run = read_run(run_folder)
    pairs, _ = pick_pairs(run.eval_files)
    assert len(pairs) == 4
    ratios = [pair.after.tokens / pair.before.tokens for pair in pairs]
    assert ratios == sorted(ratios)
    assert all(pair.before.id == pair.after.id for pair in pairs)
    assert (pairs[0].before.step, pairs[0].after.step) == (0, 20)


def test_only_rollouts_at_both_ends_are_read(example_run, tmp_path):
    folder = example_run.write_run(tmp_path / "run", steps=20)
    for step in range(5, 17):
        (folder / "rollouts" / f"train-{step:06d}.jsonl.gz").write_bytes(b"reading this would fail")
    (folder / "rollouts" / "eval-000010.jsonl.gz").write_bytes(b"and this")
    report_html([folder])


# --- escaping


def test_text_from_a_model_is_never_markup(example_run, tmp_path):
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
    text = report_html([folder, folder])  # two runs: names stand in the embedded JSON as well
    page = Page(text)
    assert len(page.scripts) == len(ordinary.scripts) == 3
    assert page.all("img") == []
    assert page.text.count("<script>alert('x')</script>") > 20
    assert "<" not in page.scripts[0]
    assert EVIL in json.dumps(json.loads(page.scripts[0]), ensure_ascii=False).replace('\\"', '"')


@given(st.text())
def test_escaped_text_comes_back_as_text(text):
    page = Page(f'<p title="{esc(text)}">{esc(text)}</p>')
    (_, attributes) = page.elements[0]
    assert len(page.elements) == 1
    assert page.text == attributes["title"]
    assert [c for c in page.text if ord(c) >= 32] == [chr(0x2400 + ord(c)) if ord(c) < 32 else c
        for c in text.replace("\x7f", "\u2421") if c not in "\t\n"]  # fmt: skip


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x)))
def test_embedded_json_comes_back_and_cannot_close_a_script(value):
    text = embedded_json(value)
    assert json.loads(text) == value
    assert "<" not in text


def test_lone_surrogates_do_not_stop_the_page(example_run, tmp_path):
    folder = example_run.write_run(tmp_path / "run", steps=1, groups=1)
    (folder / "config.yaml").write_text('run_name: "bad \\ud800 name"\n', encoding="utf-8")
    write_report([folder], tmp_path / "page.html")
    assert "bad ? name" in (tmp_path / "page.html").read_text(encoding="utf-8")
