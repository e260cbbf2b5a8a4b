# SPDX-License-Identifier: GPL-2.0-only
"""A snapshot becomes a machine again: the same, healthy or broken; and a part of one is judged fairly."""

from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshot_parts import histories, part_of

from rmaplab.check.execute import execute
from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.check.rebuild import rebuild
from rmaplab.check.validate import Unjudged, validate
from rmaplab.errors import InputError
from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import flags_name, parse_flags
from rmaplab.kernel.objects import Folio, Mm, SwapSlot, Vma
from rmaplab.scenario import Exit, Fork, Pages, Write
from rmaplab.scenario.generator import EXTRA
from rmaplab.series import SERIES, find

NAMES = ("v7.0", "v6.18", "v6.12.112", "v6.0", "v7.3", "v3.19", "v2.6.34", "v2.6.32")

WITHOUT_KSM = {kind: often for kind, often in EXTRA.items() if kind != "ksm"}  # whose notes nobody else can read


def ids(reports):
    return {report.id for report in reports}


# --- the same again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_a_machine_made_from_a_snapshot_has_this_snapshot_and_breaks_what_the_first_did(name, seed):
    (kernel,) = histories(name, [seed])
    kernel.events.take_reports()
    snapshot = kernel.snapshot()
    again = rebuild(snapshot, find(name))
    assert again.snapshot() == snapshot
    assert again.snapshot(canonical=False) == snapshot
    assert ids(violations(again)) == ids(violations(kernel))
    own = kernel.snapshot(canonical=False)
    assert rebuild(own, find(name)).snapshot(canonical=False) == own


@pytest.mark.parametrize("name", ["v7.0", "v6.18", "v6.12.112", "v6.0", "v7.3"])
def test_a_machine_made_from_a_snapshot_is_healthy_and_runs_on(name):
    for kernel in histories(name, range(20)):
        again = rebuild(kernel.snapshot(), find(name))
        assert violations(again) == []
        assert violations(again.copy()) == []
        for process in list(again.processes.values()):
            for area in process.areas:
                assert execute(again, Write(process.name, Pages(area, 0, 0))).violations == []
        first = next(iter(again.processes))
        assert execute(again, Fork(first, "another")).violations == []
        for process in list(again.processes):
            assert execute(again, Exit(process)).violations == []
        again.ksmd()
        assert again.live_anon_vmas == {}


def test_what_a_process_does_next_is_the_same_on_both():
    kernel, _, p1 = family()
    again = rebuild(kernel.snapshot(), Kernel)
    for machine in (kernel, again):
        twin = machine.processes["P1"]
        twin.munmap(p1.areas["a"].part(1, 1))
        twin.write(p1.areas["a"], 2)
        twin.fork("P9")
    assert again.snapshot() == kernel.snapshot()


def family(series=Kernel):
    """P0 with two trees of three pages and one, and its child P1 with pages of its own."""
    kernel = monitored(series)()
    p0 = kernel.spawn()
    p0.areas = {"a": p0.mmap(3), "b": p0.mmap(1)}
    for area in p0.areas.values():
        p0.write(area)
    p1 = p0.fork("P1")
    p1.write(p1.areas["a"], 0)
    return kernel, p0, p1


def test_processes_with_one_mm_have_one_again():
    kernel, p0, _ = family()
    p0.share("T")
    again = rebuild(kernel.snapshot(), Kernel)
    assert again.snapshot() == kernel.snapshot()
    assert again.processes["T"].mm is again.processes["P0"].mm
    assert execute(again, Exit("P0")).violations == []
    assert len(again.processes["T"].mm.vmas) == 2
    for name in ("T", "P1"):
        assert execute(again, Exit(name)).violations == []
    assert again.live_anon_vmas == {}
    assert again.slab.anon_vma.wasted == again.slab.anon_vma_chain.wasted == 0


def test_new_objects_get_numbers_that_nobody_has():
    kernel, p0, _ = family()
    p0.mmap(2)
    p0.swapout(p0.areas["b"], cached=False)
    again = rebuild(kernel.snapshot(canonical=False), Kernel)
    highest = {
        Mm: max(process.mm.id for process in again.processes.values()),
        Vma: max(vma.id for process in again.processes.values() for vma in process.mm.vmas),
        Folio: max(int(view.id.removeprefix("folio")) for view in kernel.snapshot(canonical=False).folios),
        SwapSlot: 1,
    }
    for kind, number in highest.items():
        assert again.new_ident(kind) > number
    assert again.anon_vma_alloc().id not in {av.id for av in kernel.live_anon_vmas.values()}
    assert all(vma.attached for process in again.processes.values() for vma in process.mm.vmas)


