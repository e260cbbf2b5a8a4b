# SPDX-License-Identifier: GPL-2.0-only
"""The scenario language: what holds for any scenario and for any input.

Valid scenarios are drawn with a book of their own, apart from the parser's.
"""

import re
from typing import TYPE_CHECKING

from hypothesis import assume, given
from hypothesis import strategies as st
from scenario_texts import EVERYTHING

from rmaplab.errors import InputError
from rmaplab.scenario import (
    CALL_NAMES,
    COUNTS,
    PROCESS_COUNTS,
    PROTECTIONS,
    Exit,
    ExpectCount,
    ExpectInvariants,
    ExpectProcessCount,
    ExpectResult,
    ExpectViolates,
    Fail,
    Fork,
    Mmap,
    Mprotect,
    Munmap,
    Pages,
    Read,
    Scenario,
    Snapshot,
    Walk,
    Write,
    format_scenario,
    parse,
)

if TYPE_CHECKING:
    from rmaplab import scenario

PLACED = re.compile(r"f\.rmap:([0-9]+):([0-9]+): ")
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
RESERVED = {*COUNTS, "expect", "fail", "invariants", "par", "snapshot", "violates", "walk"}


@st.composite
def scenarios(draw):
    areas: dict[str, dict[str, int]] = {"P0": {}}
    exited: set[str] = set()
    called: list[tuple[str, str]] = []
    snapshots: set[str] = set()
    statements: list[scenario.Statement] = []
    armed = False
    for _ in range(draw(st.integers(1, 25))):
        process = draw(st.sampled_from(sorted(areas)))
        kinds = [Mmap, Mmap, Fork, Exit, Snapshot, ExpectCount, ExpectInvariants, ExpectViolates, ExpectProcessCount]
        kinds += [] if armed else [Fail]
        kinds += [Read, Write, Munmap, Mprotect, Walk] * 2 if areas[process] else []
        kinds += [ExpectResult] if called else []
        kind = draw(st.sampled_from(kinds))
        if areas[process]:
            area = draw(st.sampled_from(sorted(areas[process])))
            first = draw(st.integers(0, areas[process][area] - 1))
            last = first if kind is Walk else draw(st.integers(first, areas[process][area] - 1))
            pages = Pages(area, first, last)
        if kind is Mmap:
            statement = Mmap(
                process,
                draw(NAMES),
                draw(st.integers(1, 2**35)),
                draw(st.none() | st.integers(0, 2**35 - 1).map(lambda page: page << 12)),
                draw(st.sampled_from(PROTECTIONS)),
                draw(st.none() | NAMES),
                draw(st.booleans()),
            )
            areas[process][statement.area] = statement.pages
        elif kind is Fork:
            child = draw(NAMES)
            if child in RESERVED or (child in areas and child not in exited):
                continue
            statement = Fork(process, child)
            areas[child] = dict(areas[process])
            exited.discard(child)
        elif kind is Exit:
            statement = Exit(process)
            exited.add(process)
        elif kind is Mprotect:
            statement = Mprotect(process, pages, draw(st.sampled_from(PROTECTIONS)))
        elif kind in (Read, Write, Munmap, Walk):
            statement = kind(process, pages)
        elif kind is Fail:
            statement = Fail(draw(st.integers(1, 10**6)), draw(st.booleans()))
            armed = True
        elif kind is Snapshot:
            name = draw(NAMES)
            if name in snapshots:
                continue
            snapshots.add(name)
            statement = Snapshot(name)
        elif kind is ExpectCount:
            statement = ExpectCount(draw(st.sampled_from(COUNTS)), draw(st.integers(0, 2**63 - 1)))
        elif kind is ExpectProcessCount:
            statement = ExpectProcessCount(process, draw(st.sampled_from(PROCESS_COUNTS)), draw(st.integers(0, 99)))
        elif kind is ExpectResult:
            statement = ExpectResult(
                *draw(st.sampled_from(called)), draw(st.sampled_from(["ok", "ENOMEM", "EFAULT"]))
            )
        elif kind is ExpectViolates:
            statement = ExpectViolates(draw(st.from_regex(r"[A-Z]{1,3}-[0-9]{3}", fullmatch=True)))
        else:
            statement = ExpectInvariants()
        if kind.__name__.lower() in CALL_NAMES:
            called.append((process, kind.__name__.lower()))
            armed = False
        statements.append(statement)
    if armed:
        statements.append(Exit("P0"))
    assume(statements)
    return Scenario(tuple(statements))


@given(scenarios())
def test_what_is_printed_parses_back(made):
    text = format_scenario(made)
    again = parse(text)
    assert again == made
    assert format_scenario(again) == text
    assert parse(text.encode().replace(b"\n", b"\r\n")) == made
    assert [s.text for s in again.statements] == text.split("\n")[:-1]
    assert [s.line for s in again.statements] == list(range(1, len(again.statements) + 1))


def parses_or_says_where(data):
    refusal = ""
    try:
        first = parse(data, "f.rmap")
    except InputError as error:
        refusal = str(error)
    if not refusal:
        assert parse(format_scenario(first)) == first
        return
    place = PLACED.match(refusal)
    assert place, refusal
    assert min(int(place[1]), int(place[2])) >= 1


@given(st.text() | st.binary() | st.text(alphabet=st.characters(categories=["Cs", "Cc", "Nd"])))
def test_any_input_parses_or_says_where(data):
    parses_or_says_where(data)


@given(st.lists(st.sampled_from([*EVERYTHING.split(" "), "\n", " ", "P0", "A", "[", "..", "=", "fail", "\r"])))
def test_any_words_parse_or_say_where(words):
    parses_or_says_where(" ".join(words))


@given(scenarios(), st.data())
def test_mutated_scenarios_parse_or_say_where(made, data):
    text = format_scenario(made)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 8)))
    put = data.draw(st.text(max_size=4) | st.sampled_from([" ", "\n", "0", "[", "]", "..", "=", "#", text]))
    parses_or_says_where(text[:start] + put + text[end:])
