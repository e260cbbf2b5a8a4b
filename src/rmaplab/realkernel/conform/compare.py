# SPDX-License-Identifier: GPL-2.0-only
"""Compares the model's snapshot with a real kernel's, up to the names of objects.

What is masked is listed in :data:`MASKED` with its reason; everything else
that a snapshot has must be equal.
"""

from __future__ import annotations

import dataclasses
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from rmaplab.snapshot import SlabView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.snapshot import Snapshot

__all__ = ["MASKED", "differences", "files", "normal"]

MASKED = {
    "slab": "graphs without it: the guest's own processes have objects of these kinds as well",
    "file": "VMAs: files have names in the model and addresses in the kernel, compared is which VMAs map one file",
    "placement": "calls: a kernel chooses the place of what is mapped nowhere in particular; it is told the model's",
}
"""What is not compared, or not as it is: what is counted of it, and why."""


def normal(snapshot: Snapshot) -> Snapshot:
    """The part of a snapshot that both sides can have, files numbered in order of appearance."""
    processes = snapshot.processes
    names: dict[str, str] = {}
    if files(snapshot):
        processes = tuple(
            dataclasses.replace(
                process,
                vmas=tuple(
                    dataclasses.replace(vma, file=names.setdefault(vma.file, f"file{len(names)}"))
                    if vma.file
                    else vma
                    for vma in process.vmas
                ),
            )
            for process in processes
        )
    return dataclasses.replace(snapshot, processes=processes, slab=_NOTHING)


def files(snapshot: Snapshot) -> int:
    """How many VMAs map files."""
    return len([vma for process in snapshot.processes for vma in process.vmas if vma.file])


_NOTHING = SlabView(0, 0, 0)


def differences(model: Snapshot, kernel: Snapshot) -> Iterator[str]:
    """What differs between two snapshots that were made normal: one line for each member."""
    ours = {process.name: process for process in model.processes}
    theirs = {process.name: process for process in kernel.processes}
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            yield f"{name}: only {'the model' if name in ours else 'the kernel'} has it"
            continue
        for number, (our, their) in enumerate(zip_longest(ours[name].vmas, theirs[name].vmas)):
            yield from _members(f"{name}, VMA {number}", our, their)
    for kind in ("anon_vmas", "folios", "guards", "swap", "ksm"):
        for our, their in zip_longest(getattr(model, kind), getattr(kernel, kind)):
            yield from _members(getattr(our or their, "id", kind), our, their)


def _members(what: str, our: Any, their: Any) -> Iterator[str]:  # noqa: ANN401 (two views of one class)
    if our is None or their is None:
        side = "the kernel" if our is None else "the model"
        yield f"{what}: only {side} has it: {their if our is None else our}"
        return
    for field in dataclasses.fields(our):
        mine, other = getattr(our, field.name), getattr(their, field.name)
        if mine != other:
            yield f"{what}: {field.name}: model {_show(mine)}, kernel {_show(other)}"


def _show(value: object) -> str:
    if isinstance(value, int) and value > 1 << 16:
        return f"{value:#x}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_show, value))}]"
    return str(value)
