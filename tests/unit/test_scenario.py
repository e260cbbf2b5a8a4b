# SPDX-License-Identifier: GPL-2.0-only
"""The scenario language: what parses and what it means, loading, and the way back to text."""

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from scenario_texts import EVERYTHING

from rmaplab import scenario
from rmaplab.errors import InputError
from rmaplab.scenario import (
    Brk,
    Exec,
    Exit,
    ExpectCount,
    ExpectInvariants,
    ExpectProcessCount,
    ExpectResult,
    ExpectViolates,
    Fail,
    Fork,
    Ksm,
    Ksmd,
    Madvise,
    Migrate,
    Mlock,
    Mmap,
    Mprotect,
    Mremap,
    Munlock,
    Munmap,
    Pages,
    Par,
    Pin,
    Read,
    Scenario,
    Snapshot,
    SplitFolio,
    StackGrow,
    Statement,
    Swapin,
    Swapout,
    UffdMove,
    Unpin,
    Walk,
    Write,
    format_scenario,
    format_statement,
    load,
    parse,
)

DOCS = Path(__file__).parents[2] / "docs" / "scenario-language.md"


def test_every_statement():
    assert parse(EVERYTHING).statements == (
        Mmap("P0", "A", 4),
        Mmap("P0", "B", 16, at=0x7F0000000000, prot="rx", file="libc", shared=True),
        Write("P0", Pages("A", 0, 3)),
        Read("P0", Pages("A", 1, 1)),
        Write("P0", Pages("A", 0, 3)),
        Fail(3, nowait=True),
        Fork("P0", "P1"),
        ExpectResult("P0", "fork", "ok"),
        Munmap("P1", Pages("A", 1, 2)),
        Mprotect("P1", Pages("A", 0, 1), "none"),
        Walk("P0", Pages("A", 0, 0)),
        Walk("P0", Pages("A", 0, 0), by="offset"),
        Snapshot("before"),
        Exit("P1"),
        Fail(2),
        Fork("P0", "P1"),
        ExpectResult("P0", "fork", "ENOMEM"),
        Fail(1, kind="tree"),
        Mremap("P0", Pages("A", 1, 2), "C"),
        Mremap("P0", Pages("C", 0, 1), "D", pages=4, at=0x7F0000100000, dontunmap=True),
        Mremap("P0", Pages("D", 0, 3), "C", fixed=Pages("A", 0, 0)),
        Mremap("P0", Pages("C", 0, 3), "C", pages=1),
        Madvise("P0", Pages("A", 0, 3), "guard-install"),
        Mlock("P0", Pages("A", 0, 3)),
        Munlock("P0", Pages("A", 0, 0)),
        Brk("P0", 2),
        Brk("P0", -1),
        Write("P0", Pages("heap", 0, 0)),
        StackGrow("P0", 2),
        Read("P0", Pages("stack", 2, 2)),
        Swapout("P0", Pages("A", 0, 0), cached=True),
        Swapout("P0", Pages("A", 1, 1)),
        Swapin("P0", Pages("A", 0, 1)),
        Pin("P0", Pages("A", 0, 0)),
        Pin("P0", Pages("A", 1, 1), write=False),
        Unpin("P0", Pages("A", 0, 1)),
        Migrate("P0", Pages("A", 0, 0)),
        UffdMove("P0", Pages("A", 0, 0), Pages("B", 0, 0)),
        Ksm("P0", Pages("A", 0, 1), "zeros"),
        Ksmd(),
        SplitFolio("P0", Pages("A", 0, 0)),
        ExpectResult("P0", "split-folio", "ok"),
        Par(
            (
                (Write("P0", Pages("A", 0, 0)), Read("P0", Pages("A", 0, 0))),
                (Munmap("P0", Pages("A", 0, 3)),),
                (Mmap("P0", "E", 1, shared=True),),
            )
        ),
        Read("P0", Pages("E", 0, 0)),
        Exec("P0"),
        Read("P0", Pages("stack", 32, 32)),
        ExpectCount("anon_vmas", 3),
        ExpectCount("swap_slots", 0),
        ExpectProcessCount("P1", "vmas", 2),
        ExpectInvariants(),
        ExpectViolates("AV-007"),
    )
    kinds = {type(statement) for statement in parse(EVERYTHING).statements}
    assert kinds == set(get_args(Statement)), "the list above has every statement"


def test_lines_and_text_are_kept():
    statement = parse("# title\n\n\t P0 mmap A 4  # four pages\n").statements[0]
    assert (statement.line, statement.text) == (3, "P0 mmap A 4")


def test_origin_takes_no_part_in_equality():
    assert parse("P0 exit", "a") == parse("\n  P0   exit # x", "b")
    assert Exit("P0", line=3, text="P0 exit") == Exit("P0")
    assert hash(Exit("P0", line=3)) == hash(Exit("P0"))
    assert Read("P0", Pages("A", 0, 0)) != Write("P0", Pages("A", 0, 0))


