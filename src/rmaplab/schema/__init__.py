# SPDX-License-Identifier: GPL-2.0-only
"""The published JSON Schemas (draft 2020-12), one for each kind of document.

The files refer to each other by name; :func:`load` returns one that stands
alone, with those it refers to under ``$defs``.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

__all__ = ["KINDS", "load"]

KINDS = (
    "check",
    "compare",
    "conform",
    "counterexample",
    "demo",
    "doctor",
    "experiment",
    "explain",
    "explore",
    "fuzz",
    "import",
    "list",
    "record",
    "replay",
    "run",
    "shrink",
    "snapshot",
)
"""The values of a document's ``kind``."""

_REFERS_TO: dict[str, tuple[str, ...]] = {
    "compare": ("check", "replay"),
    "conform": ("snapshot",),
    "counterexample": ("snapshot",),
    "demo": ("check", "replay"),
    "experiment": ("replay",),
    "fuzz": ("check",),
    "run": ("snapshot",),
    "shrink": ("check",),
}


def load(kind: str) -> dict[str, Any]:
    """The schema of a kind of document, ready for any validator.

    Raises :class:`ValueError` for a kind that does not exist.
    """
    schema = _read(kind)
    for other in _REFERS_TO.get(kind, ()):
        schema.setdefault("$defs", {})[other] = _read(other)
    return schema


def _read(kind: str) -> dict[str, Any]:
    if kind not in KINDS:
        raise ValueError(f"no schema of kind {kind!r}; there are {', '.join(KINDS)}")
    text = (resources.files(__name__) / f"{kind}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
