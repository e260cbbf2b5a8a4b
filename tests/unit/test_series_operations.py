# SPDX-License-Identifier: GPL-2.0-only
"""Operations and pages: what each release did otherwise, the old and the new side by side."""

import errno

import pytest
from huge_parts import FIRST, PAGES, holds, machine, pmd
from machine_parts import vma

from rmaplab.check.run import run
from rmaplab.kernel.flags import PMD_ORDER, VM_MAYBE_GUARD
from rmaplab.kernel.locking import ANON_VMA_LOCK
from rmaplab.kernel.pagetable import SwapPte
from rmaplab.scenario import parse
from rmaplab.series import find

LINE = ("v2.6.32", "v2.6.34", "v3.19", "v4.0", "v5.5", "v6.0", "v6.12", "v6.18", "v6.18+9", "v7.0", "v7.3")
WRITTEN = "P0 mmap A 2 at=0x10000000\nP0 write A\n"
SHARED = "P0 mmap A 1\nP0 write A\nP0 fork P1\n"


def outcome(series, text):
    result = run(parse(text), find(series))
    assert result.violations == [], series
    return result


def machine_after(series, text):
    result = outcome(series, text)
    assert {statement.errno for statement in result.statements} == {None}, series
    return result.kernel.processes, result.kernel


def page_of(process, area="A", page=0):
    return process.mm.page_table.get(process.areas[area].page(page)).folio


def series_where(told):
    """The series of which it is true."""
    return [series for series in LINE if told(series)]


def since(first, until=None):
    return list(LINE[LINE.index(first) : None if until is None else LINE.index(until) + 1])


def events_of_last(series, text, wanted):
    """How many events of the last statement are wanted ones, told by object and detail."""
    lines = len(text.strip().splitlines())
    events = []
    run(parse(text), find(series), on_event=lambda line, event: events.append((line, event.verb, event.detail)))
    return sum(line == lines and (verb, detail) == wanted for line, verb, detail in events)


# --- calls that were unknown -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "first", "otherwise"),
    [
        (WRITTEN + "P0 madvise A dontfork", "v2.6.32", None),
        (WRITTEN + "P0 madvise A mergeable", "v2.6.32", None),
        (WRITTEN + "P0 madvise A hugepage", "v3.19", "EINVAL"),
        (WRITTEN + "P0 madvise A nohugepage", "v3.19", "EINVAL"),
        (WRITTEN + "P0 madvise A dontdump", "v3.19", "EINVAL"),
        (WRITTEN + "P0 madvise A wipeonfork", "v5.5", "EINVAL"),
        (WRITTEN + "P0 madvise A guard-install", "v6.18", "EINVAL"),
        (WRITTEN + "P0 madvise A guard-remove", "v6.18", "EINVAL"),
        (WRITTEN + "P0 mremap A B dontunmap", "v6.0", "EINVAL"),
        (WRITTEN + "P0 mmap B 1\nP0 uffd-move A[0] B[0]", "v6.12", "EINVAL"),
        (WRITTEN + "P0 mprotect A[1] r\nP0 mremap A B at=0x20000000", "v6.18", "EFAULT"),
    ],
)
def test_a_call_is_known_since(text, first, otherwise):
    errors = {series: outcome(series, text).statements[-1].errno for series in LINE}
    assert errors == {series: None if series in since(first) else otherwise for series in LINE}


def test_several_vmas_moved_at_once_keep_their_distance_and_a_hole_between_them():
    text = "P0 mmap A 3 at=0x10000000\nP0 write A\nP0 munmap A[1]\nP0 mremap A B at=0x20000000"
    processes, _ = machine_after("v7.0", text)
    assert [one.vm_start for one in processes["P0"].mm.vmas] == [0x20000000, 0x20002000]
    result = outcome("v6.12", text)
    assert result.statements[-1].errno == "EFAULT"
    assert [one.vm_start for one in result.kernel.processes["P0"].mm.vmas] == [0x10000000, 0x10002000]


