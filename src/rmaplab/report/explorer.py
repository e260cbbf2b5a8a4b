# SPDX-License-Identifier: GPL-2.0-only
"""The explorer page: a document of ``kind: explore``, and one self-contained HTML file around it."""

from __future__ import annotations

import json
import re
import textwrap
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from rmaplab.check.invariants import INVARIANTS
from rmaplab.report.documents import stamp
from rmaplab.report.drawing import LEGEND, WIDTH, draw
from rmaplab.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rmaplab.check.film import Frame

__all__ = ["chapter", "explore_document", "explorer_page", "moments_text", "track"]

Document = dict[str, Any]

_NAMED = {"processes": "name", "anon_vmas": "id", "folios": "id", "swap": "id"}
"""Parts of a state whose members have names, and what the name is called."""
_WHOLE = ("guards", "ksm", "slab", "locks")
"""Parts that a patch replaces whole."""


def explore_document(title: str, source: str, chapters: Sequence[Document]) -> Document:
    """Body of ``kind: explore``; ``source`` is scenario, counterexample, snapshot, trace or tour."""
    return {
        "title": title,
        "source": source,
        "chapters": list(chapters),
        "invariants": [
            {"id": ident, "statement": invariant.statement, "source": invariant.source}
            for ident, invariant in sorted(INVARIANTS.items())
        ],
    }


def chapter(title: str, tracks: Sequence[Document], text: Sequence[str] = ()) -> Document:
    """A part of a page: what is to be read first, and one film or two side by side."""
    return {"title": title, "text": list(text), "tracks": list(tracks)}


def track(
    series: str, frames: Sequence[Frame], *, kernel: str | None = None, notes: Mapping[int, str] | None = None
) -> Document:
    """A film as the page takes it: each state as what differs from the one before.

    ``notes`` are sentences about the states after calls, by the call's number from 0 on.
    """
    notes = notes or {}
    calls = [frame.text for frame in frames if frame.call >= 0 and frame.inner == 0]
    patches = _patches(frame.state for frame in frames)
    return {
        "series": series,
        "kernel": kernel,
        "calls": calls,
        "moments": [
            {
                "call": frame.call,
                "inner": frame.inner,
                "text": frame.text,
                "verb": frame.verb,
                "process": frame.process,
                "fail": frame.fail,
                "errno": frame.errno,
                "note": notes.get(frame.call) if frame.inner == 0 else None,
                "words": list(frame.words),
                "violated": [
                    {"id": ident, "statement": INVARIANTS[ident].statement, "detail": detail}
                    for ident, detail in frame.violated.items()
                ],
                "patch": patch,
                "answers": frame.answers,
            }
            for frame, patch in zip(frames, patches, strict=True)
        ],
    }


def _patches(states: Iterable[Document]) -> Iterator[Document]:
    before: Document = {}
    for state in states:
        yield _patch(before, state)
        before = state


def _patch(before: Document, after: Document) -> Document:
    """What turns one state into the next: members by name, None for one that is gone."""
    patch: Document = {}
    for part, name in _NAMED.items():
        old = {one[name]: one for one in before.get(part, ())}
        new = {one[name]: one for one in after.get(part, ())}
        changed = {ident: one for ident, one in new.items() if old.get(ident) != one}
        changed |= dict.fromkeys(ident for ident in old if ident not in new)
        if changed:
            patch[part] = changed
    for part in _WHOLE:
        if part in after and after[part] != before.get(part):
            patch[part] = after[part]
    return patch


def explorer_page(document: Document) -> str:
    """The page; it needs nothing from elsewhere."""
    folder = resources.files("rmaplab") / "data" / "explorer"
    data = json.dumps(stamp("explore", document), separators=(",", ":"), ensure_ascii=True)
    for char in "<>&":  # nothing in the data may end the element that holds it
        data = data.replace(char, f"\\u{ord(char):04x}")
    parts = {
        "<!--TITLE-->": escape(document["title"]),
        "/*CSS*/": (folder / "explorer.css").read_text(encoding="utf-8"),
        "/*JS*/": (folder / "explorer.js").read_text(encoding="utf-8"),
        "/*DATA*/": data,
    }
    page = (folder / "page.html").read_text(encoding="utf-8")
    marks = re.compile("|".join(map(re.escape, parts)))
    return marks.sub(lambda mark: parts[mark[0]], page)


# --- as text --------------------------------------------------------------------------------


def moments_text(document: Document) -> str:
    """The states after each call, at most 72 columns wide: for a terminal, or for mail."""
    lines: list[str] = []
    for part in document["chapters"]:
        lines += [*textwrap.wrap(part["title"], WIDTH), ""]
        for paragraph in part["text"]:
            lines += [*textwrap.wrap(paragraph, WIDTH), ""]
        for one in part["tracks"]:
            lines += [f"on {one['series']}", ""]
            for moment, state in zip(one["moments"], _states(one["moments"]), strict=True):
                if moment["inner"] == 0:
                    lines += [*_moment_lines(moment), "", *draw(Snapshot.from_dict(state)), ""]
    return "\n".join([*lines, LEGEND, ""])


def _moment_lines(moment: Document) -> Iterator[str]:
    number = "" if moment["call"] < 0 else f"{moment['call'] + 1}. "
    fail = f"{moment['fail']}; " if moment["fail"] else ""
    errno = f" -> {moment['errno']}" if moment["errno"] else ""
    yield from textwrap.wrap(f"{number}{fail}{moment['text']}{errno}", WIDTH)
    for text in filter(None, [moment["note"], *moment["words"]]):
        yield from textwrap.wrap(text, WIDTH, initial_indent="   ", subsequent_indent="     ")
    for broken in moment["violated"]:
        text = f"violates {broken['id']}: {broken['statement']}: {broken['detail']}"
        yield from textwrap.wrap(text, WIDTH, initial_indent="   ", subsequent_indent="     ")


def _states(moments: Iterable[Document]) -> Iterator[Document]:
    """The states that patches lead to."""
    named: dict[str, dict[str, Document]] = {part: {} for part in _NAMED}
    whole: Document = {}
    for moment in moments:
        for part, changed in moment["patch"].items():
            if part not in named:
                whole[part] = changed
                continue
            members = named[part] | changed
            named[part] = {name: one for name, one in members.items() if one is not None}
        yield {**whole, **{part: list(members.values()) for part, members in named.items()}}
