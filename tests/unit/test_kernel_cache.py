# SPDX-License-Identifier: GPL-2.0-only
"""The cache of kernels: found whole or not at all, made once, by one at a time."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from rmaplab.errors import InputError
from rmaplab.realkernel.guest import cache, kernels
from rmaplab.realkernel.guest.cache import KERNELS, OPTIONAL, Kernel, adopt, cache_folder, choose, find, missing
from rmaplab.realkernel.guest.packages import Package
from rmaplab.realkernel.guest.recipes import RECIPES, Choice


@pytest.fixture(name="folder", autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RMAPLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(name, version, key, folder):
    """A kernel that was made in a folder beside its place, and entered."""
    work = folder / "made" / f".{key}"
    (work / "modules").mkdir(parents=True)
    for file in ("vmlinuz", "vmlinux", "modules/b.ko", "modules/a.ko"):
        (work / file).write_text(f"{file} {version}")
    modules = (work / "modules" / "b.ko", work / "modules" / "a.ko")
    config = {"CONFIG_PGTABLE_LEVELS": "5", "CONFIG_KSM": "y"}
    kernel = Kernel(name, version, "qemu", work / "vmlinuz", work / "vmlinux", modules, config, "linux 1-1", key)
    return adopt(kernel, work)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RMAPLAB_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"RMAPLAB_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/rmaplab"),
        ({"RMAPLAB_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/rmaplab"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_a_kernel_is_found_as_it_was_entered(folder):
    put("deb-6.12", "6.12.9-cloud", "one", folder)
    kernel = find("deb-6.12")
    assert (kernel.name, kernel.version, kernel.kind, kernel.key) == ("deb-6.12", "6.12.9-cloud", "qemu", "one")
    assert kernel.package == "linux 1-1"
    assert kernel.config == {"CONFIG_PGTABLE_LEVELS": "5", "CONFIG_KSM": "y"}
    assert kernel.page_table_levels == 5
    assert kernel.image.read_text() == "vmlinuz 6.12.9-cloud"
    assert kernel.vmlinux.read_text() == "vmlinux 6.12.9-cloud"
    assert [module.name for module in kernel.modules] == ["b.ko", "a.ko"], "the order in which they are loaded"
    assert all(path.is_absolute() and path.exists() for path in (kernel.image, kernel.vmlinux, *kernel.modules))
    assert not list((folder / "made").glob(".*"))


def test_a_kernel_in_use_stays_what_it_is(folder):
    put("deb-6.12", "6.12.9", "one", folder)
    used = find("deb-6.12")
    put("deb-6.12", "6.12.10", "two", folder)
    assert find("deb-6.12").version == "6.12.10"
    assert used.image.read_text() == "vmlinuz 6.12.9"
    assert choose("deb-6.12", "one").version == find("deb-6.12").version == "6.12.9"
    assert choose("deb-6.12", "three") is None
    assert find("deb-6.12").version == "6.12.9"


def test_what_lies_in_the_way_of_a_kernel_gives_way(folder):
    for place in (folder / "kernels" / "um-7.3", folder / "made" / "one"):
        place.mkdir(parents=True)
        (place / "left").touch()
    put("um-7.3", "7.3.1", "one", folder)
    assert find("um-7.3").version == "7.3.1"
    assert not (find("um-7.3").image.parent / "left").exists()


def test_the_cache_may_be_moved(folder, monkeypatch):
    put("um-7.3", "7.3.1", "one", folder)
    folder.rename(folder.with_name("elsewhere"))
    monkeypatch.setenv("RMAPLAB_CACHE", str(folder.with_name("elsewhere")))
    assert find("um-7.3").image.read_text() == "vmlinuz 7.3.1"


def test_what_is_missing_is_told():
    assert find("um-7.3") is None
    assert "make kernels" in missing("um-7.3")
    assert "kernels um-7.3`" in missing("um-7.3")
    assert missing("um-7") == f"no kernel is called 'um-7'; there are {', '.join((*KERNELS, *OPTIONAL))}"
    assert set(RECIPES) == {*KERNELS, *OPTIONAL}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": 1, "modules": 3}', "\0"])
def test_a_damaged_record_is_told(folder, text):
    put("um-7.3", "7.3.1", "one", folder)
    (folder / "made" / "one" / "kernel.json").write_text(text)
    with pytest.raises(InputError, match=r"kernel\.json: not a record of a kernel: .*`make kernels`"):
        find("um-7.3")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_guests_program_is_compiled_once(folder):
    program = cache.init_program()
    made = program.stat().st_mtime_ns
    assert program.read_bytes()[:4] == b"\x7fELF"
    assert os.access(program, os.X_OK)
    assert cache.init_program() == program
    assert program.stat().st_mtime_ns == made
    assert [path.name for path in (folder / "init").iterdir()] == [program.name]
    kernel = put("deb-6.12", "6.12.9", "one", folder)
    data = kernel.initramfs.read_bytes()
    assert all(part in data for part in (program.read_bytes(), b"modules/a.ko 6.12.9", b"modules/b.ko 6.12.9"))


def test_without_a_compiler_the_remedy_is_told(monkeypatch):
    monkeypatch.setattr(cache.shutil, "which", lambda _: None)
    with pytest.raises(InputError, match="apt-get install gcc"):
        cache.init_program()


# The command.


class Silent(kernels.Progress):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.said, self.ended = [], []

    def tell(self, what):
        self.said.append(what)

    def end(self, line):
        self.ended.append(line)


@pytest.fixture(name="debian")
def _debian(monkeypatch):
    """A Debian with one version of everything, whose kernels are quickly made."""

    class Debian:
        version, made, fails, reached = "1-1", [], None, True

    def choose_package(name, archives):
        if not Debian.reached:
            raise InputError("no network")
        return Choice(name, "", archives[0], {"image": Package("linux", Debian.version)})

    def make_debian(choice, work, tell):
        (work / "kernel").mkdir()
        (work / "kernel" / "vmlinuz").write_text(choice.main.version)
        if Debian.fails:
            raise Debian.fails
        Debian.made.append(choice.main.version)
        return Kernel(choice.name, choice.main.version, "qemu", work / "kernel" / "vmlinuz", key=choice.key)

    Debian.made = []
    monkeypatch.setattr(kernels, "choose_package", choose_package)
    monkeypatch.setattr(kernels, "make_debian", make_debian)
    monkeypatch.setattr(kernels, "Archive", lambda folder, suite: (folder, suite))
    monkeypatch.setattr(kernels, "lacking", lambda _: [])
    monkeypatch.setattr(kernels, "init_program", lambda: None)
    monkeypatch.setattr(kernels.platform, "machine", lambda: "x86_64")
    return Debian


def test_nothing_is_made_twice(debian):
    progress = Silent()
    for _ in range(2):
        kernels.make(["deb-6.1"], progress)
    assert debian.made == ["1-1"]
    debian.version = "1-2"
    kernels.make(["deb-6.1"], progress)
    assert (debian.made, find("deb-6.1").version) == (["1-1", "1-2"], "1-2")
    debian.version = "1-1"
    kernels.make(["deb-6.1"], progress)
    assert (debian.made, find("deb-6.1").version) == (["1-1", "1-2"], "1-1")
    assert [line.split(", ")[1].split(" in ")[0] for line in progress.ended] == [
        *("made from linux 1-1", "was there", "made from linux 1-2", "was there")
    ]


@pytest.mark.parametrize("fails", [InputError("no"), KeyboardInterrupt(), OSError("disk full")])
def test_what_fails_leaves_nothing(folder, debian, fails):
    kernels.make(["deb-6.1"], Silent())
    debian.version, debian.fails = "1-2", fails
    with pytest.raises(type(fails)):
        kernels.make(["deb-6.1"], Silent())
    assert find("deb-6.1").version == "1-1"
    assert len(list((folder / "made").iterdir())) == 1


def test_what_was_left_by_one_that_was_killed_is_removed(folder, debian):
    (folder / "made" / ".deb-6.1.x" / "source").mkdir(parents=True)
    kernels.make(["deb-6.1"], Silent())
    assert not (folder / "made" / ".deb-6.1.x").exists()


def test_without_a_network_what_is_there_stays(debian):
    debian.reached = False
    with pytest.raises(InputError, match="no network"):
        kernels.make(["deb-6.1"], Silent())
    debian.reached = True
    kernels.make(["deb-6.1"], Silent())
    debian.reached = False
    progress = Silent()
    assert kernels.make(["deb-6.1"], progress)[0].version == "1-1"
    assert progress.ended == ["deb-6.1: 1-1, was there; whether it is the newest is not known: no network"]


def test_a_kernel_of_another_configuration_does_not_do_without_a_network(folder, debian):
    kernels.make(["deb-6.1"], Silent())
    record = find("deb-6.1").image.parent / "kernel.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"key": "deb-6.1_1-1_00000000"}))
    debian.reached = False
    with pytest.raises(InputError, match="no network"):
        kernels.make(["deb-6.1"], Silent())


def test_one_at_a_time(folder, debian):
    waits = threading.Event()

    class Waiting(Silent):
        def tell(self, what):
            if what.startswith("waiting"):
                waits.set()

    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = threading.Thread(target=kernels.make, args=(["deb-6.1"], Waiting()))
        other.start()
        assert waits.wait(60)
        assert debian.made == []
    other.join(60)
    assert debian.made == ["1-1"]


def test_missing_tools_are_named_with_their_packages(monkeypatch):
    monkeypatch.setattr(kernels, "_is_there", lambda name: name not in ("flex", "qemu-system-x86_64", "dpkg-deb"))
    assert [tool.name for tool in kernels.lacking(["um"])] == ["dpkg-deb", "flex"]
    assert [tool.name for tool in kernels.lacking(["um", "qemu"])] == ["dpkg-deb", "flex", "qemu-system-x86_64"]
    monkeypatch.setattr(kernels.os, "geteuid", lambda: 1000)
    with pytest.raises(InputError, match=r"^not there: dpkg-deb, flex; as root: apt-get install .* dpkg flex$"):
        kernels.make(["um-7.3"], Silent())


def test_root_gets_the_tools(debian, monkeypatch):
    there, ran = set(), []

    def run(command, failed):
        ran.append(command)
        if "update" not in command:
            if not any("update" in earlier for earlier in ran):
                raise InputError("Unable to locate package flex")
            there.add("flex")
        return ""

    monkeypatch.setattr(kernels, "lacking", lambda _: [kernels.Tool("flex", "flex")])
    monkeypatch.setattr(kernels, "_is_there", lambda name: name in there)
    monkeypatch.setattr(kernels, "run", run)
    monkeypatch.setattr(kernels.os, "geteuid", lambda: 0)
    monkeypatch.setattr(kernels.shutil, "which", lambda name: f"/usr/bin/{name}")
    kernels.make(["deb-6.1"], Silent())
    assert ["install" in command for command in ran] == [True, False, True]
    assert all(command[-3] == "flex" for command in ran if "install" in command)


def test_another_machine_is_told(monkeypatch):
    monkeypatch.setattr(kernels.platform, "machine", lambda: "aarch64")
    with pytest.raises(InputError, match="x86-64 kernels; this machine is aarch64"):
        kernels.make(["um-7.3"], Silent())


def test_the_command_lists_what_is_there(folder, capsys):
    put("deb-6.12", "6.12.9", "one", folder)
    assert kernels.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"cache: {folder}"
    assert any(line.split() == ["deb-6.12", "6.12.9,", "symbols,", "from", "linux", "1-1"] for line in lines)
    assert sum("is not there" in line for line in lines) == len(KERNELS) + len(OPTIONAL) - 1


def test_the_command_removes_what_was_replaced(folder, capsys):
    for version, key in (("6.12.9", "one"), ("6.12.10", "two")):
        put("deb-6.12", version, key, folder)
    assert kernels.main(["--prune"]) == 0
    assert kernels.main(["--prune"]) == 0
    assert capsys.readouterr().out.splitlines() == ["removed one", "nothing to remove"]
    assert find("deb-6.12").image.exists()


def test_the_command_makes_what_is_named(debian, capsys):
    assert kernels.main(["deb-6.1", "deb-7.0"]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["deb-6.1: 1-1", "deb-7.0: 1-1"]
    assert find("deb-6.12") is None


@pytest.mark.parametrize(
    ("words", "fails", "code", "text"),
    [
        (["deb-5"], None, 2, "no kernel is called 'deb-5'"),
        (["deb-6.1"], InputError("what, remedy"), 4, "rmaplab: what, remedy"),
        (["deb-6.1"], OSError(28, "No space left on device"), 4, "No space left on device"),
        (["deb-6.1"], KeyboardInterrupt(), 130, "nothing half-made is left"),
    ],
)
def test_the_command_fails_in_one_line(debian, capsys, words, fails, code, text):
    debian.fails = fails
    assert kernels.main(words) == code
    shown = capsys.readouterr()
    assert text in shown.err.splitlines()[-1]
    assert "Traceback" not in shown.err
