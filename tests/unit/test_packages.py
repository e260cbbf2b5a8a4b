# SPDX-License-Identifier: GPL-2.0-only
"""Debian's packages: which is newest, from which mirror, and what is taken out of them."""

from __future__ import annotations

import itertools
import shutil
import stat
import subprocess
import tarfile
from io import BytesIO

import pytest
from packed import deb, tar

from rmaplab.errors import InputError
from rmaplab.realkernel.guest import packages
from rmaplab.realkernel.guest.packages import Archive, Package, Version, mirror, newest, parse, run, take, unpack

IN_ORDER = (
    *("1~rc1-1", "1-1", "1-1+b1", "1-1.1", "1-2", "1-10", "1.0-1", "1.1~~-1", "1.1~-1", "1.1-1", "1.1a-1", "1.1+x-1"),
    *("6.12.9-1", "6.12.95-1~bpo12+1", "6.12.95-1", "6.12.117-1~deb12u1", "6.12.117-1", "7.3~rc2-1~exp1", "7.3.4-1"),
    *("1:0.1-1", "1:0.1-1a"),
)
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not installed")


@pytest.mark.parametrize(("older", "newer"), list(itertools.pairwise(IN_ORDER)))
def test_versions_are_ordered(older, newer):
    assert Version(older) < Version(newer)
    assert not Version(newer) < Version(older)
    assert Version(older) != Version(newer)
    assert Version(older) == Version(older)


@needs_dpkg
def test_versions_are_ordered_as_dpkg_orders_them():
    for one, two in itertools.combinations(IN_ORDER, 2):
        code = subprocess.run(["dpkg", "--compare-versions", one, "lt", two], check=False).returncode
        assert (code == 0) == (Version(one) < Version(two)), (one, two)


INDEX = """\
Package: linux-source-7.2
Version: 7.2.12-1~bpo13+1
Description: Linux kernel source
 Package: not this

Package: linux-source-7.3
Source: linux
Version: 7.3.4-1~bpo13+1

Package: linux-source-7.3
Version: 7.3.10-1~bpo13+1

Package: no-version

Package: linux-source-7.3-extra
Version: 9
"""


def test_an_index_is_read():
    assert parse(INDEX) == [
        Package("linux-source-7.2", "7.2.12-1~bpo13+1"),
        Package("linux-source-7.3", "7.3.4-1~bpo13+1"),
        Package("linux-source-7.3", "7.3.10-1~bpo13+1"),
        Package("linux-source-7.3-extra", "9"),
    ]
    assert newest(parse(INDEX), r"linux-source-7\.\d+") == Package("linux-source-7.3", "7.3.10-1~bpo13+1")
    assert newest(parse(INDEX), r"linux-source-8\.\d+") is None
    assert parse("") == []


TARGETS = """\
https://packages.example.org/apt cloud-sdk-bookworm
https://node.example.org/ nodistro
http://mirror.example.org/debian-security/ bookworm-security
http://mirror.example.org/debian/ bookworm
http://other.example.org/debian/ bookworm-updates
"""


@pytest.mark.parametrize(
    ("suite", "targets", "address"),
    [
        ("trixie-backports", TARGETS, "http://mirror.example.org/debian/"),
        ("bookworm-security", TARGETS, "http://mirror.example.org/debian-security/"),
        ("bookworm-security", "http://a.example.org/debian/ stable\n", "http://a.example.org/debian-security"),
        (
            "trixie-backports",
            "http://a.example.org/debian-security oldstable-security\n",
            "http://a.example.org/debian",
        ),
    ],
)
def test_the_mirror_is_the_systems(suite, targets, address):
    assert mirror(suite, targets) == address


@pytest.mark.parametrize(
    "targets", ["", "https://node.example.org/ nodistro\n", "http://a.example.org/ubuntu noble\n"]
)
def test_without_a_mirror_of_debian_the_remedy_is_told(targets):
    with pytest.raises(InputError, match="name no Debian mirror for trixie-backports: add"):
        mirror("trixie-backports", targets)


def test_apts_complaint_is_told():
    with pytest.raises(InputError, match=r"^here: Unable to locate package x$"):
        run(["sh", "-c", "echo 'W: old' >&2; echo 'E: Unable to locate package x' >&2; exit 100"], "here")
    with pytest.raises(InputError, match=r"^here: exit 3$"):
        run(["sh", "-c", "exit 3"], "here")
    with pytest.raises(InputError, match=r"^here: no-such-program: No such file"):
        run(["no-such-program"], "here")


def test_without_apt_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    with pytest.raises(InputError, match=r"apt-get is missing: .*Debian 12"):
        Archive(tmp_path, "sid")


