# SPDX-License-Identifier: GPL-2.0-only
"""The scenario language: what is refused of calls beyond those on plain mappings, and of par."""

import pytest

from rmaplab.errors import InputError
from rmaplab.scenario import CALL_NAMES, parse

MAP = ["P0 mmap A 4"]

# Setup (lines before), the refused line, its column, words of the message.
REFUSED = [
    # mremap
    (MAP, "P0 mremap", 10, ["the line ends here", "an area name"]),
    (MAP, "P0 mremap A", 12, ["the line ends here", "a name for the moved area"]),
    (MAP, "P0 mremap B A", 11, ["P0 has no area `B`"]),
    (MAP, "P0 mremap A[4] B", 13, ["which has 4 pages", "cannot be `4`"]),
    (MAP, "P0 mremap A B[0]", 14, ["found `[`", "an option (at=ADDRESS, dontunmap, fixed=AREA[PAGE], pages=N)"]),
    (MAP, "P0 mremap A B dontumap", 15, ["did you mean `dontunmap`?"]),
    (MAP, "P0 mremap A B shared", 15, ["found `shared`", "an option"]),
    (MAP, "P0 mremap A B pages=0", 21, ["cannot be `0`", "from 1 to 34359738368"]),
    (MAP, "P0 mremap A B at=1", 18, ["not page-aligned"]),
    (MAP, "P0 mremap A B at=0 fixed=A[0]", 20, ["`at` and `fixed` both say where", "one of them"]),
    (MAP, "P0 mremap A B fixed=A[0] at=0", 26, ["`at` and `fixed` both say where"]),
    (MAP, "P0 mremap A B fixed=A", 21, ["one page, not to 4", "`A[0]`"]),
    (MAP, "P0 mremap A B fixed=B[0]", 21, ["P0 has no area `B`"]),
    (MAP, "P0 mremap A B dontunmap dontunmap", 25, ["`dontunmap` is given twice"]),
    ([*MAP, "P0 mremap A B pages=6"], "P0 write B[6]", 12, ["which has 6 pages"]),
    ([*MAP, "P0 mremap A[1..2] B"], "P0 write B[2]", 12, ["which has 2 pages"]),
    ([*MAP, "P0 mremap A A pages=1"], "P0 write A[1]", 12, ["which has 1 page,"]),
    # madvise, mlock
    (MAP, "P0 madvise A", 13, ["the line ends here", "an advice: collapse, dodump, dofork"]),
    (MAP, "P0 madvise A dont-fork", 14, ["did you mean `dontfork`?"]),
    (MAP, "P0 madvise A guard", 14, ["an advice", "guard-install, guard-remove"]),
    (MAP, "P0 madvise dontfork", 12, ["P0 has no area `dontfork`"]),
    (MAP, "P0 mlock", 9, ["the line ends here", "an area name"]),
    (MAP, "P0 munlock A[0] A[1]", 17, ["one statement a line"]),
    # brk, stack-grow, exec
    ([], "P0 brk 2", 8, ["found `2`", "`+` or `-`", "`brk +2`"]),
    ([], "P0 brk", 7, ["the line ends here", "`brk +2`"]),
    ([], "P0 brk +0", 9, ["cannot be `0`", "from 1"]),
    ([], "P0 brk + -2", 10, ["found `-`", "the number of pages"]),
    ([], "P0 brk -1", 8, ["P0 has no heap, it cannot shrink by 1", "`+` to grow"]),
    (["P0 brk +2"], "P0 brk -3", 8, ["the heap of P0 has 2 pages, it cannot shrink by 3", "at most `-2`"]),
    (["P0 brk +1"], "P0 brk -2", 8, ["the heap of P0 has 1 page,"]),
    (["P0 brk +2", "P0 brk -1"], "P0 write heap[1]", 15, ["which has 1 page,"]),
    (["P0 brk +2", "P0 brk -2"], "P0 write heap", 10, ["P0 has no area `heap`"]),
    (["P0 mmap heap 2"], "P0 brk -1", 8, ["P0 has no heap"]),
    (["P0 brk +2", "P0 exec"], "P0 brk -1", 8, ["P0 has no heap"]),
    ([], "P0 stack-grow", 14, ["the line ends here", "the number of pages to grow by"]),
    ([], "P0 stack-grow +1", 15, ["found `+`"]),
    ([], "P0 stack-grow 0", 15, ["cannot be `0`"]),
    (["P0 stack-grow 1"], "P0 write stack[2]", 16, ["which has 2 pages"]),
    ([], "P0 write stack", 10, ["P0 has no area `stack`"]),
    ([], "P0 stack grow 1", 4, ["did you mean `stack-grow`?"]),
    ([], "P0 exec A", 9, ["found `A`", "the end of the line after `P0 exec`"]),
    ([*MAP, "P0 exec"], "P0 write A", 10, ["P0 has no area `A`", "areas of P0: stack"]),
    (["P0 exec"], "P0 write stack[33]", 16, ["which has 33 pages"]),
    # pages: swap, pins, migration, userfaultfd, KSM, folios
    (MAP, "P0 swapout A cachd", 14, ["did you mean `cached`?", "the end of the line"]),
    (MAP, "P0 swapout", 11, ["the line ends here", "an area name"]),
    (MAP, "P0 swapin A cached", 13, ["found `cached`", "the end of the line"]),
    (MAP, "P0 pin A w", 10, ["found `w`", "`r` or the end of the line"]),
    (MAP, "P0 unpin A r", 12, ["found `r`", "the end of the line"]),
    (MAP, "P0 migrate", 11, ["an area name"]),
    (MAP, "P0 uffd-move A[0]", 18, ["the line ends here", "an area name"]),
    (MAP, "P0 uffd-move A[0..1] A[2]", 22, ["2 pages cannot move to 1", "equal length"]),
    (MAP, "P0 uffd-move A[0] A[2..3]", 19, ["1 page cannot move to 2"]),
    (MAP, "P0 uffd_move A[0] A[1]", 4, ["did you mean `uffd-move`?"]),
    (MAP, "P0 ksm A[0..1]", 15, ["the line ends here", "a name for the pages' content"]),
    (MAP, "P0 ksm A 0", 10, ["found `0`", "a name for the pages' content"]),
    (MAP, "P0 split-folio", 15, ["an area name"]),
    (MAP, "P0 split-folio A[0] small", 21, ["found `small`", "the end of the line"]),
    ([], "P0 ksmd", 4, ["found `ksmd`", "did you mean `ksm`?"]),
    ([], "ksmd P0", 6, ["found `P0`", "the end of the line after `ksmd`"]),
    ([], "P0 fork ksmd", 9, ["`ksmd` is a word of the language"]),
    ([], "P0 fork swap_slots", 9, ["`swap_slots` is a word of the language"]),
    ([], "expect P0 stack-grow ok", 11, ["P0 makes no stack-grow call above"]),
    # walk, fail
    (MAP, "walk P0 A[0] by", 16, ["`=` and a value after `by`"]),
    (MAP, "walk P0 A[0] by=wohle", 17, ["did you mean `whole`?", "address, offset, whole"]),
    (MAP, "walk P0 A[0] whole", 14, ["`by=` with address, offset, whole", "the end of the line"]),
    (["P0 fork P1"], "fail 1 vmas", 8, ["did you mean `vma`?", "page, table, tree, vma"]),
    (["P0 fork P1"], "fail 1 rmap", 8, ["found `rmap`", "a kind of allocation"]),
    (["P0 fork P1"], "fail 1 nowait tree", 15, ["found `tree`", "the end of the line after `fail 1 nowait`"]),
    (["P0 fork P1"], "fail 1 tree nowait", 13, ["found `nowait`", "the end of the line after `fail 1 tree`"]),
    # par
    (MAP, "par", 4, ["the line ends here", "`{` after `par`"]),
    (MAP, "par P0 exit", 5, ["found `P0`", "`{` after `par`"]),
    (MAP, "par { }", 7, ["found `}`", "a call such as `P0 fork P1`", "nothing but calls"]),
    (MAP, "par { P0 exit }", 1, ["one branch has nothing beside it", "`||` between them"]),
    (MAP, "par { P0 exit ; P0 exit }", 1, ["one branch has nothing beside it"]),
    (MAP, "par { P0 exit || }", 18, ["found `}`", "a call such as"]),
    (MAP, "par { P0 exit || P0 exit", 25, ["the line ends here", "`}` at the end of the `par`"]),
    (MAP, "par { P0 exit || P0 exit } }", 28, ["found `}`", "one statement a line"]),
    (MAP, "par { P0 exit | P0 exit }", 15, ["found `|`", "`;`, `||` or `}` after the call"]),
    (MAP, "par { P0 exit P0 exit || P0 exit }", 15, ["found `P0`", "`;`, `||` or `}` after the call"]),
    (MAP, "par { P0 mmap B 1 prto=r || P0 exit }", 19, ["did you mean `prot`?", "or `;`, `||` or `}`"]),
    (MAP, "par { P0 exit ; ksmd || P0 exit }", 17, ["found `ksmd`", "nothing but calls"]),
    (MAP, "par { walk P0 A[0] || P0 exit }", 7, ["found `walk`", "nothing but calls"]),
    (MAP, "par { fail 1 || P0 exit }", 7, ["found `fail`", "nothing but calls"]),
    (MAP, "par { par { P0 exit || P0 exit } || P0 exit }", 7, ["found `par`", "nothing but calls"]),
    (MAP, "par { P9 exit || P0 exit }", 7, ["no process `P9` here"]),
    (MAP, "par { P0 mmap B 1 || P0 write B }", 31, ["P0 has no area `B`"]),
    (MAP, "par { P0 fork P1 || P1 exit }", 21, ["no process `P1` here"]),
    (MAP, "par { P0 fork P1 || P0 fork P1 }", 1, ["two branches fork a process named P1"]),
    (
        [*MAP, "fail 1"],
        "par { P0 exit || P0 exit }",
        1,
        ["the `fail` on line 2 applies to a call"],
    ),
    (MAP, f"par {{ {' || '.join(['P0 read A'] * 7)} }}", 1, ["more than 1,000 ways", "fewer calls"]),
    (MAP, f"par {{ P0 exit || {' ; '.join(['P0 exit'] * 1000)} }}", 1, ["more than 1,000 ways"]),
    (MAP, f"par {{ {' ; '.join(['P0 exit'] * 1001)} || P0 exit }}", 1, ["more than 1,000 ways"]),
    ([*MAP, "par { P0 exec || P0 read A }"], "P0 read A", 9, ["P0 has no area `A`"]),
    ([*MAP, "par { P0 mmap B 2 || P0 mmap B 3 }"], "P0 read B[3]", 11, ["which has 3 pages"]),
]


