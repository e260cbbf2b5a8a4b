# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel is read by BPF programs, and held against what /proc says of processes started here.

Loading programs into the kernel is on request only: RMAPLAB_LIVE=1.
"""

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rmaplab.errors import InputError
from rmaplab.realkernel import bpf
from rmaplab.realkernel.bpf_iterator import MappedVma, VmaIterator
from rmaplab.realkernel.btf import Btf
from rmaplab.realkernel.live import LiveTarget
from rmaplab.realkernel.memory import FaultError
from rmaplab.realkernel.reader import GraphReader, read_graph

REASON = "; ".join(bpf.obstacles()) or None
if os.environ.get("RMAPLAB_LIVE") != "1":
    REASON = "loads BPF programs into the running kernel: RMAPLAB_LIVE=1 allows it"
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

PAGE = 4096
ARENA, END = 0x1000000000, 0x2000000000
MAYSHARE = 0x80  # VM_MAYSHARE, which task_mmu.c shows as "s"
GET_FD_BY_ID = 13
FAMILY = """
import ctypes, os, sys
arena, pages, generations = map(int, sys.argv[1:])
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
assert libc.mmap(ctypes.c_void_p(arena), pages * 4096, 3, 0x32 | 0x100000, -1, 0) == arena
libc.madvise(ctypes.c_void_p(arena), pages * 4096, 15)
ctypes.memset(arena, 1, pages * 4096)
os.write(1, b"%d\\n" % os.getpid())
for _ in range(generations - 1):
    if child := os.fork():
        os.waitpid(child, 0)
        os._exit(0)
    ctypes.memset(arena, 2, 1)
    os.write(1, b"%d\\n" % os.getpid())
