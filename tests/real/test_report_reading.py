"""Formulas, flips, scroll cues, evaluations and traces of the page in Chromium."""

from __future__ import annotations

import json
import random
from importlib import resources
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from attnpo.report.page import write_report
from example_evaluation import write_evaluation
from report_browser import DRAWN, browser, find, listed, no_complaint_and_no_request, press, reader_at, show, until

pytestmark = pytest.mark.slow
__all__ = ["browser", "no_complaint_and_no_request"]  # fixtures

HOSTILE = (
    r"$\href{javascript:alert(1)}{x}$ $\includegraphics{http://127.0.0.1:9/x}$ $\class{skip}{x}$ \(\url{http://a/}\) "
    r"$\htmlStyle{position:fixed}{x}$ $\def\a{\a\a}\a$ "
    r"$</span><img src=http://127.0.0.1:9/y>$ \[\kern-900em\rule{900em}{900em}\] "
)
FORMULAS = r"Let $x^2$ be \(\frac{a}{b}\) of $5 and $7. \[\sum_{i=1}^n i\] $$\sqrt{2}$$ "


@pytest.fixture(scope="module")
def formulas(example_run, tmp_path_factory) -> Path:
    """A run whose held-out problems have formulas and money; a formula that begins in one step and ends in the next."""
    folder = tmp_path_factory.mktemp("formulas")
    run = example_run.write_run(folder / "run", steps=10)
    for file in (run / "rollouts").glob("eval-*"):
        rows = example_run.read_jsonl(file)
        for row in rows:
            row["prompt"] = FORMULAS + HOSTILE + "{" * 3000 + "$" + "{" * 900 + "$"
            first, second = "It is $x^2$ and $a +", "b$ or $c_1$ then"
            row["text"] = first + second + "</think>\\boxed{3} that is $3$"
            row |= {"thinking_start": 0, "thinking_end": len(first + second)}
            common = {"kind": "forward", "tokens": 5, "scale": None}
            row["steps"] = [
                {"start": 0, "end": len(first), "score": 0.01, **common},
                {"start": len(first), "end": len(first + second), "score": 0.4, **common},
            ]
        example_run.write_jsonl(file, rows)
    write_report([run], folder / "page.html")
    return folder / "page.html"


def math_parts(browser, script: str, *arguments):
    """Run `script` with the page's `mathParts` and return its result."""
    source = resources.files("attnpo.report").joinpath("static", "maths.js").read_text(encoding="utf-8")
    return browser.execute_script(f"const base = {{}}; {source}; const {{ mathParts }} = maths; {script}", *arguments)


def parts(browser, text: str) -> list[str]:
    """The formulas that `text` has; the parts joined are the text."""
    found = math_parts(browser, "return mathParts(arguments[0]);", text)
    assert "".join(part["text"] for part in found) == text
    return [part["formula"] for part in found if "formula" in part]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$x$ and $y+1$.", ["x", "y+1"]),
        (r"\(a\) \[b\] $$c$$", ["a", "b", "c"]),
        ("It costs $5 and $7.", []),
        ("It costs $5, not $7, or $5-$7, or US$3/$4.", []),
        ("He has $5 for apples and owes 7$.", []),
        ("Pay $20 now and $x$ later, then $30.", ["x"]),
        (r"\$5 and \$7, $\$5 + x$", [r"\$5 + x"]),
        ("$5$ apples and $n$ pears", ["5", "n"]),
        ("an $n$-gon, $k$th, $2$nd", ["n", "k", "2"]),
        (r"$\text{area of the room} = x$", [r"\text{area of the room} = x"]),
        ("`$HOME` and `$PATH$` or ``a ` $b$``", []),
        ("$a\n\nb$ and $$c\n\nd$$", []),
        (r"\\(x\\) is a line end", []),
        ("$$ open and $x$", ["x"]),
        (r"\[ open, $x \[ y", []),
        ("$$$$ $ $", []),
        (r"It is \boxed{\frac{1}{2}}, or \boxed{3, \boxed{", [r"\boxed{\frac{1}{2}}"]),
    ],
)
def test_formula_detection(browser, formulas, text, found):
    show(browser, formulas)
    assert parts(browser, text) == found