def test_until_v6_0_the_tree_of_vmas_needed_no_memory():
    text = "fail 1 tree\nP0 mmap A 1"
    failing = series_where(lambda series: outcome(series, text).statements[-1].errno == "ENOMEM")
    assert failing == since("v6.12")


@pytest.mark.parametrize("series", LINE)
def test_collapse_can_be_asked_for_since_v6_1(series):
    kernel, process = machine(PMD_ORDER, series=find(series))
    area = process.mmap(PAGES, at=FIRST)
    process.write(area, 0)
    if series in since("v6.12"):
        process.madvise(area, "collapse")
        assert pmd(process).folio.order == PMD_ORDER
    else:
        with pytest.raises(OSError, match="Invalid") as error:
            process.madvise(area, "collapse")
        assert error.value.errno == errno.EINVAL
    assert holds(kernel)


# --- guards and stacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("series", "flagged"), [("v6.18", False), ("v6.18+9", False), ("v7.0", True)])
def test_before_vmas_were_flagged_the_guards_of_a_file_took_an_anon_vma_for_fork_to_copy_them(series, flagged):
    text = "P0 mmap A 1 file=f\nP0 madvise A guard-install\nP0 fork P1"
    processes, kernel = machine_after(series, text)
    assert bool(vma(processes["P0"]).vm_flags & VM_MAYBE_GUARD) == flagged
    assert len(kernel.live_anon_vmas) == (0 if flagged else 2)
    assert not processes["P1"].mm.page_table.get(processes["P1"].areas["A"].start).present


def test_from_v3_8_on_and_until_the_mmap_lock_was_enough_a_stack_grew_under_the_page_table_lock():
    text = "P0 stack-grow 1\nP0 stack-grow 1"
    locking = series_where(lambda series: events_of_last(series, text, ("lock", "page_table_lock write")))
    assert locking == since("v3.19", "v6.12")


# --- mremap's locks ------------------------------------------------------------------------------------------


def moved_table(series):
    """Locks and tables that a move of one whole table of small pages takes."""
    kernel = find(series)()
    process = kernel.spawn()
    area = process.mmap(PAGES, at=FIRST)
    process.write(area, 0)
    locks = kernel.locks.acquisitions[ANON_VMA_LOCK]
    kernel.slab.plan(0)
    process.mremap(area, at=4 * FIRST)
    return kernel.locks.acquisitions[ANON_VMA_LOCK] - locks, kernel.slab.counts["table"]


def test_a_whole_table_moves_since_v5_0_and_under_the_anon_vmas_lock_since_v5_14():
    (unlocked, copied), bare, (locked, moved) = moved_table("v4.0"), moved_table("v5.5"), moved_table("v6.0")
    assert (copied, moved) == (1, 0)
    assert bare == (unlocked, 0)
    assert locked == unlocked + 1


@pytest.mark.parametrize("series", LINE)
def test_until_v3_6_mremap_locked_no_anon_vma(series):
    processes, kernel = machine_after(series, WRITTEN)
    stack = vma(processes["P0"])
    kernel.take_rmap_locks(stack)
    held = kernel.locks.anon_vma_held
    kernel.drop_rmap_locks(stack)
    assert held == (series in since("v3.19"))
    assert kernel.locks.anon_vma_held == 0


def test_until_v6_18_a_moved_page_left_its_anon_vma_under_that_ones_lock():
    text = WRITTEN + "P0 mmap B 1\nP0 write B\nP0 madvise B dontneed\nP0 uffd-move A[0] B[0]"
    locking = series_where(lambda series: events_of_last(series, text, ("lock", "anon_vma write")))
    assert locking == since("v6.12", "v6.18+9")


# --- swap-in and reuse -----------------------------------------------------------------------------------------


def names_own(text, process="P1"):
    """The series in which the page of the process names its VMA's own anon_vma, and no older one."""

    def told(series):
        processes, _ = machine_after(series, text)
        return page_of(processes[process]).mapping is vma(processes[process]).anon_vma

    return series_where(told)


ALL_OWN = ["v2.6.32"]  # where a family has only one