@pytest.mark.parametrize(
    "data",
    [
        b"P0 mmap A 1\r\nP0 exit\r\n",
        b"\xef\xbb\xbfP0 mmap A 1\nP0 exit",
        "\ufeffP0 mmap A 1\nP0 exit",
        "P0 mmap A 1 # caf\u00e9 \u65e5\u672c\n\n#\nP0 exit#done",
        "  P0\tmmap  A   1\t\nP0 exit  ",
    ],
)
def test_accepted_spellings(data):
    assert parse(data).statements == (Mmap("P0", "A", 1), Exit("P0"))


@pytest.mark.parametrize(
    "text",
    [
        "P0 exit\nP0 mmap A 4\nP0 write A\nP0 fork P1\nP1 write A",  # ESRCH is the run's to print
        "P0 fork P1\nP1 exit\nP0 fork P1\nP1 exit\nexpect P1 exit ok",
        "P0 mmap A 4\nP0 munmap A\nP0 write A[3]",  # munmap keeps the name
        "P0 mmap A 4\nP0 mmap A 8\nP0 write A[7]",  # mmap binds it anew
        "P0 mmap P0 1\nP0 write P0",  # areas and processes have names of their own
        "P0 fork mmap\nmmap mmap fork 1",  # a call's name is no reserved word
        "P0 mmap A 34359738368",
        "P0 mmap A 1 at=0x7ffffffff000",
        "P0 mmap A 1 at=0",
        "P0 mmap A 1\nfail 1\nwalk P0 A\nsnapshot s\nexpect vmas 1\nP0 write A",
        "P0 mmap A 1\nwalk P0 A",
        "P0 exit # \x00\x1b",  # anything may stand in a comment
        "P0 mmap A 1\nfail 1\nksmd\nP0 write A",  # ksmd is no call
        "P0 brk +2\nP0 write heap[1]\nP0 brk -2\nP0 brk +1\nP0 write heap",
        "P0 brk + 0x2\nP0 write heap[1]",
        "P0 mmap heap 8\nP0 brk +1\nP0 brk -1",  # the heap is what brk made
        "P0 brk +2\nP0 fork P1\nP1 brk -2\nP0 write heap[1]",
        "P0 mmap stack 9\nP0 stack-grow 1\nP0 write stack[1]",
        "P0 exec\nP0 stack-grow 1\nP0 write stack[33]",
        "P0 exec\nP0 fork P1\nP1 stack-grow 1\nP1 write stack[33]\nP0 write stack[32]",
        "P0 mmap A 2\nP0 mremap A B pages=5\nP0 write B[4]\nP0 write A[1]",  # as after munmap
        "P0 mmap A 2\nP0 mremap A A pages=5\nP0 write A[4]",
        "P0 mmap A 2\nP0 fork exec\nexec exec\nexec fork ksm\nksm exit",
        "P0 mmap A 1\nP0 uffd-move A A",  # EINVAL is the run's to print
    ],
)
def test_valid(text):
    assert len(parse(text).statements) == len(text.split("\n"))


def test_names_follow_the_fork():
    text = "P0 mmap A 2\nP0 fork P1\nP0 mmap A 9\nP0 write A[8]\nP1 write A[1]\n"
    parse(text)
    with pytest.raises(InputError, match="which has 2 pages"):
        parse(text + "P1 write A[2]")


def test_load_reads_files_and_stdin(tmp_path, monkeypatch):
    file = tmp_path / "f.rmap"
    file.write_bytes(b"P0 exit\n")
    assert load(file) == load(str(file)) == Scenario((Exit("P0"),))
    assert load(file).name == str(file)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"P0 fork P1\n")))
    assert load("-") == Scenario((Fork("P0", "P1"),))


@pytest.mark.parametrize("name", ["missing.rmap", ".", "nul\0byte"])
def test_load_says_what_cannot_be_read(tmp_path, name):
    with pytest.raises(InputError, match=r"cannot read: .*; expected a scenario file or - for stdin"):
        load(f"{tmp_path}/{name}")


def test_canonical_text():
    text = "P0 mmap A 0x4 shared prot=rw at=4096\nP0 write  A\nP0 write A[1..1] # one\n"
    assert format_scenario(parse(text)) == "P0 mmap A 4 at=0x1000 shared\nP0 write A[0..3]\nP0 write A[1]\n"
    assert format_statement(Fail(2, nowait=True)) == "fail 2 nowait"


def test_public_names_are_sorted_and_there():
    assert sorted(scenario.__all__) == sorted(set(scenario.__all__))
    assert all(hasattr(scenario, name) for name in scenario.__all__)


def test_documented_scenarios_parse():
    blocks = re.findall(r"^```rmap\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        assert any(line.startswith("expect ") for line in block.split("\n"))
        parse(block)
