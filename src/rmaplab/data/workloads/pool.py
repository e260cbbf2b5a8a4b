#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""A pool of forked workers that share a table made before the fork, and write to a part of it.

Programs: /usr/bin/python3
"""

import multiprocessing

TABLE: list[list[object]] = [list(range(row, row + 60)) for row in range(4000)]


def work(row: int) -> int:
    """Read one row, and change it: its page is copied."""
    cells = TABLE[row]
    cells[row % len(cells)] = [row] * 20
    return sum(cell for cell in cells if isinstance(cell, int))


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    for _ in range(3):
        with multiprocessing.Pool(6) as pool:
            sum(pool.imap_unordered(work, range(0, 4000, 4), chunksize=25))
