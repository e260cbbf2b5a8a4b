# SPDX-License-Identifier: GPL-2.0-only
"""The mutation score of the specification: how many small faults put into it the tests notice.

    python tools/mutants.py [--sample 300] [--seed 0] [--variants 5] [--only rmap.py --only vma.py] [--jobs 1]

mutmut makes the mutants of kernel/ and series/.  None of them is ever written
to a file: the tests are collected and run once, to see which functions each of
them reaches; then, for every mutant of the sample, a child process swaps the
code of the mutated function and runs the tests that reach it, until one fails.
Exit code 0, or 1 if the score is under --least.
"""

from __future__ import annotations

import argparse
import collections
import math
import os
import random
import signal
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import pytest
from _pytest.runner import runtestprotocol
from mutant_making import ROOT, Mutant, function_of, mutants_of
from tqdm import tqdm

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType, FrameType

MUTATED = ("kernel", "series")
TESTS = ("tests/unit", "tests/quality")
# Tests of what stands above the specification, and searches that take minutes.
LEFT_OUT = (
    *("tests/unit/test_" + words for words in ("api*", "cli*", "demo*", "docs*", "layout*", "recorder*", "replay*")),
    *("tests/unit/test_" + words for words in ("*random*", "scenario*", "schema*", "series_page*", "trace*")),
    *("tests/unit/test_" + words for words in ("copies*", "series")),
    *("tests/quality/test_" + words for words in ("*exploration*", "known_bugs*", "random*")),
)
SLOW = 0.1  # seconds; tests that take longer come last
FEWEST_SECONDS = 5  # of processor time that a test may take, whatever it took without a mutant
TIMES_SLOWER = 20  # ... and how many times what it took then
KILLED, SURVIVED, UNREACHED, TOO_SLOW = "killed", "survived", "not reached", "too slow"


class Mutation:
    """A pytest plugin that runs the collected tests on every mutant instead of once."""

    def __init__(self, mutants: list[Mutant], variants: int, seed: int, jobs: int) -> None:
        self.mutants = mutants
        self.variants = variants
        self.random = random.Random(seed)
        self.jobs = jobs
        self.verdicts: list[tuple[Mutant, str]] = []
        self.reaching: dict[CodeType, list[pytest.Item]] = collections.defaultdict(list)
        self.seconds: dict[pytest.Item, float] = {}
        self.failing: list[str] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests once as they are, then on one mutant after the other."""
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        self.run_unmutated(self.chosen(session.items))
        running: dict[int, Mutant] = {}
        try:
            for mutant in tqdm(self.mutants, desc="mutants", disable=None):
                items = self.tests_for(mutant)
                if not items:
                    self.verdicts.append((mutant, UNREACHED))
                    continue
                running[self.start(mutant, items)] = mutant
                if len(running) == self.jobs:
                    self.wait(running)
            while running:
                self.wait(running)
        except KeyboardInterrupt:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        return True

    def chosen(self, items: list[pytest.Item]) -> list[pytest.Item]:
        """Some variants of each test that is run with many parameters, in the order they have."""
        variants: dict[str, list[pytest.Item]] = collections.defaultdict(list)
        for item in items:
            variants[item.nodeid.partition("[")[0]].append(item)
        kept = {
            item
            for same in variants.values()
            for item in self.random.sample(same, min(self.variants or len(same), len(same)))
        }
        return [item for item in items if item in kept]

    def run_unmutated(self, items: list[pytest.Item]) -> None:
        """Note what each test reaches and how long it takes; tests that fail do not count."""
        wanted = {function_of(mutant).__code__ for mutant in self.mutants}
        reached: set[CodeType] = set()

        def trace(frame: FrameType, _event: str, _argument: object) -> None:
            if frame.f_code in wanted:
                reached.add(frame.f_code)

        following = [*items[1:], None]
        for item, later in zip(tqdm(items, desc="tests", disable=None), following, strict=True):
            reached.clear()
            start = time.process_time()
            sys.settrace(trace)
            reports = runtestprotocol(item, log=False, nextitem=later)
            sys.settrace(None)
            self.seconds[item] = time.process_time() - start
            if any(report.failed for report in reports):
                self.failing.append(item.nodeid)
                continue
            for code in reached:
                self.reaching[code].append(item)

    def tests_for(self, mutant: Mutant) -> list[pytest.Item]:
        """The tests that reach the mutated function, the quick ones first, in a mixed order."""
        items = list(self.reaching.get(function_of(mutant).__code__, ()))
        self.random.shuffle(items)
        return sorted(items, key=lambda item: self.seconds[item] > SLOW)

    def start(self, mutant: Mutant, items: list[pytest.Item]) -> int:
        """A child process that runs the tests on the mutant."""
        pid = os.fork()
        if pid:
            return pid
        status = 2
        try:
            function_of(mutant).__code__ = mutant.code
            for item, later in zip(items, [*items[1:], None], strict=True):
                signal.setitimer(signal.ITIMER_PROF, FEWEST_SECONDS + TIMES_SLOWER * self.seconds[item])
                if any(report.failed for report in runtestprotocol(item, log=False, nextitem=later)):
                    os._exit(1)
            status = 0
        finally:
            os._exit(status)

    def wait(self, running: dict[int, Mutant]) -> None:
        """Take the verdict of the next child that ends."""
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        verdict = SURVIVED if code == 0 else TOO_SLOW if code == -signal.SIGPROF else KILLED
        self.verdicts.append((running.pop(pid), verdict))


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share, by Wilson's formula."""
    z = 1.96
    middle = (hits + z * z / 2) / (total + z * z)
    half = z * math.sqrt(hits * (total - hits) / total + z * z / 4) / (total + z * z)
    return middle - half, middle + half


