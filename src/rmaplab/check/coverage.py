# SPDX-License-Identifier: GPL-2.0-only
"""What a history has shown that others have not: shapes of the graph, and branches of the kernel's functions.

Shapes are looked at after every call; branches, which cost far more to
watch, only of histories that came to a new shape.  Both are numbers, equal in
every process.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from _typeshed import TraceFunction

    from rmaplab.kernel import Kernel

__all__ = ["branches", "shapes"]

MANY = 4  # counts beyond this are alike
_WATCHED = ("/rmaplab/kernel/", "/rmaplab/series/", "rmaplab_design_")


def shapes(kernel: Kernel, call: str, errno: str | None, failing: str) -> set[int]:
    """The counters' shapes now, each with the call that led to it, how it ended and what was to fail in it."""
    how = crc32(f"{call} {errno} {failing}".encode())
    found = {hash((how, 0))}
    for anon_vma in kernel.live_anon_vmas.values():
        found.add(
            hash(
                (
                    how,
                    anon_vma.root is anon_vma,
                    min(anon_vma.num_children, MANY),
                    min(anon_vma.num_active_vmas, MANY),
                    min(anon_vma.degree, MANY),
                    min(anon_vma.refcount, MANY),
                    min(len(anon_vma.rb_root.keys), MANY),
                )
            )
        )
    for process in kernel.processes.values():
        for vma in process.mm.vmas:
            chain = min(len(vma.anon_vma_chain), MANY)
            found.add(hash((how, chain, vma.anon_vma is None, min(len(process.mm.vmas), MANY), vma.file is None)))
    return found


def branches(run: Callable[[], object]) -> set[int]:
    """The branches of kernel and series that ``run`` takes: from which line of a function to which."""
    taken: set[int] = set()
    names: dict[CodeType, int] = {}

    def function(frame: FrameType, event: str, arg: object) -> TraceFunction | None:
        code = frame.f_code
        if not any(part in code.co_filename for part in _WATCHED):
            return None
        name = names.get(code)
        if name is None:
            name = names[code] = crc32(code.co_qualname.encode())
        before = 0

        def line(frame: FrameType, event: str, arg: object) -> TraceFunction:
            nonlocal before
            after = frame.f_lineno - code.co_firstlineno if event == "line" else -1
            taken.add(hash((name, before, after)))
            before = after
            return line

        return line

    outer = sys.gettrace()
    sys.settrace(function)
    try:
        run()
    finally:
        sys.settrace(outer)
    return taken
