# SPDX-License-Identifier: GPL-2.0-only
"""What must be known of a user-mode kernel's binary to read it: types and addresses, learnt once from its DWARF."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rmaplab.errors import InputError
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.target import Machine, Target

if TYPE_CHECKING:
    from pathlib import Path

    from rmaplab.realkernel.memory import Memory

__all__ = ["UmFacts"]

_SYMBOLS = ("init_task", "uml_physmem", "mem_map")
NEEDS_DRGN = "drgn is not installed: pip install 'rmaplab[kernel]'"


@dataclass(frozen=True, slots=True)
class UmFacts:
    """Layout, addresses of symbols, and the number of page-table levels."""

    layout: Layout
    symbols: dict[str, int]
    levels: int

    @classmethod
    def learn(cls, pid: int, image: Path, levels: int) -> Self:
        """From the running process and its binary; :class:`InputError` without drgn or debug symbols."""
        try:
            import drgn
        except ImportError as error:
            raise InputError(NEEDS_DRGN) from error
        prog: Any = drgn.Program()
        try:
            prog.set_pid(pid)
            prog.load_debug_info([str(image)])
            symbols = {name: int(prog.symbol(name).address) for name in _SYMBOLS}
        except (LookupError, OSError, drgn.MissingDebugInfoError) as error:
            raise InputError(f"{image}: {error}; a user-mode kernel with debug symbols is needed") from error
        return cls(Layout.of_drgn(prog), symbols, levels)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """From a file that :meth:`save` wrote; None if there is none that is whole."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            layout = Layout(document["sizes"], document["offsets"], document["enums"])
            return cls(layout, document["symbols"], document["levels"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, path: Path) -> None:
        """Keep it beside the kernel."""
        document = {"sizes": self.layout.sizes, "offsets": self.layout.offsets, "enums": self.layout.enums}
        text = json.dumps({**document, "symbols": self.symbols, "levels": self.levels}, indent=1, sort_keys=True)
        half = path.with_suffix(".new")
        half.write_text(text + "\n", encoding="utf-8")
        half.replace(path)

    def target(self, memory: Memory, release: str) -> Target:
        """A running kernel of this binary."""
        physmem, mem_map = (
            int.from_bytes(memory.read(self.symbols[name], 8), "little") for name in ("uml_physmem", "mem_map")
        )
        machine = Machine("um", self.levels, page_offset=physmem, vmemmap=mem_map)
        return Target(memory, self.layout, machine, self.symbols["init_task"], release)
