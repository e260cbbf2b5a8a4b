# SPDX-License-Identifier: GPL-2.0-only
"""What pages look like, held against pictures that were looked at.

Fonts and browsers differ a little from machine to machine, so pictures are
compared after they were made small.  ``RMAPLAB_GOLDEN=1`` writes them anew:
look at them before they go in.
"""

import os
from pathlib import Path

import pytest
from pages import FORK, Z01, _chromium, _show, select  # noqa: F401 (fixtures)

from rmaplab.cli.catalogue import data_files

GOLDEN = Path(__file__).parent / "golden"
SMALL = (140, 100)  # pixels
MOST = 9.0  # mean difference of a small picture's channels, of 255
ZOO = {path.stem: path for path in data_files("zoo", ".rmap")}
SCENES = {
    "tour-fork-light": (("--tour",), "light", "#c=2", "folio1"),
    "tour-fork-dark": (("--tour",), "dark", "#c=2", "folio1"),
    "tour-double-reuse-light": (("--tour",), "light", "#c=7", None),
    "tour-stale-pointer-dark": (("--tour",), "dark", "#c=8", None),
    "double-reuse-light": ((ZOO["Z23"],), "light", "", "av3"),
    "counterexample-light": ((Z01, "--series", "v6.18+9"), "light", "", "vma2"),
    "scenario-dark": ((FORK,), "dark", "", None),
}


def difference(one, other):
    """The mean difference of two pictures, each made small."""
    from PIL import Image, ImageChops, ImageStat

    pictures = [Image.open(path).convert("RGB").resize(SMALL, Image.Resampling.BOX) for path in (one, other)]
    return sum(ImageStat.Stat(ImageChops.difference(*pictures)).mean) / 3


@pytest.mark.parametrize("name", SCENES)
def test_a_page_looks_as_it_did(show, tmp_path, name):
    args, scheme, hash_, selected = SCENES[name]
    page = show(*args, scheme=scheme, hash_=hash_)
    page.keyboard.press("End")
    if selected:
        select(page, selected)
    path = tmp_path / f"{name}.png"
    page.screenshot(path=path)
    if os.environ.get("RMAPLAB_GOLDEN") == "1":
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / path.name).write_bytes(path.read_bytes())
    assert difference(path, GOLDEN / path.name) < MOST


def test_pictures_of_different_pages_differ():
    """The comparison can fail: another theme or another chapter is far off."""
    for one, other in (("tour-fork-light", "tour-fork-dark"), ("double-reuse-light", "scenario-dark")):
        assert difference(GOLDEN / f"{one}.png", GOLDEN / f"{other}.png") > MOST
