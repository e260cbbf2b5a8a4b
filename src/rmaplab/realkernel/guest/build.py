# SPDX-License-Identifier: GPL-2.0-only
"""Builds user-mode kernels (ARCH=um) from Debian's source packages."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tarfile
from importlib import resources
from typing import IO, TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.realkernel.guest.packages import stream, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["build", "fragments", "guarded", "is_needed", "marked", "merged", "roomy", "settings"]

RECIPE = 3
"""Counted up when the same package and configuration give another kernel."""
_REQUIRED = (
    "# CONFIG_SLUB_TINY is not set",
    *(f"CONFIG_{name}=y" for name in ("DEBUG_INFO_DWARF5", "FAILSLAB", "FAULT_INJECTION_DEBUG_FS", "PROC_FS", "SSL")),
)
# For random programs all of these are compiled; of every other folder only what describes it.
_WHOLE = re.compile(
    r"(?:arch/(?:um|x86)|block|certs|fs|include|init|io_uring|ipc|kernel|lib|mm|scripts|security|usr"
    r"|drivers/(?:base|block|char|tty)|tools/(?:include|scripts))/"
)
_DESCRIPTIONS = ("Kconfig", "Makefile", "Kbuild")
_ROOM = 4 << 30  # bytes: the source tree, what is made of it, and the kernel
_MARKER_WALK = re.compile(
    r"(?P<loop>[ \t]*for_each_vma\((?P<iterator>\w+), (?P<vma>\w+)\))\n"
    r"(?P<body>[ \t]*um_tlb_mark_sync\((?P<mm>\w+), (?P=vma)->vm_start, (?P=vma)->vm_end\);)\n"
)
_POPULATE = re.compile(r"#define pmd_populate\(mm, pmd, pte\)[ \t\\\n]*set_pmd\(pmd,")
_MARKED = """\
static inline pmd_t *um_marked(struct mm_struct *mm, pmd_t *pmd, pgtable_t table)
{
	pte_t *entry = page_address(table);

	if (pmd_val(*pmd))
		for (int at = 0; at < PTRS_PER_PTE; at++)
			pte_clear(mm, 0, entry + at);
	return pmd;
}

