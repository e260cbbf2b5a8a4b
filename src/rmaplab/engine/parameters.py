# SPDX-License-Identifier: GPL-2.0-only
"""Which series the engine knows, and by which parameters.

A series is a class that overrides functions of the specification.  For each
definition of a function that the engine knows, the table below has the
parameters (:data:`rmaplab.engine.layout.PARAMETERS`) that it stands for; those
of a definition that calls the next one are added to the next one's.  A class
with any other definition has logic of its own, and runs on the specification.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["parameters_of", "patched_function", "unknown_function"]


class _Known(NamedTuple):
    """What a definition stands for, and whether it calls the next one (``super()``)."""

    parameters: dict[str, int]
    goes_on: bool = False


_ALIKE = _Known({})
"""Does what the specification does, as far as can be told here."""

_MORE = _Known({}, goes_on=True)
"""Adds something that cannot be told here."""


def _is(**parameters: int) -> _Known:
    return _Known(parameters)


def _adds(**parameters: int) -> _Known:
    return _Known(parameters, goes_on=True)


_TABLE: dict[str, dict[str, _Known]] = {
    "anon_vma_alloc": {"V2_6_34": _adds(lists=1)},
    "anon_vma_chain_link": {"V6_18_7": _ALIKE, "V2_6_34": _ALIKE},  # of the clones that call it
    "anon_vma_clone": {
        "V6_18_8": _is(clone=1),
        "V6_18_7": _is(clone=2),
        "V6_18_3": _is(clone=3),
        "V6_18_2": _is(clone=3, clone_walks_unfaulted=1),
        "V2_6_34": _is(clone=4),
        "Z12": _MORE,
        "Z21b": _is(clone=4, clone_mirrors=1),
        "Z25": _adds(clone_adopts_previous=1),
    },
    "anon_vma_fork": {"UnwindingFork": _is(fork=1), "Z21d": _is(fork=2)},
    "anon_vma_for_new": {"Z21c": _is(young_names=1)},
    "anon_vma_link_child": {"V2_6_34": _is(root_unpinned=1), "Z33": _adds(root_unpinned=1)},
    "anon_vma_lock_read": {"V2_6_34": _ALIKE},
    "anon_vma_merge": {"V6_18_4": _ALIKE},
    "anon_vma_prepare": {"V2_6_34": _MORE},
    "anon_vma_rwsem": {"V2_6_34": _is(own_locks=1)},
    "anon_vma_unlock_read": {"V2_6_34": _ALIKE},
    "check_anon_vma_clone": {"V6_18_8": _is(clone_checks=1), "V6_18": _is(clone_checks=2)},
    "check_emptied_anon_vma": {"V5_5": _ALIKE},
    "check_mremap_params": {"OneVmaMoved": _MORE, "NoDontunmap": _adds(no_dontunmap=1)},
    "check_unlink_anon_vmas": {"V6_18": _is(unlink_checks=1)},
    "cleanup_partial_anon_vmas": {
        "V6_18_9": _is(cleanup=1),
        "V6_18_7": _is(cleanup=2),
        "V6_18": _is(cleanup=3),
        "V3_19": _is(cleanup=4),
        "Z01": _is(cleanup=1),
        "Z11": _is(cleanup=4),
    },
    "clone_chain": {"V6_18_3": _ALIKE},
    "commit_merge": {"Z21a": _adds(shift_loses_links=1)},
    "copy": {"V2_6_34": _MORE},
    "count_active_vma": {"V6_18_8": _ALIKE},
    "add_active_vmas": {"V5_5": _is(counts=1), "V2_6_34": _is(counts=2)},
    "add_children": {"V5_5": _is(counts=1), "V2_6_34": _is(counts=2)},
    "copy_vma_neighbours": {"DontunmapApart": _adds(dontunmap_apart=1)},
    "dontunmap_complete": {"DontunmapApart": _adds(dontunmap_apart=1), "V7_3": _adds(anon_pgoff_apart=1)},
    "dup_anon_vma": {"Z10": _is(import_late=1)},
    "dup_mmap_failed": {"V6_18_9": _is(failed_fork_waits=1)},
    "folio_add_anon_rmap_pte": {"ReuseByCount": _adds(no_exclusive=1)},
    "folio_add_new_anon_rmap": {"ReuseByCount": _adds(no_exclusive=1)},
    "folio_move_anon_rmap": {"ReuseByCount": _adds(no_exclusive=1), "Z21e": _adds(move_keeps_mapping=1)},
    "grow_vma_down": {"V6_12": _adds(stack_lock=1), "V2_6_34": _ALIKE},
    "is_mergeable_anon_vma": {
        "V6_12": _is(merge_rule=1),
        "V2_6_34": _is(merge_rule=2),
        "Z08": _is(merge_rule=3),
        "Z09": _is(merge_rule=1),
    },
    "lock_anon_vma_root": {"V6_18_3": _ALIKE},
    "may_unaccount": {"V6_1": _is(keeps_account=1)},
    "move_pgt_entry": {"TablesMovedUnlocked": _adds(rmap_locks=1), "TablesMovedByEntry": _adds(tables_by_entry=1)},
    "prep_move_vma": {"DontunmapApart": _adds(dontunmap_apart=1), "OneVmaMoved": _MORE},
    "prepare_guards": {"V6_18_9": _is(guards_need_anon_vma=1)},
    "publish_anon_vma": {"PublishingBarrier": _ALIKE},
    "put_anon_vma": {"V2_6_34": _is(put=2), "Z32": _is(put=1), "Z33": _is(put=2)},
    "remap_one": {"OneVmaMoved": _is(one_vma_moved=1)},
    "reusable_anon_vma": {"Z20": _is(reusable_any=1)},
    "split_vma": {"Z12": _adds(split_forgets_failure=1)},
    "try_reuse_anon_vma": {
        "V6_18_8": _is(reuse=1),
        "V5_5": _is(reuse=2),
        "V4_0": _is(reuse=3),
        "Z22": _is(reuse=4),
    },
    "take_rmap_locks": {"MovesUnlocked": _is(rmap_locks=2)},
    "drop_rmap_locks": {"MovesUnlocked": _is(rmap_locks=2)},
    "unlink_anon_vmas": {
        "V6_18_3": _is(unlink=1),
        "V6_18_2": _is(unlink=1, clone_walks_unfaulted=1),
        "V2_6_34": _is(unlink=2),
    },
    "unlink_chain": {"V6_18_3": _ALIKE},
    "unlink_removed_vma": {"V6_18_4": _is(merge_checks=1)},
    "unlock_anon_vma_root": {"V6_18_3": _ALIKE},
    "vma_complete": {"V2_6_34": _MORE},
    "vma_expand": {"Z07": _adds(expand_forgets_source=1), "Z17": _adds(copy_keeps_pgoff=1)},
    "vma_iter_prealloc": {"VmasInRedBlackTree": _ALIKE},
    "vma_merge_existing_range": {"Z13": _adds(merge_in_two_rounds=1)},
    "vma_merge_mapped_range": {"V6_0": _ALIKE, "V6_1": _is(mmap_asks_behind=1)},
    "vma_prepare": {"V2_6_34": _ALIKE},
    "vrm_move_only": {"OneVmaMoved": _ALIKE},
    "wp_can_reuse_anon_folio": {"ReuseByCount": _is(no_exclusive=1)},
    # v7.3's offsets of anonymous pages
    "anon_vma_compatible": {"V7_3": _adds(anon_pgoff_apart=1)},
    "can_vma_merge_left": {"V7_3": _adds(anon_pgoff_apart=1)},
    "can_vma_merge_right": {"V7_3": _adds(anon_pgoff_apart=1)},
    "copy_vma": {"V7_3": _adds(anon_pgoff_apart=1)},
    "merge_anon_pgoff": {"V7_3": _ALIKE},
    "needs_adjacent_anon_pgoff": {"V7_3": _ALIKE},
    "vm_area_alloc": {"V7_3": _adds(anon_pgoff_apart=1)},
    "vma_set_range": {"V7_3": _adds(anon_pgoff_apart=1)},
    # swap, pins and KSM
    "do_wp_page": {"KsmPageReused": _MORE},  # the attribute says whether
    "folio_needs_cow_for_dma": {"PinnedUnnoticed": _is(pins_unnoticed=1)},
    "folio_try_share_anon_rmap_pte": {"PinnedUnnoticed": _is(pins_unnoticed=1)},
    "gup_must_unshare": {"PinnedUnnoticed": _is(pins_unnoticed=1), "PinsPagesOfFiles": _adds(pins_pages_of_files=1)},
    "ksm_walk_range": {"V7_3": _is(ksm_walks_offset=1)},
    "map_swapped_page": {"ReuseByCount": _is(no_exclusive=1)},
    "reuse_ksm_page": {"KsmPageReused": _ALIKE},
    "reuse_swap_page": {"ReuseByCount": _ALIKE},
    "shrink_folio": {"PinnedUnnoticed": _adds(pins_unnoticed=1)},
    "swapin_sole_reference": {"V6_18_9": _is(swapin_sole_reference=1)},
    # walks
    "anon_mapping_changed": {"V6_18_9": _ALIKE, "V6_1": _ALIKE},
    "rmap_walk": {"UnlockedWalk": _ALIKE},
    "rmap_walk_anon": {"UnlockedWalk": _is(unlocked_walk=1), "V2_6_34": _MORE},
    # what no call that the engine makes comes to
    "alloc_anon_folio": {"HugePagesOnly": _ALIKE},
    "do_huge_pmd_wp_page": {"HugePagesCopied": _ALIKE},
    "lock_moved_folio": {"MoveLocksAnonVma": _ALIKE},
    "madvise_collapse": {"NoMadviseCollapse": _ALIKE},
    "mapped_pages": {"ReuseByCount": _ALIKE},
    "reuse_huge_folio": {"HugePagesCopied": _ALIKE},
    "thp_vma_allowable": {"NoLargeFolios": _ALIKE},
    "unlock_moved_folio": {"MoveLocksAnonVma": _ALIKE},
    "wp_can_reuse_large_anon_folio": {"LargeFoliosCopied": _ALIKE, "ReuseByCount": _ALIKE},
}


_ATTRIBUTES = ("reuses_ksm_pages", "swapin_names_own")
"""Attributes of classes that functions ask for, and parameters of the same name; a class without one does not ask."""


def parameters_of(series: type[Kernel]) -> dict[str, int]:
    """The parameters of a series that the engine knows; those that are 0 are left out."""
    found: dict[str, int] = {name: 1 for name in _ATTRIBUTES if getattr(series, name, False)}
    for name in _overridden(series):
        for known in _definitions(series, name):
            assert known is not None, name
            found |= {key: max(value, found.get(key, 0)) for key, value in known.parameters.items()}
            if not known.goes_on:
                break
    return found


def unknown_function(series: type[Kernel]) -> str:
    """A function that the series defines in its own way, unknown to the engine; empty if there is none."""
    for name in _overridden(series):
        for known in _definitions(series, name):
            if known is None:
                return name
            if not known.goes_on:
                break
    return ""


def patched_function(series: type[Kernel]) -> str:
    """A function that somebody has put in the place of a class's own while the program ran; empty if none."""
    for base in series.__mro__[:-1]:
        for name, value in vars(base).items():
            if isinstance(value, FunctionType) and value.__qualname__ != f"{base.__qualname__}.{name}":
                return name
    return ""


def _overridden(series: type[Kernel]) -> list[str]:
    """The functions of which a series has a definition other than the specification's, sorted."""
    newer = series.__mro__[: series.__mro__.index(Kernel)]
    return sorted({name for base in newer for name, value in vars(base).items() if callable(value)} - {"__init__"})


def _definitions(series: type[Kernel], name: str) -> Iterator[_Known | None]:
    """What is known of each definition of a function, as Python looks for them; None for one that is unknown."""
    for base in series.__mro__[: series.__mro__.index(Kernel)]:
        if name in vars(base):
            own = base.__module__.startswith(("rmaplab.series.", "rmaplab.designs."))
            yield _TABLE.get(name, {}).get(base.__name__) if own else None
