# SPDX-License-Identifier: GPL-2.0-only
"""Areas: ranges of an address space, as calls are given them."""

from __future__ import annotations

from typing import NamedTuple

from rmaplab.kernel.flags import PAGE_SHIFT

__all__ = ["Area"]


class Area(NamedTuple):
    """A range of an address space: first byte, and length in pages."""

    start: int
    pages: int

    def page(self, index: int) -> int:
        """Address (bytes) of one of the pages; :class:`IndexError` beyond them."""
        if not 0 <= index < self.pages:
            raise IndexError(f"page {index} of an area of {self.pages}")
        return self.start + (index << PAGE_SHIFT)

    def part(self, first: int, last: int) -> Area:
        """The area of the pages first to last, inclusive; :class:`IndexError` if it has not got them."""
        if not 0 <= first <= last < self.pages:
            raise IndexError(f"pages {first} to {last} of an area of {self.pages}")
        return Area(self.start + (first << PAGE_SHIFT), last - first + 1)

    @property
    def end(self) -> int:
        """First byte behind the area."""
        return self.start + (self.pages << PAGE_SHIFT)