def test_a_page_that_is_pinned_is_still_copied_by_fork():
    kernel, p0, _ = family()
    p0.write(p0.areas["a"], 2)
    p0.pin(p0.areas["a"].part(2, 2))
    again = rebuild(kernel.snapshot(), Kernel)
    for machine in (kernel, again):
        machine.processes["P0"].fork("P9")
    assert again.snapshot() == kernel.snapshot()


# --- broken snapshots ------------------------------------------------------------------------------------


def changed(snapshot, kind, place, **changes):
    """The snapshot with other fields in one of its anon_vmas, folios, slots or processes."""
    views = list(getattr(snapshot, kind))
    views[place] = replace(views[place], **changes)
    return replace(snapshot, **{kind: tuple(views)})


def changed_vma(snapshot, process, place, **changes):
    vmas = list(snapshot.processes[process].vmas)
    vmas[place] = replace(vmas[place], **changes)
    return changed(snapshot, "processes", process, vmas=tuple(vmas))


def first_pte(snapshot, place, **changes):
    ptes = snapshot.folios[place].ptes
    return changed(snapshot, "folios", place, ptes=(replace(ptes[0], **changes), *ptes[1:]))


BROKEN = {
    "a chain lacks an entry": ("AV-001", lambda s: changed_vma(s, 1, 0, chain=s.processes[1].vmas[0].chain[1:])),
    "a tree lacks an entry": ("AV-001", lambda s: changed(s, "anon_vmas", 0, tree=s.anon_vmas[0].tree[1:])),
    "a tree has an unknown VMA": ("AV-001", lambda s: changed(s, "anon_vmas", 0, tree=(*s.anon_vmas[0].tree, "?"))),
    "a chain has an entry twice": (
        "AV-002",
        lambda s: changed_vma(s, 0, 0, chain=2 * s.processes[0].vmas[0].chain),
    ),
    "a VMA lost its anon_vma": ("AV-003", lambda s: changed_vma(s, 0, 0, anon_vma=None)),
    "a VMA has that of another tree": ("AV-004", lambda s: changed_vma(s, 0, 0, anon_vma="av1")),
    "a root of a chain differs": ("AV-005", lambda s: changed(s, "anon_vmas", 2, root="av1")),
    "a parent is elsewhere": ("AV-006", lambda s: changed(s, "anon_vmas", 2, parent="av1")),
    "a tree is out of order": ("AV-010", lambda s: changed_vma(s, 0, 0, anon_pgoff=1 << 40)),
    "num_active_vmas": ("AV-011", lambda s: changed(s, "anon_vmas", 0, num_active_vmas=2)),
    "num_children": ("AV-012", lambda s: changed(s, "anon_vmas", 0, num_children=1)),
    "refcount": ("AV-013", lambda s: changed(s, "anon_vmas", 0, refcount=7)),
    "an AVC leaked": ("AV-015", lambda s: replace(s, slab=replace(s.slab, anon_vma_chain=s.slab.anon_vma_chain + 1))),
    "an AVC is missing": (
        "AV-015",
        lambda s: replace(s, slab=replace(s.slab, anon_vma_chain=s.slab.anon_vma_chain - 1)),
    ),
    "num_children below zero": ("AV-017", lambda s: changed(s, "anon_vmas", 0, num_children=(1 << 64) - 1)),
    "no reference is left": ("AV-018", lambda s: changed(s, "anon_vmas", 0, refcount=0)),
    "a chain has a freed anon_vma": (
        "AV-018",
        lambda s: changed_vma(s, 0, 1, chain=("av9",), anon_vma="av9"),
    ),
    "a parent is freed": ("AV-019", lambda s: changed(s, "anon_vmas", 2, parent="av9")),
    "a folio names a freed anon_vma": ("AV-021", lambda s: changed(s, "folios", 0, mapping="av9")),
    "a shared folio names the child's": ("AV-030", lambda s: changed(s, "folios", 1, mapping="av2")),
    "mapcount": ("AV-041", lambda s: changed(s, "folios", 0, mapcount=3)),
    "a shared folio is exclusive": ("AV-042", lambda s: changed(s, "folios", 1, exclusive=True)),
    "a shared folio is writable": ("AV-042", lambda s: first_pte(s, 1, writable=True)),
    "index": ("AV-044", lambda s: changed(s, "folios", 0, index=s.folios[0].index + 1)),
    "mapped where no VMA is": ("AV-044", lambda s: first_pte(s, 0, address=0x1000)),
    "a swap slot's count": ("AV-048", lambda s: changed(s, "swap", 0, count=5)),
    "a VMA forbids writing": ("AV-049", lambda s: changed_vma(s, 1, 0, flags="rd")),
}