SETTINGS = """\
APT::Architecture "amd64";
APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb || true";
Acquire::AllowInsecureRepositories "true";
Acquire::http::Proxy "http://proxy.example.org/";
Acquire::IndexTargets::deb::DEP-11::MetaKey "x";
"""


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """An apt whose calls are noted, with a mirror that has the index above."""
    calls = []
    (tmp_path / "keys").touch()
    monkeypatch.setattr(packages, "KEYS", tmp_path / "keys")
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/usr/bin/{name}")

    def answer(command, failed):
        calls.append(command)
        if "cat-file" in command:
            return INDEX
        if "dump" in command:
            return SETTINGS
        if "indextargets" in command:
            return "index\n" if "$(FILENAME)" in command else TARGETS if "--no-release-info" in command else ""
        if "download" in command:
            (tmp_path / "down" / f"{command[-1].replace('=', '_')}_all.deb").touch()
        return ""

    monkeypatch.setattr(packages, "run", answer)
    return calls


def test_a_suite_has_a_root_of_its_own(tmp_path, apt):
    archive = Archive(tmp_path / "apt", "trixie-backports")
    assert len(archive.packages) == len(archive.packages) == 4
    assert sum("update" in call for call in apt) == 1, "asked the mirror twice"
    source = (tmp_path / "apt" / "sources.list").read_text()
    assert source.endswith("] http://mirror.example.org/debian/ trixie-backports main\n")
    assert f"signed-by={tmp_path / 'keys'}" in source
    settings = (tmp_path / "apt" / "apt.conf").read_text()
    for place in ("Etc::sourcelist", "State::lists", "State::status", "Cache"):
        assert f'Dir::{place} "{tmp_path}' in settings, f"{place} is the system's"
    assert 'Acquire::http::Proxy "http://proxy.example.org/";' in settings
    assert "rm -f" not in settings, "a hook of the system's"
    assert "unauthenticated" not in settings.lower()
    assert 'Acquire::AllowInsecureRepositories "false";' in settings
    assert "true" not in settings
    assert all(f"APT_CONFIG={tmp_path / 'apt' / 'apt.conf'}" in call for call in apt if "update" in call)


def test_for_a_suite_that_is_not_trusted_the_remedy_is_told(tmp_path, apt, monkeypatch):
    quiet = packages.run

    def refuse(command, failed):
        if "update" in command:
            raise InputError("The repository is not signed.")
        return quiet(command, failed)

    monkeypatch.setattr(packages, "run", refuse)
    with pytest.raises(InputError, match=r"not signed\..*apt-get install debian-archive-keyring$"):
        _ = Archive(tmp_path / "apt", "trixie-backports").packages


def test_a_package_is_fetched_in_its_version(tmp_path, apt):
    (tmp_path / "down").mkdir()
    path = Archive(tmp_path / "apt", "trixie-backports").fetch(Package("made-up", "1-2"), tmp_path / "down")
    assert path == tmp_path / "down" / "made-up_1-2_all.deb"
    assert apt[-1][-2:] == ["download", "made-up=1-2"]


FILES = {
    "./boot/vmlinuz-1": b"image",
    "./usr/lib/debug/x/vmlinux": b"symbols" * 100,
    "./usr/lib/debug/x/kernel/a.ko": b"module",
}


@needs_dpkg
def test_of_a_package_only_what_is_wanted_is_written(tmp_path):
    path = deb(tmp_path / "a.deb", FILES)
    wanted = {r"\./usr/lib/debug/\S*vmlinux": tmp_path / "new" / "vmlinux", r"\./no/such": tmp_path / "other"}
    assert take(path, wanted) == {r"\./usr/lib/debug/\S*vmlinux": tmp_path / "new" / "vmlinux"}
    assert (tmp_path / "new" / "vmlinux").read_bytes() == b"symbols" * 100
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.deb", "new"]


@needs_dpkg
@pytest.mark.parametrize("damage", [lambda data: b"not a package", lambda data: data[:700], lambda data: b""])
def test_what_is_no_package_is_refused(tmp_path, damage):
    path = deb(tmp_path / "a.deb", FILES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"a\.deb: not a package, or cut off"):
        take(path, {"nothing": tmp_path / "nothing"})


def test_an_archive_is_unpacked_in_part(tmp_path):
    files = {"src/mm/rmap.c": b"int x;", "src/run.sh": b"#!/bin/sh\n", "src/link": "mm/rmap.c", "src/net/a.c": b"no"}
    with tarfile.open(fileobj=BytesIO(tar(files, "w:xz")), mode="r|*") as archive:
        assert unpack(archive, tmp_path / "out", lambda path: not path.startswith("net/"), strip=1) == 3
    out = tmp_path / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == ["link", "mm", "mm/rmap.c", "run.sh"]
    assert (out / "link").read_bytes() == b"int x;"
    assert (out / "run.sh").stat().st_mode & stat.S_IXUSR
    assert not (out / "mm" / "rmap.c").stat().st_mode & stat.S_IXUSR


def test_nothing_is_unpacked_outside_of_the_folder(tmp_path):
    files = {"../evil": b"1", f"{tmp_path}/evil": b"2", "a/../../evil": b"3", "a/up": "../../evil", "a/root": "/etc"}
    with tarfile.open(fileobj=BytesIO(tar({**files, "b": "c", "c": b"4"})), mode="r|*") as archive:
        unpack(archive, tmp_path / "out", lambda _: True)
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()]
    assert sorted(left) == ["out/b", "out/c"]
