# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that drgn opens: core dumps, the running kernel, QEMU's guests, user-mode kernels.

Each needs types: those of a vmlinux with debug symbols, or BTF, from a file or
out of the kernel's own memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.realkernel.btf import Btf
from rmaplab.realkernel.drgn_programs import (
    core_program,
    errors,
    kcore_program,
    listening,
    new_program,
    qmp_program,
)
from rmaplab.realkernel.drgn_target import (
    DrgnMemory,
    DrgnTarget,
    read_word,
    symbol_address,
    target_of,
    um_levels,
    vmcore_info,
)
from rmaplab.realkernel.drgn_types import register
from rmaplab.realkernel.guest_symbols import VmcoreInfo, btf_in, read_symbols
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.memory import FaultError, ProcessMemory
from rmaplab.realkernel.target import Machine

if TYPE_CHECKING:
    import drgn

__all__ = ["check_types", "open_core", "open_kcore", "open_pid", "open_qmp"]

_RUNNING_BTF = Path("/sys/kernel/btf/vmlinux")


def open_core(core: Path | str, vmlinux: Path | str | None = None, btf: Path | str | None = None) -> DrgnTarget:
    """A core dump of a kernel: ELF or kdump-compressed, as kdump, makedumpfile or QEMU write them.

    ``vmlinux``: the kernel with debug symbols; ``btf``: a file with its BTF.
    Without both the BTF is taken from the dump.  :class:`InputError` if it is
    no such dump, not of this kernel, or has not got what is needed.
    """
    return _open(core_program(Path(core)), str(core), vmlinux, btf)


def open_kcore(vmlinux: Path | str | None = None, btf: Path | str | None = None) -> DrgnTarget:
    """The running kernel through /proc/kcore, as root; types as for :func:`open_core`, or else its own BTF."""
    prog = kcore_program()
    if vmlinux is None and btf is None and _RUNNING_BTF.exists():
        btf = _RUNNING_BTF
    return _open(prog, "/proc/kcore", vmlinux, btf)


def open_qmp(socket: Path | str, vmlinux: Path | str | None = None, btf: Path | str | None = None) -> DrgnTarget:
    """A guest of QEMU by the socket of its ``-qmp`` option; types as for :func:`open_core`.

    The guest may run on meanwhile.  Without ``-device vmcoreinfo`` the
    note that describes the kernel is searched for in the guest's memory.
    """
    name = str(socket)
    if ":" in name and not name.startswith(("/", ".")) and Path(name).exists():
        name = f"./{name}"  # or drgn takes it for host and port
    return _open(qmp_program(name), name, vmlinux, btf)


def open_pid(pid: int, binary: Path | str | None = None) -> DrgnTarget:
    """A user-mode kernel: the process that it is, and its binary with debug symbols, /proc/PID/exe by default."""
    path = str(binary) if binary is not None else f"/proc/{pid}/exe"
    name = f"process {pid}"
    if binary is not None and not Path(path).is_file():
        raise InputError(f"{path}: there is no such file; the binary of a user-mode kernel is needed")
    prog = new_program()
    with errors(name):
        prog.set_pid(pid)
        said = _load(prog, path)
    memory = ProcessMemory(pid)
    try:
        levels = um_levels(prog)
        physmem, mem_map = (read_word(memory, symbol_address(prog, symbol)) for symbol in ("uml_physmem", "mem_map"))
        release = prog["init_uts_ns"].name.release.string_().decode("utf-8", "replace")
        machine = Machine("um", levels, page_offset=physmem, vmemmap=mem_map)
        return DrgnTarget(prog, memory, Layout.of_drgn(prog), machine, release)
    except (LookupError, FaultError, InputError) as error:
        memory.close()
        why = f" ({said})" if said else ""
        raise InputError(
            f"{name}: {error} by {path}{why}: it must be what the process runs, a user-mode kernel with debug "
            "symbols (CONFIG_DEBUG_INFO_DWARF5)"
        ) from error


def _open(prog: drgn.Program, name: str, vmlinux: Path | str | None, btf: Path | str | None) -> DrgnTarget:
    import drgn

    if prog.platform.arch != drgn.Architecture.X86_64:
        raise InputError(f"{name}: a kernel for {prog.platform.arch.name}: those for x86-64 are read")
    info = vmcore_info(prog)
    if vmlinux is not None:
        _load_vmlinux(prog, name, Path(vmlinux), info)
    else:
        memory = DrgnMemory(prog)
        symbols = read_symbols(memory, info)
        types = Btf.of_file(btf) if btf is not None else btf_in(memory, symbols, name)
        check_types(types, info, name)
        register(prog, lambda: (types, symbols))
    return target_of(prog)


def _load(prog: drgn.Program, path: str) -> str:
    """Let drgn take debug symbols from a file; what it says about that, which is no error to it."""
    import drgn

    with errors(path), listening() as said:
        try:
            prog.load_debug_info([path])
        except drgn.MissingDebugInfoError as error:
            said.append(str(error).splitlines()[0])
    return "; ".join(said)


def _load_vmlinux(prog: drgn.Program, name: str, vmlinux: Path, info: VmcoreInfo) -> None:
    import drgn

    if not vmlinux.is_file():
        raise InputError(f"{vmlinux}: there is no such file; a vmlinux with debug symbols is needed")
    said = _load(prog, str(vmlinux))
    try:
        fits = prog.main_module().debug_file_status == drgn.ModuleFileStatus.HAVE
    except LookupError:
        fits = False
    if not fits:
        raise InputError(
            f"{vmlinux}: not the debug symbols of {name}, which is of {info.release} with the build id "
            f"{info.values.get('BUILD-ID', 'unknown')}" + (f" (drgn: {said})" if said else "")
        )


def check_types(types: Btf, info: VmcoreInfo, name: str) -> None:
    """:class:`InputError` for the types of another kernel: VMCOREINFO knows some sizes and offsets."""
    for kind, find in (("SIZE", types.size), ("OFFSET", types.offset)):
        for of, told in info.known(kind).items():
            try:
                found = find(of)
            except KeyError:
                continue
            if found != told:
                raise InputError(
                    f"{types.name}: the types of another kernel: {kind.lower()} of {of} is {found} there and "
                    f"{told} in {name}, which is of {info.release}"
                )
