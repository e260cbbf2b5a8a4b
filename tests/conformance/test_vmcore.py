# SPDX-License-Identifier: GPL-2.0-only
"""What drgn opens is read as the guest itself is: dumps and QMP, with debug symbols and with BTF alone.

``RMAPLAB_EVERY_KERNEL=1`` in the environment tries the dumps of all of Debian's kernels.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest
from test_guests import PAGE, RW, lacking, mmap

from rmaplab.cli.main import main
from rmaplab.errors import InputError
from rmaplab.realkernel import drgn_programs
from rmaplab.realkernel.btf import Btf, Kind
from rmaplab.realkernel.conform.lowering import ARENA, ARENA_END
from rmaplab.realkernel.guest import qemu
from rmaplab.realkernel.guest.qmp import Qmp
from rmaplab.realkernel.guests import open_guest
from rmaplab.realkernel.reader import read_graph
from rmaplab.realkernel.um_facts import open_um

drgn = pytest.importorskip("drgn", reason="needs drgn: pip install 'rmaplab[kernel]'")

from rmaplab.realkernel.vmcore import open_core, open_qmp  # noqa: E402 (what drgn is needed for)

WITH_SYMBOLS = "deb-6.12"
WITHOUT_SYMBOLS = "deb-7.0"
EVERY = ("deb-6.1", WITH_SYMBOLS, "deb-6.18", WITHOUT_SYMBOLS, "deb-7.3")
DUMPED = EVERY if os.environ.get("RMAPLAB_EVERY_KERNEL") == "1" else (WITH_SYMBOLS, WITHOUT_SYMBOLS)
USER_MODE = ("um-6.12", "um-7.3")
PAGE_OFFSET_OF_LA57 = 0xFF11_0000_0000_0000  # __PAGE_OFFSET_BASE_L5 (page_64_types.h)
FAMILY = (
    "spawn 0",
    mmap(0, ARENA, 4),
    f"0 write {ARENA:#x}",
    "0 fork 1",
    f"1 write {ARENA + PAGE:#x}",
    "1 fork 2",
    "2 fork 3",
    f"2 write {ARENA + 2 * PAGE:#x}",
    f"0 munmap {ARENA + 2 * PAGE:#x} {PAGE:#x}",
    f"3 mprotect {ARENA:#x} {PAGE:#x} {RW & 1}",
)


class Dumped:
    """A guest that holds a family, what was read of it, and its dump."""

    def __init__(self, name, folder):
        self.guest = open_guest(name)
        try:
            assert all(answer.ok for answer in self.guest.batch(FAMILY))
            self.pids = sorted(self.guest.pids.values())
            self.snapshot = self.read(self.guest.target())
            self.kernel = self.guest.kernel
            self.qmp = self.guest.files.qmp
            self.core = folder / "core"
            self.guest.dump(self.core)
        except BaseException:
            self.guest.close()
            raise

    def read(self, target):
        graph = read_graph(target, self.pids, ARENA, ARENA_END)
        assert graph.remarks == []
        return graph.snapshot()


@pytest.fixture(scope="module")
def dumped(tmp_path_factory):
    """Guests by name, each booted once."""
    made = {}

    def get(name):
        reason = lacking(name)
        if reason is not None:
            pytest.skip(reason)
        if name not in made:
            made[name] = Dumped(name, tmp_path_factory.mktemp(name))
        return made[name]

    yield get
    for one in made.values():
        one.guest.close()


@pytest.fixture
def symbols(dumped):
    """A guest whose kernel has debug symbols."""
    found = dumped(WITH_SYMBOLS)
    if found.kernel.vmlinux is None:
        pytest.skip("a vmlinux with debug symbols is not there")
    return found


@pytest.mark.parametrize("name", DUMPED)
def test_a_dump_by_its_own_btf(name, dumped):
    one = dumped(name)
    assert one.snapshot.anon_vmas
    assert one.snapshot.folios
    target = open_core(one.core)
    assert target.release == one.kernel.version
    assert one.read(target) == one.snapshot
    assert target.layout == one.guest.target().layout
    assert target.machine == one.guest.target().machine


def test_a_dump_by_debug_symbols(symbols):
    target = open_core(symbols.core, symbols.kernel.vmlinux)
    assert symbols.read(target) == symbols.snapshot
    assert target.layout == symbols.guest.target().layout


@pytest.mark.parametrize("name", [WITH_SYMBOLS, WITHOUT_SYMBOLS])
def test_a_guest_by_qmp_and_its_btf(name, dumped):
    one = dumped(name)
    for _ in range(2):  # the first lets go of QEMU, which serves one at a time
        target = open_qmp(one.qmp)
        assert one.read(target) == one.snapshot
        target.close()


def test_a_guest_by_qmp_and_debug_symbols(symbols, monkeypatch):
    monkeypatch.setattr(drgn_programs, "_PATIENCE", 0.5)
    target = open_qmp(symbols.qmp, symbols.kernel.vmlinux)
    try:
        assert symbols.read(target) == symbols.snapshot
        with pytest.raises(InputError, match="QEMU does not answer: it talks to one at a time"):
            open_qmp(symbols.qmp)
    finally:
        target.close()


def test_a_kernel_that_has_moved_and_has_five_levels(symbols, tmp_path, monkeypatch):
    """KASLR moves its image, its direct map and its struct pages; page tables are those of la57."""
    options = tuple(option for option in qemu._KERNEL_OPTIONS if option != "nokaslr")
    monkeypatch.setattr(qemu, "_KERNEL_OPTIONS", options)
    plain = qemu._command

    def command(*words):
        return [word.replace("la57=off", "la57=on") for word in plain(*words)]

    monkeypatch.setattr(qemu, "_command", command)
    # What is known of the guest is where its kernel is linked to; here it is for drgn to find it.
    monkeypatch.setattr(qemu.QemuGuest, "_open_target", lambda guest: None)
    core = tmp_path / "core"
    with qemu.QemuGuest(symbols.kernel) as guest:
        assert all(answer.ok for answer in guest.batch(FAMILY))
        pids = sorted(guest.pids.values())
        guest.dump(core)
        by_qmp = open_qmp(guest.files.qmp)
        snapshots = [read_graph(by_qmp, pids, ARENA, ARENA_END).snapshot()]
        by_qmp.close()
    for vmlinux in (None, symbols.kernel.vmlinux):
        target = open_core(core, vmlinux)
        assert target.machine == by_qmp.machine
        assert target.machine.levels == 5
        snapshots.append(read_graph(target, pids, ARENA, ARENA_END).snapshot())
    # Each may stay by chance: the image has some hundred places to go to, the direct map many more.
    unmoved = symbols.guest.target().init_task, PAGE_OFFSET_OF_LA57
    assert (target.init_task, target.machine.page_offset) != unmoved
    assert snapshots[0] == snapshots[1] == snapshots[2]
    assert (snapshots[0].anon_vmas, snapshots[0].folios) == (symbols.snapshot.anon_vmas, symbols.snapshot.folios)


@pytest.mark.parametrize("name", [WITH_SYMBOLS, WITHOUT_SYMBOLS])
def test_a_compressed_dump(name, dumped, tmp_path):
    one = dumped(name)
    core = tmp_path / "kdump"
    with Qmp(one.qmp) as qmp:
        qmp.execute("dump-guest-memory", paging=False, protocol=f"file:{core}", format="kdump-zlib")
    assert one.read(open_core(core)) == one.snapshot


def test_files_of_another_kernel(symbols, dumped, tmp_path):
    vmlinux, core = symbols.kernel.vmlinux, symbols.core
    assert symbols.read(open_core(core, btf=vmlinux)) == symbols.snapshot
    with pytest.raises(InputError, match="there is no such file"):
        open_core(core, tmp_path / "vmlinux")
    junk = tmp_path / "junk"
    junk.write_bytes(b"nothing")
    with pytest.raises(
        InputError, match=r"not the debug symbols of .* with the build id [0-9a-f]+ .*not an ELF file"
    ):
        open_core(core, junk)
    with pytest.raises(InputError, match="too short for BTF"):
        open_core(core, btf=junk)
    other = dumped(WITHOUT_SYMBOLS)
    with pytest.raises(InputError, match="did not match any loaded modules"):
        open_core(other.core, vmlinux)
    with pytest.raises(InputError, match="the types of another kernel: size of pglist_data is"):
        open_core(other.core, btf=vmlinux)


def test_a_dump_that_is_cut_off(dumped, tmp_path):
    one = dumped(WITH_SYMBOLS)
    data = one.core.read_bytes()
    for kept in (0, 3, 40, 4096, len(data) // 16):
        short = tmp_path / "short"
        short.write_bytes(data[:kept])
        with pytest.raises(InputError):
            open_core(short)


def test_what_inspect_says_of_a_dump(dumped, capsys):
    one = dumped(WITHOUT_SYMBOLS)
    pids = [word for pid in one.pids for word in ("--pid", str(pid))]
    assert main(["inspect", "--core", str(one.core), *pids]) == 0
    text = capsys.readouterr().out
    assert one.kernel.version in text


# --- drgn itself -------------------------------------------------------------------------------------


def shape(kind):
    """A structure's size, and its members' names, places and types, as far as BTF tells them."""
    return kind.size, [(one.name, one.bit_offset, one.bit_field_size, spelt(one.type)) for one in kind.members]


def spelt(kind):
    """A type's name; BTF has arrays of arrays as one, and ends that may be flexible."""
    while kind.kind == drgn.TypeKind.ARRAY:
        kind = kind.type
    return "" if "<anonymous>" in kind.type_name() else kind.type_name()


