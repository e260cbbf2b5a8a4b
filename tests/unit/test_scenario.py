# SPDX-License-Identifier: GPL-2.0-only
"""The scenario language: what parses, what is refused and where, and the way back to text."""

import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rmaplab import scenario
from rmaplab.errors import InputError
from rmaplab.scenario import (
    CALL_NAMES,
    COUNTS,
    PROCESS_COUNTS,
    PROTECTIONS,
    Exit,
    ExpectCount,
    ExpectInvariants,
    ExpectProcessCount,
    ExpectResult,
    ExpectViolates,
    Fail,
    Fork,
    Mmap,
    Mprotect,
    Munmap,
    Pages,
    Read,
    Scenario,
    Snapshot,
    Walk,
    Write,
    format_scenario,
    format_statement,
    load,
    parse,
)

DOCS = Path(__file__).parents[2] / "docs" / "scenario-language.md"
PLACED = re.compile(r"f\.rmap:([0-9]+):([0-9]+): ")

EVERYTHING = """\
P0 mmap A 4
P0 mmap B 0x10 at=0x7f0000000000 prot=rx file=libc shared   # every option
P0 write A
P0 read A[1]
P0 write A[0..3]
fail 3 nowait
P0 fork P1
expect P0 fork ok
P1 munmap A[1..2]
P1 mprotect A[0..1] none
walk P0 A[0]
snapshot before
P1 exit
fail 2
P0 fork P1
expect P0 fork ENOMEM
expect anon_vmas 3
expect P1 vmas 2
expect invariants hold
expect violates AV-007
"""


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
        Snapshot("before"),
        Exit("P1"),
        Fail(2),
        Fork("P0", "P1"),
        ExpectResult("P0", "fork", "ENOMEM"),
        ExpectCount("anon_vmas", 3),
        ExpectProcessCount("P1", "vmas", 2),
        ExpectInvariants(),
        ExpectViolates("AV-007"),
    )


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
    ],
)
def test_valid(text):
    assert len(parse(text).statements) == len(text.split("\n"))


def test_names_follow_the_fork():
    text = "P0 mmap A 2\nP0 fork P1\nP0 mmap A 9\nP0 write A[8]\nP1 write A[1]\n"
    parse(text)
    with pytest.raises(InputError, match="which has 2 pages"):
        parse(text + "P1 write A[2]")


