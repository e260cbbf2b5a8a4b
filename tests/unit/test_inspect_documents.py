# SPDX-License-Identifier: GPL-2.0-only
"""The verb `inspect` on documents: its own, those of runs, and what is none."""

import io
import json
import sys
from pathlib import Path
from random import Random

import pytest
from inspected import FAMILY, HEIR, Machine, _call, _document, machine  # noqa: F401 (two are fixtures)

from rmaplab.cli.main import main
from rmaplab.kernel import Kernel
from rmaplab.snapshot import Snapshot


def test_a_document_is_read_again(document, monkeypatch):
    first = document(Machine(machine(HEIR)), "--validate")
    Path("s.json").write_text(json.dumps(first))
    assert document(None, "--validate", source=("s.json",)) == first
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(first).encode())))
    assert document(None, "--validate", source=("-",)) == first


def test_a_run_is_read_as_well(capsys, document, tmp_path):
    path = tmp_path / "a.rmap"
    path.write_text(HEIR)
    assert main(["run", str(path), "--json", "--series", "v6.18"]) == 0
    (tmp_path / "run.json").write_text(capsys.readouterr().out)
    found = document(None, "--validate", source=("run.json",))
    assert (found["series"], found["kernel"], found["violations"]) == ("v6.18", "of the model", [])


def test_snapshots_come_back_from_json():
    for text in (FAMILY, HEIR, "P0 mmap A 2 file=f\nP0 write A\nP0 madvise A guard-install\n", "P0 exit\n"):
        snapshot = machine(text).snapshot()
        assert Snapshot.from_dict(json.loads(json.dumps(snapshot.as_dict()))) == snapshot
    kernel = Kernel()
    area = kernel.spawn("P0").mmap(2)
    kernel.processes["P0"].write(area)
    kernel.processes["P0"].swapout(area.part(0, 0))
    assert Snapshot.from_dict(kernel.snapshot().as_dict()) == kernel.snapshot()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "{}",
        "null",
        '{"kind": "run"}',
        '{"processes": 7}',
        '{"processes": [{}]}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_what_is_no_snapshot_is_told(call, text):
    Path("s.json").write_bytes(text.encode("latin-1"))
    code, out, err = call(None, "--validate", source=("s.json",))
    assert (code, out) == (4, "")
    assert err.startswith("rmaplab: s.json: not a snapshot that")


@pytest.mark.parametrize("damaged", range(40))
def test_a_document_that_contradicts_itself_does_no_harm(call, damaged):
    """Names of nothing, numbers of the wrong size: a clear error, or a verdict."""
    random = Random(damaged)
    state = machine(HEIR).snapshot().as_dict()

    def spoil(value):
        if isinstance(value, dict):
            return {key: spoil(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [spoil(one) for one in value if random.random() > 0.03]
        if random.random() < 0.05:
            return random.choice(["av0", "vma1", "mm9", "x", -1, 1 << 70, 0, True, None])
        return value

    Path("s.json").write_text(json.dumps(spoil(state)))
    code, _, err = call(None, "--validate", "--html", "p.html", source=("s.json",))
    assert code in (0, 1, 4)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "name one kernel"),
        (("--live", "--kcore"), "name one kernel"),
        (("x.json", "--um", "7"), "name one kernel"),
        (("--um", "0"), "not a number from 1"),
        (("--live", "--addr", "zz"), "invalid _address value"),
    ],
)
def test_usage(capsys, args, words):
    assert main(["inspect", *args]) == 2
    assert words in capsys.readouterr().err