def test_a_read_that_brings_back_a_page_of_its_own_names_the_root_until_entries_remember():
    assert names_own(SHARED + "P1 write A\nP1 swapout A[0]\nP1 swapin A[0]") == [*ALL_OWN, *since("v6.0")]


def test_a_write_that_does_names_its_own_since_v2_6_36():
    assert names_own(SHARED + "P1 write A\nP1 swapout A[0]\nP1 write A") == [*ALL_OWN, *since("v3.19")]


LEFT_IN_CACHE = SHARED + "P0 swapout A[0] cached\nP0 exit\nP1 write A\n"


def test_a_page_that_never_left_memory_keeps_its_name_until_v7_0_looks_at_it_once_more():
    assert names_own(LEFT_IN_CACHE) == [*ALL_OWN, *since("v7.0")]


def test_what_is_exclusive_is_written_in_place_as_it_is_and_what_is_counted_moves():
    again = LEFT_IN_CACHE + "P1 mprotect A r\nP1 mprotect A rw\nP1 write A"
    assert names_own(again) == [*since("v2.6.32", "v5.5"), *since("v7.0")]


def test_no_page_has_an_exclusive_bit_before_v5_19():
    marked = series_where(lambda series: page_of(machine_after(series, WRITTEN)[0]["P0"]).exclusive)
    assert marked == since("v6.0")


def test_from_v5_1_to_v5_8_the_last_of_ksms_pages_was_written_in_place():
    text = WRITTEN + "P0 madvise A mergeable\nP0 ksm A[0..1] same\nP0 madvise A[1] dontneed\n"

    def in_place(series):
        processes, kernel = machine_after(series, text)
        page, node = page_of(processes["P0"]), kernel.stable_tree["same"]
        processes["P0"].write(processes["P0"].areas["A"], 0)
        now = page_of(processes["P0"])
        assert now.mapping is vma(processes["P0"]).anon_vma
        assert kernel.stable_node_is_stale(node)
        return now is page

    assert series_where(in_place) == ["v5.5"]


# --- pins ------------------------------------------------------------------------------------------------------


def test_until_fork_looked_at_pins_the_device_lost_the_page_that_the_process_wrote_next():
    text = "P0 mmap A 1\nP0 write A\nP0 pin A[0]\nP0 fork P1\n"

    def copied(series):
        processes, kernel = machine_after(series, text)
        ((_, pinned),) = processes["P0"].mm.pinned
        copied = page_of(processes["P1"]) is not pinned
        processes["P0"].write(processes["P0"].areas["A"])
        assert (page_of(processes["P0"]) is pinned) == copied
        assert holds(kernel)
        return copied

    assert series_where(copied) == since("v6.0")


@pytest.mark.parametrize(
    ("text", "process", "first"),
    [
        (SHARED + "P1 pin A[0] r", "P1", "v6.0"),
        ("P0 mmap A 1\nP0 read A\nP0 pin A[0] r", "P0", "v6.12"),
        ("P0 mmap A 1 file=f\nP0 read A\nP0 pin A[0] r", "P0", "v6.12"),
    ],
)
def test_a_read_only_pin_unshares_a_page_since(text, process, first):
    def unshared(series):
        processes, _ = machine_after(series, text)
        page = page_of(processes[process])
        return bool(page.anon and page.mapping is vma(processes[process]).anon_vma and page.mapcount == 1)

    assert [series for series in since("v2.6.34") if unshared(series)] == since(first)


def test_a_pinned_page_was_unmapped_and_found_again_in_the_swap_cache_until_reclaim_let_it_be():
    text = "P0 mmap A 1\nP0 write A\nP0 pin A[0]\nP0 swapout A[0]\n"

    def left_alone(series):
        result = outcome(series, text)
        process = result.kernel.processes["P0"]
        ((_, pinned),) = process.mm.pinned
        entry = process.mm.page_table.get(process.areas["A"].start)
        alone = result.statements[-1].errno == "EBUSY"
        assert isinstance(entry, SwapPte) is not alone
        process.write(process.areas["A"])
        assert page_of(process) is pinned
        assert holds(result.kernel)
        return alone

    assert series_where(left_alone) == since("v6.0")