#define pmd_populate(mm, pmd, pte) \\
	set_pmd(um_marked(mm, pmd, pte),"""
_REGISTERS = re.compile(r"(DEFINE_LONGS\(HOST_FP_SIZE, )\d+\)")
_REGISTERS_ROOM = 12288  # bytes; with AMX they are 11,008
_LACKS_FILE = "No rule to make target"


def fragments(name: str) -> str:
    """The settings that make the kernel of a name, as text."""
    names = ["um.config", *(["um-debug.config"] if name.endswith("-debug") else [])]
    folder = resources.files("rmaplab.realkernel.guest")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def is_needed(path: str) -> bool:
    """Whether building takes this file of the source tree (``FOLDER/mm/rmap.c`` without the folder)."""
    name = path.rpartition("/")[2]
    return "/" not in path or bool(_WHOLE.match(path)) or name.startswith(_DESCRIPTIONS)


def guarded(text: str) -> str:
    """arch/um/kernel/tlb.c with a walk over an address space that ends where a failed fork left its mark.

    A dup_mmap() that cannot copy a VMA stores XA_ZERO_ENTRY in its place in the
    child's tree, and what follows there are the parent's VMAs (kernel/fork.c of
    v6.12; not in v7.2).  exit_mmap() knows; flush_tlb_mm() of um,
    which exit_mmap() comes to, takes the mark for a VMA and dies.
    """
    found = _MARKER_WALK.search(text)
    if found is None:
        raise InputError("arch/um/kernel/tlb.c: flush_tlb_mm() is not as it was in v6.12; report it to rmaplab")
    guard = f"\t\tif (xa_is_zero({found['vma']}))\n\t\t\tbreak;\n"
    return f"{text[: found.start()]}{found['loop']} {{\n{guard}{found['body']}\n\t}}\n{text[found.end() :]}"


def marked(text: str) -> str:
    """arch/um/include/asm/pgalloc.h whose new page tables inherit that the host is to be told of them.

    The host's mappings follow when the kernel returns to the process, where
    entries say so.  A page table that was freed leaves this mark in the entry
    above it; one that takes its place within the same call wipes it off, and
    the process keeps what was unmapped (v6.12 to v7.3).
    """
    found, count = _POPULATE.subn(lambda _: _MARKED, text)
    if count != 1:
        raise InputError(
            "arch/um/include/asm/pgalloc.h: pmd_populate() is not as it was in v7.3; report it to rmaplab"
        )
    return found


def roomy(text: str) -> str:
    """arch/x86/um/user-offsets.c with room for the registers of processors that have AMX.

    v6.12 sets them with the size it was compiled with, and the host refuses
    to take less than all (EFAULT): no process of the guest begins.
    """
    return _REGISTERS.sub(rf"\g<1>{_REGISTERS_ROOM})", text)


def settings(text: str) -> dict[str, str]:
    """CONFIG_ settings of a configuration file: ``y``, ``m``, a number, or a text in quotes."""
    return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))


def merged(text: str, fragment: str) -> str:
    """A configuration whose settings give way to a fragment's."""
    symbol = re.compile(r"^(?:# )?(CONFIG_\w+)(?:=.*| is not set)$")
    given = {found[1]: line for line in fragment.splitlines() if (found := symbol.match(line))}
    kept = [line for line in text.splitlines() if not ((found := symbol.match(line)) and found[1] in given)]
    return "\n".join([*kept, *given.values(), ""])


def build(package: Path, fragment: str, work: Path, log: Path, tell: Callable[[str], None]) -> tuple[str, str]:
    """Leaves ``kernel/linux`` in ``work``, among the rest; the kernel's release and configuration.

    ``package``: of a linux-source; ``tell`` hears what is being done.
    :class:`InputError` if it cannot be built, naming the log.
    """
    _check_place(work)
    source, out = work / "source", work / "out"
    tell("unpacking the source")
    _unpack_source(package, source, is_needed)
    _mend(source)
    out.mkdir()
    make = ["make", "-C", str(source), "ARCH=um", f"O={out}", f"-j{len(os.sched_getaffinity(0))}"]
    with log.open("w", encoding="utf-8", buffering=1) as file:
        _configure(make, out / ".config", fragment, file, tell)
        failed = _make([*make, "linux"], file, tell)
        if failed and _LACKS_FILE in log.read_text(encoding="utf-8", errors="replace"):
            tell("unpacking the rest of the source")
            _unpack_source(package, source, lambda path: not (source / path).exists())
            failed = _make([*make, "linux"], file, tell)
    if failed:
        raise InputError(f"the kernel does not compile: {_reason(log)}; all that make said is in {log}")
    release = (out / "include/config/kernel.release").read_text(encoding="utf-8").strip()
    config = (out / ".config").read_text(encoding="utf-8")
    (work / "kernel").mkdir()
    (out / "linux").replace(work / "kernel" / "linux")
    return release, config


def _check_place(work: Path) -> None:
    if re.search(r"[\s:]", str(work)):
        raise InputError(f"{work}: kernels cannot be built in a folder with blanks or colons; set RMAPLAB_CACHE")
    if shutil.disk_usage(work).free < _ROOM:
        raise InputError(
            f"{work}: building a kernel takes {_ROOM >> 30} GiB of room; make some, or set RMAPLAB_CACHE"
        )


def _unpack_source(package: Path, source: Path, wanted: Callable[[str], bool]) -> None:
    """The source tree that is packed in a linux-source package, without its outermost folder."""
    with stream(package) as files:
        for member in files:
            if re.fullmatch(r"\./usr/src/linux-source-[\d.]+\.tar\.\w+", member.name):
                with tarfile.open(fileobj=files.extractfile(member), mode="r|*") as tree:
                    unpack(tree, source, wanted, strip=1)
                return
    raise InputError(f"{package.name}: has no source tree")


def _mend(source: Path) -> None:
    """What in user-mode kernels is not as in others, and is not memory management's."""
    path = source / "arch/um/include/asm/pgalloc.h"
    path.write_text(marked(path.read_text(encoding="utf-8")), encoding="utf-8")
    path = source / "arch/x86/um/user-offsets.c"
    if path.exists():
        path.write_text(roomy(path.read_text(encoding="utf-8")), encoding="utf-8")
    forks = [path for name in ("kernel/fork.c", "mm/mmap.c") if (path := source / name).exists()]
    if any("XA_ZERO_ENTRY" in path.read_text(encoding="utf-8") for path in forks):
        path = source / "arch/um/kernel/tlb.c"
        path.write_text(guarded(path.read_text(encoding="utf-8")), encoding="utf-8")


def _configure(make: list[str], config: Path, fragment: str, log: IO[str], tell: Callable[[str], None]) -> None:
    tell("configuring")
    for target in ("tinyconfig", "olddefconfig"):
        if _make([*make, target], log, None):
            raise InputError(f"the kernel cannot be configured; what make said is in {log.name}")
        if target == "tinyconfig":
            config.write_text(merged(config.read_text(encoding="utf-8"), fragment), encoding="utf-8")
    taken = config.read_text(encoding="utf-8").splitlines()
    symbols = settings("\n".join(taken))
    wanted = [line for line in fragment.splitlines() if line.startswith("CONFIG_") and line not in taken]
    lost = [
        line for line in _REQUIRED if line not in taken and not (line[0] == "#" and line.split()[1] not in symbols)
    ]
    if lost:
        raise InputError(f"this release does not take {', '.join(lost)}, which guests need; report it to rmaplab")
    if wanted:
        tell(f"this release does not take {', '.join(wanted)}")


def _make(command: Sequence[str], log: IO[str], tell: Callable[[str], None] | None) -> bool:
    """Whether it failed.  What it says goes into the log; compiled files are counted."""
    # Nothing of what `make kernels` hands down, and no times or names of this machine in the kernel.
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ} | {
        "LC_ALL": "C",
        "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
        "KBUILD_BUILD_USER": "rmaplab",
        "KBUILD_BUILD_HOST": "rmaplab",
    }
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        compiled = 0
        for line in process.stdout:
            log.write(line)
            compiled += line.startswith(("  CC ", "  AS "))
            if tell is not None:
                tell(f"compiling: {compiled} files")
        return process.wait() != 0
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        process.stdout.close()
        log.flush()


def _reason(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next(
        (line.strip() for line in lines if re.search(r"\b(?:error|Error|No rule)\b", line)), "no reason given"
    )