@pytest.mark.parametrize(("setup", "line", "column", "words"), REFUSED, ids=[str(r[1])[:40] for r in REFUSED])
def test_refused(setup, line, column, words):
    with pytest.raises(InputError) as caught:
        parse("\n".join([*setup, line]), "f.rmap")
    message = str(caught.value)
    assert message.startswith(f"f.rmap:{len(setup) + 1}:{column}: "), message
    for word in words:
        assert word in message


@pytest.mark.parametrize("call", CALL_NAMES)
def test_a_call_needs_its_process(call):
    with pytest.raises(InputError) as caught:
        parse(f"{call} A", "f.rmap")
    assert str(caught.value).startswith(f"f.rmap:1:1: no process named before `{call}`; expected `P0 {call} …`")


@pytest.mark.parametrize(
    "line",
    [
        f"par {{ P0 exit || {' ; '.join(['P0 exit'] * 999)} }}",
        f"par {{ {' || '.join(['P0 read A'] * 6)} }}",
        "par { P0 mmap A 9 || P0 write A[3] }",  # a branch knows what was there before
        "par { P0 exit || P0 exit }",
        "par {P0 mmap B 1;P0 write B||P0 fork P1;P1 exit}",
        "par { P0 fork P1 ; P1 exit ; P0 fork P1 || P0 read A }",
    ],
)
def test_accepted_par(line):
    assert parse("\n".join([*MAP, line])).statements[1].line == 2


def test_names_of_all_branches_are_known_below():
    parse("par { P0 mmap A 2 || P0 fork P1 ; P1 mmap B 1 }\nP0 write A[1]\nP1 write B\nexpect P1 mmap ok")


def test_calls_of_a_par_have_their_own_text():
    par = parse("# \n par { P0 mmap A 1 ;P0 write A  || P0 exit } # end").statements[0]
    assert [(call.line, call.text) for call in par.calls] == [
        (2, "P0 mmap A 1"),
        (2, "P0 write A"),
        (2, "P0 exit"),
    ]
    assert par.text == "par { P0 mmap A 1 ;P0 write A  || P0 exit }"
