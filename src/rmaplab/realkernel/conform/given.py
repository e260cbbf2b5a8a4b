# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios as programs for a guest: what can be performed, at addresses that its processes keep free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.kernel.flags import PAGE_SHIFT, PMD_SIZE
from rmaplab.realkernel.conform.lowering import ARENA, FILES, HINT, PERFORMED
from rmaplab.scenario import (
    Expect,
    ExpectCount,
    ExpectInvariants,
    ExpectProcessCount,
    ExpectResult,
    ExpectViolates,
    Fail,
    Mmap,
    Mremap,
    Snapshot,
    Walk,
)

if TYPE_CHECKING:
    from rmaplab.realkernel.conform.run import Program
    from rmaplab.scenario import Call, Scenario, Statement

__all__ = ["program_of"]

_TOLD = (ExpectCount, ExpectInvariants, ExpectProcessCount, ExpectResult, ExpectViolates, Snapshot, Walk)
_ALIGNED = PMD_SIZE  # what a shift keeps: the place within a page table


def program_of(scenario: Scenario) -> Program:
    """Its calls and orders to fail; walks, snapshots and expectations are left out.

    Addresses outside of the guest's free range are shifted there, all by the
    same distance.  :class:`InputError` names a line that nobody can perform,
    addresses too far apart, or more files than a guest has.
    """
    kept: list[Call | Fail] = []
    for statement in scenario.statements:
        if isinstance(statement, _TOLD):
            continue
        if not isinstance(statement, (*PERFORMED, Fail)):
            raise InputError(f"{_place(scenario, statement)}: a real kernel does that when it likes, not when told")
        kept.append(statement)
    if len({call.file for call in kept if isinstance(call, Mmap) and call.file is not None}) > FILES:
        raise InputError(f"{scenario.name}: a guest has {FILES} files; map fewer")
    ends = [
        (call.at, call.at + ((call.pages or 0) << PAGE_SHIFT))
        for call in kept
        if isinstance(call, Mmap | Mremap) and call.at is not None
    ]
    if not ends or all(start >= ARENA and end <= HINT for start, end in ends):
        return tuple(kept)
    low = min(start for start, _ in ends) & -_ALIGNED
    if max(end for _, end in ends) - low > HINT - ARENA:
        raise InputError(f"{scenario.name}: its areas are more than {HINT - ARENA >> 20} MiB apart")
    return tuple(
        dataclasses.replace(call, at=call.at - low + ARENA)
        if isinstance(call, Mmap | Mremap) and call.at is not None
        else call
        for call in kept
    )


def _place(scenario: Scenario, statement: Statement | Expect) -> str:
    return f"{scenario.name}:{statement.line}: `{statement.text}`"
