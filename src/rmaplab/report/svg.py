# SPDX-License-Identifier: GPL-2.0-only
"""A scenario as a picture: its calls, and the graph before and after the last of them."""

from __future__ import annotations

import textwrap
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from rmaplab.report.family import by_family
from rmaplab.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rmaplab.snapshot import AnonVmaView, FolioView, ProcessView, VmaView

__all__ = ["state_svg", "svg"]

_STYLE = """
.rmaplab text { font: 13px ui-monospace, monospace; fill: #222; } .rmaplab .head { font-weight: bold; }
.rmaplab .soft { fill: #666; } .rmaplab .bad { fill: #c0392b; }
.rmaplab .new { fill: #b9770e; font-weight: bold; } .rmaplab line { stroke: #ccc; }
.rmaplab rect { fill: #fff; } .rmaplab .own { fill: #2471a3; }
.rmaplab .avc { fill: #fff; stroke: #2471a3; stroke-width: 2; }
.rmaplab .wrong { fill: none; stroke: #c0392b; stroke-width: 3; } .rmaplab .page { fill: #1e8449; }
"""
_LEGEND = (
    "disc: the VMA's own anon_vma; ring: another AVC; red: own, without an AVC; square: page mapped; amber: changed"
)
_LINE, _ROW, _COLUMN, _CHAR, _EDGE = 19, 26, 76, 8, 16


class _Text(NamedTuple):
    """A line of text, with its class."""

    text: str
    kind: str = ""


def svg(title: str, steps: Sequence[dict[str, Any]]) -> str:
    """The picture; ``steps`` as in a document of ``kind: counterexample``."""
    states = [Snapshot.from_dict(step["state"]) for step in steps[-2:]]
    lines = [_Text(line, "head") for line in textwrap.wrap(title, 110)]
    lines += [_Text(""), *_calls(steps), _Text(""), _Text(_LEGEND, "soft"), _Text("")]
    panels = [_Panel(f"after call {len(steps)}", states[-1], states[0])]
    if len(states) > 1:
        panels.insert(0, _Panel(f"after call {len(steps) - 1}", states[0], states[0]))
    top = _EDGE + _LINE * (len(lines) + 1)
    width = max(
        [*(len(line.text) * _CHAR for line in lines), sum(panel.width for panel in panels) + _EDGE * len(panels)]
    )
    height = top + max(panel.height for panel in panels) + _EDGE
    drawn = [*_opening(title, width + 2 * _EDGE, height)]
    drawn += [_text(_EDGE, _EDGE + _LINE * number, line) for number, line in enumerate(lines, 1)]
    left = _EDGE
    for panel in panels:
        drawn += [f'<g transform="translate({left},{top})">', *panel.drawn(), "</g>"]
        left += panel.width + _EDGE
    return "\n".join([*drawn, "</svg>", ""])


def state_svg(state: Snapshot) -> str:
    """One state alone, as an element to stand in a page."""
    panel = _Panel("", state, state)
    width, height = max(panel.width, len(_LEGEND) * _CHAR) + 2 * _EDGE, panel.height + _LINE
    return "\n".join(
        [
            *_opening("The reverse map", width, height),
            f'<g transform="translate({_EDGE},0)">',
            *panel.drawn(),
            _text(0, panel.height, _Text(_LEGEND, "soft")),
            "</g></svg>",
        ]
    )


def _opening(title: str, width: int, height: int) -> Iterator[str]:
    """The element's beginning; its style is for what is in it alone."""
    yield f'<svg xmlns="http://www.w3.org/2000/svg" class="rmaplab" width="{width}" height="{height}" role="img">'
    yield f'<title>{escape(title)}</title><style>{_STYLE}</style><rect width="100%" height="100%"/>'


def _calls(steps: Sequence[dict[str, Any]]) -> Iterator[_Text]:
    for number, step in enumerate(steps, 1):
        if step["fail"]:
            yield _Text(f"     {step['fail']}", "new")
        ended = f"  -> {step['errno']}" if step["errno"] else ""
        broken = ", ".join(one["id"] for one in step["violated"])
        yield _Text(
            f"{number:>3}  {step['text']}{ended}{f'   violates {broken}' if broken else ''}", "bad" * bool(broken)
        )


