# SPDX-License-Identifier: GPL-2.0-only
"""What each kernel of the cache is made of, and how: from which suites of Debian, which packages, which files."""

from __future__ import annotations

import hashlib
import lzma
import re
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.errors import InputError
from rmaplab.realkernel.guest.build import RECIPE, build, fragments, settings
from rmaplab.realkernel.guest.cache import Kernel
from rmaplab.realkernel.guest.packages import Version, stream, take

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rmaplab.realkernel.guest.packages import Archive, Package

__all__ = ["RECIPES", "Choice", "Recipe", "choose_package", "configuration", "make_debian", "make_um"]

MODULES = (
    "qemu_fw_cfg",  # writes VMCOREINFO where the emulator finds it
    *("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_console"),
)
"""Those that guests load, if the kernel does not have them built in: dependencies first."""


class Recipe(NamedTuple):
    """A kernel of the cache: ``series`` is wanted, of ``instead`` the newest if Debian no longer has it."""

    kind: str
    series: str
    suites: tuple[str, ...]
    instead: str | None = None


_BOOKWORM = ("bookworm-security", "bookworm-backports")
_TRIXIE = ("trixie-backports",)
RECIPES: Mapping[str, Recipe] = {
    "um-6.12": Recipe("um", r"6\.12", _BOOKWORM),
    "um-7.3": Recipe("um", r"7\.3", _TRIXIE, r"7\.\d+"),
    "um-7.3-debug": Recipe("um", r"7\.3", _TRIXIE, r"7\.\d+"),
    "deb-6.1": Recipe("qemu", r"6\.1", ("bookworm-security",)),
    "deb-6.12": Recipe("qemu", r"6\.12", _BOOKWORM),
    **{f"deb-{minor}": Recipe("qemu", re.escape(minor), _TRIXIE) for minor in ("6.17", "6.18", "6.19")},
    **{f"deb-{minor}": Recipe("qemu", re.escape(minor), _TRIXIE) for minor in ("7.0", "7.1", "7.2")},
    "deb-7.3": Recipe("qemu", r"7\.3", _TRIXIE, r"7\.\d+"),
}


class Choice(NamedTuple):
    """What a kernel is to be made from.

    ``release``: as ``uname -r`` will say it, empty where building tells;
    ``packages``: by part: ``source``; or ``image``, and of ``modules``, ``config`` and ``symbols`` what there is.
    """

    name: str
    release: str
    archive: Archive
    packages: dict[str, Package]
    other: bool = False

    @property
    def main(self) -> Package:
        """The package that gives the kernel its version."""
        return next(iter(self.packages.values()))

    @property
    def key(self) -> str:
        """Version and configuration in one, as a name of a folder."""
        return f"{self.name}_{re.sub(r'[^-+.~0-9A-Za-z]', '.', self.main.version)}_{configuration(self.name)}"


def configuration(name: str) -> str:
    """A short hash of how a kernel is made, whatever the version."""
    how = f"{RECIPE} {fragments(name)}" if RECIPES[name].kind == "um" else f"{RECIPE} {MODULES}"
    return hashlib.sha256(how.encode()).hexdigest()[:8]


def choose_package(name: str, archives: Sequence[Archive]) -> Choice:
    """The newest that Debian has for a kernel's name; :class:`InputError` if it has none."""
    recipe = RECIPES[name]
    find = _source if recipe.kind == "um" else _image
    for series in (recipe.series, recipe.instead):
        found = [choice for archive in archives if series and (choice := find(name, series, archive))]
        if found:
            best = max(found, key=lambda choice: ("symbols" in choice.packages, Version(choice.main.version)))
            return best._replace(other=series != recipe.series)
    raise InputError(f"{name}: {' and '.join(recipe.suites)} of Debian have no such kernel")


def _newest(packages: Sequence[Package]) -> Package | None:
    return max(packages, key=lambda package: Version(package.version), default=None)


def _source(name: str, series: str, archive: Archive) -> Choice | None:
    found = _newest([package for package in archive.packages if re.fullmatch(f"linux-source-{series}", package.name)])
    return Choice(name, "", archive, {"source": found}) if found else None