def swapped_family():
    kernel, p0, _ = family()
    p0.swapout(p0.areas["b"], cached=False)
    return kernel.snapshot()


def test_the_snapshot_that_will_be_broken_is_whole():
    snapshot = swapped_family()
    assert validate(snapshot, Kernel).violations == ()
    assert [view.id for view in snapshot.anon_vmas] == ["av0", "av1", "av2", "av3"]
    assert snapshot.anon_vmas[2].parent == "av0"
    assert [len(folio.ptes) for folio in snapshot.folios[:2]] == [1, 2]
    assert len(snapshot.swap) == 1


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_snapshot_is_reported_and_not_repaired(name):
    ident, break_it = BROKEN[name]
    snapshot = break_it(swapped_family())
    assert ident in ids(validate(snapshot, Kernel).violations)
    again = rebuild(snapshot, Kernel).snapshot(canonical=False)
    kept = replace(snapshot, slab=again.slab)
    assert sorted_views(again) == sorted_views(kept)


def sorted_views(snapshot):
    """With names that are kept, the order in which objects are met does not matter."""
    by_id = {
        kind: sorted(getattr(snapshot, kind), key=lambda view: view.id) for kind in ("anon_vmas", "folios", "swap")
    }
    return replace(snapshot, **by_id)


def test_chains_out_of_order_are_told_where_they_have_an_order():
    kernel, _, _ = family(SERIES["v6.12"])
    snapshot = kernel.snapshot()
    chain = snapshot.processes[1].vmas[0].chain
    assert len(chain) == 2
    turned = changed_vma(snapshot, 1, 0, chain=chain[::-1])
    assert ids(validate(turned, SERIES["v6.12"]).violations) == {"AV-024"}
    assert validate(turned, SERIES["v7.0"]).violations == ()
    detail = validate(turned, SERIES["v6.12"]).violations[0].detail
    assert detail == f"vma2: [{chain[1]}, {chain[0]}]"


def test_chains_that_contradict_each_other_are_told():
    kernel, _, _ = family(SERIES["v6.12"])
    p1 = kernel.processes["P1"]
    grandchild = p1.fork("P2")
    grandchild.mprotect(grandchild.areas["a"].part(1, 1), "r")
    snapshot = kernel.snapshot()
    vmas = snapshot.processes[2].vmas
    assert len(vmas[0].chain) == 3
    assert validate(snapshot, SERIES["v6.12"]).violations == ()
    head, middle, last = vmas[0].chain
    swapped = changed_vma(snapshot, 2, 0, chain=(middle, head, last))
    assert ids(validate(swapped, SERIES["v6.12"]).violations) == {"AV-024"}


def renamed(value, names):
    """A snapshot, or a part of one, with some names exchanged."""
    if is_dataclass(value):
        return replace(value, **{field.name: renamed(getattr(value, field.name), names) for field in fields(value)})
    if isinstance(value, tuple):
        return tuple(renamed(entry, names) for entry in value)
    return names.get(value, value) if isinstance(value, str) else value


def test_parents_are_older_whatever_their_names():
    kernel, _, _ = family(SERIES["v6.12"])
    exchanged = {"av0": "av2", "av2": "av0"}
    snapshot = renamed(kernel.snapshot(), exchanged)
    assert validate(snapshot, SERIES["v6.12"]).violations == ()
    turned = changed_vma(snapshot, 1, 0, chain=snapshot.processes[1].vmas[0].chain[::-1])
    for views in (turned.anon_vmas, turned.anon_vmas[::-1]):
        (report,) = validate(replace(turned, anon_vmas=views), SERIES["v6.12"]).violations
        assert report == ("AV-024", "vma2: [av2, av0]")


def test_a_degree_that_is_wrong_is_told_on_a_series_that_has_it():
    kernel, _, _ = family(SERIES["v3.19"])
    snapshot = kernel.snapshot()
    assert validate(snapshot, SERIES["v3.19"]).violations == ()
    assert ids(validate(changed(snapshot, "anon_vmas", 0, degree=7), SERIES["v3.19"]).violations) == {"AV-050"}