def test_no_text_is_lost_and_no_text_takes_long(browser, formulas):
    show(browser, formulas)
    rng = random.Random(0)
    for _ in range(100):
        parts(browser, "".join(rng.choices([*"$$$\\()[]` \n5ax{}", "$$", r"\(", r"\]"], k=40)))
    timed = "const t = performance.now(); arguments[0].forEach((a) => mathParts(a)); return performance.now() - t"
    hostile = [
        unit * (10_000 // len(unit)) for unit in ("$", "$a ", "`", "`a", r"\(", r"\[x", "$$x", "$x aa ", r"\boxed{")
    ]
    assert math_parts(browser, timed, hostile) < 5000


def test_formulas_are_drawn_and_money_is_not(browser, formulas):
    show(browser, formulas, "responses/0/eval-0/0?mode=one")
    until(browser, lambda b: len(find(b, ".problem math")) >= 4)
    problem = find(browser, ".problem")[0]
    assert "of $5 and $7." in problem.text
    assert len(find(browser, ".problem mfrac")) == 1
    assert len(find(browser, ".problem .display math")) >= 2
    drawn = browser.execute_script("return document.querySelector('.problem mfrac').getBoundingClientRect().height")
    assert drawn > 10  # as a fraction, not as text in a line
    # Never across the border of two steps, whose colours and order stay.
    steps = find(browser, "#reader .step")
    assert [len(step.find_elements(By.CSS_SELECTOR, "math")) for step in steps] == [1, 1]
    assert "and $a +" in steps[0].text
    assert steps[1].text.endswith("then")
    assert "s2" in steps[0].get_attribute("class").split()
    assert "s6" in steps[1].get_attribute("class").split()
    assert steps[1].find_elements(By.CSS_SELECTOR, ".words")[0].text.startswith("b$ or")


def test_formulas_can_be_shown_as_text(browser, formulas):
    show(browser, formulas, "responses/0/eval-0/0?mode=one")
    until(browser, lambda b: find(b, ".problem math"))
    browser.find_element(By.ID, "formulas").click()
    assert find(browser, "#reader math") == []
    assert FORMULAS.strip() in find(browser, ".problem")[0].text
    press(browser, "j")
    reader_at(browser, "eval-0/1")
    assert find(browser, "#reader math") == []
    press(browser, "m")
    until(browser, lambda b: find(b, ".problem math"))
    assert browser.find_element(By.ID, "formulas").get_attribute("aria-pressed") == "true"
    browser.find_element(By.TAG_NAME, "body").send_keys("b")  # in pairs too
    until(browser, lambda b: len(find(b, ".pair .cell.after math")) >= 3)


def test_hostile_formulas_are_not_executed(browser, formulas):
    show(browser, formulas, "responses/0/eval-0/0?mode=one")
    until(browser, lambda b: find(b, ".problem math"))
    assert find(browser, "#reader a, #reader img, #reader script, #reader .skip, #reader [href], #reader [src]") == []
    assert find(browser, "#reader math [style*=fixed]") == []
    box = (
        "const r = document.querySelector('#reader'); return [r.scrollWidth, r.clientWidth, document.body.scrollHeight]"
    )
    width, inner, height = browser.execute_script(box)
    assert width <= inner
    assert height < 5000
    for size in (320, 1280):
        show(browser, formulas, "responses/0/eval-0/0?mode=one", width=size)
        until(browser, lambda b: find(b, ".problem math"))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= size
    browser.execute_script("document.getElementById('find').value = 'frac'")
    browser.execute_script("document.getElementById('find').dispatchEvent(new Event('input'))")
    until(browser, lambda b: listed(b) == 24)  # the search looks at the text as it was written


@pytest.fixture(scope="module")
def evaluations(example_run, tmp_path_factory) -> Path:
    """Two evaluations of the same problems, a file of scored traces and a run on one page."""
    folder = tmp_path_factory.mktemp("evaluations")
    base = write_evaluation(folder / "base")
    short = write_evaluation(folder / "short", accuracy=0.8, tokens=400, seed=1)
    traces = [
        {
            **{
                "id": f"t{k}",
                "problem": "Add.",
                "response": "One.\nTwo.</think>3",
                "answer_tokens": 2,
                "total_tokens": 20,
            },
            **{"baseline": 0.1, "steps": [{"start": 0, "end": 5, "kind": "forward", "score": 0.02 * k}]},
        }
        for k in range(5)
    ]
    example_run.write_jsonl(folder / "scored.jsonl", traces)
    run = example_run.write_run(folder / "run", steps=2)
    write_report([run, base, short, folder / "scored.jsonl"], folder / "page.html")
    return folder / "page.html"


def verdicts(page: Path, name: str, benchmark: str) -> dict[str, str]:
    """The verdict on the first response to every problem."""
    lines = (page.parent / name / "samples" / f"{benchmark}.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row["verdict"] for line in lines if (row := json.loads(line))["sample"] == 0}


def test_flips_between_two_evaluations_can_be_filtered(browser, evaluations):
    before, after = verdicts(evaluations, "base", "math500"), verdicts(evaluations, "short", "math500")
    gained = {key for key in before if (before[key], after[key]) == ("wrong", "right")}
    lost = {key for key in before if (before[key], after[key]) == ("right", "wrong")}
    assert gained
    show(browser, evaluations, "responses/2/bench-1/0")
    until(browser, lambda b: listed(b) == 20)
    find(browser, "[name=gained]")[0].send_keys(" ")
    until(browser, lambda b: listed(b) == len(gained))
    assert {name.text for name in find(browser, "#list .name")} == gained
    assert {marks.text for marks in find(browser, "#list .marks")} == {"✗→✓"}
    assert [head.text for head in find(browser, ".pair h3")] == ["base", "short"]
    assert [v.text for v in find(browser, ".cell.head .verdict")][:2] == ["✗ wrong", "✓ right"]
    assert "show=gained" in browser.execute_script("return location.hash")
    find(browser, "[name=lost]")[0].send_keys(" ")
    until(browser, lambda b: listed(b) == len(gained | lost))
    show(browser, evaluations, "responses/1/bench-1/0?show=gained")  # the same ones from the other side
    until(browser, lambda b: listed(b) == len(gained))
    assert [head.text for head in find(browser, ".pair h3")] == ["base", "short"]


def test_flips_of_a_run_can_be_filtered(browser, evaluations, example_run):
    show(browser, evaluations, "responses/0/eval-0/0")
    until(browser, lambda b: listed(b) > 0)
    assert not find(browser, "#list .marks:not(:empty)")  # one evaluation only: nothing can have changed
    run = example_run.write_run(evaluations.parent / "longer", steps=10)
    write_report([run], evaluations.parent / "longer.html")
    rows = {end: example_run.read_jsonl(run / "rollouts" / f"eval-0000{end}.jsonl.gz") for end in ("00", "10")}
    changed = [b["verdict"] == "right" for a, b in zip(*rows.values(), strict=True) if a["verdict"] != b["verdict"]]
    assert 0 < sum(changed) < len(changed)
    show(browser, evaluations.parent / "longer.html", "responses/0/eval-10/0?show=gained")
    until(browser, lambda b: listed(b) == sum(changed))
    show(browser, evaluations.parent / "longer.html", "responses/0/eval-0/0?show=lost")
    until(browser, lambda b: listed(b) == len(changed) - sum(changed))


def test_scored_traces_have_their_colours(browser, evaluations):
    show(browser, evaluations, "responses/3/traces-0/4")
    reader_at(browser, "traces-0/4")
    assert listed(browser) == 5
    assert "s3" in find(browser, "#reader .step")[0].get_attribute("class").split()  # 0.08 of an even 2 / 20
    assert "baseline B" not in find(browser, "#reader .facts")[0].text
    show(browser, evaluations, "traces")
    assert "scored.jsonl" in find(browser, "#traces h2")[1].text


def test_a_wide_table_has_a_cue_that_it_scrolls(browser, evaluations):
    show(browser, evaluations, "compare", width=480)
    until(browser, lambda b: find(b, "#compare .cue"))
    wide = "(e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1"
    boxes = browser.execute_script(f"return [...document.querySelectorAll('#compare .scroll')].filter({wide})")
    assert len(boxes) == len([cue for cue in find(browser, "#compare .cue") if cue.is_displayed()]) > 0
    cue = "return arguments[0].nextElementSibling.textContent"
    assert "scroll sideways" in browser.execute_script(cue, boxes[0])
    browser.execute_script("arguments[0].scrollLeft = 1e6", boxes[0])
    until(browser, lambda b: "sideways" not in b.execute_script(cue, boxes[0]))
    show(browser, evaluations, "overview", width=1280)
    assert not [cue for cue in find(browser, "#overview .cue") if cue.is_displayed()]


def test_lengths_are_drawn(browser, evaluations):
    show(browser, evaluations, "compare", height=4000)
    until(browser, lambda b: b.execute_script(DRAWN))
    assert len(find(browser, "#plot-lengths-of-0 .scatterlayer .trace")) == 2
