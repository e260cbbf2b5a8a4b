# SPDX-License-Identifier: GPL-2.0-only
"""Every control of the explorer page."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from pages import FORK, Z01, _chromium, _show, document, go, moment, select  # noqa: F401 (fixtures)


def stops(page, *, inner=False):
    """The numbers of the moments of the first track that a step comes to."""
    moments = document(page)["chapters"][0]["tracks"][0]["moments"]
    return [at for at, one in enumerate(moments) if inner or one["inner"] == 0]


def text(page, ident):
    return page.locator(f"#{ident}").inner_text()


def test_buttons_keys_and_field_go_through_the_calls(show):
    page = show(FORK)
    calls = stops(page)
    assert moment(page) == 0
    for way in (lambda: page.click("#next"), lambda: page.keyboard.press("ArrowRight")):
        way()
    assert moment(page) == calls[2]
    page.click("#previous")
    page.keyboard.press("ArrowLeft")
    assert moment(page) == 0
    page.click("#last")
    assert moment(page) == calls[-1]
    page.click("#first")
    assert moment(page) == 0
    page.keyboard.press("End")
    assert moment(page) == calls[-1]
    page.keyboard.press("Home")
    assert moment(page) == 0
    page.click("#next-call")
    page.keyboard.press("Shift+ArrowRight")
    assert moment(page) == calls[2]
    page.click("#previous-call")
    assert moment(page) == calls[1]
    page.fill("#jump", "3")
    page.keyboard.press("Enter")
    assert moment(page) == calls[3]
    assert text(page, "moment-text") == "P0 fork P1"
    page.locator("#calls").get_by_text("P1 write A[0]").click()
    assert moment(page) == calls[4]


def test_the_slider_moves_the_drawing(show):
    page = show(FORK)
    page.locator("#slider").focus()
    page.keyboard.press("End")
    assert moment(page) == stops(page)[-1]


def test_inner_steps_are_gone_through_one_by_one(show):
    page = show(FORK)
    go(page, stops(page)[2])
    page.check("#toggle-inner")
    page.keyboard.press("ArrowRight")
    assert moment(page) == stops(page)[2] + 1
    assert "allocate av2" in text(page, "moment-text")
    page.keyboard.press("s")
    page.keyboard.press("ArrowRight")
    assert moment(page) in stops(page)


def test_a_lane_is_pressed(show):
    page = show(FORK)
    marks = page.locator("#lanes .mark[data-go]")
    assert marks.count() >= 5
    marks.nth(2).click(force=True)
    assert moment(page) == int(marks.nth(2).get_attribute("data-go"))


@pytest.mark.parametrize(("key", "toggle"), [("f", "folios"), ("c", "chain"), ("i", "tree")])
def test_layers_are_shown_and_hidden(show, key, toggle):
    page = show(FORK)
    go(page, stops(page)[-2])
    box = page.locator(f"#toggle-{toggle}")
    before, drawn = box.is_checked(), page.locator("#tracks svg").first.inner_html()
    page.keyboard.press(key)
    assert box.is_checked() != before
    assert page.locator("#tracks svg").first.inner_html() != drawn
    box.click()
    assert box.is_checked() == before
    assert page.locator("#tracks svg").first.inner_html() == drawn


def test_places_stay_where_they_are(show):
    """A VMA and an anon_vma keep their places from the first step to the last in which they are drawn."""
    page = show(FORK)
    places = {}
    for at in stops(page):
        go(page, at)
        for item in page.locator("#tracks svg [data-select]").all():
            ident, kind = item.get_attribute("data-select"), item.get_attribute("class")
            box = item.bounding_box()
            if ident.startswith(("av", "vma")) and "ghost" not in (kind or ""):
                known = places.setdefault((ident, kind and kind.split()[0]), (box["x"], box["y"]))
                assert abs(known[0] - box["x"]) < 2
                assert abs(known[1] - box["y"]) < 2
    assert any(ident == "av2" for ident, _ in places)


# --- questions ---------------------------------------------------------------------------------------------


def test_a_folio_is_asked_by_mouse_and_the_walk_is_shown(show):
    page = show(FORK)
    go(page, stops(page)[-2])  # P1 has copied the first page
    page.locator('#tracks svg [data-select="folio1"]').first.click()
    answer = text(page, "answer")
    assert "a walk visits 2 VMAs, 1 of them maps it" in text(page, "answer-panel")
    assert "vma1" in answer
    assert "in vain" in answer
    drawn = page.locator("#tracks svg").first.text_content()
    assert "✔" in drawn
    assert "✘" in drawn
    page.click("#clear")
    assert page.locator("#clear").is_hidden()


def test_objects_are_reached_and_asked_by_keyboard(show):
    page = show(FORK)
    go(page, stops(page)[-1])
    page.locator('#tracks svg [role=button][data-select="av1"]').first.focus()
    page.keyboard.press("Enter")
    assert "what holds" in text(page, "answer").lower() or "refcount" in text(page, "answer-panel")
    page.keyboard.press("Escape")
    assert "refcount" not in text(page, "answer-panel")


@pytest.mark.parametrize("ident", ["av1", "av2", "vma1", "vma2", "folio1", "folio2"])
def test_every_object_has_the_answer_of_the_document(show, ident):
    page = show(FORK)
    at = stops(page)[3]
    go(page, at)
    answer = document(page)["chapters"][0]["tracks"][0]["moments"][at]["answers"][ident]
    select(page, ident)
    shown = re.sub(r"\s+", " ", text(page, "answer-panel"))
    assert answer["title"] in shown
    for line in answer["lines"]:
        assert line in shown


def test_inside_of_a_call_the_answer_is_that_before_it(show):
    page = show(FORK)
    go(page, stops(page)[2] + 2)
    select(page, "av1")
    assert "refcount 1" in text(page, "answer-panel")


# --- what changed, what is broken --------------------------------------------------------------------------


def test_words_are_those_of_the_document(show):
    page = show(FORK)
    at = stops(page)[3]
    go(page, at)
    for line in document(page)["chapters"][0]["tracks"][0]["moments"][at]["words"]:
        assert line in text(page, "words")


def test_a_broken_invariant_is_shown_and_drawn(show):
    page = show(Z01, "--series", "v6.18+9")
    go(page, stops(page)[-1])
    assert "AV-003" in text(page, "invariants")
    assert "ENOMEM" in page.locator("main").inner_text()
    page.click("#all-invariants summary")
    assert "AV-053" in text(page, "invariant-list")


def test_two_series_go_in_lockstep(show):
    page = show(Z01, "--series", "v6.18+9", "--series", "v7.0")
    page.keyboard.press("End")
    assert page.locator("#tracks svg").count() >= 2
    heads = page.locator("#tracks").inner_text()
    assert "v6.18+9" in heads
    assert "v7.0" in heads


# --- the page ----------------------------------------------------------------------------------------------


def test_the_address_leads_back(show):
    page = show(FORK)
    go(page, stops(page)[4])
    select(page, "av1")
    page.keyboard.press("c")
    hash_ = page.evaluate("location.hash")
    again = show(FORK, hash_=hash_)
    assert moment(again) == moment(page)
    assert again.locator("#toggle-chain").is_checked()
    assert text(again, "answer-panel") == text(page, "answer-panel")
    page.go_back()
    page.go_back()
    assert (
        not page.locator("#toggle-chain").is_checked()
        or moment(page) != stops(page)[4]
        or page.locator("#clear").is_hidden()
    )


@pytest.mark.parametrize("hash_", ["#", "#m=999999", "#c=77&m=x&k=nothing", "#%%%", "#t=zzz&s=<script>"])
def test_any_address_is_survived(show, hash_):
    page = show(FORK, hash_=hash_)
    assert 0 <= moment(page) < page.evaluate("window.rmaplab.moments()")


def test_themes(show):
    dark, light = show(FORK, scheme="dark"), show(FORK, scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    assert dark.evaluate(colour) != light.evaluate(colour)
    before = light.evaluate(colour)
    light.click("#theme")
    assert light.evaluate(colour) != before
    light.keyboard.press("t")
    assert light.evaluate(colour) == before


def test_help_and_how_to_read_it(show):
    page = show(FORK)
    page.keyboard.press("?")
    assert page.locator("#help-dialog").is_visible()
    page.click("#show-reading")
    assert page.locator("#reading-dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.click("#help")
    page.click("#help-dialog [data-close]")
    assert page.locator("dialog[open]").count() == 0


def test_the_drawing_is_saved_as_a_picture_of_its_own(show, tmp_path):
    page = show(FORK)
    go(page, stops(page)[3])
    with page.expect_download() as download:
        page.click("#save")
    path = tmp_path / "saved.svg"
    download.value.save_as(path)
    root = ElementTree.parse(path).getroot()
    assert root.tag.endswith("svg")
    words = "".join(root.itertext())
    assert "av2" in words
    assert "vma2" in words


def test_print_leaves_the_controls_out(show):
    page = show(FORK)
    page.emulate_media(media="print")
    assert not page.locator("#slider").is_visible()
    assert page.locator("#tracks svg").first.is_visible()


def test_a_narrow_window_does_not_scroll_sideways(show):
    page = show(FORK, viewport={"width": 420, "height": 800})
    go(page, stops(page)[-1])
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
