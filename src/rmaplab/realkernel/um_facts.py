# SPDX-License-Identifier: GPL-2.0-only
"""What must be known of a user-mode kernel's binary to read it: types and addresses, learnt once from its DWARF."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rmaplab.errors import InputError
from rmaplab.realkernel.drgn_programs import errors, listening, new_program
from rmaplab.realkernel.layout import ASKED, Layout
from rmaplab.realkernel.memory import ProcessMemory
from rmaplab.realkernel.target import Machine, Target
from rmaplab.realkernel.whole import write_whole

if TYPE_CHECKING:
    from rmaplab.realkernel.memory import Memory

__all__ = ["UmFacts", "open_um"]

_SYMBOLS = ("init_task", "uml_physmem", "mem_map")


@dataclass(frozen=True, slots=True)
class UmFacts:
    """Layout, addresses of symbols, the number of page-table levels, and the release."""

    layout: Layout
    symbols: dict[str, int]
    levels: int
    release: str

    @classmethod
    def learn(cls, pid: int, image: Path) -> Self:
        """From the running process and its binary; :class:`InputError` without drgn or debug symbols."""
        if not image.exists():
            raise InputError(f"{image}: there is no such file; the binary of a user-mode kernel is needed")
        prog: Any = new_program()
        with errors(f"process {pid}"), listening() as said:
            prog.set_pid(pid)
            prog.load_debug_info([str(image)])
        try:
            symbols = {name: int(prog.symbol(name).address) for name in _SYMBOLS}
            release = prog["init_uts_ns"].name.release.string_().decode()
            # Folded tables are structures of the table above (pgtable-nopud.h): three levels until v6.12.
            levels = 4 if prog.type("pud_t").type.members[0].name == "pud" else 3
        except LookupError as error:
            why = f" ({said[0]})" if said else ""
            raise InputError(
                f"process {pid}: {error} by {image}{why}: it must be what the process runs, a user-mode kernel "
                "with debug symbols (CONFIG_DEBUG_INFO_DWARF5)"
            ) from error
        return cls(Layout.of_drgn(prog), symbols, levels, release)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """From a file that :meth:`save` wrote; None if there is none that is whole."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["asked"] != ASKED:
                return None
            return cls(Layout.of_dict(document), document["symbols"], document["levels"], document["release"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, path: Path) -> None:
        """Keep it beside the kernel."""
        about = {"symbols": self.symbols, "levels": self.levels, "release": self.release, "asked": ASKED}
        document = {**self.layout.as_dict(), **about}
        write_whole(path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())

    def target(self, memory: Memory, release: str) -> Target:
        """A running kernel of this binary."""
        physmem, mem_map = (
            int.from_bytes(memory.read(self.symbols[name], 8), "little") for name in ("uml_physmem", "mem_map")
        )
        machine = Machine("um", self.levels, page_offset=physmem, vmemmap=mem_map)
        return Target(memory, self.layout, machine, self.symbols["init_task"], release)


def open_um(pid: int, image: Path | None = None) -> Target:
    """A user-mode kernel that runs as a process; ``image`` is its binary, by default what the process executes."""
    binary = image or Path(f"/proc/{pid}/exe")
    facts = UmFacts.learn(pid, binary)
    return facts.target(ProcessMemory(pid), facts.release)
