# SPDX-License-Identifier: GPL-2.0-only
"""What the comments of a scenario say: a title and a text at its head, and a note on each call."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Remarks", "remarks"]


class Remarks(NamedTuple):
    """``title`` is the first comment, ``text`` the paragraphs below it, ``notes`` what stands by statements, by line.

    ``series`` are named by a line ``series: NAME ...`` at the head.  A note
    stands behind its statement, or in the lines right above it.
    """

    title: str
    series: tuple[str, ...]
    text: tuple[str, ...]
    notes: dict[int, str]


def remarks(text: str) -> Remarks:
    """Read the comments; a text without any has none."""
    head: list[str] = []
    above: list[str] = []
    notes: dict[int, str] = {}
    begun = False
    for number, line in enumerate(text.splitlines(), 1):
        statement, mark, comment = (part.strip() for part in line.partition("#"))
        if statement:
            note = " ".join([*above, *([comment] if comment else [])])
            if note:
                notes[number] = note
            above, begun = [], True
        elif mark:
            (above if begun else head).append(comment)
        else:
            above.clear()
    named = [line for line in head if line.startswith("series:")]
    told = [line for line in head if line not in named]
    return Remarks(
        title=told[0] if told else "",
        series=tuple(name for line in named for name in line.removeprefix("series:").split()),
        text=tuple(_paragraphs(told[1:])),
        notes=notes,
    )


def _paragraphs(lines: list[str]) -> list[str]:
    """Lines joined up to the next empty one."""
    found: list[str] = []
    begun = False
    for line in lines:
        if not line:
            begun = False
        elif begun:
            found[-1] += f" {line}"
        else:
            found.append(line)
            begun = True
    return found
