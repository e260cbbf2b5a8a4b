# SPDX-License-Identifier: GPL-2.0-only
"""Make the kernels that guests run, in the cache folder: the command behind `make kernels`.

Everything comes from Debian's packages; user-mode kernels are built.  What is
there already in its newest version stays; what is interrupted leaves nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from rmaplab.errors import InputError, RmaplabError, UsageError
from rmaplab.realkernel.guest.cache import (
    KERNELS,
    OPTIONAL,
    Kernel,
    adopt,
    cache_folder,
    choose,
    find,
    init_program,
    missing,
)
from rmaplab.realkernel.guest.packages import Archive, run
from rmaplab.realkernel.guest.recipes import RECIPES, choose_package, configuration, make_debian, make_um

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["TOOLS", "Progress", "Tool", "lacking", "main", "make", "prune"]

INTERRUPTED = 130


class Tool(NamedTuple):
    """A program or file, Debian's package that has it, and for which kind of kernel it is needed."""

    name: str
    package: str
    kind: str = ""


TOOLS = (
    Tool("dpkg-deb", "dpkg"),
    Tool("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    Tool("gcc", "gcc"),
    Tool("libc.a", "libc6-dev"),
    Tool("make", "make", "um"),
    Tool("flex", "flex", "um"),
    Tool("bison", "bison", "um"),
    Tool("bc", "bc", "um"),
    Tool("perl", "perl", "um"),
    Tool("xz", "xz-utils", "um"),
    Tool("/usr/include/libelf.h", "libelf-dev", "um"),
    Tool("qemu-system-x86_64", "qemu-system-x86", "qemu"),
    Tool("gdb", "gdb", "qemu"),
    Tool("zstd", "zstd", "qemu"),
    Tool("lz4", "lz4", "qemu"),
)


def lacking(kinds: Sequence[str]) -> list[Tool]:
    """The tools that kernels of these kinds (``um``, ``qemu``) need and that are not there."""
    return [tool for tool in TOOLS if tool.kind in ("", *kinds) and not _is_there(tool.name)]


def _is_there(name: str) -> bool:
    if name.startswith("/"):
        return Path(name).exists()
    if name.endswith(".a"):
        if shutil.which("gcc") is None:
            return False
        return Path(run(["gcc", f"-print-file-name={name}"], "gcc").strip()).is_absolute()
    return shutil.which(name) is not None


class Progress:
    """What is being done, on stderr: one line that changes on a terminal, elsewhere a line for each stage."""

    def __init__(self) -> None:
        self.name = ""
        self.began = self.drawn = time.monotonic()
        self._stage = ""

    def start(self, name: str) -> None:
        """From here on it is about this."""
        self.name, self.began = name, time.monotonic()
        self._stage = ""

    def tell(self, what: str) -> None:
        """A stage, or with a number after a colon how far it is."""
        stage = what.partition(":")[0]
        if sys.stderr.isatty():
            now = time.monotonic()
            if stage != self._stage or now - self.drawn > 0.2:
                self.drawn = now
                line = f"{self.name}: {what} ({now - self.began:.0f} s)"[: shutil.get_terminal_size().columns - 1]
                print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif stage != self._stage:
            print(f"{self.name}: {stage}", file=sys.stderr, flush=True)
        self._stage = stage

    def end(self, line: str) -> None:
        """Done; the result goes to stdout."""
        self.clear()
        print(line, flush=True)

    def clear(self) -> None:
        """Take away the line that changes."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def make(names: Sequence[str], progress: Progress) -> list[Kernel]:
    """Make these kernels, or see that they are the newest; :class:`InputError` if one cannot be made."""
    if platform.machine() != "x86_64":
        raise InputError(f"guests are x86-64 kernels; this machine is {platform.machine()}")
    _get_tools(lacking(sorted({RECIPES[name].kind for name in names})), progress)
    folder = cache_folder()
    archives: dict[str, Archive] = {}
    with _locked(folder, progress):
        for left in (folder / "made").glob(".*"):
            shutil.rmtree(left)
        made = [_make_one(name, folder, archives, progress) for name in names]
    init_program()
    return made


def _make_one(name: str, folder: Path, archives: dict[str, Archive], progress: Progress) -> Kernel:
    progress.start(name)
    suites = RECIPES[name].suites
    progress.tell("asking Debian for its newest version")
    present = find(name)
    try:
        choice = choose_package(
            name, [archives.setdefault(suite, Archive(folder / "apt" / suite, suite)) for suite in suites]
        )
    except InputError as error:
        if present is None or not present.key.endswith(configuration(name)):
            raise
        progress.end(f"{name}: {present.version}, was there; whether it is the newest is not known: {error}")
        return present
    if present := choose(name, choice.key):
        progress.end(f"{name}: {present.version}, was there")
        return present
    (folder / "made").mkdir(exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder / "made")).resolve()
    try:
        if RECIPES[name].kind == "um":
            kernel = make_um(choice, work, folder / "logs" / f"{name}.log", progress.tell)
        else:
            kernel = make_debian(choice, work, progress.tell)
        kernel = adopt(kernel, work / "kernel")
        took = time.monotonic() - progress.began
        progress.tell("tidying up")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    rest = "" if kernel.vmlinux else "; without symbols"
    rest += f"; Debian no longer has {name.split('-')[1]}" if choice.other else ""
    progress.end(
        f"{name}: {kernel.version}, made from {choice.main.name} {choice.main.version} in {took:.0f} s{rest}"
    )
    return kernel


def _get_tools(tools: Sequence[Tool], progress: Progress) -> None:
    if not tools:
        return
    packages = sorted({tool.package for tool in tools})
    remedy = f"apt-get install --no-install-recommends {' '.join(packages)}"
    names = ", ".join(tool.name for tool in tools)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise InputError(f"not there: {names}; as root: {remedy}")
    progress.start("tools")
    install = ["env", "DEBIAN_FRONTEND=noninteractive", *remedy.split(), "--yes", "--quiet"]
    progress.tell(f"installing {' '.join(packages)}")
    try:
        run(install, "apt-get install")
    except InputError:  # The lists of a fresh machine are empty or old.
        run(["apt-get", "--quiet", "update"], "apt-get update")
        run(install, f"not there: {names}; {remedy}")
    if still := [tool for tool in tools if not _is_there(tool.name)]:
        raise InputError(f"{', '.join(tool.name for tool in still)}: not there even after {remedy}")
    progress.end(f"tools: installed {' '.join(packages)}")


@contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Only one at a time makes kernels; another waits."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; set RMAPLAB_CACHE to a folder of yours") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.start("kernels")
            progress.tell("waiting for another that makes kernels in this cache")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def prune(progress: Progress) -> list[str]:
    """Remove kernels that no name stands for any longer: older versions, other configurations; their keys."""
    folder = cache_folder()
    with _locked(folder, progress):
        used = {kernel.key for name in (*KERNELS, *OPTIONAL) if (kernel := find(name))}
        keys = sorted(place.name for place in (folder / "made").glob("*") if place.name not in used)
        for key in keys:
            shutil.rmtree(folder / "made" / key)
    return keys


def _list() -> None:
    print(f"cache: {cache_folder()}")
    for name in (*KERNELS, *OPTIONAL):
        kernel = find(name)
        print(f"{name:13} {_line(kernel)}" if kernel else f"{name:13} {missing(name)}")


def _line(kernel: Kernel) -> str:
    symbols = "symbols" if kernel.vmlinux else "no symbols"
    return f"{kernel.version}, {symbols}, from {kernel.package or 'elsewhere'}"


def _stop(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Make the named kernels, without names all but the optional; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rmaplab.realkernel.guest.kernels", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*KERNELS, *OPTIONAL))}")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="tell what is there, and make nothing")
    other.add_argument("--prune", action="store_true", help="remove those that newer ones have replaced")
    args = parser.parse_args(argv)
    before = signal.signal(signal.SIGTERM, _stop)
    progress = Progress()
    try:
        for name in args.names:
            if name not in RECIPES:
                raise UsageError(missing(name))
        if args.list:
            _list()
        elif args.prune:
            print("\n".join(f"removed {key}" for key in prune(progress)) or "nothing to remove")
        else:
            make(args.names or KERNELS, progress)
        return 0
    except RmaplabError as error:
        progress.clear()
        print(f"rmaplab: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `… --list | head` ends quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return InputError.exit_code
    except (OSError, subprocess.SubprocessError) as error:
        progress.clear()
        print(f"rmaplab: the system refused: {error}", file=sys.stderr)
        return InputError.exit_code
    except KeyboardInterrupt:
        progress.clear()
        print("rmaplab: interrupted; nothing half-made is left", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
