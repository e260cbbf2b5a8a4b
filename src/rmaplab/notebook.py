# SPDX-License-Identifier: GPL-2.0-only
"""Results in a notebook: a dataclass shows as a table of its fields, below a picture if somebody draws one."""

from __future__ import annotations

from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HtmlTable", "draw_with"]

_DRAWN: dict[type, Callable[[Any], str]] = {}


def draw_with(kind: type, drawing: Callable[[Any], str]) -> None:
    """Let what is shown of a kind of result begin with a picture (an SVG element; empty for none)."""
    _DRAWN[kind] = drawing


class HtmlTable:
    """Gives a dataclass the ``_repr_html_`` that notebooks ask for."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(field.name)}</th><td>{_cell(getattr(self, field.name))}</td></tr>"
            for field in fields(self)  # type: ignore[arg-type]
        )
        table, drawing = f"<table>{rows}</table>", _DRAWN.get(type(self))
        picture = drawing(self) if drawing is not None else ""
        return f"{picture}<details><summary>all of it</summary>{table}</details>" if picture else table


def _cell(value: object) -> str:
    if isinstance(value, HtmlTable):
        return value._repr_html_()
    if isinstance(value, tuple | list):
        return "<br>".join(escape(str(item)) for item in value)
    if isinstance(value, dict):
        return "<br>".join(f"{escape(str(key))}: {escape(str(item))}" for key, item in value.items())
    return escape(str(value))
