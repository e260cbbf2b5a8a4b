# SPDX-License-Identifier: GPL-2.0-only
"""Read the reverse map out of a real kernel: this one, a core dump, a guest.

--live loads two BPF programs into the running kernel, which only read, and
are gone when this ends; it takes root and BTF, and nothing else.  A machine
that goes on while it is read changes meanwhile: what does not fit together
then is reported as incomplete, never as a violation.  Exit code 1 if
--validate finds one, 4 if the kernel cannot be read.
"""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmaplab.check.validate import validate
from rmaplab.cli.common import add_output, emit, note, positive, standard_input, write_file
from rmaplab.errors import InputError, UsageError
from rmaplab.gcpause import paused_gc
from rmaplab.realkernel.guests import series_of_release
from rmaplab.realkernel.reader import read_graph
from rmaplab.report.graph_page import graph_page
from rmaplab.report.inspection import USUAL_SIZES, Inspection, inspection_document, inspection_text
from rmaplab.report.place import place_text
from rmaplab.report.steady import Steady
from rmaplab.series import DEFAULT, find
from rmaplab.snapshot import Snapshot

if TYPE_CHECKING:
    import argparse

    from rmaplab.check.validate import Verdict
    from rmaplab.realkernel.target import Target

__all__ = ["prepare_parser", "run"]


_READINGS = 3  # after the first, of a machine that goes on


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    source = parser.add_argument_group("what to read (one of them)")
    source.add_argument("snapshot", metavar="SNAPSHOT", nargs="?", help="what inspect or run printed as JSON")
    source.add_argument("--live", action="store_true", help="the running kernel, by BPF programs (root, BTF)")
    source.add_argument("--kcore", action="store_true", help="the running kernel, by /proc/kcore (root, drgn)")
    source.add_argument("--core", metavar="FILE", help="a core dump of a kernel (drgn)")
    source.add_argument("--qmp", metavar="SOCKET", help="a QEMU guest, by its QMP socket (drgn)")
    source.add_argument("--um", metavar="PID", type=positive, help="a user-mode kernel, by its process (drgn)")
    types = parser.add_argument_group("its types, if it does not have them itself")
    types.add_argument("--vmlinux", metavar="FILE", type=Path, help="the kernel's debug symbols")
    types.add_argument("--btf", metavar="FILE", type=Path, help="a copy of its /sys/kernel/btf/vmlinux")
    parser.add_argument("--pid", metavar="PID", type=positive, action="append", help="only this process (repeatable)")
    parser.add_argument(
        "--addr",
        metavar="ADDR",
        type=_address,
        help="what is at an address, of --pid or of an anon_vma in the kernel",
    )
    parser.add_argument("--validate", action="store_true", help="check every invariant that holds for a state")
    parser.add_argument(
        "--series", metavar="NAME|FILE.py", help="judge by this logic (default: by the kernel's release)"
    )
    parser.add_argument("--no-pages", action="store_true", help="leave page tables and folios out, which is faster")
    parser.add_argument("--top", metavar="N", type=positive, default=10, help="lines of each list (default 10)")
    parser.add_argument("--html", metavar="FILE", help="write a page with the graph, too")
    add_output(parser)


def _address(text: str) -> int:
    return int(text, 16 if text.lower().startswith(("0x", "ffff")) else 0)


def run(args: argparse.Namespace) -> int:
    """Read, judge, tell."""
    sources = [args.snapshot, args.live, args.kcore, args.core, args.qmp, args.um]
    if sum(bool(source) for source in sources) != 1:
        raise UsageError("name one kernel: --live, --kcore, --core FILE, --qmp SOCKET, --um PID, or a SNAPSHOT")
    if args.snapshot:
        inspection = _of_document(args)
        if args.validate:
            inspection = dataclasses.replace(inspection, verdict=_verdict(inspection))
    else:
        with closing(_target(args)) as target:
            inspection = _read(args, target)
            if args.validate:
                inspection = _judged(args, target, inspection)
    if args.html:
        write_file(args.html, graph_page(inspection, args.top))
        note(args, f"the graph is in {args.html}")
    found = None if args.addr is None else place_text(inspection, args.addr)
    emit(
        args,
        "snapshot",
        inspection_document(inspection, args.top),
        lambda: inspection_text(inspection, args.top) if found is None else found,
    )
    return 1 if inspection.verdict is not None and inspection.verdict.violations else 0


