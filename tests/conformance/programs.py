# SPDX-License-Identifier: GPL-2.0-only
"""Random programs of a few processes over a few pages, performed side by side on the model and on a kernel."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calls import HEAP, PAGES, WINDOW, Call
from views import Folios

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from views import Performer

__all__ = [
    "ADVICE",
    "EVERYTHING",
    "FAMILY",
    "FLAGS",
    "GROWTH",
    "GUARDS",
    "MAX_PROCESSES",
    "MERGED",
    "MOVES",
    "PINNED",
    "PLAIN",
    "SWAPPED",
    "TAKEN",
    "Difference",
    "Mix",
    "generate",
    "run",
    "shrink",
]

MAX_PROCESSES = 6


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
    stack_share: float = 0.0  # of the mappings, those that grow down
    advice: tuple[str, ...] = ()


FLAGS = ("dontfork", "dofork", "wipeonfork", "keeponfork", "dontdump", "dodump")
"""Advice that sets a flag of the VMA, or clears it again, two by two."""
_KSM_AND_HUGE = ("mergeable", "unmergeable", "hugepage", "nohugepage")
GUARDS = ("dontneed", "guard-install", "guard-remove")

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
ADVICE = Mix(
    "advice",
    {"mmap": 14, "mprotect": 5, "write": 20, "read": 5, "munmap": 5, "fork": 11, "exit": 3, "madvise": 37},
    calls=30,
    prots=("rw",) * 8 + ("r", "rwx"),
    file_share=0.1,
    shared_share=0.3,
    advice=(*FLAGS, "dontneed"),
)
GROWTH = Mix(
    "growth",
    {
        **{"mmap": 16, "mprotect": 5, "write": 20, "read": 4, "munmap": 10, "fork": 8, "exit": 2},
        **{"brk": 14, "mlock": 10, "munlock": 6, "mremap": 5},
    },
    processes=3,
    calls=30,
    prots=("rw",) * 10 + ("r",) * 2 + ("none", "rwx"),
    stack_share=0.3,
)
EVERYTHING = Mix(
    "everything",
    {
        **{"mmap": 18, "mprotect": 8, "write": 20, "read": 5, "munmap": 7, "fork": 9, "exit": 3},
        **{"mremap": 14, "madvise": 20, "brk": 5, "mlock": 5, "munlock": 4},
    },
    calls=40,
    prots=("rw",) * 10 + ("r",) * 2 + ("none", "rwx"),
    file_share=0.15,
    shared_share=0.3,
    stack_share=0.1,
    advice=FLAGS + _KSM_AND_HUGE + GUARDS,
)
TAKEN = Mix(
    "taken",
    {
        **{"mmap": 10, "mprotect": 5, "write": 24, "read": 2, "munmap": 2, "fork": 5, "exit": 4},
        **{"uffd_move": 36, "mremap": 6, "madvise": 8},
    },
    processes=3,
    calls=45,
    prots=("rw",) * 14 + ("r", "rwx"),
    advice=(*FLAGS, *GUARDS, *("dontneed",) * 4),
)
PINNED = Mix(
    "pinned",
    {
        **{"mmap": 10, "mprotect": 6, "write": 22, "read": 5, "munmap": 4, "fork": 14, "exit": 5},
        **{"pin": 24, "mremap": 6, "madvise": 6},
    },
    prots=("rw",) * 10 + ("r", "rwx"),
    advice=("dontneed", "wipeonfork", "keeponfork", "guard-install", "guard-remove"),
)
SWAPPED = Mix(
    "swapped",
    {
        **{"mmap": 4, "mprotect": 3, "write": 16, "read": 30, "munmap": 2, "fork": 8, "exit": 3},
        **{"swapout": 16, "mremap": 6, "madvise": 3},
    },
    processes=3,
    calls=60,
    prots=("rw",) * 10 + ("r", "rwx"),
    advice=("dontneed", "wipeonfork", "keeponfork"),
)
MERGED = Mix(
    "merged",
    {
        **{"mmap": 9, "mprotect": 5, "write": 30, "read": 5, "munmap": 4, "fork": 8, "exit": 3},
        **{"ksmd": 6, "mremap": 8, "madvise": 14},
    },
    calls=30,
    prots=("rw",) * 10 + ("r", "rwx"),
    advice=("mergeable",) * 6 + ("unmergeable", "dontneed", "wipeonfork"),
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
        else:
            program.append(_call(rng, mix, process, verb))
    return program


def _call(rng: random.Random, mix: Mix, process: str, verb: str) -> Call:
    """One call of a verb that is neither fork nor exit."""
    match verb:
        case "read" | "write" | "pin":
            return Call(process, verb, rng.randrange(PAGES))
        case "mremap":
            return _mremap(rng, process)
        case "brk":
            return Call(process, verb, rng.randint(HEAP, PAGES))
        case "madvise":
            return Call(process, verb, *_range(rng, 1), advice=rng.choice(mix.advice))
        case "uffd_move":
            pages = rng.choice((1, 1, 1, 1, 2, 3))
            return Call(process, verb, rng.randint(0, PAGES - pages), pages, to=rng.randint(0, PAGES - pages))
        case "ksmd":
            return Call(process, verb)
        case "munmap" | "mlock" | "munlock" | "swapout":
            return Call(process, verb, *_range(rng, 1))
    prot = rng.choice(mix.prots)
    file = "f" if verb == "mmap" and rng.random() < mix.file_share else None
    shared = file is not None and rng.random() < mix.shared_share
    call = Call(process, verb, *_range(rng, 1), prot, file, shared=shared)
    grows = verb == "mmap" and file is None and mix.stack_share > 0 and rng.random() < mix.stack_share
    return call._replace(stack=grows)


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


_UNSETTLING = {"mlock", "swapout", "ksmd", "pin"}  # after these the kernel may copy where it could keep a page


def _difference(done: list[Call], model: Performer, kernel: Performer, folios: Folios) -> Difference | None:
    """What parts the two now."""
    for process in model.alive():
        ours, theirs = model.view(process), kernel.view(process)
        if ours != theirs:
            return Difference(tuple(done), process, str(ours), str(theirs))
    found = folios.part(model, kernel, model.alive())
    if found is not None:
        process, page = found
        return Difference(tuple(done), process, f"W[{page}] is another page", "than this")
    return None


def run(program: Iterable[Call], model: Performer, kernel: Performer) -> tuple[int, Difference | None]:
    """Perform a program on both; the number of calls made, and the first difference.

    Calls that make no sense (any longer), of a process that does not live
    or a fork under a name that is taken, are left out, and those of whose
    outcome more than one is right.
    """
    done: list[Call] = []
    program = list(program)
    folios = Folios(kept=all(call.name not in _UNSETTLING for call in program))
    for call in program:
        alive = model.alive()
        if call.process not in alive or call.child in alive:
            continue
        if not model.can_tell(call):
            continue
        done.append(call)
        expected = model.call(call, allowed=True)
        got = kernel.call(call, allowed=expected == 0)
        if expected != got:
            return len(done), Difference(tuple(done), call.process, f"errno {expected}", f"errno {got}")
        difference = _difference(done, model, kernel, folios)
        if difference is not None:
            return len(done), difference
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
