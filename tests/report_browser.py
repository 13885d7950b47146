"""Chromium with a page of `attnpo report` in it: fixtures and helpers of the browser tests, imported by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900"),
)
# No plot in or near the window is still to be drawn.
DRAWN = """
const near = (e) => e.offsetParent !== null && e.getBoundingClientRect().top < innerHeight;
return [...document.querySelectorAll(".plot")].filter(near).every((e) => e.dataset.drawn);
"""


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


@pytest.fixture(autouse=True)
def no_complaint_and_no_request(browser):
    """Whatever a test does with the page, the console stays silent and nothing is asked of any network."""
    browser.get_log("browser")
    browser.get_log("performance")
    yield
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    sent = [entry["message"] for entry in browser.get_log("performance") if 'requestWillBeSent"' in entry["message"]]
    assert sent
    assert not any('"url":"http' in message or '"url":"ws' in message for message in sent)


def show(browser, page: Path, view: str = "", width: int = 1280, height: int = 900, scheme: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get("about:blank")  # so that only the fragment of the address may change and the page is opened anew
    browser.get(f"{page.as_uri()}#{view}")


def until(browser, condition):
    return WebDriverWait(browser, 20).until(condition)


def find(browser, selector: str):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def press(browser, *keys: str) -> None:
    for key in keys:
        browser.switch_to.active_element.send_keys(key)


def reader_at(browser, place: str) -> None:
    """Wait until the reading pane shows the response `place`, chunk/index."""
    until(browser, lambda b: b.execute_script("return document.getElementById('reader').dataset.at") == place)


def listed(browser) -> int:
    """The number of responses that the list reports; −1 before it reports one."""
    first = (browser.find_element(By.ID, "found").text.split() or ["-1"])[0]
    return int(first.replace(",", "").replace("No", "0"))
