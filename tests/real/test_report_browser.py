"""The report as a reader meets it: opened from disk in Chromium, without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from attnpo.report.page import write_report

pytestmark = pytest.mark.slow

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900"),
)
EVIL = "</script><script>document.title = 'taken over'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium, "the browser tests need chromium on the PATH"
    assert driver, "the browser tests need chromedriver on the PATH"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


@pytest.fixture(scope="module")
def report(example_run, tmp_path_factory) -> Path:
    """One page over two runs; one response of the first run tries to break out of the page."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [example_run.write_run(folder / name, steps=20, name=name) for name in ("attnpo", "tlmre")]
    evaluation = runs[0] / "rollouts" / "eval-000000.jsonl.gz"
    rows = example_run.read_jsonl(evaluation)
    for row in rows:
        row["prompt"] += EVIL
        row["text"] += EVIL
    example_run.write_jsonl(evaluation, rows)
    write_report(runs, folder / "page.html")
    return folder / "page.html"


@pytest.fixture
def opened(browser, report):
    """The page at desktop size in light mode, with the logs of earlier pages read away."""
    browser.get_log("browser")
    browser.get_log("performance")
    show(browser, report)
    return browser


def show(browser, page: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get(page.as_uri())


def test_it_opens_without_errors_and_without_the_network(opened, report):
    assert opened.title == "Training report · attnpo report"  # so no text from a model ran as a script
    assert [entry for entry in opened.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    fetched = opened.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []
    sent = [entry["message"] for entry in opened.get_log("performance") if 'requestWillBeSent"' in entry["message"]]
    assert any(report.as_uri() in message for message in sent)
    assert not any('"url":"http' in message for message in sent)
    assert opened.find_elements(By.CSS_SELECTOR, "main img") == []


def test_the_curves_are_drawn(opened):
    plots = opened.find_elements(By.CSS_SELECTOR, ".plot")
    assert len(plots) == 4
    for plot in plots:
        lines = plot.find_elements(By.CSS_SELECTOR, "svg .scatterlayer path.js-line")
        assert len(lines) >= 2
        assert all(line.get_attribute("d") for line in lines)
    assert len(opened.find_elements(By.CSS_SELECTOR, "#plot-length .errorbar")) == 6
    colours = opened.execute_script(
        "return [...document.querySelectorAll('#plot-length path.js-line')].map((e) => getComputedStyle(e).stroke)"
    )
    assert len(set(colours)) == 2


def test_steps_are_visible_in_several_colours_that_can_be_read(opened, report):
    for scheme in ("light", "dark"):
        show(opened, report, scheme=scheme)
        steps = opened.find_elements(By.CSS_SELECTOR, ".step")
        assert len(steps) > 50
        assert all(step.is_displayed() for step in steps)
        pairs = {
            (step.value_of_css_property("background-color"), step.value_of_css_property("color")) for step in steps
        }
        assert len({background for background, _ in pairs}) >= 4
        assert min(contrast(*pair) for pair in pairs) >= 4.5
    assert opened.find_elements(By.CSS_SELECTOR, ".step.attenuated .effect")
    assert opened.find_elements(By.CSS_SELECTOR, ".step.protected .effect")


def contrast(one: str, other: str) -> float:
    """The WCAG contrast of two colours as the browser writes them, rgba(r, g, b, a)."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    values = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_of_known_colours():
    assert contrast("rgb(0, 0, 0)", "rgba(255, 255, 255, 1)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)


def test_every_details_opens_with_the_keyboard(opened):
    closed = opened.find_elements(By.CSS_SELECTOR, "details")
    assert len(closed) >= 4 + 2 * 3
    for details in closed:
        summary = details.find_element(By.TAG_NAME, "summary")
        summary.send_keys("\ue007")  # Enter
        assert details.get_attribute("open") is not None
        assert details.find_element(By.TAG_NAME, "table").is_displayed()
    assert opened.execute_script("return document.activeElement.tagName") == "SUMMARY"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_scrolls_sideways(browser, report, width):
    show(browser, report, width)
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("light", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "light")]
)
def test_a_picture_has_something_on_it(browser, report, tmp_path, name, width, scheme):
    show(browser, report, width, scheme=scheme)
    picture = tmp_path / f"{name}.png"
    assert browser.save_screenshot(str(picture))
    assert picture.stat().st_size > 20_000
    paper = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (luminance(paper) < 0.1) == (scheme == "dark")


def test_without_scripts_the_numbers_are_still_there(browser, report):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, report)
        assert browser.find_elements(By.CSS_SELECTOR, ".plot svg") == []
        browser.find_element(By.CSS_SELECTOR, "#length summary").send_keys("\ue007")
        assert "205" in browser.find_element(By.CSS_SELECTOR, "#length table").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
