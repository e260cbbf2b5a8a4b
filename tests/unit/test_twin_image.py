# SPDX-License-Identifier: GPL-2.0-only
"""A model's state, written as kernel memory and read back, is the same state; garbage is read without harm."""

import struct
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from huge_parts import PAGES, huge, machine, wanted
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshot_parts import histories
from twin_parts import btf_of, damage, read_back, readable

import rmaplab
from rmaplab.check.monitor import monitored
from rmaplab.check.validate import validate
from rmaplab.errors import InputError
from rmaplab.kernel.area import Area
from rmaplab.kernel.flags import PAGE_SIZE, PMD_ORDER, PMD_SIZE
from rmaplab.realkernel.btf import Btf
from rmaplab.realkernel.image import FIRST_PID, write_image
from rmaplab.realkernel.image_memory import PAGE_OFFSET, ImageMemory
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.memory import FaultError
from rmaplab.realkernel.reader import read_graph
from rmaplab.series import find

LAYOUTS = Path(rmaplab.__file__).parent / "data" / "layouts"
KERNELS = {
    "x86_64-6.1": "v6.0",
    "x86_64-6.12": "v6.12.112",
    "x86_64-6.18": "v6.18",
    "x86_64-7.0": "v7.0",
    "x86_64-7.3": "v7.3",
    "um-7.3": "v7.3",  # other offsets, and struct pages of an odd size
}
MANY_SIZES = sorted(set(KERNELS) - {"x86_64-6.1"})  # of large folios, which are of 2 MiB there


def layout_of(name):
    return Layout.of_file(LAYOUTS / f"{name}.json")


def assert_reads_back(kernel, layout, fill=16):
    graph, snapshot, image = read_back(kernel, layout, fill)
    assert graph.remarks == []
    assert snapshot == readable(kernel, image)
    return snapshot


# --- what is written is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=30, derandomize=True)
@given(seed=st.integers(0, 100_000), fill=st.integers(4, 16))
def test_a_random_history_reads_back_as_the_model_has_it(name, seed, fill):
    (kernel,) = histories(KERNELS[name], [seed], calls=60)
    assert_reads_back(kernel, layout_of(name), fill)


