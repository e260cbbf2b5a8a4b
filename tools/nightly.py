# SPDX-License-Identifier: GPL-2.0-only
"""The long run: millions of random calls, every allocation failing once, every invariant checked.

    python tools/nightly.py [--operations 10_000_000] [--jobs 2] [--series v7.0 --series v6.18] [--seed 0]

Exit code 0 if all held, 1 if something was violated (the scenario that shows
it is printed), 130 if interrupted; the figures so far are printed in any case.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from tqdm import tqdm

from rmaplab.check.soak import Soak, soak
from rmaplab.series import find

CHUNK = 20  # histories of a task


def task(series: str, first: int) -> Soak:
    """The histories of the seeds from ``first`` on."""
    return soak(find(series), range(first, first + CHUNK))


def run(series: str, operations: int, seed: int, jobs: int) -> tuple[Soak, bool]:
    """Histories until there are enough operations or a finding; whether it was interrupted."""
    total = Soak(series)
    progress = tqdm(desc=series, total=operations, unit="op", unit_scale=True, disable=None)
    with ProcessPoolExecutor(jobs) as pool:
        firsts = itertools.count(seed, CHUNK)
        waiting = [pool.submit(task, series, next(firsts)) for _ in range(2 * jobs)]
        try:
            while waiting:
                done = waiting.pop(0).result()
                total.add(done)
                progress.update(done.operations)
                if total.operations < operations and not total.findings:
                    waiting.append(pool.submit(task, series, next(firsts)))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            return total, True
        finally:
            progress.close()
    return total, False


def report(result: Soak) -> None:
    """The figures, and every finding."""
    failures = ", ".join(f"{count:,} {kind}" for kind, count in sorted(result.failures.items()))
    print(f"{result.series}: {result.operations:,} operations in {result.histories:,} histories")
    print(f"  failed allocations: {failures}")
    print("  calls: " + ", ".join(f"{name} {count:,}" for name, count in sorted(result.calls.items())))
    print("  reached: " + ", ".join(f"{name} ({count:,})" for name, count in sorted(result.reached.items())))
    for finding in result.findings:
        print(f"  VIOLATED, seed {finding.seed}:")
        for ident, detail in finding.violations:
            print(f"    {ident}: {detail}")
        print("    " + finding.scenario.replace("\n", "\n    "))


def main() -> int:
    """Run every series asked for."""
    parser = argparse.ArgumentParser(description="Random histories with every allocation failing once.")
    parser.add_argument("--operations", type=int, default=10_000_000, help="calls on each series")
    parser.add_argument("--series", action="append", help="default: v7.0 and v6.18")
    parser.add_argument("--seed", type=int, default=0, help="of the first history")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    status = 0
    for series in options.series or ("v7.0", "v6.18"):
        result, interrupted = run(series, options.operations, options.seed, options.jobs)
        report(result)
        if interrupted:
            return 130
        status |= bool(result.findings)
    return status


if __name__ == "__main__":
    sys.exit(main())
