# SPDX-License-Identifier: GPL-2.0-only
"""Random programs of a few processes over a few pages, and the model as one of their two performers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rmaplab.kernel.flags import PAGE_SHIFT, flags_name
from rmaplab.kernel.objects import FILE_PAGE
from rmaplab.kernel.process import Area as PageRange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rmaplab.kernel import Kernel, Process
    from rmaplab.kernel.objects import Pte

__all__ = [
    "FAMILY",
    "MAX_PROCESSES",
    "MOVES",
    "PAGES",
    "PLAIN",
    "WINDOW",
    "Area",
    "Call",
    "Difference",
    "Mix",
    "Model",
    "Performer",
    "View",
    "generate",
    "run",
    "shrink",
]

# Low enough to stand before everything else that is mapped, so that smaps shows it first;
# neither a huge page nor a neighbour's VMA fits.
WINDOW = 0x10_0000
PAGES = 6
MAX_PROCESSES = 6


class Call(NamedTuple):
    """One call of one process; pages are counted from the start of the window."""

    process: str
    name: str
    first: int = 0
    pages: int = 1
    prot: str = ""
    file: str | None = None
    child: str = ""
    shared: bool = False
    to: int | None = None  # of mremap: the first page of the new place, None for the old one
    size: int = 0  # and the new number of pages
    dontunmap: bool = False

    @property
    def target(self) -> int | None:
        """Address of the new place, in bytes."""
        return None if self.to is None else WINDOW + (self.to << PAGE_SHIFT)

    @property
    def start(self) -> int:
        """Address of the first page, in bytes."""
        return WINDOW + (self.first << PAGE_SHIFT)

    def __str__(self) -> str:
        """The call as a line of a scenario in which W is the window."""
        where = f"W[{self.first}..{self.first + self.pages - 1}]" if self.pages > 1 else f"W[{self.first}]"
        if self.name == "mmap":
            file = f" file={self.file}" if self.file else ""
            shared = " shared" if self.shared else ""
            return f"{self.process} mmap M {self.pages} at={self.start:#x} prot={self.prot}{file}{shared}"
        if self.name == "mprotect":
            return f"{self.process} mprotect {where} {self.prot}"
        if self.name == "fork":
            return f"{self.process} fork {self.child}"
        if self.name == "mremap":
            if self.target is None:
                return f"{self.process} mremap {where} M pages={self.size}  # where it is, without leave to move"
            options = f"at={self.target:#x}" + " dontunmap" * self.dontunmap
            return f"{self.process} mremap {where} M {options} pages={self.size}"
        return f"{self.process} {self.name}" + (f" {where}" if self.name != "exit" else "")


class Area(NamedTuple):
    """A VMA: its first page, the page behind its last, flags as in smaps, and how many anonymous pages it maps."""

    first: int
    end: int
    flags: str
    anonymous: int

    def __str__(self) -> str:
        """In one word or two."""
        return f"W[{self.first}..{self.end - 1}] {self.flags or '-'} ({self.anonymous} anonymous)"


class View(NamedTuple):
    """What can be seen of a process: its VMAs, and a letter for each page of the window.

    ``x`` is an anonymous page that this process alone maps, ``s`` an anonymous page mapped by others
    as well or the zero page (the VMA's count tells them apart), ``?`` a page in swap, ``.`` anything
    else: absent, or a file's.
    """

    vmas: tuple[Area, ...]
    pages: str

    def agrees(self, other: View) -> bool:
        """Whether both views can be of the same state; if a page is swapped out, the VMAs are."""
        if "?" in self.pages + other.pages:
            return [vma[:3] for vma in self.vmas] == [vma[:3] for vma in other.vmas]
        return self == other

    def __str__(self) -> str:
        """Pages, then VMAs."""
        return f"|{self.pages}|  {'  '.join(map(str, self.vmas)) or 'nothing mapped'}"


class Performer(Protocol):
    """One who performs calls: the model, or the running kernel."""

    def call(self, call: Call, *, allowed: bool) -> int:
        """Perform a call of a living process; its errno, or 0.

        ``allowed`` tells that an access is expected to succeed.
        """

    def alive(self) -> list[str]:
        """Names of the living processes, sorted."""

    def view(self, process: str) -> View:
        """The window of a living process."""


class Model:
    """The specification as a performer."""

    def __init__(self, series: type[Kernel]) -> None:
        self.kernel = series()
        self.kernel.spawn("P0")

    def call(self, call: Call, *, allowed: bool = True) -> int:
        """Perform a call on the model."""
        process = self.kernel.processes[call.process]
        area = PageRange(call.start, call.pages)
        try:
            if call.name == "mmap":
                process.mmap(call.pages, at=call.start, prot=call.prot, file=call.file, shared=call.shared)
            elif call.name == "mprotect":
                process.mprotect(area, call.prot)
            elif call.name == "fork":
                process.fork(call.child)
            elif call.name == "exit":
                process.exit()
            elif call.name == "mremap":
                return self.mremap(process, call)
            else:
                getattr(process, call.name)(area)
        except OSError as error:
            return error.errno or -1
        return 0

    def mremap(self, process: Process, call: Call) -> int:
        """Move to the named place, or resize without leave to move."""
        new = self.kernel.do_mremap(
            process.mm,
            call.start,
            call.pages << PAGE_SHIFT,
            call.size << PAGE_SHIFT,
            new_addr=call.target,
            dontunmap=call.dontunmap,
            maymove=call.to is not None,
        )
        return max(-new, 0)

    def alive(self) -> list[str]:
        """Names of the modelled processes."""
        return sorted(self.kernel.processes)

    def view(self, process: str) -> View:
        """The window as the model has it."""
        mm = self.kernel.processes[process].mm
        letters = [_letter(mm.page_table.get(WINDOW + (page << PAGE_SHIFT))) for page in range(PAGES)]
        vmas = []
        for vma in mm.vmas:
            ptes = mm.page_table.range(vma.vm_start, vma.vm_end)
            anonymous = sum(pte.folio.mapping is not None for _, pte in ptes)
            first, end = ((address - WINDOW) >> PAGE_SHIFT for address in (vma.vm_start, vma.vm_end))
            vmas.append(Area(first, end, flags_name(vma.vm_flags), anonymous))
        return View(tuple(vmas), "".join(letters))


def _letter(pte: Pte | None) -> str:
    if pte is None or pte.folio is FILE_PAGE:
        return "."
    return "x" if pte.folio.mapping is not None and pte.folio.mapcount == 1 else "s"


# --- random programs ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mix:
    """How often which call is drawn, and from which protections and mappings."""

    name: str
    weights: dict[str, int]
    processes: int = 4
    calls: int = 25
    prots: tuple[str, ...] = ("rw",) * 8 + ("r",) * 4 + ("none",) * 2 + ("rwx",) * 2 + ("rx",) * 2 + ("w",)
    file_share: float = 0.0  # of the mappings, those of a file
    shared_share: float = 0.0  # of these, those that are shared


PLAIN = Mix("plain", {"mmap": 24, "mprotect": 26, "write": 22, "read": 7, "munmap": 8, "fork": 9, "exit": 4})
MOVES = Mix(
    "moves",
    {"mmap": 18, "mprotect": 6, "write": 22, "read": 3, "munmap": 12, "fork": 8, "exit": 1, "mremap": 32},
    processes=3,
    calls=35,
    prots=("rw",) * 12 + ("r",) * 2 + ("rwx",),
)
FAMILY = Mix(
    "family",
    {"mmap": 12, "mprotect": 18, "write": 22, "read": 4, "munmap": 6, "fork": 24, "exit": 14},
    processes=MAX_PROCESSES,
    calls=30,
)


def generate(mix: Mix, seed: int) -> list[Call]:
    """The program of a seed; its first call gives the first process something to work on."""
    rng = random.Random(f"{mix.name}:{seed}")
    names = [f"P{n}" for n in range(mix.processes)]
    verbs, weights = list(mix.weights), list(mix.weights.values())
    alive = ["P0"]
    program = [Call("P0", "mmap", *_range(rng, PAGES // 2), rng.choice(mix.prots))]
    while alive and len(program) < mix.calls:
        verb = rng.choices(verbs, weights)[0]
        process = rng.choice(alive)
        if verb == "fork":
            free = [name for name in names if name not in alive]
            if not free:
                continue
            alive.append(free[0])
            program.append(Call(process, verb, child=free[0]))
        elif verb == "exit":
            if len(alive) == 1:
                continue
            alive.remove(process)
            program.append(Call(process, verb))
        elif verb in {"read", "write"}:
            program.append(Call(process, verb, rng.randrange(PAGES)))
        elif verb == "mremap":
            program.append(_mremap(rng, process))
        else:
            prot = "" if verb == "munmap" else rng.choice(mix.prots)
            file = "f" if verb == "mmap" and rng.random() < mix.file_share else None
            shared = file is not None and rng.random() < mix.shared_share
            program.append(Call(process, verb, *_range(rng, 1), prot, file, shared=shared))
    return program


def _mremap(rng: random.Random, process: str) -> Call:
    """A move, most of them of the same size, or a change of size in place."""
    pages, dontunmap = rng.randint(1, PAGES // 2), rng.random() < 0.3
    size = pages if dontunmap or rng.random() < 0.6 else rng.randint(1, PAGES // 2)
    to = rng.randint(0, PAGES - size) if dontunmap or size == pages or rng.random() < 0.4 else None
    first = rng.randint(0, PAGES - max(pages, size))
    return Call(process, "mremap", first, pages, to=to, size=size, dontunmap=dontunmap)


def _range(rng: random.Random, least: int) -> tuple[int, int]:
    """First page and number of pages of a random part of the window."""
    pages = rng.randint(least, PAGES)
    return rng.randint(0, PAGES - pages), pages


# --- side by side ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two performances of a program part: after its last call."""

    program: tuple[Call, ...]
    process: str
    model: str
    kernel: str

    def __str__(self) -> str:
        """A scenario that can be run on the model, with both outcomes as comments."""
        lines = [f"P0 mmap W {PAGES} at={WINDOW:#x} prot=none", "P0 munmap W", *map(str, self.program)]
        return "\n".join(
            [*lines, f"# {self.process}, model:  {self.model}", f"# {self.process}, kernel: {self.kernel}"]
        )


def run(program: Iterable[Call], model: Performer, kernel: Performer) -> tuple[int, Difference | None]:
    """Perform a program on both; the number of calls made, and the first difference.

    Calls that make no sense (any longer), of a process that does not live
    or a fork under a name that is taken, are left out.
    """
    done: list[Call] = []
    for call in program:
        alive = model.alive()
        if call.process not in alive or call.child in alive:
            continue
        done.append(call)
        expected = model.call(call, allowed=True)
        got = kernel.call(call, allowed=expected == 0)
        if expected != got:
            return len(done), Difference(tuple(done), call.process, f"errno {expected}", f"errno {got}")
        for process in model.alive():
            ours, theirs = model.view(process), kernel.view(process)
            if not ours.agrees(theirs):
                return len(done), Difference(tuple(done), process, str(ours), str(theirs))
    return len(done), None


def shrink(found: Difference, again: Callable[[Iterable[Call]], Difference | None]) -> Difference:
    """Drop calls for as long as a difference remains, from the end to the start and over again."""
    shorter = True
    while shorter:
        shorter = False
        for at in reversed(range(len(found.program))):
            fewer = again(found.program[:at] + found.program[at + 1 :])
            if fewer is not None:
                found, shorter = fewer, True
                break
    return found
