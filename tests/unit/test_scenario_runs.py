# SPDX-License-Identifier: GPL-2.0-only
"""Running scenarios: which call of a process a line makes, what names mean after it, failing kinds, and par."""

import pytest

from rmaplab.check.execute import Plan, execute
from rmaplab.check.explore import explore
from rmaplab.check.histories import Bounds
from rmaplab.check.monitor import Monitor, monitored
from rmaplab.check.run import run
from rmaplab.kernel import Area, Kernel, Process
from rmaplab.scenario import CALL_NAMES, Mmap, Pages, Walk, Write, parse
from rmaplab.series import SERIES

DEFAULT = SERIES["v7.0"]
BASE = 0x7F00_0000_0000
A, B = Area(BASE, 4), Area(BASE + 0x10_0000, 2)


def results(text, series=DEFAULT):
    """The errno of each call, or None."""
    return [statement.errno for statement in run(parse(text), series).statements]


# --- one line, one call ---------------------------------------------------------------------


def moved(**said):
    """What mremap is told."""
    return {"pages": None, "at": None, "dontunmap": False, "move": True} | said


CALLS = [
    ("mmap C 2", "mmap", (2, None, "rw", None, False), {}),
    ("mmap C 2 at=0x1000 prot=r file=f shared", "mmap", (2, 0x1000, "r", "f", True), {}),
    ("read A[1..2]", "read", (A.part(1, 2),), {}),
    ("write A", "write", (A,), {}),
    ("munmap A[3]", "munmap", (A.part(3, 3),), {}),
    ("mprotect A rx", "mprotect", (A, "rx"), {}),
    ("mremap A C", "mremap", (A,), moved()),
    ("mremap A A pages=9", "mremap", (A,), moved(pages=9, move=False)),
    ("mremap A[1] B at=0 dontunmap", "mremap", (A.part(1, 1),), moved(at=0, dontunmap=True)),
    ("mremap B C fixed=A[2]", "mremap", (B,), moved(at=BASE + 0x2000)),
    ("madvise A[0] guard-install", "madvise", (A.part(0, 0), "guard-install"), {}),
    ("mlock A", "mlock", (A,), {}),
    ("munlock A", "munlock", (A,), {}),
    ("brk +2", "brk", (2,), {}),
    ("stack-grow 3", "stack_grow", (3,), {}),
    ("exec", "exec", (), {}),
    ("fork P1", "fork", ("P1",), {}),
    ("exit", "exit", (), {}),
    ("swapout A", "swapout", (A,), {"cached": False}),
    ("swapout A cached", "swapout", (A,), {"cached": True}),
    ("swapin A[0]", "swapin", (A.part(0, 0),), {}),
    ("pin A", "pin", (A,), {"write": True}),
    ("pin A r", "pin", (A,), {"write": False}),
    ("unpin A", "unpin", (A,), {}),
    ("migrate A", "migrate", (A,), {}),
    ("uffd-move A[0..1] B", "uffd_move", (A.part(0, 1), B), {}),
    ("ksm A[0..1] zeros", "ksm_merge", (A.part(0, 1), "zeros"), {}),
    ("split-folio A", "split_folio", (A,), {}),
]


def machine():
    """A machine on which P0 has the areas A and B."""
    kernel = monitored(DEFAULT)()
    kernel.spawn("P0").areas = {"A": A, "B": B}
    return kernel


@pytest.mark.parametrize(("line", "method", "args", "kwargs"), CALLS, ids=[call[0] for call in CALLS])
def test_a_line_makes_one_call(monkeypatch, line, method, args, kwargs):
    made = []

    def spy(process, *given, **named):
        made.append((process.name, given, named))
        return Area(0x5000, 3)

    monkeypatch.setattr(Process, method, spy, raising=False)
    kernel = machine()
    statement = parse(f"P0 mmap A 4\nP0 mmap B 2\nP0 {line}").statements[-1]
    assert execute(kernel, statement).errno is None
    assert made == [("P0", args, kwargs)]
    binds = {
        "mmap": "C",
        "brk": "heap",
        "stack_grow": "stack",
        "exec": "stack",
        "mremap": getattr(statement, "area", ""),
    }
    kept = {} if method == "exec" else {"A": A, "B": B}
    assert kernel.processes["P0"].areas == kept | ({binds[method]: Area(0x5000, 3)} if method in binds else {})


def test_every_call_is_made_above():
    assert {line.split()[0] for line, *_ in CALLS} == set(CALL_NAMES)


