# SPDX-License-Identifier: GPL-2.0-only
"""Explain a state: why a walk visits a VMA, why an anon_vma was reused, what keeps one alive.

WHAT is an object by its id (folio2, av1, vma3), a page (P0 A[0], or
P0 0x7f0000000000: the folio there and its walk) or an area (P0 A: its VMAs).
Ids are those that `rmaplab run` draws.  The state is that at the scenario's
end, or with --at behind a line or a `snapshot NAME`.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any

from rmaplab.check.explain import explain
from rmaplab.check.explain_history import follow
from rmaplab.check.invariants import INVARIANTS
from rmaplab.cli.common import add_logic, add_output, emit, note
from rmaplab.cli.counterexamples import open_input
from rmaplab.errors import UsageError
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.pagetable import GuardMarker, MigrationPte, SwapPte
from rmaplab.scenario import Snapshot
from rmaplab.scenario.tokens import suggest
from rmaplab.series import DEFAULT, find

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from rmaplab.check.explain_answers import Answer
    from rmaplab.check.explain_history import Followed
    from rmaplab.kernel import Kernel, Process
    from rmaplab.kernel.objects import Mm
    from rmaplab.scenario import Scenario, Statement

__all__ = ["prepare_parser", "run"]

Document = dict[str, Any]
WIDTH = 100
_PLACE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[([0-9]+)\])?")
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]+")
_KINDS = {"folio": "folios", "av": "anon_vmas", "vma": "VMAs"}


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "scenario", metavar="SCENARIO", help="a *.rmap file, a counterexample, or - for standard input"
    )
    parser.add_argument("what", metavar="WHAT", nargs="+", help="an id such as av1, or a place such as P0 A[0]")
    parser.add_argument(
        "--at",
        metavar="LINE|NAME",
        help="the state behind this line, or behind `snapshot NAME`; default: at the end",
    )
    add_logic(parser, default=None)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run the scenario up to the point, and answer."""
    opened = open_input(args.scenario)
    if opened.scenario is None:
        raise UsageError(f"{args.scenario}: has no violation, so there is no scenario to explain")
    series = find(args.series or opened.series or DEFAULT)
    statements = _until(opened.scenario, args.at)
    followed = follow(series, statements)
    answers = explain(followed.kernel, adoptions=followed.adoptions)
    what = " ".join(args.what)
    asked = {ident: answers[ident] for ident in _asked(followed.kernel, answers, what)}
    document = _document(series.name, opened.scenario, statements, what, followed, asked)
    if followed.broken:
        note(args, f"the state is broken here: {', '.join(sorted({report.id for report in followed.broken}))}")
    emit(args, "explain", document, lambda: _text(document))
    return 0


def _until(scenario: Scenario, at: str | None) -> tuple[Statement, ...]:
    """The statements up to a line or a ``snapshot NAME``, inclusive."""
    statements = scenario.statements
    if at is None:
        return statements
    lines = [statement.line for statement in statements]
    if at.isdecimal():
        if not lines or not 1 <= int(at) <= lines[-1]:
            last = f"its last statement is in line {lines[-1]}" if lines else "it has no statement"
            raise UsageError(f"--at {at}: {scenario.name} has no such line; {last}")
        return tuple(statement for statement in statements if statement.line <= int(at))
    names = {
        statement.name: number for number, statement in enumerate(statements, 1) if isinstance(statement, Snapshot)
    }
    if at not in names:
        there = (
            f"there are {', '.join(names)}" if names else "`snapshot NAME` in the scenario makes one, or name a line"
        )
        raise UsageError(f"--at {at}: {scenario.name} has no such snapshot{suggest(at, names)}; {there}")
    return statements[: names[at]]


# --- what is asked for -------------------------------------------------------------------------------


def _asked(kernel: Kernel, answers: Mapping[str, Answer], what: str) -> list[str]:
    """The ids of the objects that WHAT means; :class:`UsageError` if there are none."""
    words = what.split()
    if len(words) == 1:
        if words[0] in answers:
            return words
        raise UsageError(f"there is no {words[0]}{suggest(words[0], answers)} here; {_there_is(kernel, answers)}")
    if len(words) != 2:
        raise UsageError(f"{what!r} is no id and no place; write an id such as av1, or a place such as P0 A[0]")
    process = kernel.processes.get(words[0])
    if process is None:
        running = ", ".join(kernel.processes) or "none"
        hint = suggest(words[0], kernel.processes)
        raise UsageError(f"{what}: process {words[0]} does not run here{hint}; those that run: {running}")
    return _at_place(process, words[1], what)


