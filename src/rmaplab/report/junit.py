# SPDX-License-Identifier: GPL-2.0-only
"""The result of a check as JUnit XML: a test case for each invariant."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from rmaplab.check.invariants import INVARIANTS
from rmaplab.errors import RmaplabError
from rmaplab.series import find

__all__ = ["junit"]

_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def junit(document: dict[str, Any]) -> str:
    """The XML of a document of ``kind: check``: failures for what is violated, one error if there is no verdict."""
    series = document["series"]
    found = {violation["id"]: violation for violation in document["violations"]}
    names = [ident for ident in sorted(INVARIANTS) if ident in found or _promised(series, ident)]
    unfinished = document["verdict"] == "no-verdict"
    suite = ElementTree.Element(
        "testsuite",
        name=_clean(f"rmaplab check {series}"),
        tests=str(len(names)),
        failures=str(len(found)),
        errors=str(int(unfinished)),
        time=f"{document['seconds']:.3f}",
    )
    for ident in names:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_clean(series), name=_clean(f"{ident}: {INVARIANTS[ident].statement}")
        )
        if ident in found:
            failure = ElementTree.SubElement(case, "failure", message=_clean(found[ident]["detail"]))
            failure.text = _clean(found[ident]["scenario"])
    if unfinished:
        case = ElementTree.SubElement(suite, "testcase", classname=_clean(series), name="verdict")
        ElementTree.SubElement(case, "error", message=_clean(document["reason"] or "no verdict"))
        suite.set("tests", str(len(names) + 1))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _promised(series: str, ident: str) -> bool:
    try:
        return INVARIANTS[ident].holds_for(find(series))
    except RmaplabError:  # a design whose file is not here any more
        return True


def _clean(text: str) -> str:
    """Without what XML cannot hold."""
    return _FORBIDDEN.sub("?", text)
