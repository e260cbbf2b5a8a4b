# SPDX-License-Identifier: GPL-2.0-only
"""Designs by users: the starter, entry points, and errors that are told as theirs."""

import inspect
import json
import sys
from importlib import metadata
from importlib.metadata import EntryPoint

import pytest
from cli_calls import SMALL, _call, _file, _in_a_folder_of_its_own  # noqa: F401 (fixtures)

from rmaplab.errors import InputError
from rmaplab.kernel import Kernel
from rmaplab.series import SERIES, ZOO, find

PACKAGE = """\
from rmaplab.kernel import Kernel


class Quiet(Kernel):
    summary = "does what the parent does"
    parent = "v7.0"


class Broken(Kernel):
    def __init__(self):
        1 / 0


nothing = 7
"""


@pytest.mark.parametrize("name", ["v7.0", "v6.18", "v6.0", "v2.6.32", "v7.3", "zoo/Z23"])
def test_a_starter_does_what_its_series_does(call, name):
    done = call("new-design", "mine.py", "--series", name)
    assert (done.code, done.out) == (0, "")
    assert "rmaplab check --design mine.py" in done.err
    wanted = call(*SMALL, "--series", name, "--json", "-j1")
    found = call(*SMALL, "--design", "mine.py", "--json", "-j1")
    assert found.code == wanted.code
    ours, theirs = json.loads(found.out), json.loads(wanted.out)
    for key in ("states", "transitions", "digest", "reached", "verdict"):
        assert ours[key] == theirs[key]


@pytest.mark.parametrize("name", ["v7.0", "v6.12", "v2.6.34"])
def test_every_function_can_be_overridden(call, tmp_path, name):
    logic = {**SERIES, **ZOO}[name]
    functions = [own for own in dir(logic) if not own.startswith("_") and inspect.isfunction(getattr(logic, own))]
    assert len(functions) > 100
    for number, function in enumerate(functions):
        path = f"mine{number}.py"
        assert call("new-design", path, "--series", name, "--function", function, "-q").code == 0
        design = find(path)
        own, theirs = inspect.signature(getattr(design, function)), inspect.signature(getattr(logic, function))
        assert list(own.parameters) == list(theirs.parameters)


def test_a_starter_takes_no_file_that_is_there(call, file):
    path = file("precious", "mine.py")
    done = call("new-design", "mine.py")
    assert (done.code, done.out) == (4, "")
    assert "is there already" in done.err
    assert path.read_text() == "precious"
    assert call("new-design", "none/mine.py").code == 4


def test_a_typo_in_the_name_of_a_function(call, file):
    file(
        "from rmaplab.kernel import Kernel\n\n\nclass Mine(Kernel):\n    def anon_vma_frok(self):\n        pass\n",
        "m.py",
    )
    done = call(*SMALL, "--design", "m.py")
    assert (done.code, done.out) == (4, "")
    assert "Mine.anon_vma_frok overrides nothing; did you mean anon_vma_fork?" in done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ny = (\n", "m.py:2: cannot be imported: SyntaxError"),
        ("x = 1\n\nimport nothing_of_the_kind\n", "m.py:3: cannot be imported: ModuleNotFoundError"),
        ("def f():\n    return 1 / 0\n\n\nf()\n", "m.py:2: cannot be imported: ZeroDivisionError"),
    ],
)
def test_errors_are_told_with_their_line(call, file, text, words):
    file(text, "m.py")
    done = call(*SMALL, "--design", "m.py")
    assert (done.code, done.out) == (4, "")
    assert words in done.err


def test_a_crash_is_told_with_its_line(call, file):
    file(
        "from rmaplab.kernel import Kernel\n\n\nclass Mine(Kernel):\n"
        "    def maybe_reuse_anon_vma(self, *args):\n        return args[0].nothing\n",
        "m.py",
    )
    done = call("check", "--design", "m.py", "--json", "-j1")
    assert done.code == 1
    found = {one["id"]: one["detail"] for one in json.loads(done.out)["violations"]}
    assert "(m.py:6, in maybe_reuse_anon_vma)" in found["AV-045"]


@pytest.fixture(name="installed")
def _installed(tmp_path, monkeypatch):
    """A package that offers three designs, of which one can be used."""
    (tmp_path / "their_designs.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint(name, f"their_designs:{target}", "rmaplab.designs")
        for name, target in (("quiet", "Quiet"), ("broken", "Broken"), ("none", "nothing"), ("gone", "Gone"))
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    yield
    sys.modules.pop("their_designs", None)


@pytest.mark.usefixtures("installed")
def test_designs_of_installed_packages(call):
    assert issubclass(find("quiet"), Kernel)
    done = call(*SMALL, "--design", "quiet", "--json", "-j1")
    assert (done.code, json.loads(done.out)["series"]) == (0, "quiet")
    items = json.loads(call("list", "designs", "--json").out)["items"]
    assert [item["name"] for item in items] == ["broken", "gone", "none", "quiet"]
    by_name = {item["name"]: item for item in items}
    assert by_name["quiet"]["summary"] == "does what the parent does"
    assert by_name["quiet"]["from"] == "their_designs:Quiet"
    assert "ZeroDivisionError" in by_name["broken"]["summary"]
    assert "did you mean quiet?" in call(*SMALL, "--design", "quite").err


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [("broken", "cannot start"), ("none", "no class derived from a series"), ("gone", "cannot be imported")],
)
def test_designs_of_packages_that_cannot_be_used(name, words):
    with pytest.raises(InputError, match=words):
        find(name)
