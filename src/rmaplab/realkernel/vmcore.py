# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that drgn opens: core dumps, the running kernel, QEMU's guests, user-mode kernels.

Each needs types: those of a vmlinux with debug symbols, or BTF, from a file or
out of the kernel's own memory.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmaplab.errors import InputError
from rmaplab.realkernel.btf import Btf
from rmaplab.realkernel.drgn_types import register
from rmaplab.realkernel.guest_symbols import VmcoreInfo, btf_in, find_note, read_symbols
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.memory import FaultError, ProcessMemory
from rmaplab.realkernel.target import Machine, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import drgn

    from rmaplab.realkernel.memory import Memory

__all__ = ["DrgnMemory", "DrgnTarget", "open_core", "open_kcore", "open_pid", "open_qmp", "target_of"]

NEEDS_DRGN = "drgn is not installed, which reads dumps and kernels with debug symbols: pip install 'rmaplab[kernel]'"

_PAGE_OFFSET, _VMEMMAP = 0xFFFF_8880_0000_0000, 0xFFFF_EA00_0000_0000  # page_64_types.h, pgtable_64_types.h
_DIRECT_MAP = 1 << 46  # bytes of it that are taken for physical memory, whatever KASLR does
_RUNNING_BTF = Path("/sys/kernel/btf/vmlinux")
_PIECE = 1 << 22  # bytes of a guest's memory that are searched at a time
_BEYOND = 1 << 32  # where memory ends for good when it ends: below are holes
_DUMP_MAGIC = b"\x7fELF", b"KDUMP   ", b"DISKDUMP", b"makedump"


