"""Picture of a report page, or of one of its sections, for the README:

python scripts/screenshot_report.py PAGE.html OUT.png [--width 1200] [--height 900] [--section pairs] [--dark]

Needs selenium, chromium and chromedriver; nothing is fetched.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
import tempfile
from pathlib import Path

from selenium import webdriver

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1200, help="of the window, in CSS pixels")
    parser.add_argument("--height", type=int, default=0, help="of the picture; 0: all of the page or section")
    parser.add_argument("--section", help="id of an element, such as curves, pairs or training; default: the page")
    parser.add_argument("--dark", action="store_true", help="as a reader with a dark theme sees it")
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
    """PNG bytes of the whole page or of the element with id `args.section`."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if args.dark else "light"}
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    metrics = {"width": args.width, "height": 900, "deviceScaleFactor": args.scale, "mobile": False}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    window.get(args.page.resolve().as_uri())
    window.execute_async_script("document.fonts.ready.then(() => setTimeout(arguments[0], 300))")
    element = f"document.getElementById({args.section!r})" if args.section else "document.documentElement"
    box = window.execute_script(
        f"const e = {element}; if (!e) return null; const b = e.getBoundingClientRect();"
        "return {x: 0, y: b.top + scrollY, width: innerWidth, height: b.height}"
    )
    if box is None:
        sys.exit(f"screenshot_report: {args.page} has no element with id {args.section!r}")
    box |= {"height": args.height or box["height"], "scale": 1}
    shot = window.execute_cdp_cmd("Page.captureScreenshot", {"clip": box, "captureBeyondViewport": True})
    return base64.b64decode(shot["data"])


if __name__ == "__main__":
    main()
