# SPDX-License-Identifier: GPL-2.0-only
"""The model held against every kernel there is: random programs by the thousand, and every failing allocation.

    python tools/conformance.py [--programs 10_000] [--few 1_000] [--jobs 2] [--seed 0] [--host] [NAME...]

User-mode kernels get the many programs, others the few; --host allows the
BPF programs that read the running kernel.  A kernel that is not there is
told and left out.  Exit code 0 if model and kernels agree, 1 if not (each
mismatch is printed), 130 if interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

from rmaplab.errors import RmaplabError
from rmaplab.realkernel.conform.campaign import Campaign, conform
from rmaplab.realkernel.conform.failing import failing_programs
from rmaplab.realkernel.guest.cache import KERNELS, OPTIONAL, find
from rmaplab.realkernel.guests import HOST, can_fail, open_guest, series_of
from rmaplab.report.text import table
from rmaplab.series import find as find_series

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmaplab.realkernel.conform.run import Conformance, Program

HEADS = ["kernel", "series", "programs", "calls", "failing", "graphs", "mismatches", "deaths", "boot s", "programs/s"]


def held(name: str, jobs: Iterable[int | Program], total: int, workers: int) -> tuple[Conformance, float]:
    """Run programs on a kernel; the tally and the seconds."""
    campaign = Campaign.on(name)
    began = time.monotonic()
    with tqdm(desc=name, total=total, unit="program", disable=None) as progress:
        result = conform(
            campaign, jobs, workers=workers, progress=lambda so_far: progress.update(so_far.programs - progress.n)
        )
    return result, time.monotonic() - began


def boot(name: str) -> float:
    """Seconds until a guest is ready and can be read."""
    with open_guest(name):
        pass  # what is learnt of a kernel once is learnt now
    began = time.monotonic()
    with open_guest(name) as guest:
        guest.target()
        return time.monotonic() - began


def main() -> int:
    """Everything that was asked for, one kernel after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", metavar="NAME", help="only these kernels")
    parser.add_argument("--programs", type=int, default=10_000, help="on each user-mode kernel")
    parser.add_argument("--few", type=int, default=1_000, help="on each other kernel")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--host", action="store_true", help="the running kernel, too")
    args = parser.parse_args()
    rows: list[list[object]] = [HEADS]
    agree, interrupted = True, False
    there = [name for name in OPTIONAL if find(name) is not None]
    for name in args.name or [*KERNELS, *there, *[HOST] * args.host]:
        if name != HOST and find(name) is None:
            print(f"{name}: not there, `make kernels KERNELS={name}` makes it", file=sys.stderr)
            continue
        try:
            seconds = boot(name)
            count = args.programs if can_fail(name) else args.few
            parts = [held(name, range(args.seed, args.seed + count), count, args.jobs)]
            if can_fail(name):
                failing = [program for _, _, program in failing_programs(find_series(series_of(name)))]
                parts.append(held(name, failing, len(failing), args.jobs))
        except RmaplabError as error:
            print(f"{name}: {error}", file=sys.stderr)
            agree = False
            continue
        for result, took in parts:
            rows.append(
                [
                    *(result.kernel, result.series, result.programs, sum(result.calls.values()), result.failures),
                    *(result.snapshots, len(result.mismatches), len(result.deaths)),
                    *(round(seconds, 2), round(result.programs / took, 1)),
                ]
            )
            for found in result.mismatches:
                agree = False
                print(f"{name}, program {found.seed}:\n{found.scenario()}" + "\n".join(found.what), flush=True)
            interrupted |= result.interrupted
        if interrupted:
            break
    print("\n".join(table(rows)) if len(rows) > 1 else "nothing was compared")
    return 130 if interrupted else 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
