# SPDX-License-Identifier: GPL-2.0-only
"""Explorations on Ray: the same result as on one machine, also if a worker dies half way."""

import importlib.util

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
DEADLY = """
import os, pathlib, signal
from itertools import count

from rmaplab.series import SERIES

forks = count()
death = pathlib.Path({death!r})
worker = pathlib.Path("/proc/self/cmdline").read_bytes().startswith(b"ray::")


class Mine(SERIES[{series!r}]):
    def anon_vma_fork(self, *args):
        if worker and next(forks) == 100 and not death.exists():
            death.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().anon_vma_fork(*args)
"""
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'rmaplab[cluster]'"
)


@needs_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("series", ["v7.0", "v6.18+9"])
def test_a_worker_is_killed_half_way_and_nothing_is_lost(series, tmp_path):
    death = tmp_path / "death"
    design = tmp_path / "deadly.py"
    design.write_text(DEADLY.format(series=series, death=str(death)))
    whole = facts(explore(str(design), BOUNDS, stop_at_first=False))
    assert not death.exists()
    with cluster(LOCAL, 2) as workers:
        result = explore(str(design), BOUNDS, stop_at_first=False, jobs=2, workers=workers)
    assert death.exists()
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