# Setup (lines before), the refused line, its column, words of the message.
REFUSED = [
    # names
    ([], "P9 fork P1", 1, ["no process `P9` here", "forked so far: P0"]),
    (["P0 fork P1"], "P9 exit", 1, ["forked so far: P0, P1"]),
    ([], "p0 exit", 1, ["did you mean `P0`?"]),
    (["P0 fork P1"], "P0 fork P1", 9, ["P1 already runs since line 1", "a new name"]),
    ([], "P0 fork P0", 9, ["P0 already runs since the start"]),
    (["P0 fork P1", "P1 exit", "P0 fork P1"], "P0 fork P1", 9, ["already runs since line 3"]),
    ([], "P0 fork expect", 9, ["`expect` is a word of the language", "another name"]),
    ([], "P0 fork vmas", 9, ["`vmas` is a word of the language"]),
    ([], "P0 fork 1", 9, ["a name for the new process", "no digit first"]),
    ([], "P0 write A", 10, ["P0 has no area `A`", "`P0 mmap A 4`"]),
    (["P0 mmap heap 2"], "P0 write heep", 10, ["did you mean `heap`?", "areas of P0: heap"]),
    (["P0 fork P1", "P0 mmap A 1"], "P1 read A", 9, ["P1 has no area `A`"]),
    (["P0 mmap A 1", "snapshot s"], "snapshot s", 10, ["taken on line 2", "a new name"]),
    # first words
    ([], "mmap A 4", 1, ["no process named before `mmap`", "`P0 mmap …`"]),
    ([], "fial 3", 1, ["starts no statement", "did you mean `fail`?"]),
    ([], "P0", 3, ["the line ends here", "a call: exit, fork, mmap"]),
    ([], "P0 frok P1", 4, ["did you mean `fork`?", "a call: exit, fork"]),
    ([], "  P0 frok P1", 6, ["did you mean `fork`?"]),
    ([], "P0 fork", 8, ["the line ends here", "a name for the new process"]),
    # one statement a line
    ([], "P0 exit P0 exit", 9, ["found `P0`", "the end of the line after `P0 exit`", "one statement a line"]),
    ([], "P0 fork P1; P1 exit", 11, ["found `;`", "one statement a line"]),
    ([], "P0 mmap A 4 P0 exit", 13, ["found `P0`", "at=ADDRESS", "one statement a line"]),
    (["P0 mmap A 4"], "P0 write A[0] A[1]", 15, ["one statement a line"]),
    # page ranges
    (["P0 mmap A 4"], "P0 write A[4]", 12, ["which has 4 pages", "cannot be `4`", "from 0 to 3"]),
    (["P0 mmap A 4"], "P0 write A[0..4]", 15, ["which has 4 pages", "cannot be `4`"]),
    (["P0 mmap A 4"], "P0 write A[3..1]", 10, ["3..1 runs backwards", "`A[1..3]`"]),
    (["P0 mmap A 4"], "P0 write A[0-3]", 12, ["`0-3` is no range", "`A[0..3]`"]),
    (["P0 mmap A 4"], "P0 write A[]", 12, ["a page of A, which has 4 pages, a number from 0 to 3"]),
    (["P0 mmap A 4"], "P0 write A[-1]", 12, ["found `-`", "a number from 0 to 3"]),
    (["P0 mmap A 4"], "P0 write A[1..", 15, ["the line ends here", "a page of A"]),
    (["P0 mmap A 4"], "P0 write A[1", 13, ["expected `]` after the pages", "`A[0..3]`"]),
    (["P0 mmap A 4"], "walk P0 A", 9, ["one page, not from 4", "`A[0]`"]),
    (["P0 mmap A 4"], "walk P0 A[1..2]", 9, ["one page, not from 2", "`A[1]`"]),
    # mmap
    ([], "P0 mmap 4", 9, ["found `4`", "an area name"]),
    ([], "P0 mmap A", 10, ["the line ends here", "the number of pages"]),
    ([], "P0 mmap A 0", 11, ["cannot be `0`", "from 1 to 34359738368"]),
    ([], "P0 mmap A 34359738369", 11, ["the number of pages cannot be", "from 1 to 34359738368"]),
    ([], "P0 mmap A " + "9" * 9000, 11, ["…`", "from 1 to 34359738368"]),
    ([], "P0 mmap A four", 11, ["found `four`", "the number of pages"]),
    ([], "P0 mmap A \u0664", 11, ["the number of pages"]),  # a digit, but not ours
    ([], "P0 mmap A 1 at=0x1800", 16, ["0x1800 is not page-aligned", "multiple of 0x1000", "such as 0x1000"]),
    ([], "P0 mmap A 1 at=0x800000000000", 16, ["beyond the user address space", "below 0x800000000000"]),
    ([], "P0 mmap A 1 at=home", 16, ["an address in bytes"]),
    ([], "P0 mmap A 1 at 0x1000", 16, ["expected `=` and a value after `at`"]),
    ([], "P0 mmap A 1 at=0 at=0", 18, ["`at` is given twice", "once"]),
    ([], "P0 mmap A 1 shared shared", 20, ["`shared` is given twice"]),
    ([], "P0 mmap A 1 prto=r", 13, ["did you mean `prot`?", "an option"]),
    ([], "P0 mmap A 1 prot=wr", 18, ["found `wr`; expected `rw`"]),
    ([], "P0 mmap A 1 prot=rr", 18, ["a protection: none, r, rw"]),
    ([], "P0 mmap A 1 file=", 18, ["the line ends here", "a file name"]),
    (["P0 mmap A 1"], "P0 mprotect A", 14, ["the line ends here", "a protection: none, r, rw"]),
    # fail
    (["P0 fork P1"], "fail 0", 6, ["cannot be `0`", "from 1 to 1000000"]),
    (["P0 fork P1"], "fail 1000001", 6, ["from 1 to 1000000"]),
    (["P0 fork P1"], "fail", 5, ["the number of the failing allocation"]),
    (["P0 fork P1"], "fail 1 nowiat", 8, ["found `nowiat`", "the end of the line after `fail 1`"]),
    (["P0 fork P1"], "fail 1", 1, ["no call follows this `fail`", "below it"]),
    (["fail 1"], "fail 2", 1, ["the `fail` on line 1 still waits", "between two `fail` lines"]),
    # expect
    ([], "expect", 7, ["the line ends here", "anon_vmas", "or a process name"]),
    ([], "expect anon_vma 3", 8, ["did you mean `anon_vmas`?"]),
    ([], "expect anon_vmas", 17, ["a count"]),
    ([], "expect anon_vmas few", 18, ["found `few`", "a count"]),
    ([], "expect anon_vmas 9223372036854775808", 18, ["a count cannot be"]),
    ([], "expect invariants", 18, ["the word: hold"]),
    ([], "expect violates AV7", 17, ["found `AV7`", "such as AV-007"]),
    ([], "expect P1 fork ok", 8, ["no process `P1` here"]),
    ([], "expect P0 vmass 2", 11, ["did you mean `vmas`?"]),
    ([], "expect P0 fork ok", 11, ["P0 makes no fork call above", "`P0 fork …`"]),
    (["P0 fork P1"], "expect P0 fork ENOMEN", 16, ["did you mean `ENOMEM`?", "`ok` or the name of an errno"]),
    # characters
    ([], "\u65e5\u672c exit", 1, ["starts no statement"]),
    ([], "P0\u00a0exit", 3, ["found U+00A0", "a call"]),
    ([], "P0 exit\x07", 8, ["U+0007"]),
    ([], "\x7fELF\x00", 1, ["U+007F starts no statement"]),
    ([], "\x00\x01", 1, ["U+0000 (a binary file?)"]),
]


