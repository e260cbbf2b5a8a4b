# SPDX-License-Identifier: GPL-2.0-only
"""A set of addresses as a sorted flat list of the boundaries of its runs."""

from bisect import bisect_left, bisect_right

__all__ = ["RunSet"]


class RunSet:
    """A set of half-open runs [start, end) of integers.

    The boundaries alternate: even places start a run, odd places end one, so
    the parity of a bisection tells inside from outside. Each method costs a
    bisection and the boundaries it replaces. Runs given must not be empty.
    """

    def __init__(self) -> None:
        self._edges: list[int] = []

    def copy(self) -> "RunSet":
        """An independent set of the same runs."""
        other = RunSet()
        other._edges = self._edges.copy()
        return other

    def clear(self) -> None:
        """Empty the set."""
        self._edges.clear()

    def add(self, start: int, end: int) -> None:
        """Put a run in."""
        low, high = bisect_left(self._edges, start), bisect_right(self._edges, end)
        self._edges[low:high] = [start] * (low % 2 == 0) + [end] * (high % 2 == 0)

    def remove(self, start: int, end: int) -> None:
        """Take a run out."""
        low, high = bisect_left(self._edges, start), bisect_right(self._edges, end)
        self._edges[low:high] = [start] * (low % 2) + [end] * (high % 2)

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of a run that are not in the set, ascending."""
        low, high = bisect_right(self._edges, start), bisect_left(self._edges, end)
        edges = [start] * (low % 2 == 0) + self._edges[low:high] + [end] * (high % 2 == 0)
        return list(zip(edges[::2], edges[1::2], strict=True))
