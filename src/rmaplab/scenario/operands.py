# SPDX-License-Identifier: GPL-2.0-only
"""Operands of a statement: page ranges, protections, addresses and invariant ids."""

import re

from rmaplab.scenario.base import Pages
from rmaplab.scenario.calls import PROTECTIONS
from rmaplab.scenario.scope import Scope
from rmaplab.scenario.tokens import Line, quote

__all__ = ["MAX_PAGES", "address", "invariant_id", "one_page", "page_count", "pages", "protection"]

MAX_PAGES = 1 << 35  # the whole user address space of x86-64 with four-level page tables
PAGE_SIZE = 1 << 12
ADDRESS_END = 1 << 47

_DASHED = re.compile(r"([0-9]{1,12})-([0-9]{1,12})")
_ID = re.compile(r"[A-Z][A-Z0-9]*-[0-9]+")


def pages(line: Line, scope: Scope, process: str) -> Pages:
    """Read ``A``, ``A[2]`` or ``A[0..3]``."""
    start = line.peek()
    area, size = scope.area(line, process)
    if not line.skip("["):
        return Pages(area, 0, size - 1)
    first = _page(line, area, size)
    last = _page(line, area, size) if line.skip("..") else first
    line.mark("]", f"after the pages, as in `{area}[0..{size - 1}]`")
    if last < first:
        wrong = f"the range {first}..{last} runs backwards"
        raise line.error(start, wrong, f"expected `{area}[{last}..{first}]`")
    return Pages(area, first, last)


def one_page(line: Line, scope: Scope, process: str, what: str) -> Pages:
    """Read a range of one page; `what` begins the message about more, as in ``a walk starts from one page, not``."""
    start = line.peek()
    page = pages(line, scope, process)
    if page.count != 1:
        raise line.error(start, f"{what} {page.count}", f"expected `{page.area}[{page.first}]`")
    return page


def _page(line: Line, area: str, size: int) -> int:
    token = line.peek()
    if dashed := _DASHED.fullmatch(token.text):
        wrong = f"{quote(token.text)} is no range"
        raise line.error(token, wrong, f"expected `{area}[{dashed[1]}..{dashed[2]}]`")
    return line.integer(f"a page of {area}, which has {size} page{'s' * (size > 1)},", 0, size - 1)


def page_count(line: Line) -> int:
    """Read the length of an area, in pages."""
    return line.integer("the number of pages", 1, MAX_PAGES)


def protection(line: Line) -> str:
    """Read a combination of r, w and x in this order, or ``none``."""
    token = line.peek()
    letters = "".join(c for c in "rwx" if c in token.text)
    if token.text not in PROTECTIONS and sorted(letters) == sorted(token.text) and letters:
        raise line.error(token, f"found {quote(token.text)}", f"expected `{letters}`")
    return line.one_of(PROTECTIONS, "a protection")


def address(line: Line) -> int:
    """Read the start address of an area, in bytes."""
    token = line.peek()
    value = line.integer("an address in bytes", 0, 1 << 64)
    if value >= ADDRESS_END:
        wrong = f"address {value:#x} is beyond the user address space"
        raise line.error(token, wrong, f"expected one below {ADDRESS_END:#x}")
    if value % PAGE_SIZE:
        wrong = f"address {value:#x} is not page-aligned"
        raise line.error(token, wrong, f"expected a multiple of {PAGE_SIZE:#x}, such as {value & -PAGE_SIZE:#x}")
    return value


def invariant_id(line: Line) -> str:
    """Read the id of an invariant; whether there is such an invariant is not known here."""
    if not _ID.fullmatch(line.peek().text):
        raise line.unexpected("the id of an invariant, such as AV-007")
    return line.take().text
