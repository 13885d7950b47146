"""The page in Chromium, opened from disk without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from attnpo.report.page import write_report
from report_browser import DRAWN, browser, find, listed, no_complaint_and_no_request, press, reader_at, show, until

pytestmark = pytest.mark.slow
__all__ = ["browser", "no_complaint_and_no_request"]  # fixtures

EVIL = "</script><script>document.title = 'taken over'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>"
CONTROLS = "\x00\x1b\u202eright to left\u2066"
VIEWS = ["overview", "compare", "responses", "heads", "behaviour", "configuration"]


@pytest.fixture(scope="module")
def report(example_run, tmp_path_factory) -> Path:
    """A page of two runs; the responses of the first run's first evaluation try to inject markup and scripts."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [example_run.write_run(folder / name, steps=20, name=name) for name in ("attnpo", "tlmre")]
    accuracy = {f"{layer},{head}": (layer + head) / 12 for layer in range(4) for head in range(8)}
    (runs[0] / "heads.json").write_text(json.dumps({"heads": [[3, 6], [2, 1]], "sra": accuracy, "labels": EVIL}))
    evaluation = runs[0] / "rollouts" / "eval-000000.jsonl.gz"
    rows = example_run.read_jsonl(evaluation)
    for row in rows:
        row["prompt"] += EVIL + CONTROLS
        row["text"] += EVIL + CONTROLS
    rows[0]["text"] = "w" * 100_000 + rows[0]["text"]
    rows[0]["thinking_end"] += 100_000
    rows[0]["steps"] = [{"start": 0, "end": 100_000, "kind": EVIL, "score": 0.1, "tokens": 9, "scale": None}]
    example_run.write_jsonl(evaluation, rows)
    write_report(runs, folder / "page.html")
    return folder / "page.html"


@pytest.fixture
def opened(browser, report):
    """The page at desktop size in light mode."""
    show(browser, report)
    return browser


def visible_views(browser) -> list[str]:
    return [view.get_attribute("id") for view in find(browser, ".view") if view.is_displayed()]


def test_no_text_of_a_model_is_active(opened):
    until(opened, lambda b: b.execute_script(DRAWN))
    assert opened.title == "Training report · attnpo report"  # so none of it ran as a script
    fetched = opened.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []


def test_overview_is_shown_within_two_seconds(browser, report):
    show(browser, report)
    until(browser, lambda b: b.execute_script("return document.querySelector('#plot-length').dataset.drawn"))
    loaded = browser.execute_script("return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert 0 < loaded < 2000


def test_every_view_opens_by_click_and_draws_its_plots(opened):
    for tab, view in zip(find(opened, "#tabs [role=tab]"), VIEWS, strict=True):
        tab.click()
        assert visible_views(opened) == [view]
        assert opened.execute_script("return [location.hash.split('/')[0], scrollY]") == [f"#{view}", 0]
        assert tab.get_attribute("aria-selected") == "true"
        until(opened, lambda b: b.execute_script(DRAWN))
        for plot in find(opened, f"#{view} .plot[data-drawn]"):
            assert plot.find_elements(By.CSS_SELECTOR, ".scatterlayer .trace, .hm image")


def test_the_curves_have_lines_marks_and_intervals(opened):
    until(opened, lambda b: b.execute_script(DRAWN))
    assert len(find(opened, "#plot-length path.js-line")) == 4
    assert len(find(opened, "#plot-length .errorbar")) == 6
    script = "return [...document.querySelectorAll('#plot-length path.js-line')].map((e) => getComputedStyle(e).stroke)"
    assert len(set(opened.execute_script(script))) == 2


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_its_address(browser, report, view):
    show(browser, report, view)
    assert visible_views(browser) == [view]
    assert browser.execute_script("return scrollY") == 0


def test_tabs_by_keyboard(opened):
    find(opened, "#tab-overview")[0].send_keys(Keys.ARROW_RIGHT)
    assert visible_views(opened) == ["compare"]
    press(opened, Keys.END)
    assert visible_views(opened) == ["configuration"]
    press(opened, Keys.ARROW_RIGHT)
    assert visible_views(opened) == ["overview"]
    press(opened, "4")
    assert visible_views(opened) == ["heads"]
    focused = opened.switch_to.active_element
    assert focused.get_attribute("id") == "tab-heads"
    assert focused.value_of_css_property("outline-style") == "solid"
    opened.back()
    assert visible_views(opened) == ["overview"]


def test_responses_by_keyboard(browser, report):
    show(browser, report, "responses/1/train-7/0")
    reader_at(browser, "train-7/0")
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys("jj")
    reader_at(browser, "train-7/2")
    body.send_keys("k")
    reader_at(browser, "train-7/1")
    browser.find_element(By.ID, "list").send_keys(Keys.ARROW_DOWN)
    reader_at(browser, "train-7/2")
    assert browser.execute_script("return location.hash") == "#responses/1/train-7/2"
    active = browser.find_element(By.ID, "list").get_attribute("aria-activedescendant")
    assert browser.find_element(By.ID, active).get_attribute("aria-selected") == "true"
    # From step to step with Tab: the numbers of the focused step are shown.
    step = find(browser, "#reader .step")[0]
    browser.execute_script("arguments[0].focus()", step)
    readout = find(browser, ".readout")[0].text
    for name in ("step 1 of", "score ÷ baseline", "scale γ", "token advantage", "tokens"):
        assert name in readout
    press(browser, Keys.TAB)
    assert "step 2 of" in find(browser, ".readout")[0].text


def test_help_opens_and_closes(opened):
    opened.find_element(By.TAG_NAME, "body").send_keys("?")
    assert opened.find_element(By.ID, "help").is_displayed()
    press(opened, "3")  # keys of the page rest while it is open
    assert visible_views(opened) == ["overview"]
    press(opened, Keys.ESCAPE)
    assert not opened.find_element(By.ID, "help").is_displayed()
    opened.find_element(By.ID, "help-open").click()
    assert opened.find_element(By.ID, "help").is_displayed()


def test_search_and_filters(browser, report, example_run):
    show(browser, report, "responses/1/train-7/0")
    reader_at(browser, "train-7/0")
    rows = example_run.read_jsonl(report.parent / "tlmre" / "rollouts" / "train-000007.jsonl.gz")
    wanted = sum("double-check" in row["text"] for row in rows)
    assert 0 < wanted < len(rows) == listed(browser)
    browser.find_element(By.TAG_NAME, "body").send_keys("/")
    until(browser, lambda b: b.switch_to.active_element.get_attribute("id") == "find")
    press(browser, "Double-CHECK")
    until(browser, lambda b: listed(b) == wanted)
    assert "q=Double-CHECK" in browser.execute_script("return location.hash")
    press(browser, Keys.ESCAPE)
    until(browser, lambda b: listed(b) == len(rows))
    find(browser, "[name=wrong]")[0].send_keys(" ")
    until(browser, lambda b: listed(b) == sum(row["verdict"] == "wrong" for row in rows))
    find(browser, "[name=attenuated]")[0].send_keys(" ")
    until(browser, lambda b: listed(b) == 0)  # only right ones are rescaled
    assert "No response fits" in browser.find_element(By.ID, "reader").text
    find(browser, "[name=wrong]")[0].send_keys(" ")
    shrunk = [
        r for r in rows if r["advantage"] > 0 and any(s["scale"] is not None and s["scale"] < 1 for s in r["steps"])
    ]
    until(browser, lambda b: listed(b) == len(shrunk))
    # The address brings all of it back.
    address = browser.execute_script("return location.hash.slice(1)")
    show(browser, report, address)
    until(browser, lambda b: listed(b) == len(shrunk))
    assert find(browser, "[name=attenuated]")[0].is_selected()


def test_every_step_can_be_searched_at_once(browser, report):
    show(browser, report, "responses/0/train-1/0?within=all&q=make+sure+that+I+read")
    until(browser, lambda b: listed(b) > 100)
    assert ", 200 listed" in browser.find_element(By.ID, "found").text
    assert len(find(browser, "#list li")) == 200


def test_before_and_after_are_side_by_side(browser, report):
    show(browser, report, "responses/1/eval-20/1")
    reader_at(browser, "eval-20/1")
    assert [head.text for head in find(browser, ".pair h3")] == ["Before, step 0", "After, step 20"]
    changes = {change.text for change in find(browser, ".change")}
    assert "− only before" in changes
    assert changes & {"= same", "≈ similar"}
    for left, right in zip(find(browser, ".cell.before"), find(browser, ".cell.after"), strict=True):
        assert abs(left.rect["y"] - right.rect["y"]) < 1
    browser.find_element(By.TAG_NAME, "body").send_keys("b")
    until(browser, lambda b: find(b, "#plot-scores[data-drawn]"))
    assert find(browser, ".pair") == []
    assert find(browser, "#plot-scores .bars path")
    assert "mode=one" in browser.execute_script("return location.hash")


def test_hostile_responses_are_text(browser, report):
    show(browser, report, "responses/0/eval-0/0?q=taken+over&mode=one")
    until(browser, lambda b: listed(b) == 24)
    for place in range(24):
        if place:
            browser.find_element(By.TAG_NAME, "body").send_keys("j")
        reader_at(browser, f"eval-0/{place}")
        problem = find(browser, "#reader .problem")[0]
        assert EVIL in problem.text
        assert "⟨U+202E⟩right to left⟨U+2066⟩" in problem.text
        assert find(browser, "#reader script, #reader img") == []
    longest = "90,000 characters left out"
    show(browser, report, "responses/0/eval-0/0?q=wwwwwwww&mode=one")
    until(browser, lambda b: longest in b.find_element(By.ID, "reader").text)
    assert EVIL in find(browser, ".step .kind")[0].text
    assert browser.title == "Training report · attnpo report"


def test_steps_have_several_legible_colours(browser, report):
    pairs: dict[str, set[tuple[str, str]]] = {}
    for scheme in ("light", "dark"):
        pairs[scheme] = set()
        for place in ("train-3/0", "train-3/5", "eval-20/0"):
            show(browser, report, f"responses/1/{place}", scheme=scheme)
            reader_at(browser, place)
            steps = find(browser, "#reader .step")
            assert all(step.is_displayed() for step in steps)
            pairs[scheme] |= {tuple(map(step.value_of_css_property, ("background-color", "color"))) for step in steps}
        assert len({background for background, _ in pairs[scheme]}) >= 4
        assert min(contrast(*pair) for pair in pairs[scheme]) >= 4.5
    assert not pairs["light"] & pairs["dark"]


def contrast(one: str, other: str) -> float:
    """The WCAG contrast of two colours as the browser writes them, rgba(r, g, b, a)."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    values = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def paper(browser) -> float:
    return luminance(browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color"))


def test_the_theme_follows_the_system_until_it_is_chosen(browser, report):
    show(browser, report, scheme="dark")
    assert paper(browser) < 0.1
    until(browser, lambda b: b.execute_script(DRAWN))
    line = "return getComputedStyle(document.querySelector('#plot-length path.js-line')).stroke"
    dark = browser.execute_script(line)
    button = browser.find_element(By.ID, "theme")
    button.click()  # auto → light
    assert paper(browser) > 0.8
    until(browser, lambda b: b.execute_script(line) != dark)
    browser.find_element(By.TAG_NAME, "body").send_keys("t")  # light → dark
    assert paper(browser) < 0.1
    show(browser, report, scheme="light")  # it is remembered
    assert paper(browser) < 0.1
    browser.find_element(By.ID, "theme").click()  # dark → auto
    assert paper(browser) > 0.8


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_no_view_scrolls_sideways(browser, report, width):
    show(browser, report, width=width)
    for view in VIEWS:
        show(browser, report, view, width)
        if view == "responses":
            until(browser, lambda b: find(b, "#reader .step"))
        browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        until(browser, lambda b: b.execute_script(DRAWN))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, view


def test_every_details_opens_with_the_keyboard(opened):
    for view in VIEWS:
        find(opened, f"#tab-{view}")[0].click()
        for details in find(opened, f"#{view} details:not([open])"):
            details.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
            assert details.get_attribute("open") is not None
    assert opened.execute_script("return document.activeElement.tagName") == "SUMMARY"


def test_every_control_has_a_name(opened):
    find(opened, "#tab-responses")[0].click()
    until(opened, lambda b: find(b, "#reader .step"))
    for element in find(opened, "button, select, input, [role=tab], [role=listbox], [role=option], a, .plot"):
        assert element.accessible_name or not element.is_displayed(), element.get_attribute("outerHTML")


def test_numbers_are_shown_without_javascript(browser, report):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, report)
        assert find(browser, ".plot svg") == []
        assert visible_views(browser) == VIEWS
        browser.find_element(By.CSS_SELECTOR, "#length summary").send_keys(Keys.ENTER)
        assert "205" in browser.find_element(By.CSS_SELECTOR, "#length table").text
        assert "needs one" in browser.find_element(By.CSS_SELECTOR, "#responses noscript").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_contrast_of_known_colours(browser, report):
    show(browser, report)
    assert contrast("rgb(0, 0, 0)", "rgba(255, 255, 255, 1)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)
