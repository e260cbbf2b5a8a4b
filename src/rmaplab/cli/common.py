# SPDX-License-Identifier: GPL-2.0-only
"""What all verbs share: options, output, progress."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rmaplab.check.invariants import HARM, INVARIANTS
from rmaplab.engine.choice import ENGINES
from rmaplab.errors import InputError, UsageError
from rmaplab.report.documents import stamp
from rmaplab.series import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "add_engine",
    "add_logic",
    "add_only",
    "add_output",
    "emit",
    "given_only",
    "jobs_default",
    "note",
    "positive",
    "seconds",
    "size",
    "standard_input",
]


def add_output(parser: argparse.ArgumentParser) -> None:
    """``--json``, ``-o``, ``-q``, ``-v`` and ``--seed``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the result there instead of to stdout")
    parser.add_argument("-q", "--quiet", action="store_true", help="no messages and no progress on stderr")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of what is random: fuzz and conform (default 0)",
    )


def add_logic(parser: argparse.ArgumentParser, *, several: bool = False, default: str | None = DEFAULT) -> None:
    """``--series NAME`` and ``--design NAME|FILE.py``, which select the modelled logic.

    Without a ``default`` it is that of what is read.
    """
    what = "repeat to compare" if several else f"default {default or 'that of the file'}"
    parser.add_argument(
        "--series",
        "--design",
        dest="series",
        metavar="NAME|FILE.py",
        action="append" if several else "store",
        default=None if several else default,
        help=f"the kernel's logic: a series (see `rmaplab list series`) or a file that subclasses one; {what}",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """``--engine``, which chooses between the specification and the fast engine."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="reference: the specification itself; fast: the compiled engine that is held equal to it "
        "(extra `fast`); auto (default): the engine if there is much to do and it can do it",
    )


def add_only(parser: argparse.ArgumentParser) -> None:
    """``--only ID``, which selects invariants."""
    parser.add_argument(
        "--only",
        metavar="AV-NNN|harm",
        action="append",
        help="judge by this invariant (and crashes) alone, repeatable; harm: those whose violation is "
        "a use-after-free or a page that a walk misses",
    )


def given_only(args: argparse.Namespace) -> tuple[str, ...]:
    """The invariants that ``--only`` names; :class:`UsageError` for one that does not exist."""
    chosen: dict[str, None] = {}
    for ident in args.only or ():
        if ident != "harm" and ident not in INVARIANTS:
            raise UsageError(f"--only: there is no invariant {ident!r}; `rmaplab list invariants` shows them")
        chosen |= dict.fromkeys(HARM if ident == "harm" else (ident,))
    return tuple(chosen)


def emit(args: argparse.Namespace, kind: str, document: dict[str, Any], text: Callable[[], str]) -> None:
    """Write the JSON document, or the text, to stdout or ``-o``."""
    rendered = json.dumps(stamp(kind, document), indent=2) + "\n" if args.json else text()
    if args.output is None or args.output == "-":
        sys.stdout.write(rendered)
        return
    write_file(args.output, rendered)


def write_file(path: str, text: str, remedy: str = "") -> None:
    """Write a file that was asked for; :class:`InputError` with the remedy if that cannot be."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}{remedy}") from error


def note(args: argparse.Namespace, message: str) -> None:
    """A message on stderr, unless ``-q``."""
    if not args.quiet:
        print(f"rmaplab: {message}", file=sys.stderr)


def standard_input() -> BinaryIO:
    """Standard input as bytes; :class:`InputError` if it is closed."""
    if sys.stdin is None:
        raise InputError("-: standard input is closed")
    return sys.stdin.buffer


def size(text: str) -> int:
    """An option's value: an amount of memory in bytes, with K, M, G or T for their powers of 1,024."""
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    shift = units.get(text[-1:].upper(), 0)
    value = int(float(text[:-1] if shift else text) * (1 << shift))
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not an amount of memory such as 2G")
    return value


def positive(text: str) -> int:
    """An option's value: a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a number from 1")
    return value


def seconds(text: str) -> float:
    """An option's value: a time in seconds, from 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a time in seconds")
    return value


def jobs_default() -> int:
    """One worker process for each core that may be used."""
    return max(1, len(os.sched_getaffinity(0)))