def test_types_are_those_of_the_debug_symbols(symbols):
    ours = open_core(symbols.core).prog
    dwarf = open_core(symbols.core, symbols.kernel.vmlinux).prog
    btf = Btf.of_file(symbols.kernel.vmlinux)
    named = [btf.type(ident) for ident in range(1, len(btf))]
    names = sorted({one.name for one in named if one.kind is Kind.STRUCT and one.name})
    chosen = ["anon_vma", "anon_vma_chain", "vm_area_struct", "mm_struct", "task_struct", "folio", "page", "sk_buff"]
    assert set(chosen) <= set(names)
    for name in chosen:
        assert shape(ours.type(f"struct {name}")) == shape(dwarf.type(f"struct {name}")), name
    different = []
    sample = random.Random(1).sample(names, 1000)
    for name in sample:
        try:
            theirs = dwarf.type(f"struct {name}")
        except LookupError:
            continue
        if theirs.is_complete() and shape(theirs) != shape(ours.type(f"struct {name}")):
            different.append(name)
    assert len(different) <= 5, different  # several structures of one name, of which each finds another first


SESSION = """
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import for_each_vma
from drgn.helpers.linux.pid import find_task
from drgn.helpers.linux.rbtree import rbtree_inorder_for_each_entry
from rmaplab.realkernel.plugin import graph, snapshot

pid = {pid}
ours = snapshot(prog, [pid])
for vma in for_each_vma(find_task(prog, pid).mm):
    head = vma.anon_vma_chain.address_of_()
    chain = [avc.anon_vma.value_() for avc in list_for_each_entry("struct anon_vma_chain", head, "same_vma")]
    tree = []
    if vma.anon_vma:
        root = vma.anon_vma.rb_root.rb_root.address_of_()
        tree = [avc.vma.value_() for avc in rbtree_inorder_for_each_entry("struct anon_vma_chain", root, "rb")]
    print(hex(vma.vm_start), len(chain), len(tree), vma.anon_vma.value_() in chain or not vma.anon_vma)
print("rmaplab", [(hex(vma.start), len(vma.chain)) for vma in ours.processes[0].vmas])
print(len(graph(prog, [pid]).anon_vmas) == len(ours.anon_vmas), prog["init_task"].comm.string_().decode())
"""