os.read(0, 1)
"""


@pytest.fixture(scope="module")
def live():
    with LiveTarget() as target:
        yield target


@pytest.fixture
def family():
    """Starts a process and its descendants, of which each has a page of its own; answers their ids."""
    started = []

    def start(generations, pages=4):
        process = subprocess.Popen(
            [sys.executable, "-c", FAMILY, *map(str, (ARENA, pages, generations))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        pids = [int(process.stdout.readline()) for _ in range(generations)]
        while any(state(pid) != "S" for pid in pids):
            time.sleep(0.001)
        return pids

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def maps(pid):
    """Start, end, protection and offset in pages of each VMA, as /proc tells; the gate page has no VMA."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        area, protection, offset, _, inode, *name = line.split(maxsplit=5)
        if name != ["[vsyscall]"]:
            start, end = (int(at, 16) for at in area.split("-"))
            found.append((start, end, protection, int(offset, 16) // PAGE if int(inode) else None))
    return found


def frames(pid, start, pages):
    """Page frame numbers, as /proc/PID/pagemap tells them to root."""
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(start // PAGE * 8)
        return [word & (1 << 55) - 1 for (word,) in struct.iter_unpack("<Q", file.read(8 * pages))]


# VMAs and chains.


def test_vmas_are_those_that_proc_tells(live, family):
    pids = family(2)
    graph = read_graph(live, pids, folios=False)
    assert graph.remarks == []
    assert [(task.pid, task.comm) for task in graph.tasks] == [
        (pid, Path(f"/proc/{pid}/comm").read_text().strip()) for pid in pids
    ]
    for number, pid in enumerate(pids):
        found = []
        for vma in graph.vmas:
            if vma.task == number:
                bits = "".join(letter if vma.flags >> bit & 1 else "-" for bit, letter in enumerate("rwx"))
                shared = "s" if vma.flags & MAYSHARE else "p"
                found.append((vma.start, vma.end, bits + shared, vma.pgoff if vma.file else None))
        told = maps(pid)
        # Special mappings ([vdso], [vvar]) have an inode of 0 and no file.
        assert found == [(*one[:3], one[3] if one[3] is not None else found[at][3]) for at, one in enumerate(told)]
        assert len(told) > 20


def test_three_generations_are_linked_as_fork_links_them(live, family):
    """rmap.c, anon_vma_fork: a child's VMA is linked to all that its parent's is, and to one of its own."""
    pids = family(3)
    graph = read_graph(live, pids, ARENA, END, folios=False)
    assert (graph.remarks, [task.pid for task in graph.tasks]) == ([], pids)
    assert [(vma.task, vma.start, vma.end, vma.pgoff) for vma in graph.vmas] == [
        (number, ARENA, ARENA + 4 * PAGE, ARENA // PAGE) for number in range(3)
    ]
    own = [vma.anon_vma for vma in graph.vmas]
    assert len(set(own)) == 3
    for number, vma in enumerate(graph.vmas):
        assert {graph.avcs[avc].anon_vma for avc in vma.chain} == set(own[: number + 1])
        assert len(vma.chain) == number + 1
        assert all(graph.avcs[avc].vma == vma.address for avc in vma.chain)
    for number, address in enumerate(own):
        anon_vma = graph.anon_vmas[address]
        assert (anon_vma.root, anon_vma.parent) == (own[0], own[max(0, number - 1)])
        assert {graph.avcs[avc].vma for avc in graph.trees[address]} == {vma.address for vma in graph.vmas[number:]}
        assert anon_vma.num_active_vmas == 1
        assert anon_vma.num_children == {0: 2, 1: 1, 2: 0}[number]  # a root is its own child
        assert anon_vma.refcount == {0: 3, 1: 1, 2: 1}[number]


def test_the_iterator_and_the_tree_of_vmas_tell_the_same(live, family):
    """The tree (mm_mt) is read without a lock, which does for processes that sleep."""
    pids = family(3)
    named = {pid: f"P{number}" for number, pid in enumerate(pids)}
    walked = GraphReader(live).read(live.tasks(pids))
    told = read_graph(live, pids)
    assert walked.remarks == told.remarks == []
    assert walked.snapshot(named) == told.snapshot(named)
    assert len(told.vmas) > 60


def test_long_chains_go_on_without_the_lock(live, family):
    """The program tells where it stopped, and the rest is read from there."""
    pids = family(6)
    btf = Btf.of_file(bpf.BTF)
    whole = read_graph(live, pids, ARENA, END, folios=False)
    usual, live.iterator = live.iterator, VmaIterator(btf, live.iterator.vma_bytes, most=2)
    try:
        parts = read_graph(live, pids, ARENA, END, folios=False)
    finally:
        live.iterator.close()
        live.iterator = usual
    assert [len(vma.chain) for vma in parts.vmas] == [1, 2, 3, 4, 5, 6]
    assert parts.vmas == whole.vmas
    assert (parts.avcs, parts.remarks) == (whole.avcs, [])


def test_bounds_leave_out_vmas_and_not_processes(live, family):
    pids = family(2)
    for lo, hi, count in ((ARENA, ARENA + 1, 2), (ARENA + 1, END, 0), (0, 0, 0)):
        graph = read_graph(live, pids, lo, hi)
        assert ([task.pid for task in graph.tasks], len(graph.vmas)) == (pids, count)


def test_processes_that_are_gone_are_left_out(live, family):
    (alive,) = family(1)
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert [task.pid for task in live.tasks([alive, gone.pid])] == [alive]
    graph = read_graph(live, [gone.pid])
    assert (graph.tasks, graph.vmas, graph.remarks) == ([], [], [])


def test_all_processes_are_those_that_proc_tells(live, family):
    pids = family(2)
    told = {int(one.name) for one in Path("/proc").iterdir() if one.name.isdecimal()}
    found = {task.pid for task in live.tasks()}
    assert set(pids) <= found
    assert os.getpid() in found
    assert 2 not in found  # kthreadd has no address space
    # Others come and go, so only those that stay count.
    lasting = {pid for pid in told if maps_of(pid)}
    assert lasting <= found


def maps_of(pid):
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


def test_ids_are_those_of_ones_own_pid_namespace(live):
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    program = """
import os
from rmaplab.realkernel.live import LiveTarget
with LiveTarget() as live:
    print(os.getpid(), *[task.pid for task in live.tasks()], *[task.pid for task in live.tasks([1])])
"""
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert (result.stdout, result.stderr) == ("1 1 1\n", "")


# Pages.


def test_pages_are_those_that_pagemap_tells(live, family):
    """Frame numbers of /proc, and what the struct pages say (memory.c, mm/rmap.c)."""
    if not live.machine.knows_pages:
        pytest.skip(f"where this kernel keeps pages was not found: {live.machine}")
    pids = family(2)
    graph = read_graph(live, pids, ARENA, END)
    assert graph.remarks == []
    size = live.layout.size("page")
    found = {
        (pte.task, pte.address): (address - live.machine.vmemmap) // size
        for address, folio in graph.folios.items()
        for pte in folio.ptes
    }
    assert found == {
        (task, ARENA + PAGE * number): frame
        for task, pid in enumerate(pids)
        for number, frame in enumerate(frames(pid, ARENA, 4))
    }
    parent, child = (vma.anon_vma for vma in graph.vmas)
    about = sorted(
        (folio.anon_vma == child, folio.index - ARENA // PAGE, folio.mapcount, folio.exclusive, len(folio.ptes))
        for folio in graph.folios.values()
    )
    assert about == [
        *((False, 0, 1, False, 1), (False, 1, 2, False, 2), (False, 2, 2, False, 2), (False, 3, 2, False, 2)),
        (True, 0, 1, True, 1),
    ]
    assert {folio.anon_vma for folio in graph.folios.values()} == {parent, child}


# Memory.


def test_memory_is_read_in_batches(live):
    """task_struct.comm of our own task, in the midst of addresses where nothing is."""
    (own,) = {record.task for record in live.iterator.records(os.getpid()) if isinstance(record, MappedVma)}
    comm = own + live.layout.offset("task_struct.comm")
    expected = Path("/proc/self/comm").read_text().strip().encode()
    addresses = [comm, 0, 8, -16, 1 << 64, 1 << 62, ARENA, (1 << 64) - 1, comm] * 500
    found = live.memory.read_many(addresses, 16)
    assert len(found) == len(addresses) > 4000
    assert {data and data.split(b"\0")[0] for data in found[0::9] + found[8::9]} == {expected}
    assert all(data is None for at, data in enumerate(found) if at % 9 not in (0, 8))
    assert live.memory.read(comm, 16) == found[0]
    assert live.memory.read_many([comm + at for at in range(16)], 1) == [found[0][at : at + 1] for at in range(16)]


def test_more_than_a_page_is_read_at_once(live):
    """Of the direct map: a page of our own, and its neighbours if they are not reserved."""
    if not live.machine.page_offset:
        pytest.skip("where this kernel maps physical memory was not found")
    pages = [live.machine.page_offset + (16 << 20) + PAGE * number for number in range(3)]
    data = live.memory.read(pages[0] + 100, 2 * PAGE)
    assert data == b"".join(live.memory.read(page, PAGE) for page in pages)[100 : 100 + 2 * PAGE]


@pytest.mark.parametrize("address", [0, 8, -16, 1 << 62, ARENA])
def test_a_fault_names_the_address(live, address):
    with pytest.raises(FaultError) as caught:
        live.memory.read(address, 8)
    assert caught.value.address == address


# Coming and going.


def descriptors():
    links = (os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.is_symlink() or one.exists())
    return sorted(link for link in links if "bpf" in link)


def programs():
    """The ids of the BPF programs of this process."""
    found = []
    for one in Path("/proc/self/fdinfo").iterdir():
        try:
            text = one.read_text()
        except OSError:
            continue
        found += [int(line.split()[1]) for line in text.splitlines() if line.startswith("prog_id:")]
    return found


def test_nothing_of_it_stays_in_the_kernel(live):
    before, known = descriptors(), programs()
    with LiveTarget() as target:
        read_graph(target, [os.getpid()], folios=False)
        new = set(programs()) - set(known)
        assert len(new) == 2
        assert len(descriptors()) > len(before)
    assert descriptors() == before
    for ident in new:
        gone = False
        for _ in range(1000):
            try:
                os.close(bpf.call_bpf(GET_FD_BY_ID, struct.pack("<I", ident)))
            except FileNotFoundError:
                gone = True
                break
            time.sleep(0.001)
        assert gone


def test_who_may_not_load_programs_is_told_what_is_missing(live):
    ends = os.pipe()
    if not (child := os.fork()):
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            LiveTarget().close()
            os.write(ends[1], b"it was loaded")
        except InputError as error:
            os.write(ends[1], str(error).encode())
        finally:
            os._exit(0)
    os.close(ends[1])
    os.waitpid(child, 0)
    with open(ends[0], encoding="utf-8") as file:
        told = file.read()
    assert "Operation not permitted" in told
    assert "CAP_PERFMON and CAP_BPF: be root" in told


def test_processes_that_come_and_go_do_no_harm(live):
    """Whatever is torn is a remark; there is no exception, and no end without an end."""
    script = "import os\nfor _ in range(400):\n p = os.fork()\n if not p: os._exit(0)\n os.waitpid(p, 0)\n"
    with subprocess.Popen([sys.executable, "-c", script]) as busy:
        count = 0
        while busy.poll() is None:
            graph = read_graph(live, [busy.pid, *children(busy.pid)])
            graph.snapshot(layout=live.layout)
            count += 1
    assert count > 3


def children(pid):
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
