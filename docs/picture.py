"""A picture of a report's page: `python docs/picture.py REPORT.html PICTURE.png [--width W] [--height H] [--dark]`."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path


def main() -> None:
    """Write the top of the page, or with --height 0 the whole of it, as a PNG."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--dark", action="store_true")
    asked = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser)
        viewport = {"width": asked.width, "height": asked.height or 900}
        page = running.new_page(viewport=viewport, color_scheme="dark" if asked.dark else "light")
        page.goto(asked.page.resolve().as_uri())
        page.screenshot(path=asked.picture, full_page=asked.height == 0)
        running.close()


if __name__ == "__main__":
    main()