def test_ksmd_scans_the_machine(monkeypatch):
    scanned = []
    monkeypatch.setattr(Kernel, "ksmd", lambda kernel: scanned.append(kernel), raising=False)
    result = run(parse("fail 1\nksmd\nP0 mmap A 1\nP0 exit\nksmd"), DEFAULT)
    assert scanned == [result.kernel] * 2
    assert [s.text for s in result.statements] == ["ksmd", "P0 mmap A 1", "P0 exit", "ksmd"]
    assert result.ok


# --- what names mean ------------------------------------------------------------------------


def test_a_refused_call_leaves_no_name():
    assert results("P0 mmap A 4\nP0 mmap A 8 at=0\nP0 write A[7]\nP0 write A[0]") == [None, "ENOMEM"] + ["EFAULT"] * 2
    assert results("P0 mmap A 2\nP0 mmap B 2 at=0\nP0 mremap B A\nP0 read A") == [None, "ENOMEM"] + ["EFAULT"] * 2
    assert results("P0 mmap A 2\nP0 mmap B 2 at=0\nP0 mremap A C fixed=B[0]\nP0 read C\nP0 read A")[2:] == [
        "EFAULT",
        "EFAULT",
        None,
    ]


def test_a_refused_resize_leaves_the_name_as_it_was():
    text = f"P0 mmap A 2\nP0 write A\nP0 mremap A A pages={1 << 35}\nP0 write A[1]\nP0 write A[2]\nP0 munmap A[0..2]"
    assert results(text) == [None, None, "EINVAL", None, "EFAULT", "EFAULT"]


def test_a_shrunk_area_has_fewer_pages():
    assert results("P0 mmap A 4\nP0 mremap A A pages=1\nP0 fork P1\nP1 write A[0]") == [None] * 4


def test_a_heap_without_pages_has_no_name(monkeypatch):
    monkeypatch.setattr(Process, "brk", lambda process, pages: Area(0x1000, max(0, pages)), raising=False)
    kernel = machine()
    for line, areas in (("P0 brk +2", {"A", "B", "heap"}), ("P0 brk +2\nP0 brk -2", {"A", "B"})):
        execute(kernel, parse(line).statements[-1])
        assert set(kernel.processes["P0"].areas) == areas


def test_a_child_keeps_its_own_names():
    text = "P0 mmap A 2\nP0 fork P1\nP0 mremap A A pages=4\nP0 write A[3]\nP1 write A[1]\nP1 mremap A B"
    kernel = run(parse(text), DEFAULT).kernel
    assert kernel.processes["P0"].areas["A"].pages == 4
    assert kernel.processes["P1"].areas["A"].pages == 2
    assert set(kernel.processes["P0"].areas) == {"A"}


# --- plans, counts, walks -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fail", "call", "errno"),
    [
        ("fail 1 vma", "P0 munmap A[0]", "ENOMEM"),
        ("fail 1 tree", "P0 munmap A[0]", "ENOMEM"),
        ("fail 1 page", "P0 write A[2]", "ENOMEM"),
        ("fail 2 page", "P0 write A[2]", None),
        ("fail 1 page", "P0 munmap A[0]", None),
        ("fail 1", "P0 munmap A[0]", "ENOMEM"),
    ],
)
def test_a_failing_kind(fail, call, errno):
    assert results(f"P0 mmap A 3\nP0 write A[0..1]\n{fail}\n{call}\n{call}")[2:] == [errno, None]


def test_a_plan_names_a_kind():
    assert Plan(2) == (2, False, "rmap")


def test_swap_slots_are_counted():
    text = "P0 mmap A 3\nP0 write A\nP0 swapout A[0..1]\nexpect swap_slots 2\nexpect folios 1\n"
    text += "P0 read A\nexpect swap_slots 0"
    assert [expected.ok for expected in run(parse(text), DEFAULT).expects] == [True] * 3


def test_results_are_asked_by_the_name_of_the_call():
    text = "P0 mmap A 1\nP0 mmap B 2\nP0 uffd-move A B[0]\nexpect P0 uffd-move ENOENT\n"
    text += "P0 split-folio A\nexpect P0 split-folio ok"
    assert [expected.found for expected in run(parse(text), DEFAULT).expects] == ["ENOENT", "ok"]


def test_a_walk_goes_by_what_it_says(monkeypatch):
    asked = []
    monkeypatch.setattr(Process, "walk", lambda process, area, page, by=None: asked.append((area, page, by)) or [])
    for by in (None, "whole", "offset", "address"):
        execute(machine(), Walk("P0", Pages("A", 1, 1), by))
    assert asked == [(A.part(1, 1), 0, by) for by in (None, "whole", "offset", "address")]


# --- par ------------------------------------------------------------------------------------


