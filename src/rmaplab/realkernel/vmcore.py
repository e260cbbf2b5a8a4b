# SPDX-License-Identifier: GPL-2.0-only
"""Core dumps, /proc/kcore and QEMU guests, opened by drgn: with debug symbols, or with BTF and kallsyms alone.

drgn finds VMCOREINFO and follows page tables; what lies where is read as from
every other kernel.  This module and ``drgn_types`` are the ones that need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmaplab.errors import InputError
from rmaplab.realkernel.btf import Btf
from rmaplab.realkernel.kallsyms import Vmcoreinfo, find_symbols
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.memory import FaultError
from rmaplab.realkernel.target import Machine, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["NEEDS_DRGN", "DrgnMemory", "btf_of", "open_core", "open_kcore", "open_qmp", "target_of"]

NEEDS_DRGN = "drgn is not installed: pip install 'rmaplab[kernel]'"
_VARIABLES = ("init_task", "page_offset_base", "vmemmap_base")
_BTF_SYMBOLS = ("__start_BTF", "__stop_BTF")
_NEAR = 4096  # bytes between objects that are read at once


def _drgn() -> Any:  # noqa: ANN401 (drgn is an optional part)
    try:
        import drgn
    except ImportError as error:
        raise InputError(NEEDS_DRGN) from error
    return drgn


class DrgnMemory:
    """The memory of a drgn Program; objects that lie close together are read at once."""

    def __init__(self, prog: Any) -> None:  # noqa: ANN401
        self.prog = prog
        self.fault: type[Exception] = _drgn().FaultError

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the kernel; :class:`FaultError`."""
        try:
            return bytes(self.prog.read(address, size))
        except (self.fault, ValueError, OverflowError) as error:
            raise FaultError(address) from error

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        """``size`` bytes at each address; None where they cannot be read."""
        found: dict[int, bytes | None] = {}
        run: list[int] = []
        for address in sorted(set(addresses)):
            if run and address - run[0] + size > max(_NEAR, size):
                self._read_run(run, size, found)
                run = []
            run.append(address)
        if run:
            self._read_run(run, size, found)
        return [found[address] for address in addresses]

    def _read_run(self, run: list[int], size: int, found: dict[int, bytes | None]) -> None:
        start = run[0]
        try:
            data = self.read(start, run[-1] - start + size)
            found.update((address, data[address - start : address - start + size]) for address in run)
        except FaultError:
            for address in run:
                try:
                    found[address] = self.read(address, size)
                except FaultError:
                    found[address] = None


def open_core(path: Path, *, vmlinux: Path | None = None, btf: Path | None = None) -> Target:
    """A core dump (kdump's, QEMU's); ``vmlinux`` has its debug symbols, or ``btf`` its BTF, if the dump has not.

    :class:`InputError` for what is no core of a kernel, or not of this one.
    """
    return _opened(str(path), lambda prog: prog.set_core_dump(str(path)), vmlinux, btf)


def open_kcore(*, vmlinux: Path | None = None, btf: Path | None = None) -> Target:
    """The running kernel by /proc/kcore; root."""
    running = Path("/sys/kernel/btf/vmlinux")
    if vmlinux is None and btf is None and running.exists():
        btf = running
    return _opened("/proc/kcore", lambda prog: prog.set_kernel(), vmlinux, btf)


def open_qmp(socket: str, *, vmlinux: Path | None = None, btf: Path | None = None) -> Target:
    """A running QEMU guest by its QMP socket, if it has the device ``vmcoreinfo``."""
    return _opened(socket, lambda prog: prog.set_qemu_qmp(socket), vmlinux, btf)


def _opened(name: str, attach: Callable[[Any], None], vmlinux: Path | None, btf: Path | None) -> Target:
    drgn = _drgn()
    prog = drgn.Program()
    for given in (vmlinux, btf):
        if given is not None and not given.is_file():
            raise InputError(f"{given}: no such file")
    try:
        attach(prog)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{name}: cannot be opened as a kernel: {why}") from error
    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise InputError(
            f"{name}: has no VMCOREINFO, so no Linux kernel is seen in it; "
            "QEMU needs `-device vmcoreinfo` and a guest with the module qemu_fw_cfg"
        )
    return target_of(prog, name=name, vmlinux=vmlinux, btf=btf)


def target_of(
    prog: Any,  # noqa: ANN401
    *,
    name: str = "the program",
    vmlinux: Path | None = None,
    btf: Path | None = None,
) -> Target:
    """A drgn Program of a Linux kernel on x86-64: by the debug symbols it has, or by BTF and kallsyms."""
    drgn = _drgn()
    if vmlinux is not None:
        try:
            prog.load_debug_info([str(vmlinux)])
        except (OSError, ValueError, drgn.MissingDebugInfoError) as error:
            raise InputError(f"{vmlinux}: not the debug symbols of {name}: {error}") from error
    if prog.platform is None or prog.platform.arch != drgn.Architecture.X86_64:
        raise InputError(f"{name}: a kernel of {prog.platform}; kernels of x86-64 are read")
    memory, info = DrgnMemory(prog), Vmcoreinfo(prog["VMCOREINFO"].string_().decode("ascii", "replace"))
    if _has_debug_symbols(prog):
        layout = Layout.of_drgn(prog)
        symbols = {name: int(prog.symbol(name).address) for name in _VARIABLES}
    else:
        symbols = find_symbols(memory, info, (*_VARIABLES, *_BTF_SYMBOLS))
        layout = Layout.of_btf(_btf(memory, symbols, btf, name))
    if missing := [variable for variable in _VARIABLES if variable not in symbols]:
        raise InputError(
            f"{name}: its kernel has no symbol {', '.join(missing)} (CONFIG_KALLSYMS_ALL); give a vmlinux"
        )
    try:
        page_offset, vmemmap = (
            int.from_bytes(memory.read(symbols[variable], 8), "little") for variable in _VARIABLES[1:]
        )
    except FaultError as error:
        raise InputError(f"{name}: {error}: the symbols are another kernel's, or the dump is cut off") from error
    levels = 5 if info.numbers.get("pgtable_l5_enabled") else 4
    machine = Machine("x86_64", levels, page_offset=page_offset, vmemmap=vmemmap)
    return Target(memory, layout, machine, symbols["init_task"], info.release)


def _has_debug_symbols(prog: Any) -> bool:  # noqa: ANN401
    try:
        prog.type("struct anon_vma_chain")
    except LookupError:
        return False
    return True


def btf_of(prog: Any) -> Btf:  # noqa: ANN401
    """The BTF that a kernel has in its own memory; :class:`InputError`."""
    memory, info = DrgnMemory(prog), Vmcoreinfo(prog["VMCOREINFO"].string_().decode("ascii", "replace"))
    return _btf(memory, find_symbols(memory, info, _BTF_SYMBOLS), None, "the program")


def _btf(memory: DrgnMemory, symbols: dict[str, int], given: Path | None, name: str) -> Btf:
    if given is not None:
        return Btf.of_file(given)
    start, stop = (symbols.get(symbol, 0) for symbol in _BTF_SYMBOLS)
    if not start < stop:
        raise InputError(
            f"{name}: has neither debug symbols nor BTF: give --vmlinux FILE, "
            "or --btf FILE, a copy of that kernel's /sys/kernel/btf/vmlinux"
        )
    try:
        return Btf(memory.read(start, stop - start), f"{name}, its BTF")
    except FaultError as error:
        raise InputError(f"{name}: its BTF cannot be read: {error}; give --btf FILE") from error