class _Panel:
    """One state: VMAs across, anon_vmas and folios down; what differs from the state ``before`` is amber."""

    def __init__(self, name: str, state: Snapshot, before: Snapshot) -> None:
        self.name = name
        self.columns = [(process, vma) for process in state.processes for vma in process.vmas]
        self.anon_vmas = by_family(state.anon_vmas)
        self.folios = state.folios
        self.known = {vma.id for process in before.processes for vma in process.vmas}
        self.before: dict[str, object] = {one.id: one for one in before.anon_vmas}
        self.before |= {one.id: one for one in before.folios}
        levels = max((level for _, level in self.anon_vmas), default=0)
        self.label = 100 + 2 * _CHAR * levels
        told = [*(_counters(one) for one, _ in self.anon_vmas), *(_folio(one) for one in self.folios), ""]
        self.width = self.label + _COLUMN * len(self.columns) + max(map(len, told)) * _CHAR + _EDGE
        self.height = _ROW * (len(self.anon_vmas) + len(self.folios)) + 4 * _LINE

    def drawn(self) -> Iterator[str]:
        """The elements, from (0, 0) on."""
        yield _text(0, 0, _Text(self.name, "head"))
        bottom = self.height - _LINE
        for number, (process, vma) in enumerate(self.columns):
            x = self._x(number)
            kind = "" if vma.id in self.known else "new"
            yield f'<line x1="{x}" y1="{3 * _LINE}" x2="{x}" y2="{bottom}"/>'
            yield f"<g>{_title(f'{vma.start:#x}-{vma.end:#x} {vma.flags}')}"
            yield _text(x - 3 * _CHAR, _LINE, _Text(process.name, kind))
            yield f"{_text(x - 3 * _CHAR, 2 * _LINE, _Text(vma.id, kind))}</g>"
        y = 3 * _LINE + _ROW // 2
        for anon_vma, level in self.anon_vmas:
            kind = "" if self.before.get(anon_vma.id) == anon_vma else "new"
            yield _text(2 * _CHAR * level, y + 4, _Text(f"{'└ ' if level else ''}{anon_vma.id}", kind))
            yield from self._crossings(anon_vma, y)
            yield _text(self._x(len(self.columns)) - _COLUMN // 4, y + 4, _Text(_counters(anon_vma), kind))
            y += _ROW
        for folio in self.folios:
            kind = "" if self.before.get(folio.id) == folio else "new"
            yield _text(0, y + 4, _Text(folio.id, kind))
            for number, (process, vma) in enumerate(self.columns):
                if _maps(process, vma, folio):
                    yield f'<rect class="page" x="{self._x(number) - 6}" y="{y - 6}" width="12" height="12"/>'
            yield _text(self._x(len(self.columns)) - _COLUMN // 4, y + 4, _Text(_folio(folio), kind))
            y += _ROW

    def _x(self, column: int) -> int:
        return self.label + _COLUMN * column + _COLUMN // 2

    def _crossings(self, anon_vma: AnonVmaView, y: int) -> Iterator[str]:
        for number, (_, vma) in enumerate(self.columns):
            own, linked = vma.anon_vma == anon_vma.id, anon_vma.id in vma.chain
            if own or linked:
                kind = "own" if own and linked else "avc" if linked else "wrong"
                yield f'<circle class="{kind}" cx="{self._x(number)}" cy="{y}" r="7"/>'


def _counters(anon_vma: AnonVmaView) -> str:
    told = [f"refs {anon_vma.refcount}"]
    if anon_vma.degree:
        told.append(f"degree {anon_vma.degree}")
    else:
        told += [f"children {anon_vma.num_children}", f"VMAs {anon_vma.num_active_vmas}"]
    lost = sum(name == "?" for name in anon_vma.tree)
    return ", ".join([*told, *([f"freed VMAs in the tree {lost}"] if lost else [])])


def _folio(folio: FolioView) -> str:
    named = f"KSM page {folio.ksm}" if folio.ksm is not None else folio.mapping or "nothing yet"
    return f"names {named}{', exclusive' if folio.exclusive else ''}"


def _maps(process: ProcessView, vma: VmaView, folio: FolioView) -> bool:
    return any(pte.mm == process.mm and vma.start <= pte.address < vma.end for pte in folio.ptes)


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _text(x: int, y: int, line: _Text) -> str:
    kind = f' class="{line.kind}"' if line.kind else ""
    return f'<text x="{x}" y="{y}"{kind} xml:space="preserve">{escape(line.text)}</text>'
