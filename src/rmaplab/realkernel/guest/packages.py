# SPDX-License-Identifier: GPL-2.0-only
"""Debian's packages, of any suite, without changing the system: looked up, fetched, and unpacked in part.

Every suite has an apt root of its own (lists, status, downloads), filled from
the mirror that the system itself uses; apt checks the signatures against
Debian's archive keys.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from contextlib import contextmanager
from functools import total_ordering
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import IO

__all__ = ["Archive", "Package", "Version", "mirror", "newest", "parse", "run", "stream", "take", "unpack"]

KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LONGEST = 1800  # seconds that one call of apt may take
_OWN = r"(?:sid|unstable|testing|(?:old)*stable|bullseye|bookworm|trixie|forky|duke)"
_NO_MIRROR = (
    "apt's sources name no Debian mirror for {suite}: add a Debian suite to /etc/apt/sources.list, "
    "or make the kernels on Debian 12 or newer and copy the cache folder"
)


@total_ordering
class Version:
    """A Debian version: epoch, upstream part and revision, ordered as Debian Policy 5.6.12 says."""

    def __init__(self, text: str) -> None:
        self.text = text
        epoch, colon, rest = text.partition(":")
        upstream, _, revision = (rest if colon else text).rpartition("-")
        if not upstream:
            upstream, revision = revision, ""
        self._key = (int(epoch) if colon else 0, _order(upstream), _order(revision))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return self.text


def _order(part: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Turns of text and number: ``~`` comes before the end, the end before letters, letters before the rest."""
    turns = re.findall(r"(\D*)(\d*)", part)
    return tuple(((*map(_weight, text), 0), int(number or 0)) for text, number in turns)


def _weight(sign: str) -> int:
    return -1 if sign == "~" else ord(sign) if sign.isalpha() else ord(sign) + 256


class Package(NamedTuple):
    """A package that a suite has."""

    name: str
    version: str


def parse(text: str) -> list[Package]:
    """The packages of an index in Debian's control format."""
    found = []
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if re.match(r"(?:Package|Version): ", line))
        if len(fields) == 2:
            found.append(Package(fields["Package"], fields["Version"]))
    return found


def newest(packages: Iterable[Package], pattern: str) -> Package | None:
    """The newest of those whose whole name matches a regular expression, None without one."""
    matching = (package for package in packages if re.fullmatch(pattern, package.name))
    return max(matching, key=lambda package: Version(package.version), default=None)