class Careless(DEFAULT):
    """Loses count of a page that is unmapped after it was written to."""

    def do_munmap(self, mm, start, end):
        """Report what lies in the range."""
        if mm.page_table.present(start):
            self.events.report("AV-033", "a page was lost")
        return super().do_munmap(mm, start, end)


def test_a_par_is_tried_in_every_order():
    result = run(parse("P0 mmap A 1\npar { P0 munmap A || P0 write A }\nexpect folios 0\nP0 mmap B 1"), Careless)
    assert [(v.id, v.line) for v in result.violations] == [("AV-033", 2)]
    assert result.violations[0].detail == "a page was lost (in the order P0 write A[0] ; P0 munmap A[0])"
    assert [(s.line, s.text, s.errno) for s in result.statements] == [
        (1, "P0 mmap A 1", None),
        (2, "P0 munmap A", None),
        (2, "P0 write A", "EFAULT"),
        (4, "P0 mmap B 1", None),
    ]
    assert result.expects[0].ok
    assert not result.ok


def test_the_left_to_right_order_is_told_first():
    result = run(parse("P0 mmap A 1\npar { P0 write A ; P0 munmap A || P0 write A || P0 read A }"), Careless)
    assert [v.detail for v in result.violations] == ["a page was lost (in the order P0 write A[0] ; P0 munmap A[0])"]


def test_every_order_is_made_once(monkeypatch):
    made, copies = [], []
    copy = Monitor.copy

    def copied(kernel):
        copies.append(copy(kernel))
        copies[-1].events.listeners.append(lambda event: None)
        return copies[-1]

    monkeypatch.setattr(Monitor, "copy", copied)
    monkeypatch.setattr(Process, "read", lambda process, area: made.append((process.kernel, area.pages)))
    text = "P0 mmap A 1\nP0 mmap B 2\nP0 mmap C 3\npar { P0 read A ; P0 read B || P0 read C }"
    kernel = run(parse(text), DEFAULT).kernel
    assert [pages for _, pages in made] == [1, 2, 3, 3, 2, 3, 1, 2, 1, 2, 3]
    assert [machine is kernel for machine, _ in made] == [False] * 8 + [True] * 3
    assert len(copies) == 8


def test_a_crash_in_another_order_does_not_end_the_run():
    class Crashing(DEFAULT):
        """Falls over when a page is unmapped that was written to."""

        def do_munmap(self, mm, start, end):
            """Look at what is there."""
            if mm.page_table.present(start):
                self.bug("a page is there")
            return super().do_munmap(mm, start, end)

        def bug(self, text):
            """Crash."""
            raise RuntimeError(text)

    text = "P0 mmap A 1\npar { P0 munmap A || P0 write A }\nP0 mmap B 1\n"
    text += "par { P0 write B ; P0 munmap B || P0 fork P1 }\nP0 exit"
    result = run(parse(text), Crashing)
    assert [(v.id, v.line) for v in result.violations] == [("AV-045", 2)]
    assert "in the order P0 write A[0] ; P0 munmap A[0]" in result.violations[0].detail
    assert [s.text for s in result.statements][-1] == "P0 munmap B"  # there the run itself crashed
    assert result.crashed


def test_a_fork_in_a_branch_is_undone_for_the_next_order():
    text = "P0 mmap A 1\nP0 write A\npar { P0 fork P1 ; P1 exit || P0 fork P2 ; P2 write A }\n"
    text += "expect processes 2\nexpect folios 2"
    result = run(parse(text), DEFAULT)
    assert result.ok, result.expects
    assert [s.errno for s in result.statements] == [None] * 6


def test_execute_takes_statements_made_by_hand():
    kernel = monitored(DEFAULT)()
    kernel.spawn("P0")
    assert execute(kernel, Mmap("P0", "A", 1)).errno is None
    assert execute(kernel, Write("P9", Pages("A", 0, 0))).errno == "ESRCH"


def test_the_explorer_starts_from_where_the_left_to_right_order_ends():
    plain = "P0 mmap A 2\nP0 write A\nP0 fork P1\nP0 munmap A[1]"
    beside = "P0 mmap A 2\nP0 write A\npar { P0 fork P1 || P0 munmap A[1] }"
    failed = "P0 mmap A 2\nP0 write A\nP0 fork P1\nfail 1 vma\nP0 munmap A[1]"
    bounds = Bounds(processes=3, areas=1, pages=2, calls=1, fail_alloc=0)
    found = [explore("v7.0", bounds, parse(text)) for text in (plain, beside, failed)]
    assert [exploration.verdict for exploration in found] == ["holds"] * 3
    assert found[0].digest == found[1].digest != found[2].digest
