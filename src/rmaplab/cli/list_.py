# SPDX-License-Identifier: GPL-2.0-only
"""List the series, designs, invariants, zoo entries or shipped workloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.cli.catalogue import CATALOGUES
from rmaplab.cli.common import add_output, emit
from rmaplab.report.documents import list_document
from rmaplab.report.text import list_text

if TYPE_CHECKING:
    import argparse

__all__ = ["prepare_parser", "run"]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("what", choices=sorted(CATALOGUES), help="what to list")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    items = CATALOGUES[args.what]()
    emit(args, "list", list_document(args.what, items), lambda: list_text(args.what, items))
    return 0
