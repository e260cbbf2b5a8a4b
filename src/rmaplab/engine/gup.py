# SPDX-License-Identifier: GPL-2.0-only
"""Long-term pins on rows: :mod:`rmaplab.kernel.gup`."""

from __future__ import annotations

from errno import EFAULT, EINVAL

from rmaplab.engine.folio import folio_put
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import FIRST, LOCKS, PARAMS, PIN, Avcs, Rows
from rmaplab.engine.memory import fault_in
from rmaplab.engine.pagetable import is_anon, is_present, pte_get
from rmaplab.engine.rmap import vma_lookup
from rmaplab.engine.rows import free_row, new_row
from rmaplab.kernel.flags import VM_READ, VM_SHARED, VM_WRITE

__all__ = ["add_pin", "pin_user_page", "unpin_all", "unpin_user_page"]


@compiled
def pin_user_page(m: Rows, c: Avcs, mm: int, address: int, write: bool) -> int:
    """Pin the page at an address (bytes) until it is unpinned; 0, -EFAULT or -ENOMEM."""
    m[LOCKS].mmap_locks += 1
    m[mm].has_pinned = 1
    while True:
        vma = vma_lookup(m, mm, address)
        if not vma or not m[vma].vm_flags & (VM_WRITE if write else VM_READ):
            return -EFAULT
        entry = pte_get(m, mm, address)
        present = is_present(entry)
        if present and (entry & 1 == 1 if write else not _gup_must_unshare(m, entry, vma)):
            add_pin(m, mm, address, entry >> 1)
            return 0
        rc = fault_in(m, c, mm, address, write, False, present and not write)
        if rc != 0:
            return rc


@compiled
def _gup_must_unshare(m: Rows, entry: int, vma: int) -> bool:
    """Whether a read-only pin needs a copy first: of a shared page, or of a file's in a private mapping."""
    if m[PARAMS].pins_unnoticed:
        return False
    if is_anon(entry):
        return m[entry >> 1].exclusive == 0
    return not m[PARAMS].pins_pages_of_files and not m[vma].vm_flags & VM_SHARED


@compiled
def add_pin(m: Rows, mm: int, address: int, folio: int) -> None:
    """Pin a folio, be it anonymous or not, behind all others of an mm."""
    pin, last = new_row(m, PIN), m[mm].first_pin
    m[pin].address = address
    m[pin].pinned = folio
    if folio >= FIRST:
        m[folio].pins += 1
    if not last:
        m[mm].first_pin = pin
        return
    while m[last].next_pin:
        last = m[last].next_pin
    m[last].next_pin = pin


@compiled
def _drop_pin(m: Rows, pin: int) -> None:
    folio = m[pin].pinned
    free_row(m, pin)
    if folio >= FIRST:
        m[folio].pins -= 1
        folio_put(m, folio)


@compiled
def unpin_user_page(m: Rows, mm: int, address: int) -> int:
    """Drop a pin of the page that is at an address (bytes), or was when it was pinned; 0 or -EINVAL."""
    entry = pte_get(m, mm, address)
    here = entry >> 1 if is_present(entry) else 0
    best, chosen, before_chosen = 4, 0, 0
    before, pin = 0, m[mm].first_pin
    while pin:
        apart = 2 * (m[pin].pinned != here) + (m[pin].address != address)
        if apart < min(best, 3):
            best, chosen, before_chosen = apart, pin, before
        before, pin = pin, m[pin].next_pin
    if not chosen:
        return -EINVAL
    if before_chosen:
        m[before_chosen].next_pin = m[chosen].next_pin
    else:
        m[mm].first_pin = m[chosen].next_pin
    _drop_pin(m, chosen)
    return 0


@compiled
def unpin_all(m: Rows, mm: int) -> None:
    """The device lets go of everything when the process ends."""
    while m[mm].first_pin:
        pin = m[mm].first_pin
        m[mm].first_pin = m[pin].next_pin
        _drop_pin(m, pin)
