# SPDX-License-Identifier: GPL-2.0-only
"""What is compiled is kept by the sources that it is made of: none is used that was made of others."""

import pytest

pytest.importorskip("numba")

from rmaplab.engine import choice


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """An engine of two files, and a package beside it."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(choice, "_HERE", tmp_path / "engine")
    for name in ("engine/rmap.py", "engine/search/judge.py", "tests/twins.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path / "engine"


@pytest.mark.parametrize(
    ("changed", "stale"),
    [
        ("engine/rmap.py", {"engine", "engine/search", "tests"}),
        ("engine/search/judge.py", {"engine/search", "tests"}),
        ("tests/twins.py", {"tests"}),
    ],
)
def test_a_changed_source_asks_for_another_folder(engine, changed, stale):
    packages = {name: engine.parent / name for name in ("engine", "engine/search", "tests")}
    before = {name: choice.cache_folder(folder) for name, folder in packages.items()}
    assert before == {name: choice.cache_folder(folder) for name, folder in packages.items()}
    (engine.parent / changed).write_text("1\n")
    assert {name for name, folder in packages.items() if choice.cache_folder(folder) != before[name]} == stale


def test_what_was_compiled_of_other_sources_is_outdated(engine):
    folders = [choice.cache_folder(engine), choice.cache_folder(engine / "search")]
    for folder in folders:
        folder.mkdir(parents=True)
    assert choice.outdated_folders() == []
    (engine / "search/judge.py").write_text("1\n")
    assert choice.outdated_folders() == folders[1:]
    (engine / "rmap.py").write_text("1\n")
    assert choice.outdated_folders() == folders
