# SPDX-License-Identifier: GPL-2.0-only
"""The scenario language: what is refused, where, and in which words."""

import pytest

from rmaplab.errors import InputError
from rmaplab.scenario import Exit, parse

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
    ([], "P0", 3, ["the line ends here", "a call: brk, exec, exit, fork"]),
    ([], "P0 frok P1", 4, ["did you mean `fork`?", "a call: brk, exec, exit, fork"]),
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
    (["P0 fork P1"], "fail 1 nowiat", 8, ["did you mean `nowait`?", "the end of the line (one statement a line)"]),
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