@pytest.mark.parametrize(("setup", "line", "column", "words"), REFUSED, ids=[str(r[1])[:40] for r in REFUSED])
def test_refused(setup, line, column, words):
    text = "\n".join([*setup, line])
    with pytest.raises(InputError) as caught:
        parse(text, "f.rmap")
    message = str(caught.value)
    assert message.startswith(f"f.rmap:{len(setup) + 1}:{column}: "), message
    for word in words:
        assert word in message


UNMODELLED = ("mremap", "madvise", "brk", "stack-grow", "exec", "swapout", "swapin", "pin", "unpin", "migrate")


@pytest.mark.parametrize("verb", UNMODELLED)
def test_not_modelled_yet(verb):
    for text, column in ((f"P0 {verb} A", 4), (f"{verb} A", 1)):
        with pytest.raises(InputError, match=f"`{verb}` is part of the language but not modelled yet") as caught:
            parse(text, "f.rmap")
        assert str(caught.value).startswith(f"f.rmap:1:{column}: ")
        assert "modelled: exit, expect, fail, fork, mmap" in str(caught.value)


def test_par_is_not_modelled_yet():
    with pytest.raises(InputError, match=r"^f.rmap:1:1: `par` is part of the language but not modelled yet"):
        parse("par { P0 write A[0] || P0 munmap A }", "f.rmap")


def test_the_line_and_a_caret_are_shown():
    with pytest.raises(InputError) as caught:
        parse("P0 mmap A 1\n\t P0 frok P1  # why\n", "f.rmap")
    assert str(caught.value).split("\n")[1:] == ["      P0 frok P1  # why", "         ^"]


def test_the_caret_stands_under_its_column_in_a_long_line():
    with pytest.raises(InputError) as caught:
        parse(" " * 5000 + "P0 frok " + "x" * 5000)
    message, shown, caret = str(caught.value).split("\n")
    assert message.startswith("-:1:5004: ")
    assert shown[caret.index("^") :].startswith("frok")
    assert len(shown) < 80


def test_wide_characters_move_the_caret_two_cells():
    with pytest.raises(InputError) as caught:
        parse("\u65e5 P0 exit")
    assert str(caught.value).endswith("\n    ^")
    with pytest.raises(InputError) as caught:
        parse("P0 exit \u65e5")
    assert str(caught.value).endswith("\n" + " " * 12 + "^")


def test_no_terminal_escapes_in_messages():
    with pytest.raises(InputError) as caught:
        parse("P0 \x1b[31mred\x9b", "a\nb\x1b.rmap")
    message = str(caught.value)
    assert message.startswith("a\ufffdb\ufffd.rmap:1:4: found U+001B; ")
    assert all(line.isprintable() for line in message.split("\n"))


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", b"", b"\xef\xbb\xbf", "\r\n"])
def test_empty(text):
    with pytest.raises(InputError, match=r"^f.rmap:1:1: no statement in f.rmap; .*such as `P0 mmap A 4`"):
        parse(text, "f.rmap")


def test_not_utf8():
    with pytest.raises(InputError, match=r"^f.rmap:2:4: byte 0xff at offset 15 is not UTF-8") as caught:
        parse(b"P0 mmap A 1\nP0 \xff\xfe", "f.rmap")
    assert "in UTF-8" in str(caught.value)
    with pytest.raises(InputError, match=r"^-:1:2: byte 0xff at offset 4 "):  # the mark is no column
        parse(b"\xef\xbb\xbfP\xff")


def test_too_long():
    longest = b"P0 exit\n#" + b"x" * ((16 << 20) - 9)
    assert parse(longest).statements == (Exit("P0"),)
    with pytest.raises(InputError, match=r"^f.rmap:1:1: the scenario is longer than 16 MiB; .*replay"):
        parse(longest + b"x", "f.rmap")


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


# Property tests: valid scenarios are drawn with a book of their own, apart from the parser's.

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
RESERVED = {*COUNTS, "expect", "fail", "invariants", "par", "snapshot", "violates", "walk"}


