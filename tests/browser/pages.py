# SPDX-License-Identifier: GPL-2.0-only
"""Explorer pages in a real browser: Debian's Chromium, without a window."""

import json
from pathlib import Path

import pytest
from benchmarks.explorer import CHROMIUM

from rmaplab.cli.main import main

REASON = None if CHROMIUM else "Chromium is not installed: apt-get install chromium"
AXE = Path(__file__).parents[2] / "explorer" / "node_modules" / "axe-core" / "axe.min.js"
FORK = "P0 mmap A 2\nP0 write A\nP0 fork P1\nP1 write A[0]\nP0 exit\n"
Z01 = "P0 mmap A 1 at=0x7f0000000000\nP0 write A\nP0 mmap B 1 at=0x7f0000001000 prot=rwx\nfail 1\nP0 mprotect A rwx\n"
PATIENCE = 15_000  # ms
WIDE = {"width": 1400, "height": 1000}


@pytest.fixture(scope="module", name="chromium")
def _chromium():
    """One browser for all tests of a file."""
    if REASON:
        pytest.skip(REASON)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--font-render-hinting=none"]
        )
        yield browser
        browser.close()


@pytest.fixture(name="show")
def _show(chromium, tmp_path):
    """Make a page (arguments of `rmaplab explore`, or a scenario's text), open it; nothing may complain."""
    contexts, complaints = [], []

    def open_page(*args, scheme="light", viewport=WIDE, hash_=""):
        path = tmp_path / f"{len(contexts)}.html"
        words = [str(arg) for arg in args]
        if words and "\n" in words[0]:
            (tmp_path / "a.rmap").write_text(words[0])
            words[0] = str(tmp_path / "a.rmap")
        assert main(["explore", *words, "-q", "-o", str(path)]) == 0
        return visit(path, scheme=scheme, viewport=viewport, hash_=hash_)

    def visit(path, *, scheme="light", viewport=WIDE, hash_=""):
        context = chromium.new_context(
            viewport=viewport, color_scheme=scheme, offline=True, reduced_motion="reduce", accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"asked for {request.url}"))
        page.goto(f"{path.as_uri()}{hash_}")
        page.wait_for_function("window.rmaplab && window.rmaplab.ready")
        if page.locator("dialog[open]").count():
            page.keyboard.press("Escape")
        return page

    open_page.visit = visit
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def document(page):
    """The document inside of a page."""
    return json.loads(page.locator("#data").text_content())


def moment(page):
    return page.evaluate("window.rmaplab.moment()")


def go(page, number):
    page.evaluate("number => window.rmaplab.go(number)", number)


def select(page, ident):
    page.evaluate("ident => window.rmaplab.select(ident)", ident)
