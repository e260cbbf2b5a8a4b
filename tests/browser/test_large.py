# SPDX-License-Identifier: GPL-2.0-only
"""Ten thousand VMAs in the explorer page: everything is counted, what is wanted is drawn, and it stays quick."""

import json
import time

import pytest
from benchmarks.explorer import MOMENTS, large_machine
from pages import REASON, _chromium, _show, document  # noqa: F401 (fixtures)

from rmaplab.report.documents import stamp

VMAS = 10_000
FIRST_PAINT, STEP = 20.0, 2.0  # seconds: ten times what is wanted, for slow machines


@pytest.fixture(scope="module", name="machine")
def _machine(tmp_path_factory):
    snapshot = large_machine()
    path = tmp_path_factory.mktemp("large") / "machine.json"
    path.write_text(json.dumps(stamp("snapshot", {"series": "v7.0", **snapshot.as_dict()})))
    return path, snapshot


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_ten_thousand_vmas(show, machine):
    path, snapshot = machine
    vmas = sum(len(process.vmas) for process in snapshot.processes)
    assert vmas >= VMAS
    began = time.perf_counter()
    page = show(path)
    assert time.perf_counter() - began < FIRST_PAINT
    body = page.locator("main").inner_text()
    assert f"{vmas:,}" in body
    for process in snapshot.processes:
        assert process.name in body
    page.locator('[data-part="process:big"]').click()
    assert page.locator("#tracks svg").count() >= 1
    assert "2,000 of 2,000 VMAs" in page.get_by_test_id("drawn").first.inner_text()
    boxes = page.locator('#tracks svg [data-select^="vma"]')
    before = boxes.count()
    assert before < 10  # neighbours with the same chain are one row
    page.locator("#tracks svg [data-expand]").first.click()
    assert boxes.count() > before + 50
    page.click("#back")
    page.fill("#filter", "other")
    listed = page.get_by_test_id("list-process").inner_text()
    assert "other4" in listed
    assert "child0" not in listed


def test_steps_of_a_large_film_are_quick(show):
    page = show(*MOMENTS)
    count = page.evaluate("window.rmaplab.moments()")
    assert count == len(document(page)["chapters"][0]["tracks"][0]["moments"])
    slowest = page.evaluate(
        """count => Math.max(...Array.from({length: count}, (_, at) => {
            const began = performance.now(); window.rmaplab.go(at); document.body.offsetHeight;
            return performance.now() - began; }))""",
        count,
    )
    assert slowest < STEP * 1000
