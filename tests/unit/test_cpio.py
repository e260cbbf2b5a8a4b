# SPDX-License-Identifier: GPL-2.0-only
"""Archives for initramfs: what is written can be read, by us and by cpio."""

from __future__ import annotations

import shutil
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmaplab.realkernel.guest.cpio import Entry, archive, initramfs

FILE, FOLDER, DEVICE = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFCHR | 0o600
FIELDS = ("ino", "mode", "uid", "gid", "nlink", "mtime", "filesize", "devmajor", "devminor", "rdevmajor")
FIELDS = (*FIELDS, "rdevminor", "namesize", "check")


def read_back(data):
    """The entries of an archive, as the kernel's unpacker sees them (init/initramfs.c)."""
    entries, at = [], 0
    while True:
        assert data[at : at + 6] == b"070701", f"no header at {at}"
        assert at % 4 == 0
        values = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        field = dict(zip(FIELDS, values, strict=True))
        name = data[at + 110 : at + 110 + field["namesize"]]
        assert name.endswith(b"\0")
        start = (at + 110 + field["namesize"] + 3) & ~3
        end = start + field["filesize"]
        if name == b"TRAILER!!!\0":
            assert end == len(data)
            return entries
        entry = Entry(name[:-1].decode(), field["mode"], data[start:end], field["rdevmajor"], field["rdevminor"])
        entries.append((entry, field))
        at = (end + 3) & ~3


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=20)
numbers = st.integers(0, 2**32 - 1)
files = st.tuples(names, st.just(FILE), st.binary(max_size=40))
devices = st.tuples(names, st.just(DEVICE), st.just(b""), numbers, numbers)
folders = st.tuples(names, st.just(FOLDER))


@given(st.lists(st.one_of(files, devices, folders).map(lambda fields: Entry(*fields)), max_size=8))
def test_what_is_written_is_read_back(entries):
    found = read_back(archive(entries))
    assert [entry for entry, _ in found] == entries
    inodes = [field["ino"] for _, field in found]
    assert len(set(inodes)) == len(inodes), "files with one number would be links of each other"
    assert all((field["uid"], field["gid"], field["mtime"], field["check"]) == (0, 0, 0, 0) for _, field in found)


def test_an_initramfs_has_program_console_and_modules():
    found = {entry.name: entry for entry, _ in read_back(initramfs(b"\x7fELF", {"b.ko": b"two", "a.ko": b"one"}))}
    assert found["init"] == Entry("init", stat.S_IFREG | 0o755, b"\x7fELF")
    assert found["dev/console"] == Entry("dev/console", DEVICE, b"", 5, 1)
    assert (found["modules/a.ko"].data, found["modules/b.ko"].data) == (b"one", b"two")
    order = list(found)
    for name in order:
        folder = name.rpartition("/")[0]
        assert not folder or order.index(folder) < order.index(name), f"{name} comes before its folder"


def test_an_initramfs_is_always_the_same():
    one = initramfs(b"program", {"a.ko": b"1", "b.ko": b"2"})
    assert one == initramfs(b"program", {"b.ko": b"2", "a.ko": b"1"})
    assert one != initramfs(b"program", {"a.ko": b"1", "b.ko": b"3"})


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_lists_it():
    data = initramfs(b"program", {"a.ko": b"1"})
    done = subprocess.run(["cpio", "-tv", "--quiet"], input=data, capture_output=True, check=True)
    lines = done.stdout.decode().splitlines()
    assert [line.split()[-1] for line in lines] == [entry.name for entry, _ in read_back(data)]
    assert any(line.startswith("crw-") and "5,   1" in line for line in lines), lines
