# SPDX-License-Identifier: GPL-2.0-only
"""Explorations on Ray: the same result as on one machine, also if a worker dies half way."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest
from cli_calls import _call, _in_a_folder_of_its_own  # noqa: F401 (fixtures)
from result_facts import facts

from rmaplab.check.cluster import LOCAL, Sent, cluster, expand_shard
from rmaplab.check.expand import Expander, Question
from rmaplab.check.explore import explore
from rmaplab.check.histories import Bounds
from rmaplab.errors import UsageError
from rmaplab.scenario import Scenario

BOUNDS = Bounds(3, 2, 1, 5, 1)
DESIGN = "from rmaplab.kernel import Kernel\n\n\nclass Mine(Kernel):\n    pass\n"
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'rmaplab[cluster]'"
)


def ray_workers():
    """Process ids of the workers that expand shards, of this process's Ray."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::expand_shard"):
            found.append(int(folder.name))
    return sorted(found)


@needs_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("series", ["v7.0", "v6.18+9"])
def test_a_worker_is_killed_half_way_and_nothing_is_lost(series):
    whole = facts(explore(series, BOUNDS, stop_at_first=False))
    seen, killed = set(), []

    def kill_one(now):
        seen.update(ray_workers())
        if not killed and now.depth == BOUNDS.calls and now.done >= now.width // 3 and len(seen) > 1:
            killed.append(ray_workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    with cluster(LOCAL, 2) as workers:
        result = explore(series, BOUNDS, stop_at_first=False, jobs=2, workers=workers, progress=kill_one)
    assert len(seen) >= 2
    assert killed
    assert facts(result) == whole


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_the_command_line_takes_a_local_cluster(call):
    done = call("check", "--calls", "3", "--ray", "local", "--jobs", "2", "--quiet")
    assert (done.code, done.err) == (0, "")
    for address, code, words in (
        ("127.0.0.1:1", 4, "refused; is the cluster up?"),
        ("ray://127.0.0.1:1", 4, "refused; is the cluster up?"),
        ("127.0.0.1", 2, "expected HOST:PORT"),
    ):
        done = call("check", "--calls", "3", "--ray", address)
        assert (done.code, done.out) == (code, "")
        assert f"--ray {address}: " in done.err
        assert words in done.err


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'rmaplab\[cluster\]'"), cluster(LOCAL):
        pass


def test_a_shard_brings_its_design_along(tmp_path):
    """A machine without the file makes one of the text it was sent; with the file it takes that."""
    here = tmp_path / "mine.py"
    here.write_text(DESIGN)
    question = Question(str(here), BOUNDS, Scenario(()))
    there = question._replace(series=str(tmp_path / "elsewhere" / "mine.py"))
    shard = [((), 0, 1)]
    expected = Expander(question).expand(shard)
    for sent in (Sent(question, DESIGN), Sent(there, DESIGN)):
        found = expand_shard(sent, shard)
        assert (found.transitions, found.successors) == (expected.transitions, expected.successors)