class DrgnMemory:
    """The memory of a drgn Program.

    ``page_offset``: where the kernel sees physical address 0, 0 if it is not
    known; what lies there is read by its physical address, which saves drgn
    the walk through the page tables.
    """

    def __init__(self, prog: drgn.Program) -> None:
        import drgn

        self.prog = prog
        self.page_offset = 0
        self._fault = drgn.FaultError

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a virtual address; :class:`FaultError`."""
        try:
            return bytes(self._read(address, size))
        except (self._fault, OverflowError, ValueError):
            raise FaultError(address) from None

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        """``size`` bytes at each address; None where they cannot be read."""
        read, faults, found = self._read, (self._fault, OverflowError, ValueError), []
        for address in addresses:
            try:
                found.append(read(address, size))
            except faults:
                found.append(None)
        return found

    def _read(self, address: int, size: int) -> Any:  # noqa: ANN401 (drgn is an optional part)
        if self.page_offset and 0 <= address - self.page_offset < _DIRECT_MAP:
            try:
                return self.prog.read(address - self.page_offset, size, True)
            except self._fault:
                pass  # a dump may hold it by its virtual address alone
        return self.prog.read(address, size)


class DrgnTarget(Target):
    """A kernel that drgn reads; ``prog`` is the Program, for whatever else is asked of it."""

    def __init__(self, prog: drgn.Program, memory: Memory, layout: Layout, machine: Machine, release: str) -> None:
        super().__init__(memory, layout, machine, _address(prog, "init_task"), release)
        self.prog = prog


# --- opening ---------------------------------------------------------------------------------------


def open_core(core: Path | str, vmlinux: Path | str | None = None, btf: Path | str | None = None) -> DrgnTarget:
    """A core dump of a kernel: ELF or kdump-compressed, as kdump, makedumpfile or QEMU write them.

    ``vmlinux``: the kernel with debug symbols; ``btf``: a file with its BTF.
    Without both the BTF is taken from the dump.  :class:`InputError` if it is
    no such dump, not of this kernel, or has not got what is needed.
    """
    path = Path(core)
    _check_dump(path)
    prog = _program(lambda prog: prog.set_core_dump(str(path)), str(path), lambda: _note_in_file(path))
    return _open(prog, str(path), vmlinux, btf)


def open_kcore(vmlinux: Path | str | None = None, btf: Path | str | None = None) -> DrgnTarget:
    """The running kernel through /proc/kcore, as root; types as for :func:`open_core`, or else its own BTF."""
    if vmlinux is None and btf is None and _RUNNING_BTF.exists():
        btf = _RUNNING_BTF
    prog = _program(lambda prog: prog.set_kernel(), "/proc/kcore", lambda: None)
    return _open(prog, "/proc/kcore", vmlinux, btf)


def open_qmp(socket: Path | str, vmlinux: Path | str | None = None, btf: Path | str | None = None) -> DrgnTarget:
    """A guest of QEMU by the socket of its ``-qmp`` option; types as for :func:`open_core`.

    The guest may run on meanwhile.  Without ``-device vmcoreinfo`` the
    note that describes the kernel is searched for in the guest's memory.
    """
    name = str(socket)
    if Path(name).exists() and ":" in name and not name.startswith(("/", ".")):
        name = f"./{name}"  # or drgn takes it for host and port

    def note() -> bytes | None:
        prog = _new_program()
        prog.set_qemu_qmp(name)
        return _note_in_guest(prog)

    prog = _program(lambda prog: prog.set_qemu_qmp(name), name, note)
    return _open(prog, name, vmlinux, btf)


def open_pid(pid: int, binary: Path | str | None = None) -> DrgnTarget:
    """A user-mode kernel: the process that it is, and its binary with debug symbols, /proc/PID/exe by default."""
    path = str(binary) if binary is not None else f"/proc/{pid}/exe"
    name = f"process {pid}"
    prog = _new_program()
    with _errors(name):
        prog.set_pid(pid)
    said = _load(prog, path)
    try:
        levels = _um_levels(prog)
        physmem, mem_map = (_word(DrgnMemory(prog), _address(prog, symbol)) for symbol in ("uml_physmem", "mem_map"))
        release = prog["init_uts_ns"].name.release.string_().decode("utf-8", "replace")
    except LookupError as error:
        why = f": {said}" if said else ""
        raise InputError(
            f"{name}: {error} in {path}{why}; a user-mode kernel with debug symbols is needed "
            "(CONFIG_DEBUG_INFO_DWARF5)"
        ) from error
    except FaultError as error:
        raise InputError(f"{name}: {error}: {path} is not what it runs") from error
    machine = Machine("um", levels, page_offset=physmem, vmemmap=mem_map)
    return DrgnTarget(prog, ProcessMemory(pid), Layout.of_drgn(prog), machine, release)


def target_of(prog: drgn.Program) -> DrgnTarget:
    """A Program of a kernel that has types already, such as the one of a drgn session; :class:`InputError`."""
    import drgn

    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise InputError("the program is not a Linux kernel")
    memory = DrgnMemory(prog)
    info = _info(prog)
    machine = _x86_machine(prog, memory, info)
    layout = Layout.of_drgn(prog)
    try:
        return DrgnTarget(prog, memory, layout, machine, info.release)
    except LookupError as error:
        raise InputError(f"{info.release}: {error}: give its vmlinux with debug symbols") from error


# --- what they share ---------------------------------------------------------------------------------


def _new_program(note: bytes | None = None) -> drgn.Program:
    try:
        import drgn
    except ImportError as error:
        raise InputError(NEEDS_DRGN) from error
    if note is None:
        return drgn.Program()
    return drgn.Program(drgn.Platform(drgn.Architecture.X86_64), vmcoreinfo=note)


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """What drgn cannot open, in one line."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{name}: {error.strerror}; ask as root, or as whom it belongs to") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be opened: {error.strerror or error}") from error
    except InputError:
        raise
    except Exception as error:
        # drgn raises bare Exception for what libkdumpfile and QEMU refuse.
        raise InputError(f"{name}: drgn cannot read it: {error}") from error


def _program(open_it: Callable[[drgn.Program], None], name: str, note: Callable[[], bytes | None]) -> drgn.Program:
    """A Program of a kernel; if it brings no VMCOREINFO with it, with the one that ``note`` finds."""
    prog, refused = _new_program(), None
    import drgn

    try:
        open_it(prog)
    except OSError as error:
        with _errors(name):
            raise error
    except Exception as error:
        refused = error
    if refused is None and prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        return prog
    del prog  # QEMU serves one at a time
    with _errors(name):
        found = note()
        if found is None:
            why = f" ({refused})" if refused is not None else ""
            raise InputError(
                f"{name}: no VMCOREINFO in it{why}: it must be of a Linux kernel with CONFIG_VMCORE_INFO or "
                "CONFIG_KEXEC, and all of its memory"
            )
        prog = _new_program(found)
        open_it(prog)
    return prog


