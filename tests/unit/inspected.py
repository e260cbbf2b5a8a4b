# SPDX-License-Identifier: GPL-2.0-only
"""Machines to inspect: images of a model's state, which may change from one reading to the next."""

import importlib.resources
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from rmaplab import schema
from rmaplab.check.run import run
from rmaplab.cli import inspect as verb
from rmaplab.cli.main import main
from rmaplab.realkernel.image import write_image
from rmaplab.realkernel.layout import Layout
from rmaplab.scenario import parse
from rmaplab.series import find

LAYOUT = Layout.of_file(Path(str(importlib.resources.files("rmaplab") / "data/layouts/x86_64-7.0.json")))
AT = 0x1000_0000
FAMILY = f"P0 mmap A 4 at={AT:#x}\nP0 write A\nP0 fork P1\nP1 write A[0]\nP1 fork P2\nP2 write A[1]\n"
HEIR = FAMILY + "P1 fork P4\nP4 write A[2]\nP1 exit\nP2 mmap B 1\nP2 write B\nP2 fork P3\n"
BROKEN = "P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\n"


def machine(text, series="v7.0"):
    """A model after a scenario."""
    return run(parse(text), find(series)).kernel


class Machine:
    """A kernel that is read: each reading of it is that of the next of some states, the last for ever."""

    def __init__(self, *states, release="7.0.13", spoil=None):
        self.states, self.release, self.spoil, self.readings = list(states), release, spoil, 0

    def target(self):
        image = write_image(self.states[0], LAYOUT)
        if self.spoil is not None:
            self.spoil(image.memory)
        target = image.target()
        target.release = self.release
        begin = target.begin

        def next_begin(reader, pids):
            self.readings += 1
            state = self.states[min(self.readings, len(self.states)) - 1]
            other = write_image(state, LAYOUT).target()
            if self.spoil is None:
                target.memory, target.init_task = other.memory, other.init_task
                reader.memory = other.memory
            return begin(reader, pids)

        target.begin = next_begin
        return target


@pytest.fixture(name="call")
def _call(monkeypatch, capsys, tmp_path):
    """Run the verb on a machine, as a core dump (which does not change) unless told otherwise."""
    monkeypatch.chdir(tmp_path)

    def call(read, *args, source=("--core", "x")):
        monkeypatch.setattr(verb, "_target", lambda options: read.target())
        code = main(["inspect", "-q", *source, *map(str, args)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(name="document")
def _document(call):
    """The JSON document of a call, which its schema allows."""

    def document(*args, code=0, **options):
        found, out, err = call(*args, "--json", **options)
        assert (found, err) == (code, "")
        read = json.loads(out)
        Draft202012Validator(schema.load("snapshot")).validate(read)
        return read

    return document