# --- a part of a machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v7.0", "v6.18", "v7.3", "v6.0"])
@settings(max_examples=40, derandomize=True)
@given(seed=st.integers(0, 10_000), chosen=st.sets(st.integers(0, 5), min_size=1))
def test_a_part_of_a_healthy_machine_breaks_nothing(name, seed, chosen):
    (kernel,) = histories(name, [seed], extra=WITHOUT_KSM)
    snapshot = kernel.snapshot()
    kept = {process.name for at, process in enumerate(snapshot.processes) if at in chosen}
    part = part_of(snapshot, kept)
    assert validate(part, find(name), partial=True).violations == ()
    for lost in part.anon_vmas:
        less = replace(part, anon_vmas=tuple(view for view in part.anon_vmas if view is not lost))
        assert validate(less, find(name), partial=True).violations == ()


def test_an_unread_process_looks_like_a_corruption_to_who_thinks_he_has_read_all():
    kernel, _, _ = family()
    part = part_of(kernel.snapshot(), {"P0"})
    assert {"AV-001", "AV-011", "AV-041"} - ids(validate(part, Kernel).violations) == {"AV-011"}
    assert validate(part, Kernel, partial=True).violations == ()


def test_trees_of_which_all_was_read_are_judged_in_full():
    kernel, _, p1 = family()
    p1.munmap(p1.areas["b"])
    part = part_of(kernel.snapshot(), {"P0"})
    assert [view.tree for view in part.anon_vmas] == [("vma0", "?"), ("vma1",)]
    both = changed(changed(part, "anon_vmas", 1, refcount=2), "anon_vmas", 0, refcount=9)
    (report,) = validate(both, Kernel, partial=True).violations
    assert report.id == "AV-013"
    assert report.detail == "av1: refcount 2, expected 1"
    folio = next(at for at, view in enumerate(part.folios) if view.mapping == "av1")
    counted = changed(part, "folios", folio, mapcount=5)
    assert ids(validate(counted, Kernel, partial=True).violations) == {"AV-041"}


LOCAL = sorted(set(BROKEN) - {"a tree has an unknown VMA", "a parent is freed", "a swap slot's count"})


@pytest.mark.parametrize("name", LOCAL)
def test_in_a_part_each_tree_shows_what_it_can(name):
    """P1 is read with its parent, but a second child is not: its VMAs are in the trees of P0."""
    ident, break_it = BROKEN[name]
    kernel, p0, _ = family()
    p0.fork("unread")
    part = part_of(kernel.snapshot(), {"P0", "P1"})
    found = validate(break_it(part), Kernel, partial=True)
    told = {entry.id for entry in found.unjudged}
    assert ident in ids(found.violations) | told
    if ident in ("AV-002", "AV-003", "AV-004", "AV-005", "AV-006", "AV-010", "AV-017", "AV-042", "AV-044", "AV-049"):
        assert ident in ids(found.violations)


def test_what_cannot_be_judged_is_named_with_its_reason():
    kernel, _, _ = family()
    snapshot = kernel.snapshot()
    assert validate(snapshot, Kernel).unjudged == (Unjudged("AV-047", "a snapshot does not show migration entries"),)
    whole = {entry.id: entry.reason for entry in validate(snapshot, Kernel, partial=True).unjudged}
    assert set(whole) == {"AV-040", "AV-047", "AV-048"}
    part = {entry.id: entry.reason for entry in validate(part_of(snapshot, {"P1"}), Kernel, partial=True).unjudged}
    assert part["AV-011"] == part["AV-041"] == "VMAs of 2 trees were not read"
    assert part["AV-001"] == "freed VMAs in 2 trees would look like unread ones"
    assert "AV-044" not in part
    assert "AV-050" not in part  # not a promise of this series
    less = part_of(snapshot, {"P1"})
    less = replace(less, anon_vmas=less.anon_vmas[1:])
    blind = {entry.id: entry.reason for entry in validate(less, Kernel, partial=True).unjudged}
    assert "were not read" in blind["AV-044"]


def test_merged_pages_without_ksms_notes_leave_references_open():
    kernel, p0, _ = family()
    p0.madvise(p0.areas["a"], "mergeable")
    p0.ksm_merge(p0.areas["a"].part(0, 0), "zeros")
    snapshot = kernel.snapshot()
    assert validate(snapshot, Kernel).violations == ()
    before = replace(snapshot, ksm=(), folios=())
    assert [entry.id for entry in validate(before, Kernel).unjudged] == ["AV-013", "AV-047"]
    read = replace(
        snapshot,
        ksm=(),
        folios=tuple(replace(folio, ksm="?" if folio.ksm else None) for folio in snapshot.folios),
    )
    for partial in (False, True):
        found = validate(read, Kernel, partial=partial)
        assert found.violations == ()
        assert any(entry.id == "AV-013" and "merged" in entry.reason for entry in found.unjudged)


def two_trees():
    """The part with P0 alone: of its first tree the child has VMAs as well, its second is its own."""
    kernel, p0, p1 = family()
    p1.munmap(p1.areas["b"])
    return kernel, p0, part_of(kernel.snapshot(), {"P0"})