def run(command: Sequence[str], failed: str) -> str:
    """A command's output; :class:`InputError`, beginning with ``failed``, if it is not there or does not succeed."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_LONGEST
        )
    except OSError as error:
        raise InputError(f"{failed}: {command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{failed}: {command[0]} took more than {_LONGEST} s") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("E: ")] or lines[-1:] or [f"exit {done.returncode}"]
        raise InputError(f"{failed}: {errors[0].removeprefix('E: ')}")
    return done.stdout


def mirror(suite: str, targets: str) -> str:
    """The address that the system itself fetches such a suite from.

    ``targets``: lines of address and release, as ``apt-get indextargets`` tells them.
    :class:`InputError` if no source of the system is Debian's.
    """
    security = "-security" in suite
    pairs = [line.split() for line in targets.splitlines() if len(line.split()) == 2]
    for wanted, change in ((security, lambda address: address), (not security, _sibling)):
        release = rf"{_OWN}(?:-security|/updates)" if wanted else rf"{_OWN}(?:-updates|-backports)?"
        for address, name in pairs:
            if re.fullmatch(release, name) and (found := change(address)):
                return str(found)
    raise InputError(_NO_MIRROR.format(suite=suite))


def _sibling(address: str) -> str | None:
    """``…/debian`` for ``…/debian-security``, and the other way round."""
    found = re.fullmatch(r"(.*/debian)(-security)?/?", address)
    return (found[1] if found[2] else found[1] + "-security") if found else None


class Archive:
    """A suite of Debian with an apt root in ``folder``; :class:`InputError` if it cannot be reached or trusted."""

    def __init__(self, folder: Path, suite: str) -> None:
        self.folder, self.suite = folder.absolute(), suite
        if shutil.which("apt-get") is None:
            raise InputError("apt-get is missing: kernels are made from Debian's packages, on Debian 12 or newer")
        if not KEYS.exists():
            raise InputError(f"{KEYS} is missing: apt-get install debian-archive-keyring")
        self._packages: list[Package] | None = None

    @property
    def packages(self) -> list[Package]:
        """All that the suite has; asks the mirror the first time."""
        if self._packages is None:
            self._refresh()
            names = self._apt("indextargets", "--format", "$(FILENAME)", "Identifier: Packages").split()
            self._packages = [
                package
                for name in names
                for package in parse(run(["/usr/lib/apt/apt-helper", "cat-file", name], f"{self.suite}: its index"))
            ]
        return self._packages

    def fetch(self, package: Package, folder: Path) -> Path:
        """Download a package into ``folder``."""
        before = set(folder.iterdir())
        self._apt("download", f"{package.name}={package.version}", folder=folder)
        made = set(folder.glob("*.deb")) - before
        if len(made) != 1:
            raise InputError(f"{package.name} {package.version}: apt-get left no package; try again")
        return made.pop()

    def _refresh(self) -> None:
        for part in ("lists/partial", "cache/archives/partial"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        # Without --no-release-info a system that was never updated tells nothing.
        tell = ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE)"]
        targets = run([*tell, "Identifier: Packages"], "apt's sources")
        line = f"deb [arch=amd64 signed-by={KEYS}] {mirror(self.suite, targets)} {self.suite} main\n"
        (self.folder / "sources.list").write_text(line, encoding="utf-8")
        (self.folder / "apt.conf").write_text(self._settings(), encoding="utf-8")
        try:
            self._apt("update")
        except InputError as error:
            if "not signed" not in str(error):
                raise
            raise InputError(f"{error} The keys may be too old: apt-get install debian-archive-keyring") from error

    def _settings(self) -> str:
        """How the system fetches (proxies and the like), and none of its hooks, which may change the system."""
        kept = re.compile(r"Acquire::(?!Allow|IndexTargets|Languages|GzipIndexes)")
        system = [line for line in run(["apt-config", "dump"], "apt's settings").splitlines() if kept.match(line)]
        own = {
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",  # no other user: that one could not write here
            "APT::Update::Error-Mode": "any",
            "Acquire::AllowDowngradeToInsecureRepositories": "false",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowWeakRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Dir::Cache": str(self.folder / "cache"),
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::sourcelist": str(self.folder / "sources.list"),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": str(self.folder / "lists"),
            "Dir::State::status": str(self.folder / "status"),
        }
        return "\n".join([*system, *(f'{name} "{value}";' for name, value in own.items()), ""])

    def _apt(self, *words: str, folder: Path | None = None) -> str:
        # `download` writes into the current folder.
        env = ["env", *(["-C", str(folder)] if folder else []), f"APT_CONFIG={self.folder / 'apt.conf'}"]
        return run([*env, "apt-get", "-qq", *words], f"{self.suite}: apt-get {words[0]}")


@contextmanager
def stream(package: Path) -> Iterator[tarfile.TarFile]:
    """The files of a package, one after the other."""
    if shutil.which("dpkg-deb") is None:
        raise InputError("dpkg-deb is missing: apt-get install dpkg")
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as files:
                yield files
        except tarfile.TarError as error:
            raise InputError(f"{package.name}: not a package, or cut off: {error}") from error
        finally:
            process.kill()


def take(package: Path, wanted: dict[str, Path]) -> dict[str, Path]:
    """Write those files of a package whose path matches a regular expression; what is found of them, by expression.

    Reads only as far as it has to.
    """
    found: dict[str, Path] = {}
    with stream(package) as files:
        for member in files:
            for pattern, target in wanted.items():
                if pattern not in found and member.isfile() and re.fullmatch(pattern, member.name):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(_contents(files, member), file, 1 << 20)
                    found[pattern] = target
            if len(found) == len(wanted):
                break
    return found


def unpack(files: tarfile.TarFile, folder: Path, wanted: Callable[[str], bool], strip: int = 0) -> int:
    """Write the wanted files of an archive into a folder; how many.

    ``strip``: so many folders are taken off each path, before ``wanted`` sees it.
    Nothing is written outside of the folder.
    """
    count = 0
    for member in files:
        parts = PurePosixPath(member.name).parts
        path = PurePosixPath(*parts[strip:])
        if parts[:1] == ("/",) or ".." in parts or len(parts) <= strip or not wanted(str(path)):
            continue
        target = folder / path
        if member.isfile() or member.issym():
            target.parent.mkdir(parents=True, exist_ok=True)
            count += 1
        if member.issym() and not _leaves(path, member.linkname):
            target.unlink(missing_ok=True)
            target.symlink_to(member.linkname)
        elif member.isfile():
            with target.open("wb") as file:
                shutil.copyfileobj(_contents(files, member), file)
            target.chmod(member.mode & 0o755 | 0o600)
    return count


def _leaves(path: PurePosixPath, link: str) -> bool:
    return os.path.normpath(path.parent / link).startswith(("/", ".."))


def _contents(files: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    contents = files.extractfile(member)
    assert contents is not None
    return contents
