# SPDX-License-Identifier: GPL-2.0-only
"""What is read again in parts is what is read as a whole, however the machine changed in between."""

import importlib.resources
from pathlib import Path
from random import Random

import pytest
from twin_parts import damage

from rmaplab.check.run import run
from rmaplab.errors import InputError
from rmaplab.realkernel.conform.performers import ModelSide
from rmaplab.realkernel.conform.programs import drawing
from rmaplab.realkernel.image import write_image
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.reader import GraphReader
from rmaplab.realkernel.rereader import Rereader
from rmaplab.scenario import parse
from rmaplab.series import find

LAYOUT = Layout.of_file(Path(str(importlib.resources.files("rmaplab") / "data/layouts/x86_64-7.3.json")))


class Machine:
    """Memory whose contents are replaced; counts the places that are asked for one by one."""

    def __init__(self, kernel):
        image = write_image(kernel, LAYOUT)
        self.pages, self.read_one_by_one = image.memory, 0
        self.target = image.target()
        self.target.memory = self

    def become(self, kernel):
        self.pages = write_image(kernel, LAYOUT).memory

    def read(self, address, size):
        return self.pages.read(address, size)

    def read_many(self, addresses, size):
        self.read_one_by_one += len(addresses)
        return self.pages.read_many(addresses, size)

    def read_places(self, places):
        found = [self.pages.read_many([address], size)[0] for address, size in places]
        return None if None in found else b"".join(found)


def assert_reads_alike(machine, rereader):
    rereader.unchanged()
    tasks = machine.target.tasks()
    again, whole = rereader.read(tasks), GraphReader(machine.target).read(tasks)
    assert again.snapshot() == whole.snapshot()
    assert sorted(again.remarks) == sorted(whole.remarks)
    return again


def state(text):
    return run(parse(text), find("v7.3")).kernel


FAMILY = "P0 mmap A 4\nP0 write A\nP0 fork P1\nP1 write A[0]\nP1 fork P2\n"


def test_what_has_not_changed_is_not_asked_for_again():
    machine = Machine(state(FAMILY))
    rereader = Rereader(machine.target)
    first = assert_reads_alike(machine, rereader)
    tasks = machine.target.tasks()
    assert rereader.unchanged()
    before = machine.read_one_by_one
    again = rereader.read(tasks)
    assert machine.read_one_by_one == before
    assert again.snapshot() == first.snapshot()


@pytest.mark.parametrize(
    "more", ["P2 write A[1]", "P0 mmap B 2", "P1 munmap A[2]", "P1 exit", "P0 exit", "P2 fork P3"]
)
def test_one_process_changes(more):
    machine = Machine(state(FAMILY))
    rereader = Rereader(machine.target)
    assert_reads_alike(machine, rereader)
    machine.become(state(FAMILY + more + "\n"))
    assert_reads_alike(machine, rereader)
    machine.become(state(FAMILY))
    assert_reads_alike(machine, rereader)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_read_alike_after_every_call(seed):
    side = ModelSide(find("v7.3"))
    machine = Machine(side.kernel)
    rereader = Rereader(machine.target)
    for call in drawing(side, seed, without=frozenset({"hugepage", "nohugepage"})):
        side.perform(call)
        if not side.kernel.processes:
            break
        machine.become(side.kernel)
        assert_reads_alike(machine, rereader)


@pytest.mark.parametrize("seed", range(30))
def test_garbage_reads_alike(seed):
    machine = Machine(state(FAMILY))
    rereader = Rereader(machine.target)
    assert_reads_alike(machine, rereader)
    random = Random(seed)
    for _ in range(4):
        damage(machine.pages, random)
        try:
            machine.target.tasks()
        except InputError:
            return
        assert_reads_alike(machine, rereader)


def test_processes_that_share_an_address_space_are_read_plainly():
    kernel = state(FAMILY)
    kernel.processes["P1"].share("P9")
    machine = Machine(kernel)
    rereader = Rereader(machine.target)
    for _ in range(2):
        assert_reads_alike(machine, rereader)
