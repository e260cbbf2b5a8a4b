# SPDX-License-Identifier: GPL-2.0-only
"""Results in a notebook: a dataclass shows as a table of its fields."""

from __future__ import annotations

from dataclasses import fields
from html import escape

__all__ = ["HtmlTable"]


class HtmlTable:
    """Gives a dataclass the ``_repr_html_`` that notebooks ask for."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(field.name)}</th><td>{_cell(getattr(self, field.name))}</td></tr>"
            for field in fields(self)  # type: ignore[arg-type]
        )
        return f"<table>{rows}</table>"


def _cell(value: object) -> str:
    if isinstance(value, HtmlTable):
        return value._repr_html_()
    if isinstance(value, tuple | list):
        return "<br>".join(escape(str(item)) for item in value)
    if isinstance(value, dict):
        return "<br>".join(f"{escape(str(key))}: {escape(str(item))}" for key, item in value.items())
    return escape(str(value))
