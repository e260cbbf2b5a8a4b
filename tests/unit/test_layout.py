# SPDX-License-Identifier: GPL-2.0-only
"""Facts of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "src" / "rmaplab" / "data"  # scripts there are data
SOURCES = sorted(path for path in (ROOT / "src").rglob("*.py") if DATA not in path.parents)
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
FRAGMENTS = sorted(path for path in (ROOT / "changelog.d").iterdir() if not path.name.startswith("."))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LICENCE = "# SPDX-License-Identifier: GPL-2.0-only"
MOST_LINES = 350
MACHINE_PATH = re.compile(rb"(?<![\w.~])/(?:work|root|home/\w+)/|/tmp/(?:bash)|file:/{2,}")


def relative(path):
    return path.relative_to(ROOT).as_posix()


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=relative)


def public_names(tree):
    """Names that a module defines at its top level without an underscore in front."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names = [name]
            case ast.Assign(targets=targets):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names = [name]
            case _:
                names = []
        yield from (name for name in names if not name.startswith("_"))


def exported(tree):
    """The value of ``__all__``, or None."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return ast.literal_eval(value)
    return None


def ruffs_order(name):
    """CONSTANTS, Classes, functions; numbers in a name count as numbers."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


@each([*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))])
def test_licence_stands_first(path):
    with path.open(encoding="utf-8") as file:
        assert file.readline().rstrip() == LICENCE


@each(SOURCES)
def test_module_says_what_it_is_and_what_it_offers(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    names = exported(tree)
    if names is None:
        assert not list(public_names(tree)), "public names without __all__"
    else:
        assert names == sorted(set(names), key=ruffs_order)


@each(SOURCES)
def test_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def tracked_files():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_path_of_one_machine():
    found = [
        f"{relative(path)}:{number}: {line.strip().decode(errors='replace')}"
        for path in tracked_files()
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(found)


# Written with | for /, as this file is searched too.
@pytest.mark.parametrize("text", ["see |work|x", "cd |root|y", "|home|jo|z", "|tmp|bash_jobs", "file:|||opt"])
def test_a_path_of_one_machine_is_recognised(text):
    assert MACHINE_PATH.search(text.replace("|", "/").encode())


@pytest.mark.parametrize("text", ["src/work/x", "root/parent", "a/root/b", "~/root/x", "/tmp/x", "/usr/bin"])
def test_other_paths_are_fine(text):
    assert not MACHINE_PATH.search(text.encode())


# The locks.


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path):
    """name: version of each line; fails at a line that is neither a pin nor a hash."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if pin := re.fullmatch(r"([a-z0-9-]+)==([\w.+!]+)(?: ; [^\\]+)? \\", line):
            found[pin[1]] = pin[2]
        else:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line), line
    return found


def requirements(group):
    for entry in PYPROJECT["dependency-groups"][group]:
        if isinstance(entry, dict):
            yield from requirements(entry["include-group"])
        else:
            yield entry


@each(LOCKS)
def test_lock_has_what_pyproject_asks_for(path):
    asked = [*PYPROJECT["build-system"]["requires"], *PYPROJECT["project"]["dependencies"], *requirements("build")]
    if path.stem != "run":
        asked += requirements(path.stem)
    names = {normal(re.match(r"[\w.-]+", entry)[0]) for entry in asked}
    assert names <= pins(path).keys(), "run `make lock`"


def test_locks_agree():
    run, dev, mutation = (pins(ROOT / "requirements" / f"{name}.lock").items() for name in ("run", "dev", "mutation"))
    assert run <= dev <= mutation, "run `make lock`"


# The changelog.


@pytest.mark.parametrize("path", FRAGMENTS, ids=relative)
def test_changelog_fragment(path):
    types = "|".join(kind["directory"] for kind in PYPROJECT["tool"]["towncrier"]["type"])
    assert re.fullmatch(rf"(?:\d+|\+[a-z0-9-]+)\.(?:{types})\.md", path.name), "name it +WORDS.TYPE.md"
    assert path.read_text(encoding="utf-8").strip()


def test_towncrier_takes_every_fragment():
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "0", "--date", "2000-01-01"]
    draft = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert draft.returncode == 0, draft.stderr
    for path in FRAGMENTS:
        assert path.read_text(encoding="utf-8").split("\n")[0] in draft.stdout


def test_changelog_has_the_place_for_the_next_release():
    marker = PYPROJECT["tool"]["towncrier"]["start_string"]
    assert marker in (ROOT / PYPROJECT["tool"]["towncrier"]["filename"]).read_text(encoding="utf-8")