def _at_place(process: Process, place: str, what: str) -> list[str]:
    """The folio at a page, or the VMAs of an area."""
    if _ADDRESS.fullmatch(place):
        return [_folio_at(process, int(place, 16) & -PAGE_SIZE, what)]
    match = _PLACE.fullmatch(place)
    if match is None:
        raise UsageError(f"{what}: {place!r} is no place; write A[0], A or an address such as 0x7f0000000000")
    area = process.areas.get(match[1])
    if area is None:
        names = ", ".join(process.areas) or "none"
        hint = suggest(match[1], process.areas)
        raise UsageError(f"{what}: {process.name} has no area {match[1]}{hint}; it has: {names}")
    if match[2] is None:
        vmas = [str(vma) for vma in process.mm.vmas if vma.vm_start < area.end and vma.vm_end > area.start]
        if not vmas:
            raise UsageError(f"{what}: nothing is mapped there any more")
        return vmas
    if int(match[2]) >= area.pages:
        raise UsageError(f"{what}: {match[1]} has pages 0 to {area.pages - 1}")
    return [_folio_at(process, area.page(int(match[2])), what)]


def _folio_at(process: Process, address: int, what: str) -> str:
    """The anonymous folio that is mapped at an address (bytes), or waits in the swap cache for it."""
    table = process.mm.page_table
    pte = table.present(address)
    if pte is not None and pte.folio.anon:
        return str(pte.folio)
    entry = table.get(address)
    if isinstance(entry, SwapPte) and entry.slot.folio is not None:
        return str(entry.slot.folio)
    raise UsageError(f"{what}: no anonymous page is there, but {_instead(process.mm, address)}; an area's VMAs: P0 A")


def _instead(mm: Mm, address: int) -> str:
    """What is at a place that has no folio to walk."""
    match mm.page_table.get(address):
        case SwapPte(slot=slot):
            return f"a swap entry ({slot}), and the page is not in memory"
        case MigrationPte():
            return "an entry that waits for a page on its way"
        case GuardMarker():
            return "a guard"
        case None:
            return "nothing yet" if mm.lookup(address) is not None else "no VMA"
    return "a page that this reverse map does not know (the zero page, or a file's)"


def _there_is(kernel: Kernel, answers: Mapping[str, Answer]) -> str:
    """What can be asked for."""
    kinds: dict[str, list[str]] = {}
    for ident in answers:
        kinds.setdefault(ident.rstrip("0123456789"), []).append(ident)
    told = [f"{_KINDS.get(kind, kind)} {', '.join(idents)}" for kind, idents in kinds.items()]
    places = [f"{process.name} {area}" for process in kernel.processes.values() for area in process.areas]
    if places:
        told.append(f"places such as {', '.join(places[:6])}")
    return f"there are {'; '.join(told)}" if told else "there is nothing at all"


# --- what is told ------------------------------------------------------------------------------------


def _document(
    series: str,
    scenario: Scenario,
    statements: Sequence[Statement],
    what: str,
    followed: Followed,
    asked: Mapping[str, Answer],
) -> Document:
    """Body of ``kind: explain``."""
    last = statements[-1] if statements else None
    own = {str(vma): str(vma.anon_vma) for process in followed.kernel.processes.values() for vma in process.mm.vmas}
    concerned = {*asked, *(own[ident] for ident in asked if ident in own)}
    return {
        "series": series,
        "scenario": scenario.name,
        "at": None if last is None else {"line": last.line, "text": last.text},
        "what": what,
        "crashed": followed.crashed,
        "violations": [
            {"id": report.id, "statement": INVARIANTS[report.id].statement, "detail": report.detail}
            for report in followed.broken
        ],
        "adoptions": [found.as_dict() for found in followed.adoptions if found.anon_vma in concerned],
        "answers": {ident: answer.as_dict() for ident, answer in asked.items()},
    }


def _text(document: Document) -> str:
    """The answers for a terminal, at most :data:`WIDTH` columns wide."""
    at = document["at"]
    where = f", behind line {at['line']} (`{at['text']}`)" if at else ", before any statement"
    lines = _wrapped(f"{document['scenario']} on {document['series']}{where}", "")
    for violated in document["violations"]:
        lines += _wrapped(f"{violated['id']} is violated here: {violated['detail']}", "")
    for answer in document["answers"].values():
        lines += ["", *_answer_lines(answer)]
    return "\n".join(lines) + "\n"


def _answer_lines(answer: Document) -> Iterator[str]:
    yield from _wrapped(answer["title"], "")
    for line in answer["lines"]:
        yield from _wrapped(line, "  ")
    for number, step in enumerate(answer.get("walk", ()), 1):
        yield from _wrapped(f"{number}. {step['process']} {step['vma']} at {step['address']:#x}: {step['why']}", "  ")
    if answer.get("holds"):
        yield "  References:"
    for hold in answer.get("holds", ()):
        yield from _wrapped(f"{hold['refs']:>3}  {hold['what']}", "  ")
    if "reuse" in answer:
        yield from _wrapped(
            f"Reuse by fork now: {'yes' if answer['reuse']['may'] else 'no'}. {answer['reuse']['why']}", "  "
        )
    if answer.get("chain"):
        yield "  Chain, head first:"
    for link in answer.get("chain", ()):
        yield from _wrapped(f"{'(*)' if link['own'] else '(o)'} {link['anon_vma']}: {link['why']}", "  ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}    " if indent else "  ",
        break_on_hyphens=False,
    )