@st.composite
def scenarios(draw):
    areas: dict[str, dict[str, int]] = {"P0": {}}
    exited: set[str] = set()
    called: list[tuple[str, str]] = []
    snapshots: set[str] = set()
    statements: list[scenario.Statement] = []
    armed = False
    for _ in range(draw(st.integers(1, 25))):
        process = draw(st.sampled_from(sorted(areas)))
        kinds = [Mmap, Mmap, Fork, Exit, Snapshot, ExpectCount, ExpectInvariants, ExpectViolates, ExpectProcessCount]
        kinds += [] if armed else [Fail]
        kinds += [Read, Write, Munmap, Mprotect, Walk] * 2 if areas[process] else []
        kinds += [ExpectResult] if called else []
        kind = draw(st.sampled_from(kinds))
        if areas[process]:
            area = draw(st.sampled_from(sorted(areas[process])))
            first = draw(st.integers(0, areas[process][area] - 1))
            last = first if kind is Walk else draw(st.integers(first, areas[process][area] - 1))
            pages = Pages(area, first, last)
        if kind is Mmap:
            statement = Mmap(
                process,
                draw(NAMES),
                draw(st.integers(1, 2**35)),
                draw(st.none() | st.integers(0, 2**35 - 1).map(lambda page: page << 12)),
                draw(st.sampled_from(PROTECTIONS)),
                draw(st.none() | NAMES),
                draw(st.booleans()),
            )
            areas[process][statement.area] = statement.pages
        elif kind is Fork:
            child = draw(NAMES)
            if child in RESERVED or (child in areas and child not in exited):
                continue
            statement = Fork(process, child)
            areas[child] = dict(areas[process])
            exited.discard(child)
        elif kind is Exit:
            statement = Exit(process)
            exited.add(process)
        elif kind is Mprotect:
            statement = Mprotect(process, pages, draw(st.sampled_from(PROTECTIONS)))
        elif kind in (Read, Write, Munmap, Walk):
            statement = kind(process, pages)
        elif kind is Fail:
            statement = Fail(draw(st.integers(1, 10**6)), draw(st.booleans()))
            armed = True
        elif kind is Snapshot:
            name = draw(NAMES)
            if name in snapshots:
                continue
            snapshots.add(name)
            statement = Snapshot(name)
        elif kind is ExpectCount:
            statement = ExpectCount(draw(st.sampled_from(COUNTS)), draw(st.integers(0, 2**63 - 1)))
        elif kind is ExpectProcessCount:
            statement = ExpectProcessCount(process, draw(st.sampled_from(PROCESS_COUNTS)), draw(st.integers(0, 99)))
        elif kind is ExpectResult:
            statement = ExpectResult(
                *draw(st.sampled_from(called)), draw(st.sampled_from(["ok", "ENOMEM", "EFAULT"]))
            )
        elif kind is ExpectViolates:
            statement = ExpectViolates(draw(st.from_regex(r"[A-Z]{1,3}-[0-9]{3}", fullmatch=True)))
        else:
            statement = ExpectInvariants()
        if kind.__name__.lower() in CALL_NAMES:
            called.append((process, kind.__name__.lower()))
            armed = False
        statements.append(statement)
    if armed:
        statements.append(Exit("P0"))
    assume(statements)
    return Scenario(tuple(statements))


@given(scenarios())
def test_what_is_printed_parses_back(made):
    text = format_scenario(made)
    again = parse(text)
    assert again == made
    assert format_scenario(again) == text
    assert parse(text.encode().replace(b"\n", b"\r\n")) == made
    assert [s.text for s in again.statements] == text.split("\n")[:-1]
    assert [s.line for s in again.statements] == list(range(1, len(again.statements) + 1))


def parses_or_says_where(data):
    refusal = ""
    try:
        first = parse(data, "f.rmap")
    except InputError as error:
        refusal = str(error)
    if not refusal:
        assert parse(format_scenario(first)) == first
        return
    place = PLACED.match(refusal)
    assert place, refusal
    assert min(int(place[1]), int(place[2])) >= 1


@given(st.text() | st.binary() | st.text(alphabet=st.characters(categories=["Cs", "Cc", "Nd"])))
def test_any_input_parses_or_says_where(data):
    parses_or_says_where(data)


@given(st.lists(st.sampled_from([*EVERYTHING.split(" "), "\n", " ", "P0", "A", "[", "..", "=", "fail", "\r"])))
def test_any_words_parse_or_say_where(words):
    parses_or_says_where(" ".join(words))


@given(scenarios(), st.data())
def test_mutated_scenarios_parse_or_say_where(made, data):
    text = format_scenario(made)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 8)))
    put = data.draw(st.text(max_size=4) | st.sampled_from([" ", "\n", "0", "[", "]", "..", "=", "#", text]))
    parses_or_says_where(text[:start] + put + text[end:])
