# SPDX-License-Identifier: GPL-2.0-only
"""The command line: designs given as files."""

import json
import os

import pytest
from cli_calls import FORK, SMALL, _call, _file, _in_a_folder_of_its_own, _trace  # noqa: F401 (fixtures)

DESIGN = "from rmaplab.kernel import Kernel\nclass Mine(Kernel):\n    def anon_vma_fork(self, vma, pvma):\n"


def test_design_files(call, file):
    file(DESIGN + "        return super().anon_vma_fork(vma, pvma)\n", "fine.py")
    done = call(*SMALL, "--design", "fine.py", "--json", "--jobs", "2")
    assert done.code == 0
    assert json.loads(done.out)["series"] == "fine.py"
    for text, words in (
        ("", "no class"),
        ("class (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("\0", "bad.py"),
    ):
        file(text, "bad.py")
        done = call(*SMALL, "--design", "bad.py")
        assert (done.code, done.out) == (4, "")
        assert words in done.err
    assert call(*SMALL, "--design", "none.py").code == 4
    os.mkdir("folder.py")
    assert call(*SMALL, "--design", "folder.py").code == 4


@pytest.mark.parametrize("body", ["raise ValueError('boom')", "return None", "vma.anon_vma = 7", "return 1 / 0"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_designs_that_crash_are_violations(call, file, body, jobs):
    file(DESIGN + f"        {body}\n", "crash.py")
    done = call(*SMALL, "--design", "crash.py", "--jobs", jobs, "--json")
    assert done.code == 1
    assert "AV-045" in [found["id"] for found in json.loads(done.out)["violations"]]
    done = call("run", file(FORK), "--design", "crash.py", "--json")
    assert done.code == 1
    assert "AV-045" in [found["id"] for found in json.loads(done.out)["violations"]]


def test_designs_that_crash_in_a_replay(call, file, trace):
    file(DESIGN + "        raise ValueError('boom')\n", "crash.py")
    done = call("replay", trace, "--design", "crash.py")
    assert (done.code, done.out) == (4, "")
    assert "hand.trace: event 4: crash.py crashed here" in done.err


@pytest.mark.parametrize("args", [("replay", "hand.trace"), ("run", "a.rmap"), SMALL], ids=lambda args: args[0])
def test_designs_that_cannot_start(call, file, trace, args):
    file(FORK)
    file(
        "from rmaplab.kernel import Kernel\nclass Mine(Kernel):\n    def __init__(self):\n        1 / 0\n", "init.py"
    )
    assert call(*args, "--design", "init.py").code in (1, 4)


def test_design_that_exits(call, file):
    file("import sys\nsys.exit(0)\n", "leave.py")
    assert call(*SMALL, "--design", "leave.py").code == 4


def test_two_designs_of_one_name(call, file, trace):
    for folder in ("a", "b"):
        os.mkdir(folder)
        file(DESIGN + "        return super().anon_vma_fork(vma, pvma)\n", f"{folder}/mine.py")
    done = call("replay", trace, "--design", "a/mine.py", "--design", "b/mine.py", "--json")
    assert done.code == 2 or len(json.loads(done.out)["results"]) == 2
