# SPDX-License-Identifier: GPL-2.0-only
"""Guests that cannot be booted: emulators and kernels that are missing, or end at once."""

from __future__ import annotations

import tempfile
from types import SimpleNamespace

import pytest

from rmaplab.realkernel.guest.qemu import EMULATOR, QemuGuest
from rmaplab.realkernel.guest.um import UmGuest
from rmaplab.realkernel.guest.wire import GuestDiedError, GuestError


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary files are made."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


@pytest.fixture
def kernel(tmp_path):
    return SimpleNamespace(
        version="9.9", image=tmp_path / "kernel", initramfs=tmp_path / "cpio", facts=tmp_path / "facts.json"
    )


def test_an_emulator_that_is_missing_is_named(kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GuestError, match="qemu-system-x86_64 is not installed: apt-get install qemu-system-x86"):
        QemuGuest(kernel)


def test_an_emulator_that_ends_at_once_is_quoted(kernel, tmp_path, monkeypatch, folder):
    script(tmp_path / EMULATOR, "echo 'qemu: out of luck' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(GuestError, match="does not start: qemu: out of luck"):
        QemuGuest(kernel)
    assert list(folder.iterdir()) == []


def test_an_emulator_is_told_what_to_boot(kernel, tmp_path, monkeypatch, folder):
    script(tmp_path / EMULATOR, f'printf "%s\\n" "$@" >{tmp_path}/told')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(GuestError, match="does not start"):
        QemuGuest(kernel, options=("one=1",))
    told = (tmp_path / "told").read_text().splitlines()
    assert told[told.index("-kernel") + 1] == str(kernel.image)
    assert told[told.index("-initrd") + 1] == str(kernel.initramfs)
    words = told[told.index("-append") + 1].split()
    assert {"nokaslr", "slab_nomerge", "panic_on_warn=1", "one=1"} <= set(words)


def test_a_user_mode_kernel_that_is_missing_is_named(kernel):
    with pytest.raises(GuestError, match="kernel: cannot be started: No such file"):
        UmGuest(kernel)


def test_a_user_mode_kernel_that_ends_at_once_is_quoted(kernel, folder):
    script(kernel.image, "echo 'Kernel panic - not syncing: no luck' >&2; exit 1")
    with pytest.raises(GuestDiedError, match=r"9\.9 died while it booted; its console said: Kernel panic .* no luck"):
        UmGuest(kernel)
    assert list(folder.iterdir()) == []
