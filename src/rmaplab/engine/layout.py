# SPDX-License-Identifier: GPL-2.0-only
"""The machine as two record arrays.

``m`` has a row of 96 bytes for each object but AVCs, which are in ``c`` with
28 bytes each.  An object is the number of its row, and 0 is none.  Which
fields of a row of ``m`` mean something depends on its ``kind``; those of
different kinds lie over each other, and one name has one meaning.  The first
rows of ``m`` belong to the machine itself.

Addresses are in bytes and page offsets in pages, as in
:mod:`rmaplab.kernel.objects`, whose names the fields have.  A counter that
underflows is below zero here and wraps there.

Numba handles one array of records several times faster than many arrays
of one field each; and a machine is copied by copying two blocks of memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "ANON_VMA",
    "AVC",
    "FIRST",
    "FOLIO",
    "IDS",
    "ITEM",
    "LEAF",
    "LOCKS",
    "MACHINE",
    "MM",
    "NODE",
    "NONE",
    "PAGES",
    "PARAMETERS",
    "PARAMS",
    "PIN",
    "PROCESS",
    "RANGE",
    "REACHED",
    "ROW",
    "SLAB",
    "SLOT",
    "VMA",
    "VMG",
    "Avcs",
    "Rows",
    "overlaid",
]


Rows = Any  # numpy.ndarray of ROW
Avcs = Any  # numpy.ndarray of AVC

PARAMETERS = (  # all of one byte; 0 is v7.0's logic
    "anon_pgoff_apart",  # 1: v7.3, pages of private files are indexed by address
    "cleanup",  # a failed clone 0 frees its AVCs and clears the pointer, 1 leaves the pointer, 2 they are in trees,
    # 3 clears the pointer and unlinks, 4 unlinks
    "clone",  # 0 two passes, told what for; 1 not told; 2 one pass under the lock; 3 root by root; 4 link by link
    "clone_adopts_previous",  # 1: zoo/Z25
    "clone_checks",  # asserts 0 all, 1 what holds for any operation, 2 nothing
    "clone_mirrors",  # 1: zoo/Z21b, clone 4 goes head to tail
    "clone_walks_unfaulted",  # 1: clone 3 and unlink 1 are led by the list alone
    "copy_keeps_pgoff",  # 1: zoo/Z17
    "counts",  # 0 children and VMAs apart, 1 together in ``degree``, 2 nobody counts
    "dontunmap_apart",  # 1: v7.2, what MREMAP_DONTUNMAP leaves is a VMA apart
    "expand_forgets_source",  # 1: zoo/Z07
    "failed_fork_waits",  # 1: a half-made copy is left to exit_mmap
    "fork",  # 0 allocates ahead, 1 unwinds by unlinking, 2 forgets to (zoo/Z21d)
    "guards_need_anon_vma",  # 1: also where a file is mapped
    "import_late",  # 1: zoo/Z10
    "keeps_account",  # 1: what was charged once stays so
    "ksm_walks_offset",  # 1: v7.3, KSM's walks look at one offset
    "lists",  # 1: v2.6.34, anon_vmas have lists in order of insertion
    "merge_checks",  # 1: anon_vma_merge() compares
    "merge_in_two_rounds",  # 1: zoo/Z13
    "merge_rule",  # 0 v6.16, 1 v6.15 and before, 2 v2.6.34, 3 zoo/Z08
    "mmap_asks_behind",  # 1: v6.1, mmap looks at the VMA behind first
    "move_keeps_mapping",  # 1: zoo/Z21e
    "no_dontunmap",  # 1: the flag is unknown
    "no_exclusive",  # 1: no page has an exclusive bit
    "one_vma_moved",  # 1: mremap moves pages of one VMA
    "own_locks",  # 1: v2.6.34, each anon_vma has a lock of its own
    "pins_pages_of_files",  # 1: read-only pins unshare anonymous pages alone
    "pins_unnoticed",  # 1: pins bind no page
    "put",  # 0 child then root, 1 root first (zoo/Z32), 2 no hold on the root
    "reusable_any",  # 1: zoo/Z20
    "reuse",  # 0 v7.0, 1 asks for the source, 2 by degree, 3 by degree without asking, 4 never
    "reuses_ksm_pages",  # 1: a page of KSM's with one mapping is written in place
    "root_unpinned",  # 1: nobody pins a root
    "rmap_locks",  # mremap takes them 0 for tables too, 1 by the entry rule, 2 never
    "shift_loses_links",  # 1: zoo/Z21a
    "split_forgets_failure",  # 1: zoo/Z12
    "stack_lock",  # 1: a stack grows under page_table_lock, too
    "swapin_names_own",  # 1: a page that its only user writes to as it comes back names its own anon_vma
    "swapin_sole_reference",  # 1: a page that comes back for its last entry is exclusive if it is written to
    "tables_by_entry",  # 1: mremap moves no whole table
    "unlink",  # 0 one lock, 1 root by root, 2 each its own
    "unlink_checks",  # 0 asserts, 1 nothing
    "unlocked_walk",  # 1: who only looks does not lock the folio
    "young_names",  # 1: zoo/Z21c
)
SIZE = 96
_HEADER: list[tuple[str, Any, int]] = [  # of every object
    ("key", "i8", 0),  # what a tree is sorted by
    ("left", "i4", 8),
    ("right", "i4", 12),
    ("up", "i4", 16),  # the parent in the tree; of a free row the next free one
    ("id", "i4", 20),  # the number it was made with
    ("kind", "i1", 24),
    ("freed", "i1", 25),
    ("linked", "i1", 26),  # an anon_vma that some VMA was linked to
    ("attached", "i1", 27),  # a VMA that is in its mm
]
_FIELDS: dict[str, list[tuple[str, Any, int]]] = {
    # struct vm_area_struct; key: vm_start
    "VMA": [
        ("vm_mm", "i4", 28),
        ("vm_end", "i8", 32),
        ("vm_pgoff", "i8", 40),
        ("anon_pgoff", "i8", 48),
        ("vm_flags", "i8", 56),
        ("anon_vma", "i4", 64),
        ("head", "i4", 68),  # AVCs: a VMA's chain, or the entries of a range
        ("tail", "i4", 72),
        ("length", "i4", 76),
        ("file", "i4", 80),  # 0 anonymous, n the n-th file, -n the n-th shmem file
    ],
    # struct anon_vma
    "ANON_VMA": [
        ("root", "i4", 28),
        ("refcount", "i8", 32),
        ("num_children", "i8", 40),
        ("num_active_vmas", "i8", 48),
        ("degree", "i8", 56),
        ("parent", "i4", 64),
        ("parent_id", "i4", 68),  # the parent's number: another object may have its row by now
        ("ranges", "i4", 72),  # its index: a tree of ranges
        ("entries", "i4", 76),
    ],
    # the AVCs of one anon_vma that begin at one page offset; key: that offset
    "RANGE": [
        ("owner", "i4", 28),
        ("top", "i8", 32),  # highest ``last`` in this part of the tree
        ("last", "i8", 40),  # highest last page offset of an entry, inclusive
        ("at_last", "i4", 48),  # entries that end there
    ],
    # a part of a page table: 16 entries; key: address >> 16
    "LEAF": [("present", "i4", 28), ("pte", ("i4", 16), 32)],
    # struct mm_struct
    "MM": [
        ("users", "i4", 28),
        ("start_brk", "i8", 32),
        ("brk", "i8", 40),
        ("vmas", "i4", 48),  # tree of VMAs
        ("leaves", "i4", 52),  # tree of leaves
        ("number_of_vmas", "i4", 56),
        ("number_of_leaves", "i4", 60),
        ("has_pinned", "i4", 64),
        ("first_pin", "i4", 68),
    ],
    # a folio of one page; key: the call that has migrated it
    "FOLIO": [
        ("mapping", "i4", 28),
        ("index", "i8", 32),
        ("mapcount", "i4", 40),
        ("exclusive", "i4", 44),
        ("pins", "i4", 48),
        ("slot", "i4", 52),
        ("stable_node", "i4", 56),
        ("holders", "i4", 60),  # nodes whose page it is, and a migration
    ],
    # a slot of the swap area
    "SLOT": [
        ("swap_count", "i4", 28),  # entries of page tables that name it
        ("cached", "i4", 32),  # the folio in the swap cache, 0: the slot alone has the content
    ],
    # struct ksm_stable_node; freed: it has left the tree, but a pinned folio still names it
    "NODE": [
        ("next_node", "i4", 28),
        ("content", "i8", 32),
        ("kfolio", "i4", 40),
        ("items", "i4", 44),  # the latest first
    ],
    # struct ksm_rmap_item
    "ITEM": [
        ("item_mm", "i4", 28),  # -n: the n-th that was made, which is gone
        ("address", "i8", 32),  # bytes
        ("item_pgoff", "i8", 40),
        ("item_anon_vma", "i4", 48),
        ("next_item", "i4", 52),
    ],
    # a pin of a process, the earliest first; its ``address`` is where the folio was
    "PIN": [("pinned", "i4", 28), ("next_pin", "i4", 40)],
    # a task; its ``id`` is its number
    "PROCESS": [
        ("mm", "i4", 28),
        ("earlier", "i4", 32),  # tasks in the order of their making
        ("later", "i4", 36),
        ("area_pages", ("i4", 8), 40),  # the explorer's areas: pages that a name stands for, 0 if for none
    ],
    # row MACHINE
    "MACHINE": [
        ("free_row", "i4", 0),
        ("free_rows", "i4", 4),
        ("used", "i4", 8),  # rows of m below which all objects are
        ("free_avc", "i4", 12),
        ("free_avcs", "i4", 16),
        ("used_avcs", "i4", 28),
        ("keeps", "i4", 32),  # rows that are freed stay what they were until settle()
        ("retired", "i4", 36),  # the last of them, on a list by ``key``
        ("retired_avc", "i4", 40),
        ("first_process", "i4", 44),
        ("last_process", "i4", 48),
        ("processes", "i4", 52),
        ("reports", "i8", 56),  # bit n: AV-n was reported
        ("held", ("i4", 4), 64),  # anon_vmas whose rwsem is held, outermost first
        ("held_write", ("i1", 4), 80),
        ("number_held", "i4", 84),
        ("crashed", "i4", 88),  # the modelled kernel cannot go on
        ("watched", "i4", 92),  # somebody wants to know what was reached and what went wrong on the way
    ],
    # row SLAB
    "SLAB": [
        ("fail_at", "i4", 0),  # the allocation that fails, 0: none
        ("nowait_only", "i4", 4),
        ("retrying", "i4", 8),
        ("count", "i4", 12),  # allocations since the plan was set
        ("failed", "i4", 16),  # attempts that failed since then
        ("live_anon_vmas", "i8", 32),
        ("live_avcs", "i8", 40),
        ("bytes", "i8", 48),
        ("peak_anon_vmas", "i8", 56),
        ("peak_avcs", "i8", 64),
        ("peak_bytes", "i8", 72),
        ("wasted", "i8", 80),
    ],
    # row LOCKS
    "LOCKS": [
        ("mmap_locks", "i8", 0),
        ("folio_locks", "i8", 8),
        ("anon_vma_locks", "i8", 32),
        ("page_table_locks", "i8", 40),
        ("allocations_under_lock", "i8", 48),
        ("tree_operations", "i8", 56),
        ("longest_hold", "i8", 64),
        ("before", "i8", 72),  # tree operations when the lock was taken
    ],
    # row IDS: how many of each were made
    "IDS": [
        ("anon_vmas", "i8", 32),
        ("avcs", "i8", 40),
        ("vma_ids", "i4", 48),
        ("mm_ids", "i4", 52),
        ("shmem_ids", "i4", 56),
        ("folio_ids", "i8", 64),
    ],
    # row PAGES: what of pages is not in page tables, and the walk or migration under way
    "PAGES": [
        ("first_node", "i4", 0),  # the stable tree, in the order of insertion
        ("walk_left", "i4", 4),  # mappings that a walk has not yet seen
        ("walk_locked", "i4", 8),  # it met memory that is locked
        ("waiting", "i4", 12),  # the folio that migration entries wait for
        ("number_waiting", "i4", 16),
        ("migrations", "i8", 32),  # calls
    ],
    # row REACHED
    "REACHED": [("reached", ("i8", 12), 0)],
    # row VMG: struct vma_merge_struct
    "VMG": [
        ("merge_start", "i8", 0),
        ("merge_end", "i8", 8),
        ("merge_pgoff", "i8", 32),
        ("merge_flags", "i8", 40),
        ("merge_file", "i4", 48),
        ("merge_mm", "i4", 52),
        ("prev", "i4", 56),
        ("middle", "i4", 60),
        ("next", "i4", 64),
        ("merge_anon_vma", "i4", 68),
        ("copied_from", "i4", 72),
        ("keep_pgoff", "i4", 76),
        ("oom", "i4", 80),
    ],
    # row PARAMS: what differs between series
    "PARAMS": [(name, "i1", at) for at, name in enumerate(PARAMETERS)],
}
PARAMS, REACHED, MACHINE, SLAB, LOCKS, IDS, VMG, PAGES = range(8)
FIRST = 8  # row of the first object
NONE, VMA, ANON_VMA, RANGE, LEAF, MM, FOLIO, PROCESS, SLOT, NODE, ITEM, PIN = range(12)

_ALL = _HEADER + [field for fields in _FIELDS.values() for field in fields]


def overlaid(fields: list[tuple[str, Any, int]], size: int) -> np.dtype[Any]:
    """Records of so many bytes whose fields (name, format, offset) may lie over each other."""
    names, formats, offsets = (list(column) for column in zip(*fields, strict=True))
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


ROW = overlaid(_ALL, SIZE)
AVC = np.dtype(
    [
        ("vma", "i4"),
        ("anon_vma", "i4"),  # below zero: freed
        ("range", "i4"),  # where it is in the index; 0: was in none yet, -1: no longer
        ("before", "i4"),  # in the VMA's chain; of a free row the next free one
        ("after", "i4"),
        ("earlier", "i4"),  # in the range
        ("later", "i4"),
    ]
)
