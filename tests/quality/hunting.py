# SPDX-License-Identifier: GPL-2.0-only
"""Looks for every bug of the zoo without knowing it: default settings, from an empty history.

    python tests/quality/hunting.py

prints what found each, in how long, and how short it became (`make zoo`).
"""

import sys
import time
from typing import NamedTuple

from rmaplab.check.explore import explore
from rmaplab.check.fuzz import fuzz
from rmaplab.check.invariants import HARM
from rmaplab.check.shrink import shrink
from rmaplab.check.stages import STAGES
from rmaplab.cli.common import jobs_default
from rmaplab.engine.choice import HEAD_START
from rmaplab.report.text import table
from rmaplab.scenario import ExpectViolates, load, parse
from rmaplab.series import ZOO, find

# Calls of the smallest trigger known from the bug's history; the failing call counts as one.
KNOWN = {
    "zoo/Z01": 4,
    "zoo/Z02": 3,
    "zoo/Z07": 6,
    "zoo/Z08": 7,
    "zoo/Z09": 4,
    "zoo/Z10": 6,
    "zoo/Z11": 3,
    "zoo/Z12": 3,
    "zoo/Z13": 5,
    "zoo/Z17": 4,
    "zoo/Z20": 5,
    "zoo/Z21a": 4,
    "zoo/Z21b": 4,
    "zoo/Z21c": 6,
    "zoo/Z21d": 3,
    "zoo/Z21e": 5,
    "zoo/Z22": 6,
    "zoo/Z23": 7,
    "zoo/Z25": 4,
    "zoo/Z32": 8,
    "zoo/Z33": 11,
}
KNOWN_MISSED = 14  # the double reuse of Z23 up to a page that a walk misses
# What the logic that an entry is made from violates itself, later on, tells nothing of the entry.
OWN = {"zoo/Z25": "AV-035"}


class Found(NamedTuple):
    """How an entry was found: the violation looked for, the stage, what it took, and the calls before and after."""

    entry: str
    ident: str
    finder: str
    states: int
    transitions: int
    seconds: float
    length: int
    shrunk: int
    scenario: str


def looked_for(entry):
    """The violation that tells of the entry's bug."""
    path = f"src/rmaplab/data/{entry}.rmap"
    expected = [line.id for line in load(path).statements if isinstance(line, ExpectViolates)]
    return OWN.get(entry, expected[0])


def hunt(entry, jobs):
    """`rmaplab check --all`, up to the stage that shows the bug; None if none does."""
    ident = looked_for(entry)
    began = time.perf_counter()
    states = transitions = 0
    for stage, bounds in STAGES.items():
        head_start = HEAD_START - (time.perf_counter() - began)
        result = explore(entry, bounds, jobs=jobs, stop_at_first=False, engine="auto", head_start=head_start)
        states, transitions = states + result.states, transitions + result.transitions
        if ident in result.findings:
            finding = result.findings[ident]
            seconds = time.perf_counter() - began
            smaller = shrink(find(entry), parse(finding.scenario), ident)
            return Found(
                entry,
                ident,
                f"check: {stage}",
                states,
                transitions,
                seconds,
                finding.length,
                smaller.length,
                smaller.scenario,
            )
    return None


def hunt_missed_page(seconds, jobs, engine, seed=0):
    """`rmaplab fuzz --only harm`: the double reuse up to the page that a walk misses."""
    result = fuzz("zoo/Z23", seed=seed, seconds=seconds, jobs=jobs, only=HARM, engine=engine)
    if not result.findings:
        return None
    finding = result.findings[0]
    smaller = shrink(find("zoo/Z23"), parse(finding.scenario), finding.ids[0])
    return Found(
        "zoo/Z23 C",
        finding.ids[0],
        f"fuzz --only harm --engine {engine}",
        result.shapes,
        result.operations,
        result.seconds,
        finding.length,
        smaller.length,
        smaller.scenario,
    )


def main():
    jobs = jobs_default()
    rows = [["entry", "violates", "found by", "states", "transitions", "seconds", "calls", "shrunk", "known"]]
    for entry in ZOO:
        found = hunt(entry, jobs)
        print(f"{entry}: {'not found' if found is None else f'{found.seconds:.1f} s'}", file=sys.stderr)
        if found is None:
            rows.append([entry, looked_for(entry), "not found", 0, 0, "", 0, 0, KNOWN[entry]])
        else:
            rows.append([*found[:5], f"{found.seconds:.1f}", found.length, found.shrunk, KNOWN[entry]])
    for engine in ("reference", "fast"):
        found = hunt_missed_page(600, jobs, engine)
        if found is None:
            rows.append(["zoo/Z23 C", "AV-030", "not found", 0, 0, "", 0, 0, KNOWN_MISSED])
        else:
            rows.append([*found[:5], f"{found.seconds:.1f}", found.length, found.shrunk, KNOWN_MISSED])
    print("\n".join(table(rows)))
    return 0 if all(row[2] != "not found" for row in rows[1:]) else 1


if __name__ == "__main__":
    sys.exit(main())
