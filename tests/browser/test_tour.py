# SPDX-License-Identifier: GPL-2.0-only
"""Every step of the tour, in both themes; and what assistive technology makes of the page."""

import pytest
from pages import AXE, FORK, _chromium, _show, document, go, moment, select  # noqa: F401 (fixtures)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_step_of_every_chapter(show, scheme):
    page = show("--tour", scheme=scheme)
    chapters = document(page)["chapters"]
    for number, chapter in enumerate(chapters):
        if number:
            page.click("#next-chapter")
        assert chapter["title"] in page.locator("#chapter option:checked").inner_text()
        assert chapter["text"][0][:40] in page.locator("#chapter-text").inner_text()
        page.locator("#toggle-inner").set_checked(number % 2 == 0)
        page.keyboard.press("Home")
        steps, before = 0, -1
        while moment(page) != before:
            before = moment(page)
            page.keyboard.press("ArrowRight")
            steps += 1
            drawn = page.locator("#tracks svg").first.bounding_box()
            assert drawn["width"] > 100
        calls = len(chapter["tracks"][0]["calls"])
        assert steps > calls
        assert page.locator("#moment-text").inner_text() == chapter["tracks"][0]["calls"][-1]
    assert page.locator("#next-chapter").is_disabled()


def test_notes_stand_beside_their_calls(show):
    page = show("--tour")
    for at, one in enumerate(document(page)["chapters"][0]["tracks"][0]["moments"]):
        if one["note"]:
            go(page, at)
            assert page.locator("#note").inner_text() == one["note"]


def test_the_tour_begins_with_how_to_read_it_and_only_once(show, chromium, tmp_path):
    from rmaplab.cli.main import main

    path = tmp_path / "tour.html"
    assert main(["explore", "--tour", "-q", "-o", str(path)]) == 0
    context = chromium.new_context()
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_function("window.rmaplab && window.rmaplab.ready")
    assert page.locator("#reading-dialog").is_visible()
    page.click("#close-reading")
    page.reload()
    page.wait_for_function("window.rmaplab && window.rmaplab.ready")
    assert not page.locator("#reading-dialog").is_visible()
    context.close()


# --- assistive technology ----------------------------------------------------------------------------------


def violations(page):
    """What axe-core finds, as readable lines."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in found["violations"]
    ]


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not there: `make explorer` installs it")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("chapter", [1, 3, 6, 8])
def test_axe_finds_nothing(show, scheme, chapter):
    page = show("--tour", scheme=scheme, hash_=f"#c={chapter}")
    page.keyboard.press("End")
    assert violations(page) == []
    select(page, "av1")
    page.check("#toggle-chain")
    page.check("#toggle-tree")
    assert violations(page) == []


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not there: `make explorer` installs it")
def test_axe_finds_nothing_in_dialogs(show):
    page = show(FORK)
    page.keyboard.press("?")
    assert violations(page) == []


def test_a_screen_reader_hears_what_changed(show):
    page = show(FORK)
    page.keyboard.press("ArrowRight")
    heard = page.locator("#live").inner_text() or page.locator("#live").text_content()
    assert "P0 mmap A 2" in heard


def test_objects_have_names_in_words(show):
    page = show(FORK)
    page.keyboard.press("End")
    labels = [item.get_attribute("aria-label") for item in page.locator("#tracks svg [role=button]").all()]
    assert labels
    assert all(labels)
    assert any("vma2" in label and "P1" in label for label in labels)
