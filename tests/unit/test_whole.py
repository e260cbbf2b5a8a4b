# SPDX-License-Identifier: GPL-2.0-only
"""Files of the cache that several workers write at once, as they do when a kernel is read for the first time."""

from concurrent.futures import ThreadPoolExecutor

from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.um_facts import UmFacts
from rmaplab.realkernel.whole import write_whole


def test_whoever_writes_last_wins_and_readers_see_a_whole_file(tmp_path):
    path = tmp_path / "new" / "file"
    texts = [bytes([65 + number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_whole(path, text), texts * 4))
    assert path.read_bytes() in texts
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_facts_learnt_twice_at_once_are_kept_once(tmp_path):
    facts = UmFacts(Layout({"page": 64}, {"page": {"flags": 0}}, {}), {"init_task": 1}, 4, "7.3.4")
    path = tmp_path / "facts.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: facts.save(path), range(100)))
    assert UmFacts.load(path) == facts
