# SPDX-License-Identifier: GPL-2.0-only
"""What running kernels were seen to allocate and free, per VMA."""

from machine_parts import Delta

K = 5  # VMAs per process where the experiment on a running kernel had 2000 or more


def apart(process, pages=1):
    """K areas that touch nothing."""
    return [process.mmap(pages) for _ in range(K)]


def test_experiment_read_then_write_fault(kernel, parent):
    added = Delta(kernel)
    areas = apart(parent)
    for area in areas:
        parent.read(area)
    assert added() == (0, 0)
    for area in areas:
        parent.write(area)
    assert added() == (K, K)


def test_experiment_fork_split_and_fork_of_the_split_pairs(kernel, parent):
    areas = apart(parent, 2)
    for area in areas:
        parent.write(area)
    added = Delta(kernel)
    child = parent.fork()
    assert added() == (K, 2 * K)
    child.exit()
    assert added() == (-K, -2 * K)
    for area in areas:
        parent.mprotect(area.part(1, 1), "r")
    assert added() == (0, K)
    parent.fork()
    assert added() == (2 * K, 4 * K)


def test_experiment_neighbour_that_differs_only_in_exec(kernel, parent):
    areas = apart(parent, 2)
    for area in areas:
        parent.mprotect(area.part(1, 1), "rwx")
        parent.write(area, 0)
    added = Delta(kernel)
    for area in areas:
        parent.write(area, 1)
    assert added() == (0, K)
