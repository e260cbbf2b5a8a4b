# SPDX-License-Identifier: GPL-2.0-only
"""Progress on a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

__all__ = ["Bar", "advance", "bar"]


class Bar(Protocol):
    """What a progress bar is told; ``n`` is how far it is."""

    n: float

    def update(self, n: float = 1) -> object:
        """Move it by so much."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Say something beside it."""


class _Unseen:
    """A bar where nobody would see one."""

    n: float = 0

    def update(self, n: float = 1) -> None:
        self.n += n

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        pass


@contextmanager
def bar(args: argparse.Namespace, what: str, unit: str, total: int | None = None) -> Iterator[Bar]:
    """A progress bar on stderr if that is a terminal, with rate and, where the total is known, an estimate."""
    if args.quiet or not sys.stderr.isatty():
        yield _Unseen()
        return
    from tqdm import tqdm  # takes longer to load than most checks take

    tqdm.monitor_interval = 0  # no thread of its own: worker processes are forked
    with tqdm(total=total, desc=what, unit=unit, unit_scale=True, leave=False) as progress:
        yield progress


def advance(progress: Bar) -> Callable[[int], None]:
    """A callback that is told the total so far and moves the bar there."""

    def move(total: int) -> None:
        progress.update(total - progress.n)

    return move
