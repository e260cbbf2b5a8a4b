# SPDX-License-Identifier: GPL-2.0-only
"""A drgn Program of a kernel as something to be read: its memory, types, symbols, and how it numbers pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rmaplab.errors import InputError
from rmaplab.realkernel.guest_symbols import VmcoreInfo
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.memory import FaultError
from rmaplab.realkernel.target import Machine, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import drgn

    from rmaplab.realkernel.memory import Memory

__all__ = ["DrgnMemory", "DrgnTarget", "target_of", "vmcore_info"]

_PAGE_OFFSET, _VMEMMAP = 0xFFFF_8880_0000_0000, 0xFFFF_EA00_0000_0000  # page_64_types.h, pgtable_64_types.h
_DIRECT_MAP = 1 << 46  # bytes of it that are taken for physical memory


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
        self.when_closed: Callable[[], None] | None = None

    def close(self) -> None:
        """Let go of the guest, if it is one; a Program keeps files open as long as there are objects of it."""
        if self.when_closed is not None:
            self.when_closed()


def target_of(prog: drgn.Program, layout: Layout | None = None) -> DrgnTarget:
    """A Program of a kernel that has symbols already, such as the one of a drgn session; :class:`InputError`.

    ``layout``: where members lie, by default as the Program's types say.
    """
    import drgn

    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise InputError("the program is not a Linux kernel")
    memory = DrgnMemory(prog)
    info = vmcore_info(prog)
    machine = _x86_machine(prog, memory, info)
    try:
        return DrgnTarget(prog, memory, layout or Layout.of_drgn(prog), machine, info.release)
    except LookupError as error:
        raise InputError(f"{info.release}: {error}: give its vmlinux with debug symbols") from error


def vmcore_info(prog: drgn.Program) -> VmcoreInfo:
    """What the kernel says of itself to those who read its dumps."""
    try:
        return VmcoreInfo.parse(prog["VMCOREINFO"].string_())
    except LookupError as error:
        raise InputError("the program has no VMCOREINFO") from error


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
