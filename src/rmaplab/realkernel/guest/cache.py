# SPDX-License-Identifier: GPL-2.0-only
"""Where built and fetched kernels are kept, and what is known of each.

``$RMAPLAB_CACHE``, or ``rmaplab`` in ``$XDG_CACHE_HOME`` or ~/.cache:
``made/KEY`` is a kernel with its ``kernel.json``, moved there when it is whole;
``kernels/NAME`` is a link to the one that counts, renewed in one step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from rmaplab.errors import InputError
from rmaplab.realkernel.guest.cpio import initramfs
from rmaplab.realkernel.whole import write_whole

__all__ = [
    "KERNELS",
    "OPTIONAL",
    "Kernel",
    "adopt",
    "cache_folder",
    "choose",
    "enter",
    "find",
    "init_program",
    "missing",
]

KERNELS = ("um-6.12", "um-7.3", "deb-6.1", "deb-6.12", "deb-6.18", "deb-7.0", "deb-7.3")
"""Those that ``make kernels`` makes: user-mode kernels and Debian's own."""
OPTIONAL = ("um-7.3-debug", "deb-6.17", "deb-6.19", "deb-7.1", "deb-7.2")
"""Those that it makes when they are named: with KASAN and lock checking, and the releases in between."""

_RECORD = "kernel.json"
# Loaded above the arena by every kernel, so that in a fork the arena's VMAs come first.
_FLAGS = ("-static-pie", "-O2")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of the cache; paths are absolute.

    ``version``: its release, as ``uname -r`` says it there; ``kind``: ``um`` or
    ``qemu``; ``image``: what is started; ``vmlinux`` has debug symbols, None
    without; ``modules``: those that guests load; ``config``: its CONFIG_
    settings, empty if the package does not tell; ``package``: name and version
    of what it was made from; ``key``: version and configuration in one.
    """

    name: str
    version: str
    kind: str
    image: Path
    vmlinux: Path | None = None
    modules: tuple[Path, ...] = ()
    config: dict[str, str] = field(default_factory=dict)
    package: str = ""
    key: str = ""

    @property
    def facts(self) -> Path:
        """Where what was learnt of it is kept."""
        return self.image.parent / "facts.json"

    @property
    def page_table_levels(self) -> int:
        """CONFIG_PGTABLE_LEVELS, 4 if it is not told; x86-64 folds the fifth on a processor without la57."""
        return int(self.config.get("CONFIG_PGTABLE_LEVELS", "4"))

    @property
    def initramfs(self) -> Path:
        """The guest's whole file system, made when it is first asked for."""
        modules = {module.name: module.read_bytes() for module in self.modules}
        data = initramfs(init_program().read_bytes(), modules)
        path = cache_folder() / "initramfs" / f"{hashlib.sha256(data).hexdigest()[:16]}.cpio"
        if not path.exists():
            write_whole(path, data)
        return path


def cache_folder() -> Path:
    """The folder of all; it may not exist yet."""
    named = os.environ.get("RMAPLAB_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "rmaplab"


def find(name: str) -> Kernel | None:
    """A kernel by its name, None if it was not made; :class:`InputError` for a record that cannot be read."""
    # The link is followed at once: a kernel that is in use stays what it is when the link is renewed.
    return _read((cache_folder() / "kernels" / name).resolve())


def _read(folder: Path) -> Kernel | None:
    record = folder / _RECORD
    try:
        document: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        vmlinux = document["vmlinux"]
        return Kernel(
            name=document["name"],
            version=document["version"],
            kind=document["kind"],
            image=folder / document["image"],
            vmlinux=None if vmlinux is None else folder / vmlinux,
            modules=tuple(folder / module for module in document["modules"]),
            config=document["config"],
            package=document.get("package", ""),
            key=document.get("key", ""),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{record}: not a record of a kernel: {error}; remove its folder and `make kernels`"
        ) from error


def missing(name: str) -> str:
    """How to get a kernel that is not there."""
    if name not in (*KERNELS, *OPTIONAL):
        return f"no kernel is called {name!r}; there are {', '.join((*KERNELS, *OPTIONAL))}"
    command = f"python -m rmaplab.realkernel.guest.kernels {name}"
    return f"the kernel {name} is not there: `{command}` makes it, `make kernels` makes all"


def enter(kernel: Kernel, folder: Path) -> None:
    """Write the record of a kernel that lies in ``folder``; that is what makes it one."""
    document = asdict(kernel) | {
        "image": str(kernel.image.relative_to(folder)),
        "vmlinux": None if kernel.vmlinux is None else str(kernel.vmlinux.relative_to(folder)),
        "modules": [str(module.relative_to(folder)) for module in kernel.modules],
    }
    write_whole(folder / _RECORD, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def adopt(kernel: Kernel, folder: Path) -> Kernel:
    """Enter a kernel that was made in ``folder``, a folder of the cache, and move it to its place in one step."""
    enter(kernel, folder)
    place = cache_folder() / "made" / kernel.key
    if place.exists():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    folder.replace(place)
    found = choose(kernel.name, kernel.key)
    assert found is not None
    return found


def choose(name: str, key: str) -> Kernel | None:
    """Let a name stand for the kernel made with a key from now on; None if there is none."""
    place = cache_folder() / "made" / key
    if _read(place.resolve()) is None:
        return None
    link = cache_folder() / "kernels" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    new = link.with_name(f".{name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(Path("..", "made", key))
    new.replace(link)
    return find(name)


def init_program() -> Path:
    """The guests' program, compiled when it is first asked for; :class:`InputError` without a compiler."""
    source = resources.files("rmaplab.realkernel.guest").joinpath("init.c").read_bytes()
    path = cache_folder() / "init" / hashlib.sha256(" ".join(_FLAGS).encode() + source).hexdigest()[:16]
    if path.exists():
        return path
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise InputError("the guests' program cannot be compiled: apt-get install gcc libc6-dev")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made, file = Path(folder) / "init", Path(folder) / "init.c"
        file.write_bytes(source)
        command = [compiler, *_FLAGS, "-o", str(made), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
            raise InputError(f"the guests' program does not compile: {last[0]}; apt-get install gcc libc6-dev")
        made.replace(path)
    return path