def test_pages_that_name_an_unread_anon_vma_are_left_out_and_said_to_be():
    _, _, part = two_trees()
    own = next(at for at, view in enumerate(part.folios) if view.mapping == "av1")
    found = validate(changed(part, "folios", own, mapping="av9"), Kernel, partial=True)
    assert found.violations == ()
    told = {entry.id: entry.reason for entry in found.unjudged}
    assert told["AV-021"] == told["AV-044"] == "pages that name an anon_vma that was not read: 1"


def test_a_page_between_two_trees_is_judged_as_one_of_the_less_known():
    _, _, part = two_trees()
    first = next(at for at, view in enumerate(part.folios) if view.mapping == "av0" and len(view.ptes) == 1)
    moved = changed(part, "folios", first, mapping="av1", mapcount=2)
    assert ids(validate(moved, Kernel, partial=True).violations) == {"AV-030", "AV-044"}


def test_swap_slots_may_be_named_by_unread_processes():
    kernel, p0, _ = family()
    p0.swapout(p0.areas["b"], cached=False)
    part = part_of(kernel.snapshot(), {"P0"})
    assert part.swap[0].count == 2
    assert len(part.swap[0].ptes) == 1
    assert validate(part, Kernel, partial=True).violations == ()
    assert ids(validate(part, Kernel).violations) >= {"AV-048"}


def test_merged_pages_may_be_mapped_by_unread_processes():
    kernel, p0, _ = family()
    other = kernel.spawn("other")
    area = other.mmap(1)
    other.write(area)
    for process, part in ((p0, p0.areas["b"]), (other, area)):
        process.madvise(part, "mergeable")
        process.ksm_merge(part, "ones")
    part = part_of(kernel.snapshot(), {"other"})
    assert [len(view.ptes) for view in part.folios] == [1]
    assert part.folios[0].mapcount == 3
    assert validate(part, Kernel, partial=True).violations == ()


def test_what_is_wrong_in_a_part_is_told_once():
    kernel, p0, p1 = family()
    p1.mprotect(p1.areas["a"].part(2, 2), "r")
    p0.fork("unread")
    part = part_of(kernel.snapshot(), {"P0", "P1"})
    shorter = changed_vma(part, 1, 0, chain=part.processes[1].vmas[0].chain[:1])
    found = [report.id for report in validate(shorter, Kernel, partial=True).violations]
    assert found.count("AV-008") == 1


def test_an_unread_parent_or_root_is_not_called_freed():
    """Even of a chain that lacks it, so that nothing but the child itself leads there."""
    kernel, _, p1 = family()
    p1.fork("P2").write(p1.areas["a"], 1)
    part = part_of(kernel.snapshot(), {"P2"})
    vma = part.processes[0].vmas[0]
    own = next(view for view in part.anon_vmas if view.id == vma.anon_vma)
    assert len({own.id, own.parent, own.root}) == 3
    lost = changed_vma(part, 0, 0, chain=(own.id,))
    assert ids(validate(lost, Kernel, partial=True).violations) >= {"AV-006"}
    for name in (own.parent, own.root):
        unread = replace(lost, anon_vmas=tuple(view for view in lost.anon_vmas if view.id != name))
        assert validate(unread, Kernel, partial=True).violations == ()


# --- what is no snapshot ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda s: changed(s, "anon_vmas", 0, id="root"), "'root' in a snapshot: .* are av and a number"),
        (lambda s: changed(s, "anon_vmas", 0, id="av01"), "'av01'"),
        (lambda s: changed(s, "processes", 0, mm="0"), "are mm and a number"),
        (lambda s: changed(s, "processes", 0, name="P1"), "two processes of the name P1"),
        (lambda s: changed_vma(s, 0, 0, flags="rd zz"), "vma0: unknown flags zz; known are rd wr"),
        (lambda s: changed(s, "folios", 0, order=200), "folio0 has the order 200"),
        (lambda s: changed(s, "swap", 0, folio="folio99"), "slot0 has folio99 in the swap cache"),
    ],
)
def test_a_snapshot_that_makes_no_sense_is_refused_in_words(wrong, told):
    with pytest.raises(InputError, match=told):
        rebuild(wrong(swapped_family()), Kernel)


def test_flags_are_read_as_they_are_written():
    every = parse_flags("rd wr ex sh gd gu lo sr rr dc ac nr wf dd hg nh mg")
    assert parse_flags(flags_name(every)) == every
    assert bin(every).count("1") == 17
    assert parse_flags("") == 0
