# SPDX-License-Identifier: GPL-2.0-only
"""Debian packages and archives, made up for tests."""

from __future__ import annotations

import io
import tarfile


def tar(files, mode="w"):
    """An archive of files: bytes are contents, a text is where a link leads."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, contents in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(contents, str):
                member.type, member.linkname = tarfile.SYMTYPE, contents
                archive.addfile(member)
            else:
                member.size, member.mode = len(contents), 0o755 if contents.startswith(b"#!") else 0o644
                archive.addfile(member, io.BytesIO(contents))
    return data.getvalue()


def deb(path, files):
    """A package with these files (deb(5): an ar archive of three)."""
    control = tar({"./control": b"Package: made-up\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"})
    parts = {"debian-binary": b"2.0\n", "control.tar": control, "data.tar": tar(files)}
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, data in parts.items():
            file.write(f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(data):<10}`\n".encode())
            file.write(data + b"\n" * (len(data) % 2))
    return path
