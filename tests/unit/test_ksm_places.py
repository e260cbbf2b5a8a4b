# SPDX-License-Identifier: GPL-2.0-only
"""KSM: where a range of places ends, and places whose page is not what ksmd left there."""

import errno

import pytest
from ksm_parts import end, found, holds, items, mergeable, merged, node
from machine_parts import BASE, folio, vma
from swap_parts import page_state

from rmaplab.kernel.process import Area


def refused(call, *args):
    with pytest.raises(OSError) as error:  # noqa: PT011 (the errno is looked at)
        call(*args)
    return error.value.errno


def test_a_range_ends_at_the_first_page_that_is_not_merged(kernel, parent):
    area = mergeable(parent, 3)
    parent.pin(area.part(1, 1))
    assert refused(parent.ksm_merge, area, "X") == errno.EBUSY
    assert items(kernel) == [(parent.mm, area.page(0), vma(parent).anon_vma)]
    assert folio(parent, area, 2).stable_node is None
    end(kernel)


def test_neither_a_hole_nor_a_page_never_touched_is_merged(kernel, parent):
    area = mergeable(parent, 2)
    parent.munmap(area.part(1, 1))
    assert refused(parent.ksm_merge, area.part(1, 1), "X") == errno.EINVAL
    untouched = parent.mmap(1)
    parent.madvise(untouched, "mergeable")
    assert refused(parent.ksm_merge, untouched, "X") == errno.EINVAL
    assert not kernel.stable_tree
    end(kernel)


def test_a_merged_page_that_fork_has_shared_is_noted_as_soon_as_ksmd_comes_to_it(kernel, parent):
    area = merged(parent)
    child = parent.fork()
    page = folio(child, area)
    child.ksm_merge(area, "X")
    assert items(kernel) == [
        (child.mm, area.start, vma(child).anon_vma),
        (parent.mm, area.start, vma(parent).anon_vma),
    ]
    assert folio(child, area) is page
    assert page.mapcount == 2
    end(kernel)


def test_unmergeable_leaves_pages_shared_that_were_not_merged(kernel, parent):
    area = mergeable(parent, 2)
    child = parent.fork()
    parent.ksm_merge(area.part(0, 0), "X")
    parent.madvise(area, "unmergeable")
    assert folio(parent, area, 0) is not folio(child, area, 0) is node(kernel).folio
    assert folio(parent, area, 1) is folio(child, area, 1)
    end(kernel)


def test_unmergeable_passes_over_what_is_swapped_out_which_comes_back_merged_and_is_forgotten(kernel, parent):
    area = merged(parent)
    page = folio(parent, area)
    parent.swapout(area, cached=True)
    parent.madvise(area, "unmergeable")
    parent.swapin(area)
    assert folio(parent, area) is page is node(kernel).folio
    assert found(parent, area) == {(parent.mm, area.start)}  # the item is still there
    assert holds(kernel)
    kernel.ksmd()  # does not look at a VMA that is not mergeable
    assert items(kernel) == []
    assert parent.walk(area, 0) == []
    assert refused(parent.migrate, area) == errno.EAGAIN
    parent.write(area)
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, True)
    end(kernel)


def test_a_place_has_one_item_though_two_merged_pages_have_been_there(kernel, parent):
    for content in "XY":  # pages that stay
        merged(kernel.spawn(content), content=content)
    merged(parent, content="Y", at=BASE)
    area = merged(parent, content="X")
    parent.swapout(area, cached=True)
    parent.munmap(Area(BASE, 1))
    moved = parent.mremap(area, at=BASE)  # brings a swap entry of X to where Y was
    parent.swapin(moved)
    assert [(parent.mm, BASE) in {item[:2] for item in items(kernel, content)} for content in "XY"] == [False, True]
    parent.ksm_merge(moved, "X")
    assert [(parent.mm, BASE) in {item[:2] for item in items(kernel, content)} for content in "XY"] == [True, False]
    assert (parent.mm, BASE) in found(parent, moved)
    end(kernel)