def session(core, text, folder, **environment):
    """What a drgn session prints and logs."""
    script = folder / "session.py"
    script.write_text(text)
    command = [sys.executable, "-m", "drgn", "--no-default-symbols", "-c", str(core), str(script)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


def test_a_drgn_session_has_types_and_our_snapshot(dumped, tmp_path):
    one = dumped(WITH_SYMBOLS)
    pid = one.pids[2]
    done = session(one.core, SESSION.format(pid=pid), tmp_path)
    assert done.returncode == 0, done.stderr
    *lines, ours, last = done.stdout.splitlines()
    assert last == "True swapper/0"
    start, chain, tree, holds = lines[0].split()
    assert (start, chain, holds) == (hex(ARENA), "3", "True")
    assert int(tree) == 3  # its own, and the two that its child split
    assert ours.startswith(f"rmaplab [('{ARENA:#x}', 3), ")


def test_without_the_plugin_drgn_finds_nothing(dumped, tmp_path):
    one = dumped(WITH_SYMBOLS)
    done = session(one.core, "print(prog.type('struct anon_vma'))", tmp_path, DRGN_DISABLE_PLUGINS="rmaplab")
    assert done.returncode != 0
    assert "could not find 'struct anon_vma'" in done.stderr


# --- user-mode kernels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", USER_MODE)
def test_a_user_mode_kernel_by_its_process(name):
    reason = lacking(name)
    if reason is not None:
        pytest.skip(reason)
    with open_guest(name) as guest:
        guest.batch(FAMILY)
        target = open_um(guest.process.pid)
        known = guest.target()
        assert (target.layout, target.machine, target.init_task, target.release) == (
            *(known.layout, known.machine, known.init_task),
            guest.release,
        )
        pids = sorted(guest.pids.values())
        assert read_graph(target, pids).snapshot() == read_graph(known, pids).snapshot()
        target.memory.close()


def test_a_process_that_is_no_user_mode_kernel():
    with pytest.raises(InputError, match=f"process {os.getpid()}: .*it must be what the process runs, a user-mode"):
        open_um(os.getpid())