def _image(name: str, series: str, archive: Archive) -> Choice | None:
    """A kernel for clouds: since 6.19 in three packages, before in one."""
    names: dict[str, Package] = {}
    for package in archive.packages:
        if package.name not in names or Version(names[package.name].version) < Version(package.version):
            names[package.name] = package
    choices = []
    for package in names.values():
        if found := re.fullmatch(rf"linux-image-({series}\.\d[\w.+-]*-cloud-amd64)", package.name):
            release = found[1]
            image = names.get(f"linux-binary-{release}", package)
            parts = {"modules": f"linux-modules-{release}", "config": f"linux-base-{release}"}
            parts["symbols"] = f"linux-image-{release}-dbg"
            rest = {part: names[other] for part, other in parts.items() if other in names}
            choices.append(Choice(name, release, archive, {"image": image, **rest}))
    return max(choices, key=lambda choice: ("symbols" in choice.packages, Version(choice.main.version)), default=None)


def make_um(choice: Choice, work: Path, log: Path, tell: Callable[[str], None]) -> Kernel:
    """Build a user-mode kernel in ``work``; what belongs to it lies in ``kernel`` there."""
    tell(f"fetching {choice.main.name}")
    package = choice.archive.fetch(choice.main, work)
    release, config = build(package, fragments(choice.name), work, log, tell)
    image, origin = work / "kernel" / "linux", " ".join(choice.main)
    return Kernel(choice.name, release, "um", image, image, (), settings(config), origin, choice.key)


def make_debian(choice: Choice, work: Path, tell: Callable[[str], None]) -> Kernel:
    """Take a kernel of Debian's apart: what is booted, its modules, configuration and symbols, as :func:`make_um`."""
    place = work / "kernel"
    place.mkdir()
    config: dict[str, str] = {}
    modules: dict[str, Path] = {}
    for part in ("image", "modules", "config"):
        if part in choice.packages:
            tell(f"fetching {choice.packages[part].name}")
            modules |= _open_image(choice.archive.fetch(choice.packages[part], work), place, config)
    image = place / "vmlinuz"
    if not image.exists():
        raise InputError(f"{choice.main.name} {choice.main.version}: has no vmlinuz")
    vmlinux = None
    if "symbols" in choice.packages:
        tell(f"fetching {choice.packages['symbols'].name}")
        package = choice.archive.fetch(choice.packages["symbols"], work)
        tell("unpacking its symbols")
        pattern = rf"\./usr/lib/debug/\S*vmlinux(?:-{re.escape(choice.release)})?"
        vmlinux = take(package, {pattern: place / "vmlinux"}).get(pattern)
    loaded = tuple(modules[name] for name in MODULES if name in modules)
    origin = " ".join(choice.main)
    return Kernel(choice.name, choice.release, "qemu", image, vmlinux, loaded, config, origin, choice.key)


def _open_image(package: Path, place: Path, config: dict[str, str]) -> dict[str, Path]:
    """Write ``vmlinuz`` and the modules that guests load, and read the configuration; the modules by name."""
    modules: dict[str, Path] = {}
    with stream(package) as files:
        for member in files:
            name = member.name.rpartition("/")[2]
            contents = files.extractfile(member) if member.isfile() else None
            if contents is None:
                continue
            stem, dot, packed = name.partition(".ko")
            if re.fullmatch(r"vmlinuz(?:-\S+)?", name):
                (place / "vmlinuz").write_bytes(contents.read())
            elif re.fullmatch(r"\./(?:boot/config-\S+|usr/lib/modules/[^/]+/config)", member.name):
                config |= settings(contents.read().decode())
            elif dot and stem.replace("-", "_") in MODULES:
                modules[stem] = place / "modules" / f"{stem}.ko"
                modules[stem].parent.mkdir(exist_ok=True)
                modules[stem].write_bytes(_plain(contents.read(), packed, member.name))
    return modules


def _plain(data: bytes, packed: str, name: str) -> bytes:
    if packed == ".xz":
        return lzma.decompress(data)
    if packed:
        raise InputError(f"{name}: a module packed in a way that is not known; report it to rmaplab")
    return data