class Large:
    """Calls on ranges that cut large folios; they are of two sizes, and mostly pieces of ``unit`` pages."""

    def __init__(self, seed, series, orders, unit):
        self.random, self.unit = Random(seed), unit
        self.kernel, process = machine(*orders, series=find(series))
        self.area = wanted(process, 12 * unit)

    def part(self):
        first = self.random.randrange(12) * self.unit
        return self.area.part(first, min(first + self.random.randint(1, 4) * self.unit, self.area.pages) - 1)

    def step(self):
        process = self.random.choice(list(self.kernel.processes.values()))
        part = self.part()
        match self.random.choice(("write", "write", "write", "fork", "munmap", "mprotect", "mremap", "pin", "split")):
            case "fork" if len(self.kernel.processes) < 4:
                process.fork()
            case "mprotect":
                process.mprotect(part, self.random.choice(("r", "rw", "none")))
            case "mremap":
                process.mremap(part, at=self.part().start, dontunmap=self.random.random() < 0.3)
            case "pin":
                process.pin(part.part(0, 0))
            case "split":
                process.split_folio(part)
            case "munmap":
                process.munmap(part)
            case _:
                process.write(part, 0)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("orders", "unit"), [((2, PMD_ORDER), PAGES // 4), ((1, 2), 1)])
def test_large_folios_read_back(name, orders, unit):
    seen = set()
    for seed in range(2):
        history = Large(seed, KERNELS[name], orders, unit)
        for step in range(40):
            with suppress(OSError):
                history.step()
            if step % 10 == 9:
                snapshot = assert_reads_back(history.kernel, layout_of(name))
                seen |= {folio.order for folio in snapshot.folios}
    assert seen >= {0, *orders} & ({0, 2, PMD_ORDER} if name in MANY_SIZES else {0, PMD_ORDER})


def test_a_huge_page_that_nobody_may_access_is_still_mapped():
    kernel, process = machine(PMD_ORDER, series=find("v7.3"))
    area = huge(process, 2)
    process.mprotect(Area(area.start + PMD_SIZE, PAGES), "none")
    snapshot = assert_reads_back(kernel, layout_of("x86_64-7.3"))
    assert [(folio.order, folio.mapcount) for folio in snapshot.folios] == [(PMD_ORDER, 1)] * 2
    assert [len(vma.flags.split()) for vma in snapshot.processes[0].vmas] == [4, 2]


@pytest.mark.parametrize("fill", [4, 9, 16])
def test_a_maple_tree_of_many_levels_reads_back(fill):
    kernel = monitored(find("v6.18"))()
    process = kernel.spawn()
    area = process.mmap(700)
    for page in range(0, 700, 2):
        process.mprotect(area.part(page, page), "r")
    process.write(area, 1)
    snapshot = assert_reads_back(kernel, layout_of("x86_64-6.18"), fill)
    assert len(snapshot.processes[0].vmas) == 700


def test_one_vma_none_at_all_and_no_process():
    layout = layout_of("x86_64-7.3")
    kernel = monitored(find("v7.3"))()
    assert assert_reads_back(kernel, layout).processes == ()
    process = kernel.spawn()
    assert assert_reads_back(kernel, layout).processes[0].vmas == ()
    process.write(process.mmap(1))
    assert len(assert_reads_back(kernel, layout).processes[0].vmas) == 1


def test_tasks_with_one_mm_have_the_same_vmas_and_one_chain():
    kernel = monitored(find("v7.3"))()
    process = kernel.spawn()
    process.write(process.mmap(2))
    process.share("T")
    process.fork("C").share("D")
    snapshot = assert_reads_back(kernel, layout_of("x86_64-7.3"))
    assert [task.mm for task in snapshot.processes] == ["mm0", "mm0", "mm1", "mm1"]
    assert snapshot.processes[0].vmas == snapshot.processes[1].vmas


def test_the_zero_page_and_pages_of_files_are_no_anonymous_folios():
    kernel = monitored(find("v7.3"))()
    process = kernel.spawn()
    area, mapped = process.mmap(3), process.mmap(2, file="f")
    process.read(area, 0)
    process.write(area, 1)
    process.read(mapped, 0)
    process.write(mapped, 1)
    snapshot = assert_reads_back(kernel, layout_of("x86_64-7.3"))
    assert len(snapshot.folios) == 2
    assert [vma.file is None for vma in snapshot.processes[0].vmas] == [True, False]


def test_some_processes_can_be_asked_for_and_what_is_missing_is_a_question_mark():
    kernel = monitored(find("v7.3"))()
    process = kernel.spawn()
    process.write(process.mmap(2))
    process.fork("C")
    image = write_image(kernel, layout_of("x86_64-7.3"))
    graph = read_graph(image.target(), [FIRST_PID + 1])
    snapshot = graph.snapshot(image.pids)
    assert graph.remarks == []
    assert [task.name for task in snapshot.processes] == ["C"]
    assert {view.tree for view in snapshot.anon_vmas} == {("?", "vma0"), ("vma0",)}
    assert validate(snapshot, find("v7.3"), partial=True).violations == ()
    assert {report.id for report in validate(snapshot, find("v7.3")).violations} >= {"AV-001", "AV-011"}


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_whose_types_are_read_from_its_btf_reads_back(name):
    layout = layout_of(name)
    read = Layout.of_btf(Btf(btf_of(layout)))
    assert read == layout
    (kernel,) = histories(KERNELS[name], [7], calls=60)
    image = write_image(kernel, layout)
    image.layout = read
    assert read_graph(image.target()).snapshot(image.pids) == readable(kernel, image)


# --- what is broken reads back broken ------------------------------------------------------------------------


def counted_wrong(process):
    process.mm.vmas[0].anon_vma.num_active_vmas += 1


def tree_entry_lost(process):
    avc = process.mm.vmas[0].anon_vma_chain[0]
    avc.anon_vma.rb_root.remove(avc)


def freed_vma_in_a_tree(process):
    process.mm.vmas.pop().freed = True


def index_shifted(process):
    next(entry for _, entry in process.mm.page_table).folio.index += 1


@pytest.mark.parametrize(
    ("ident", "corrupt"),
    [
        ("AV-011", counted_wrong),
        ("AV-001", tree_entry_lost),
        ("AV-001", freed_vma_in_a_tree),
        ("AV-044", index_shifted),
    ],
)
def test_a_corruption_is_found_in_memory(ident, corrupt):
    kernel = monitored(find("v7.3"))()
    process = kernel.spawn()
    process.write(process.mmap(2))
    child = process.fork("C")
    child.write(Area(child.mm.vmas[0].vm_start, 1))
    corrupt(child)
    _, snapshot, _ = read_back(kernel, layout_of("x86_64-7.3"))
    assert ident in {report.id for report in validate(snapshot, find("v7.3")).violations}


# --- garbage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x86_64-6.12", "x86_64-7.3"])
@pytest.mark.parametrize("seed", range(4))
def test_damaged_memory_gives_remarks_and_never_an_exception_of_another_kind(name, seed):
    (kernel,) = histories(KERNELS[name], [seed], calls=60)
    random, remarks, changed = Random(seed), 0, 0
    image = write_image(kernel, layout_of(name))
    whole = read_graph(image.target()).snapshot()
    pristine = {number: bytes(page) for number, page in image.memory.pages.items()}
    for _ in range(30):
        image.memory.pages = {number: bytearray(page) for number, page in pristine.items()}
        damage(image.memory, random)
        with suppress(InputError):  # the first task cannot be read
            graph = read_graph(image.target())
            snapshot = graph.snapshot()
            validate(snapshot, find(KERNELS[name]), partial=True)
            remarks += bool(graph.remarks)
            changed += snapshot != whole
    assert remarks
    assert changed


def simple_image():
    kernel = monitored(find("v7.3"))()
    process = kernel.spawn()
    process.write(process.mmap(1))
    process.fork("C")
    layout = layout_of("x86_64-7.3")
    return write_image(kernel, layout), layout


def test_page_tables_that_go_in_circles_end():
    image, layout = simple_image()
    graph = read_graph(image.target())
    pgd, vma = graph.pgds[graph.tasks[0].mm], graph.vmas[0].address
    image.memory.write(pgd, struct.pack("<512Q", *([pgd - PAGE_OFFSET | 0x67] * 512)))
    image.memory.write(vma + layout.offset("vm_area_struct.vm_start"), struct.pack("<QQ", 0, 1 << 48))
    graph = read_graph(image.target())
    assert any("is used in two places" in remark for remark in graph.remarks)


def test_tasks_that_go_in_circles_end():
    image, layout = simple_image()
    link = layout.offset("task_struct.tasks")
    second = struct.unpack("<Q", image.memory.read(image.init_task + link, 8))[0]
    image.memory.write(second + 8, struct.pack("<Q", second))  # the list is read backwards
    graph = read_graph(image.target())
    assert "the list of tasks does not end" in graph.remarks
    assert [task.comm for task in graph.tasks] == ["P0", "C"]


def test_a_maple_node_that_is_its_own_child_ends():
    kernel = monitored(find("v7.3"))()
    process = kernel.spawn()
    area = process.mmap(100)
    for page in range(0, 100, 2):
        process.mprotect(area.part(page, page), "r")
    layout = layout_of("x86_64-7.3")
    image = write_image(kernel, layout)
    mm = read_graph(image.target()).tasks[0].mm
    encoded = struct.unpack("<Q", image.memory.read(mm + layout.offset("mm_struct.mm_mt.ma_root"), 8))[0]
    assert encoded >> 3 & 15 == 3
    image.memory.write((encoded & -256) + layout.offset("maple_arange_64.slot"), struct.pack("<Q", encoded & ~2) * 10)
    graph = read_graph(image.target())
    assert graph.vmas == []
    assert "a maple tree of VMAs does not end" in graph.remarks


def test_a_tree_and_a_chain_that_go_in_circles_end():
    image, layout = simple_image()
    graph = read_graph(image.target())
    (first, *_), rb = graph.avcs, layout.offset("anon_vma_chain.rb")
    image.memory.write(first + rb + 8, struct.pack("<QQ", first + rb, first + rb))
    same_vma = layout.offset("anon_vma_chain.same_vma")
    image.memory.write(first + same_vma, struct.pack("<Q", first + same_vma))
    graph = read_graph(image.target())
    assert any("is there twice" in remark for remark in graph.remarks)
    assert any("twice on one" in remark for remark in graph.remarks)


# --- the memory itself ---------------------------------------------------------------------------------------


def test_a_memory_faults_where_nothing_was_written():
    memory = ImageMemory()
    memory.write(2 * PAGE_SIZE - 2, b"abcd")
    assert memory.read(2 * PAGE_SIZE - 2, 4) == b"abcd"
    assert memory.read(3 * PAGE_SIZE - 1, 1) == b"\x5a"
    assert memory.read_many([PAGE_SIZE, 3 * PAGE_SIZE - 2, 2 * PAGE_SIZE], 4) == [b"\x5a" * 4, None, b"cd\x5a\x5a"]
    with pytest.raises(FaultError, match="0x2ffe cannot be read"):
        memory.read(3 * PAGE_SIZE - 2, 4)


@pytest.mark.parametrize("name", sorted(path.stem for path in LAYOUTS.glob("*.json")))
def test_a_layout_of_a_real_kernel_is_there_and_says_where_it_is_from(name):
    text = (LAYOUTS / f"{name}.json").read_text(encoding="utf-8")
    assert '"release"' in text
    assert '"source"' in text
    layout = layout_of(name)
    assert layout.size("anon_vma_chain") >= layout.offset("anon_vma_chain.rb") + 32