def _open(prog: drgn.Program, name: str, vmlinux: Path | str | None, btf: Path | str | None) -> DrgnTarget:
    import drgn

    if prog.platform.arch != drgn.Architecture.X86_64:
        raise InputError(f"{name}: a kernel for {prog.platform.arch.name}: those of x86-64 are read")
    info = _info(prog)
    if vmlinux is not None:
        _load_vmlinux(prog, name, Path(vmlinux))
    else:
        memory = DrgnMemory(prog)
        symbols = read_symbols(memory, info)
        types = Btf.of_file(btf) if btf is not None else btf_in(memory, symbols, name)
        _check_types(types, info, name)
        register(prog, lambda: (types, symbols))
    return target_of(prog)


def _info(prog: drgn.Program) -> VmcoreInfo:
    return VmcoreInfo.parse(prog["VMCOREINFO"].string_())


def _load(prog: drgn.Program, path: str) -> str:
    """Let drgn take debug symbols from a file; what it says about that, which is no error to it."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    import drgn

    logger, listener = logging.getLogger("drgn"), Listener(logging.WARNING)
    before = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        prog.load_debug_info([path])
    except drgn.MissingDebugInfoError as error:
        said.append(str(error).splitlines()[0])
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    finally:
        logger.propagate = before
        logger.removeHandler(listener)
    return "; ".join(said)


def _load_vmlinux(prog: drgn.Program, name: str, vmlinux: Path) -> None:
    import drgn

    if not vmlinux.is_file():
        raise InputError(f"{vmlinux}: there is no such file; a vmlinux with debug symbols is needed")
    said = _load(prog, str(vmlinux))
    if prog.main_module().debug_file_status != drgn.ModuleFileStatus.HAVE:
        build = _info(prog).values.get("BUILD-ID", "unknown")
        raise InputError(
            f"{vmlinux}: not the debug symbols of {name}, which is of {_info(prog).release} with the build id "
            f"{build}" + (f" (drgn: {said})" if said else "")
        )


def _check_types(types: Btf, info: VmcoreInfo, name: str) -> None:
    """:class:`InputError` for the types of another kernel: VMCOREINFO knows some sizes and offsets."""
    for kind, find in (("SIZE", types.size), ("OFFSET", types.offset)):
        for of, told in info.known(kind).items():
            try:
                found = find(of)
            except KeyError:
                continue
            if found != told:
                raise InputError(
                    f"{types.name}: the types of another kernel: {of} is {found} there and {told} in {name}, "
                    f"which is of {info.release}"
                )


# --- machines ----------------------------------------------------------------------------------------


def _address(prog: drgn.Program, name: str) -> int:
    return int(prog.symbol(name).address)


def _word(memory: Memory, address: int) -> int:
    return int.from_bytes(memory.read(address, 8), "little")


def _x86_machine(prog: drgn.Program, memory: DrgnMemory, info: VmcoreInfo) -> Machine:
    """By what VMCOREINFO tells, and the variables that hold what KASLR decided."""
    levels = 5 if info.values.get("NUMBER(pgtable_l5_enabled)") == "1" else 4
    places = []
    for name, fixed in (("page_offset_base", _PAGE_OFFSET), ("vmemmap_base", _VMEMMAP)):
        try:
            places.append(_word(memory, _address(prog, name)))
        except LookupError:
            places.append(fixed if levels == 4 else 0)  # without CONFIG_DYNAMIC_MEMORY_LAYOUT
        except FaultError:
            places.append(0)
    memory.page_offset = places[0]
    return Machine("x86_64", levels, page_offset=places[0], vmemmap=places[1])


def _um_levels(prog: drgn.Program) -> int:
    """Levels of page tables: a folded one is a struct of the one above it (pgtable-nopud.h, pgtable-nopmd.h)."""
    levels = 2
    for name, above in (("pmd_t", "pud"), ("pud_t", "p4d"), ("p4d_t", "pgd")):
        if prog.type(name).type.members[0].name != above:
            levels += 1
    return levels


# --- VMCOREINFO where nothing points to it ----------------------------------------------------------------


def _check_dump(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not magic.startswith(_DUMP_MAGIC):
        raise InputError(f"{path}: not a core dump: neither ELF nor kdump-compressed")


def _note_in_file(path: Path) -> bytes | None:
    import mmap

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return find_note(data)


def _note_in_guest(prog: drgn.Program) -> bytes | None:
    """Search all of a guest's memory, from the end of each hole on."""
    import drgn

    at, before = 0, b""
    while True:
        try:
            piece = bytes(prog.read(at, _PIECE, True))
        except drgn.FaultError:
            if at >= _BEYOND:
                return None
            piece = b""
        if (found := find_note(before[-(1 << 16) :] + piece)) is not None:
            return found
        at, before = at + _PIECE, piece