def _target(args: argparse.Namespace) -> Target:
    """The kernel that the options name; what reads it is loaded only then."""
    if args.live:
        from rmaplab.realkernel.live import LiveTarget

        return LiveTarget()
    if args.um:
        from rmaplab.realkernel.um_facts import open_um

        return open_um(args.um, args.vmlinux)
    from rmaplab.realkernel import vmcore

    if args.kcore:
        return vmcore.open_kcore(vmlinux=args.vmlinux, btf=args.btf)
    if args.qmp:
        return vmcore.open_qmp(args.qmp, vmlinux=args.vmlinux, btf=args.btf)
    return vmcore.open_core(Path(args.core), vmlinux=args.vmlinux, btf=args.btf)


def _read(args: argparse.Namespace, target: Target) -> Inspection:
    with paused_gc():
        graph = read_graph(target, args.pid, folios=not args.no_pages)
        snapshot = graph.snapshot(layout=target.layout)
    if missing := set(args.pid or ()) - {task.pid for task in graph.tasks}:
        raise InputError(f"no process {', '.join(map(str, sorted(missing)))} with an address space runs there")
    series = args.series or series_of_release(target.release)
    return Inspection(
        kernel=target.release,
        series=series,
        snapshot=snapshot,
        incomplete=tuple(graph.remarks),
        addresses=graph.addresses,
        partial=args.pid is not None,
        sizes=(target.layout.size("anon_vma"), target.layout.size("anon_vma_chain")),
    )


def _verdict(inspection: Inspection) -> Verdict:
    return validate(
        inspection.snapshot, find(inspection.series), partial=inspection.partial or bool(inspection.incomplete)
    )


def _judged(args: argparse.Namespace, target: Target, inspection: Inspection) -> Inspection:
    """With the verdict; what goes on while it is read is read again if something seems wrong."""
    verdict = _verdict(inspection)
    goes_on = args.live or args.kcore or args.qmp or args.um
    if not goes_on or not verdict.violations:
        return dataclasses.replace(inspection, verdict=verdict)
    steady = Steady(inspection)
    kept = verdict.violations
    for _ in range(_READINGS):
        again = _read(args, target)
        steady.hold_against(again)
        lasting = {again.placed(report) for report in _verdict(again).violations}
        kept = tuple(one for one in kept if inspection.placed(one) in lasting and steady.knows(one))
        if not kept:
            break
    gone = len(verdict.violations) - len(kept)
    if gone:
        remark = f"{gone:,} contradictions in trees that had changed when they were read again: the machine goes on"
        inspection = dataclasses.replace(inspection, incomplete=(*inspection.incomplete, remark))
    return dataclasses.replace(inspection, verdict=dataclasses.replace(verdict, violations=kept))


def _of_document(args: argparse.Namespace) -> Inspection:
    """From JSON: what inspect printed, or the end of a run."""
    name = args.snapshot
    try:
        text = standard_input().read() if name == "-" else Path(name).read_bytes()
        document = json.loads(text)
        state = document["final"] if document.get("kind") == "run" else document
        snapshot = Snapshot.from_dict(state)
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{name}: not a snapshot that `rmaplab inspect --json` or `run --json` wrote: {error}"
        ) from None
    series = args.series or document.get("series") or DEFAULT
    return Inspection(
        kernel=document.get("kernel", "of the model"),
        series=series,
        snapshot=snapshot,
        incomplete=tuple(document.get("incomplete", ())),
        partial=bool(document.get("partial")),
        sizes=_sizes(document),
    )


def _sizes(document: dict[str, Any]) -> tuple[int, int]:
    sizes = document.get("sizes")
    given = (sizes.get("anon_vma"), sizes.get("anon_vma_chain")) if isinstance(sizes, dict) else ()
    match given:
        case (int() as anon_vma, int() as link):
            return anon_vma, link
    return USUAL_SIZES
