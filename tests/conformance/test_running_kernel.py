# SPDX-License-Identifier: GPL-2.0-only
"""The model against the kernel that runs these tests.

Random programs are performed on both.  After each call every process must
have the same VMAs with the same flags, and the same pages must be anonymous,
shared, guards, and as far as one may know the same pages as before.  No
privileges are needed: which VMAs merge shows what the reverse map is like,
for that is what the kernel decides it by.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from calls import Call
from differential import HERE, PROGRAMS, first_difference
from model import Model
from programs import ADVICE, EVERYTHING, FAMILY, GROWTH, MOVES, PINNED, PLAIN, TAKEN, Mix, run

if TYPE_CHECKING:
    from running import RunningKernel

FILES = dataclasses.replace(PLAIN, name="files", file_share=0.5, shared_share=0.3)
MOVED_FILES = dataclasses.replace(MOVES, name="moved files", file_share=0.5, shared_share=0.3)
EVERY_FILE = dataclasses.replace(EVERYTHING, name="everything with files", file_share=0.5, shared_share=0.3)
MIXES = [PLAIN, FAMILY, FILES, ADVICE, MOVES, MOVED_FILES, GROWTH, EVERYTHING, EVERY_FILE, TAKEN, PINNED]


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: mix.name)
def test_the_model_does_what_the_kernel_does(kernel: RunningKernel, mix: Mix) -> None:
    found = first_difference(kernel, HERE, mix, range(PROGRAMS))
    if found is not None:
        seed, difference = found
        pytest.fail(
            f"{HERE.name} is not this kernel: {mix.name} program {seed}, shortened:\n{difference}", pytrace=False
        )


# --- differences that were bugs of the model -----------------------------------------------

HEAP = Call("P0", "brk", 4)
BUGS = {
    "shared anonymous areas never merge": [
        Call("P0", "mmap", 0, 6, "rw", shared=True),
        Call("P0", "mmap", 0, 5, "rw", shared=True),
    ],
    "mprotect copies what becomes writable while locked": [
        Call("P0", "mmap", 0, 6, "r"),
        Call("P0", "mlock", 0, 4),
        Call("P0", "mprotect", 0, 6, "rw"),
    ],
    "a child's memory is not locked": [
        Call("P0", "mmap", 0, 6, "rw"),
        Call("P0", "mlock", 4, 2),
        Call("P0", "fork", child="P1"),
    ],
    "a page stays free above the heap": [Call("P0", "mmap", 3, 3, "none"), Call("P0", "brk", 3)],
    "what ends where the heap begins is not the heap": [Call("P0", "mmap", 0, 2, "rw"), HEAP],
    "there is no heap to shrink": [HEAP, Call("P0", "munmap", 2, 2), Call("P0", "brk", 3)],
    "guards of files": [
        Call("P0", "mmap", 0, 6, "rw", "f"),
        Call("P0", "madvise", 0, 3, advice="dontdump"),
        Call("P0", "madvise", 1, 5, advice="guard-install"),
        Call("P0", "madvise", 0, 6, advice="dodump"),
    ],
}


@pytest.mark.parametrize("program", BUGS.values(), ids=BUGS)
def test_no_difference_any_more(kernel: RunningKernel, program: list[Call]) -> None:
    if not kernel.has_heap and any(call.name == "brk" for call in program):
        pytest.skip("the heap could not be put elsewhere: a kernel without CONFIG_CHECKPOINT_RESTORE")
    difference = run(program, Model(HERE), kernel.start())[1]
    assert difference is None, str(difference)
