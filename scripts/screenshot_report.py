"""Take a picture of a report page at one of its views:

python scripts/screenshot_report.py PAGE.html OUT.png [--view responses/0/eval-15/2] [--height 900] [--dark]

Needs selenium (`make setup-dev`), chromium and chromedriver; nothing is fetched.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
import tempfile
from pathlib import Path

try:
    from selenium import webdriver
    from selenium.webdriver.support.wait import WebDriverWait
except ImportError:
    sys.exit("screenshot_report: needs selenium; run `make setup-dev` first, and .venv/bin/python")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
# Plots are drawn when they are near the window, responses are unpacked when they are opened.
SETTLED = """
const near = (e) => e.offsetParent !== null && e.getBoundingClientRect().top < innerHeight;
const plots = [...document.querySelectorAll(".plot")].filter(near);
const reader = document.querySelector("#reader");
return plots.every((e) => e.dataset.drawn) && (reader === null || reader.offsetParent === null || reader.dataset.at);
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--view", default="", help="the part of the address after # (default: the overview)")
    parser.add_argument("--width", type=int, default=1180, help="of the window, in CSS pixels")
    parser.add_argument("--height", type=int, default=900, help="of the window; 0: all of the view")
    parser.add_argument("--dark", action="store_true", help="with the dark theme")
    parser.add_argument("--scale", type=float, default=1.0, help="device pixels per CSS pixel")
    args = parser.parse_args()
    if not args.page.is_file():
        sys.exit(f"screenshot_report: {args.page} is no file")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        sys.exit("screenshot_report: chromium and chromedriver must be on the PATH")
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={args.width},900"):
            options.add_argument(flag)
        window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            args.picture.write_bytes(picture(window, args))
        finally:
            window.quit()
    print(args.picture)


def picture(window: webdriver.Chrome, args: argparse.Namespace) -> bytes:
    """Return PNG bytes of the window, or of the complete view if no height is given."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if args.dark else "light"}
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    resize(window, args, args.height or 900)
    window.get(f"{args.page.resolve().as_uri()}#{args.view}")
    settle(window)
    if not args.height:
        resize(window, args, window.execute_script("return document.documentElement.scrollHeight"))
        settle(window)
    return base64.b64decode(window.execute_cdp_cmd("Page.captureScreenshot", {})["data"])


def resize(window: webdriver.Chrome, args: argparse.Namespace, height: int) -> None:
    metrics = {"width": args.width, "height": height, "deviceScaleFactor": args.scale, "mobile": False}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def settle(window: webdriver.Chrome) -> None:
    window.execute_async_script("document.fonts.ready.then(() => setTimeout(arguments[0], 300))")
    WebDriverWait(window, 20).until(lambda w: w.execute_script(SETTLED))


if __name__ == "__main__":
    main()
