# SPDX-License-Identifier: GPL-2.0-only
"""The explorer page in a browser: how long until ten thousand VMAs are there, and a step between such states."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rmaplab.cli.main import main
from rmaplab.kernel import Kernel
from rmaplab.report.documents import stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from rmaplab.snapshot import Snapshot

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MOMENTS = ("thousand:vmas=1450,children=2,levels=2", "--moments", "12")  # up to 10,150 VMAs


def large_machine() -> Snapshot:
    """Over 10,000 VMAs: a mapping that mprotect has cut in 2,000, three children of it, and others with their own."""
    kernel = Kernel()
    kernel.anon_orders = ()
    first = kernel.spawn("big")
    area = first.mmap(2000)
    first.write(area)
    for page in range(1, 2000, 2):
        first.mprotect(area.part(page, page), "r")
    for number in range(8):
        child = first.fork(f"child{number}") if number < 3 else kernel.spawn(f"other{number}")
        for _ in range(400 if number < 4 else 100):
            child.write(child.mmap(1))
    return kernel.snapshot()


@contextmanager
def opened(*words: str) -> Iterator[Page]:
    """A page of `rmaplab explore` in Chromium."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="rmaplab-bench-") as folder, sync_playwright() as playwright:
        path = Path(folder) / "page.html"
        assert main(["explore", *words, "-q", "-o", str(path)]) == 0
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(path.as_uri())
        page.wait_for_function("window.rmaplab && window.rmaplab.ready")
        yield page
        browser.close()


def first_paint() -> float:
    """Milliseconds from the start of loading until the machine is drawn."""
    with tempfile.TemporaryDirectory(prefix="rmaplab-bench-") as folder:
        path = Path(folder) / "machine.json"
        path.write_text(json.dumps(stamp("snapshot", {"series": "v7.0", **large_machine().as_dict()})))
        with opened(str(path)) as page:
            page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            return float(page.evaluate("performance.now()"))


def slowest_step() -> float:
    """Milliseconds of the slowest step between moments of a workload with thousands of VMAs, laid out."""
    with opened(*MOMENTS) as page:
        return float(
            page.evaluate(
                """() => Math.max(...Array.from({length: window.rmaplab.moments()}, (_, at) => {
                    const began = performance.now();
                    window.rmaplab.go(at);
                    document.body.offsetHeight;
                    return performance.now() - began;
                }))"""
            )
        )
