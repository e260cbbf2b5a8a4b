# SPDX-License-Identifier: GPL-2.0-only
"""Run programs on a real kernel and on the model, and compare the graphs after every call.

Without a scenario the programs are random.  The kernel is a guest that
`make kernels` made (--kernel), or the one that runs here (--host), which is
asked with a BPF program and only about processes started for it.  Exit code 1
if model and kernel part, with the shortest program that parts them.
"""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

from rmaplab.cli.common import add_output, emit, jobs_default, note, positive, seconds
from rmaplab.cli.progress import bar
from rmaplab.errors import UsageError
from rmaplab.realkernel.conform.campaign import Campaign, conform
from rmaplab.realkernel.conform.given import program_of
from rmaplab.report.conformance import conformance_document, conformance_text
from rmaplab.scenario import load
from rmaplab.series import find

if TYPE_CHECKING:
    import argparse

    from rmaplab.realkernel.conform.run import Conformance

__all__ = ["prepare_parser", "run"]

PROGRAMS = 200


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "scenario", metavar="SCENARIO", nargs="*", help="*.rmap files to run instead of random programs"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--kernel", metavar="NAME", default="um-7.3", help="a guest, such as um-6.12 (default um-7.3)")
    where.add_argument("--host", action="store_true", help="the running kernel, read by a BPF program (root)")
    parser.add_argument(
        "--series", metavar="NAME|FILE.py", help="the model's logic (default: by the kernel's release)"
    )
    parser.add_argument("--programs", type=positive, metavar="N", help=f"random programs (default {PROGRAMS})")
    parser.add_argument("--time", type=seconds, metavar="SECONDS", help="as many programs as that takes")
    parser.add_argument(
        "-j", "--jobs", type=positive, default=jobs_default(), metavar="N", help="workers, each a guest"
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run them, report, and say by the exit code whether the two part."""
    if args.scenario and (args.programs or args.time is not None):
        raise UsageError("give scenarios, or how many random programs, not both")
    kernel = "host" if args.host else args.kernel
    campaign = Campaign.on(kernel, args.series)
    find(campaign.series)  # so that an error in it is told before guests are started
    given = [program_of(load(path)) for path in args.scenario]
    programs = None if args.time is not None and args.programs is None else args.programs or PROGRAMS
    seeds = range(args.seed, args.seed + programs) if programs else count(args.seed)
    workers = 1 if given else min(args.jobs, programs or args.jobs)
    began = time.monotonic()
    with bar(args, f"conform {kernel}", " programs", None if given else programs) as progress:

        def show(so_far: Conformance) -> None:
            progress.set_postfix_str(f"{len(so_far.mismatches)} mismatches", refresh=False)
            progress.update(so_far.programs - progress.n)

        result = conform(
            campaign,
            given or seeds,
            workers=workers,
            progress=show,
            enough=lambda: args.time is not None and time.monotonic() - began >= args.time,
        )
    took = time.monotonic() - began
    if result.interrupted:
        note(args, "interrupted; what was finished is reported")
    emit(args, "conform", conformance_document(result, took), lambda: conformance_text(result, took))
    if result.interrupted:
        return 130
    return 1 if result.mismatches else 0
