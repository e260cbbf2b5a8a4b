# SPDX-License-Identifier: GPL-2.0-only
"""What drgn gets from rmaplab when both are installed (drgn, "Writing Plugins").

A kernel without debug symbols gets its types from the BTF in its memory, and
its symbols from kallsyms, as soon as something is looked up.  In a session
``graph()`` and ``snapshot()`` give the reverse map as rmaplab sees it::

    >>> from rmaplab.realkernel.plugin import snapshot
    >>> snapshot(prog, [1, 42])

``DRGN_DISABLE_PLUGINS=rmaplab`` in the environment leaves all of this out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.realkernel.drgn_target import DrgnMemory, target_of, vmcore_info
from rmaplab.realkernel.drgn_types import register
from rmaplab.realkernel.guest_symbols import btf_in, read_symbols
from rmaplab.realkernel.reader import read_graph

if TYPE_CHECKING:
    from collections.abc import Collection

    import drgn

    from rmaplab.realkernel.btf import Btf
    from rmaplab.realkernel.graph import Graph
    from rmaplab.realkernel.guest_symbols import KernelSymbols
    from rmaplab.snapshot import Snapshot

__all__ = ["drgn_prog_set", "graph", "snapshot"]


def drgn_prog_set(prog: drgn.Program) -> None:
    """Called by drgn for each Program that is opened: offer types and symbols for kernels without debug symbols.

    They are read when drgn first looks for something that it does not find
    otherwise, and only while the kernel has no debug symbols.
    """
    import drgn

    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL or prog.platform.arch != drgn.Architecture.X86_64:
        return
    given_up: list[bool] = []

    def learn(prog: drgn.Program) -> tuple[Btf, KernelSymbols] | None:
        if given_up or _has_debug_symbols(prog):
            return None
        try:
            memory, info = DrgnMemory(prog), vmcore_info(prog)
            symbols = read_symbols(memory, info)
            return btf_in(memory, symbols, info.release), symbols
        except InputError:
            given_up.append(True)  # drgn says itself that it found nothing
            return None

    register(prog, learn)


def _has_debug_symbols(prog: drgn.Program) -> bool:
    import drgn

    try:
        return bool(prog.main_module().debug_file_status == drgn.ModuleFileStatus.HAVE)
    except LookupError:
        return False


def graph(prog: drgn.Program, pids: Collection[int] | None = None) -> Graph:
    """The reverse map of some processes, or of all, with the kernel's addresses; :class:`InputError`."""
    return read_graph(target_of(prog), pids)


def snapshot(prog: drgn.Program, pids: Collection[int] | None = None) -> Snapshot:
    """The same as a snapshot, such as all of rmaplab works on."""
    return graph(prog, pids).snapshot()