def report(found: list[tuple[Mutant, str]], of: int, failing: list[str]) -> float:
    """Print what lived, the score of each file and of all; return the last."""
    found = sorted(found, key=lambda pair: (pair[0].path, pair[0].line, pair[0].name))
    dead = [verdict in (KILLED, TOO_SLOW) for _, verdict in found]
    for (mutant, verdict), killed in zip(found, dead, strict=True):
        if not killed:
            print(f"{mutant.path}:{mutant.line}: {verdict}: {mutant.function}")
            print("".join(f"    {line}\n" for line in mutant.change), end="")
    each: dict[Path, list[bool]] = collections.defaultdict(list)
    for (mutant, _), killed in zip(found, dead, strict=True):
        each[mutant.path].append(killed)
    print()
    for path, kills in each.items():
        print(f"{sum(kills):5} of {len(kills):4} killed: {path}")
    for name in failing:
        print(f"not counted, as it fails without a mutant: {name}")
    low, high = wilson(sum(dead), len(dead))
    score = sum(dead) / len(dead)
    kinds = collections.Counter(verdict for _, verdict in found)
    print(f"\n{len(dead):,} of {of:,} mutants: " + ", ".join(f"{kinds[kind]:,} {kind}" for kind in kinds))
    print(f"mutation score: {score:.1%} (95 % confidence: {low:.1%} to {high:.1%})")
    return score


def main() -> int:
    """Take the sample, run it, report."""
    parser = argparse.ArgumentParser(description="The mutation score of kernel/ and series/.")
    parser.add_argument("--sample", type=int, default=300, help="mutants to try; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--variants", type=int, default=5, help="of a test with parameters, at most; 0: all")
    parser.add_argument("--only", action="append", help="a file name; may be repeated; default: every file")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--least", type=float, default=0, help="the share to kill, 0 to 1")
    parser.add_argument("tests", nargs="*", help="default: the quick tests of the specification")
    options = parser.parse_args()
    paths = [path for part in MUTATED for path in sorted((ROOT / "src" / "rmaplab" / part).glob("*.py"))]
    paths = [path for path in paths if not options.only or path.name in options.only]
    mutants = [mutant for path in tqdm(paths, desc="files", disable=None) for mutant in mutants_of(path)]
    chosen = random.Random(options.seed).sample(mutants, min(options.sample or len(mutants), len(mutants)))
    mutation = Mutation(chosen, options.variants, options.seed, options.jobs)
    with tempfile.TemporaryDirectory() as storage:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = storage
        arguments = ["-q", "--capture=sys", "--hypothesis-seed=0", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
        arguments += [f"--ignore-glob={ROOT / pattern}.py" for pattern in LEFT_OUT]
        arguments += options.tests or [str(ROOT / folder) for folder in TESTS]
        pytest.main(arguments, plugins=[mutation])
    if not mutation.verdicts:
        return 2
    return int(report(mutation.verdicts, len(mutants), mutation.failing) < options.least)


if __name__ == "__main__":
    sys.exit(main())
