# SPDX-License-Identifier: GPL-2.0-only
"""What is wrong with a state is still wrong, and still reported, when it was read from a snapshot."""

import page_corruptions  # noqa: F401 (adds to CORRUPTIONS)
import pytest
from corruptions import CORRUPTIONS, healthy

from rmaplab.check.rebuild import rebuild
from rmaplab.check.validate import validate
from rmaplab.kernel import Kernel

UNSEEN = {
    "a_vma_grew_while_it_was_in_a_tree": "a snapshot shows the order of a tree, not its keys",
    "an_avc_is_freed_while_it_is_on_a_list": "a snapshot counts allocated AVCs: AV-015 reports it",
    "an_anon_vma_is_freed_twice": "it happened earlier; nothing is left to see",
    "a_migration_entry_is_out_of_reach": "a snapshot does not show migration entries",
    "a_migration_entry_is_left_behind": "a snapshot does not show migration entries",
    "a_mapped_page_stays_in_the_swap_cache_of_a_lost_slot": "a snapshot shows slots that entries name",
}
CASES = [(ident, corrupt) for ident, ways in CORRUPTIONS.items() for corrupt in ways]


@pytest.mark.parametrize(("ident", "corrupt"), CASES, ids=[corrupt.__name__ for _, corrupt in CASES])
def test_a_corrupted_state_is_reported_from_its_snapshot_as_well(ident, corrupt):
    kernel, *processes = healthy()
    corrupt(kernel, *processes)
    snapshot = kernel.snapshot()
    assert rebuild(snapshot, Kernel).snapshot() == snapshot
    found = {report.id for report in validate(snapshot, Kernel).violations}
    assert (ident in found) is (corrupt.__name__ not in UNSEEN)


def test_every_exception_is_a_corruption():
    assert set(UNSEEN) <= {corrupt.__name__ for _, corrupt in CASES}
