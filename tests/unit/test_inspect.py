# SPDX-License-Identifier: GPL-2.0-only
"""The verb `inspect` on machines that are images of a model's state, and on documents."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from random import Random

import pytest
from inspected import AT, BROKEN, FAMILY, HEIR, LAYOUT, Machine, _call, _document, machine  # noqa: F401 (two are fixtures)
from jsonschema import Draft202012Validator
from twin_parts import damage

from rmaplab import schema
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.realkernel.image import FIRST_PID
from rmaplab.report.inspection import overview


class Page(HTMLParser):
    """What a page has, and that every element that is opened is closed."""

    VOID = frozenset({"meta", "line", "path", "circle", "rect", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


# --- what is told ---------------------------------------------------------------------------------------------


def test_the_summary_has_what_an_operator_asks(call):
    code, out, err = call(Machine(machine(HEIR)))
    assert (code, err) == (0, "")
    assert out.startswith("Linux 7.0.13, judged as v7.0\n")
    for heading in ("Most AVCs", "Largest trees", "Deepest trees", "Widest trees", "Worst walks"):
        assert f"\n{heading}\n" in out
    assert "anon_vmas that are no VMA's own: 1\n" in out
    assert re.search(r"^  P0:\d+ ", out, re.MULTILINE)


def test_the_figures_are_those_of_the_model(document):
    kernel = machine(HEIR)
    found = document(Machine(kernel))
    counts = found["overview"]["counts"]
    assert counts["processes"] == len(kernel.processes) == 4
    assert counts["anon_vmas"] == len(kernel.live_anon_vmas)
    assert counts["anon_vma_chains"] == len(kernel.live_anon_vma_chains)
    assert counts["vmas"] == sum(len(process.mm.vmas) for process in kernel.processes.values())
    assert counts["bytes"] == (
        counts["anon_vmas"] * LAYOUT.size("anon_vma") + counts["anon_vma_chains"] * LAYOUT.size("anon_vma_chain")
    )
    chains = [len(vma.anon_vma_chain) for process in kernel.processes.values() for vma in process.mm.vmas]
    assert max(one["longest"] for one in found["overview"]["processes"]) == max(chains)
    (empty,) = found["overview"]["empty"]
    assert (empty["children"], empty["unexplained"]) == (2, 0)  # P1 is gone, its children are not


def test_walk_costs_are_what_walks_visit():
    kernel = machine(HEIR)
    costs = {one.folio: one for one in overview(kernel.snapshot(), 1000).walks}
    assert costs
    for number, folio in enumerate(folios(kernel)):
        visits = kernel.rmap_walk_anon(folio)
        assert costs[f"folio{number}"].visited == len(visits)
        assert costs[f"folio{number}"].mapped == sum(visit.maps for visit in visits)


def folios(kernel):
    found = {}
    for process in kernel.processes.values():
        for _, entry in process.mm.page_table:
            found.setdefault(entry.folio)
    return list(found)


def test_lists_are_as_long_as_asked(document):
    many = "".join(f"P0 mmap A{n} 1\nP0 mmap B{n} 1 prot=r\nP0 write A{n}\n" for n in range(15))
    assert len(document(Machine(machine(many)))["overview"]["trees"]) == 10
    assert len(document(Machine(machine(many)), "--top", "3")["overview"]["trees"]) == 3


def test_without_pages_there_are_none(document):
    found = document(Machine(machine(FAMILY)), "--no-pages", "--validate")
    assert (found["folios"], found["violations"]) == ([], [])
    assert document(Machine(machine(FAMILY)))["folios"]


def test_one_process_is_a_part(document, call):
    found = document(Machine(machine(FAMILY)), "--pid", FIRST_PID + 1, "--validate")
    assert (found["partial"], found["violations"]) == (True, [])
    assert [process["name"] for process in found["processes"]] == [f"P1:{FIRST_PID + 1}"]
    assert "?" in found["anon_vmas"][0]["tree"]
    assert {one["id"] for one in found["unjudged"]} >= {"AV-040", "AV-048"}
    code, out, err = call(Machine(machine(FAMILY)), "--pid", "7")
    assert (code, out, err) == (4, "", "rmaplab: no process 7 with an address space runs there\n")


# --- what is at an address -------------------------------------------------------------------------------------


def test_a_user_address_leads_to_vma_chain_and_folio(call):
    code, out, _ = call(Machine(machine(FAMILY)), "--addr", f"{AT + 2 * PAGE_SIZE:#x}")
    assert code == 0
    for name in ("P0", "P1", "P2"):
        assert re.search(rf"^{name}:\d+: VMA vma\d \(0xffff[0-9a-f]+\) {AT:#x}-", out, re.MULTILINE)
    assert out.count("mapcount 3") == 3
    assert "    a walk visits P2" in out


def test_a_kernel_address_leads_to_its_object(call, document):
    _, out, _ = call(Machine(machine(FAMILY)), "--addr", hex(AT))
    for name, heading in (("av", "anon_vma av"), ("vma", "P0:100: VMA vma"), ("folio", "  folio folio")):
        address = re.search(rf"{name}\d \((0xffff[0-9a-f]+)\)", out)[1]
        code, told, _ = call(Machine(machine(FAMILY)), "--addr", address)
        assert code == 0
        assert told.startswith(heading)
        assert call(Machine(machine(FAMILY)), "--addr", address[2:])[1] == told  # as the kernel's log writes it


@pytest.mark.parametrize("address", ["0x1000", "ffff888000000000"])
def test_where_nothing_is_is_an_error(call, address):
    code, out, err = call(Machine(machine(FAMILY)), "--addr", address)
    assert (code, out) == (4, "")
    assert "of what was read is there" in err


# --- judging ------------------------------------------------------------------------------------------------------


def test_a_sound_machine_validates_clean(call, document):
    assert document(Machine(machine(HEIR)), "--validate")["violations"] == []
    code, out, _ = call(Machine(machine(HEIR)), "--validate")
    assert code == 0
    assert "No invariant is violated" in out


def test_a_broken_machine_does_not(document, call):
    kernel = machine(BROKEN, "v6.18+v2")
    found = document(Machine(kernel, release="6.18.3"), "--validate", "--series", "v6.18+v2", code=1)
    assert "AV-001" in {one["id"] for one in found["violations"]}
    code, out, _ = call(Machine(kernel, release="6.18.3"), "--validate", "--series", "v6.18+v2", "--html", "p.html")
    assert code == 1
    assert "Violations: " in out
    assert "violations" in Page(Path("p.html").read_text(encoding="utf-8")).words


def test_what_is_gone_at_the_next_reading_is_incomplete_and_no_violation(document):
    broken, sound = machine(BROKEN, "v6.18+v2"), machine(FAMILY, "v6.18+v2")
    live = {"source": ("--live",)}
    found = document(Machine(broken, sound), "--validate", "--series", "v6.18+v2", **live)
    assert found["violations"] == []
    assert any("had changed when they were read again" in remark for remark in found["incomplete"])
    lasting = Machine(broken)
    assert document(lasting, "--validate", "--series", "v6.18+v2", code=1, **live)["violations"]
    assert lasting.readings > 1
    once = Machine(broken)
    document(once, "--validate", "--series", "v6.18+v2", code=1)
    assert once.readings == 1  # a dump does not change


def test_a_tree_that_does_not_stand_still_is_not_judged(document):
    """The same contradiction at the same place, in a tree that has one page more each time: two moments, not one."""
    one_page = BROKEN.replace("A 1", "A 4").replace("write A", "write A[0]")
    states = [
        machine(one_page + "".join(f"P0 write A[{page}]\n" for page in range(1, n)), "v6.18+v2") for n in (1, 2, 3)
    ]
    moving = ("--validate", "--series", "v6.18+v2")
    found = document(Machine(*states), *moving, source=("--live",))
    assert found["violations"] == []
    assert any("the machine goes on" in remark for remark in found["incomplete"])
    for state in states:
        assert document(Machine(state), *moving, source=("--live",), code=1)["violations"]


@pytest.mark.parametrize("seed", range(25))
def test_garbage_is_told_and_does_no_harm(call, seed):
    code, out, err = call(
        Machine(machine(HEIR), spoil=lambda memory: damage(memory, Random(seed))), "--validate", "--json"
    )
    assert code in (0, 1, 4)
    assert "Traceback" not in err
    if code != 4:
        Draft202012Validator(schema.load("snapshot")).validate(json.loads(out))


# --- pages --------------------------------------------------------------------------------------------------------


def test_the_page_stands_alone_and_draws_the_trees(call):
    code, _, _ = call(Machine(machine(HEIR)), "--validate", "--html", "p.html")
    assert code == 0
    text = Path("p.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "http" not in text.replace("http://www.w3.org/", "")
    assert "None is violated." in page.words
    kernel = machine(HEIR)
    discs = [attrs for tag, attrs in page.tags if tag == "circle" and attrs.get("class") == "own"]
    assert len(discs) == sum(vma.anon_vma is not None for p in kernel.processes.values() for vma in p.mm.vmas)
    assert [tag for tag, _ in page.tags].count("svg") == 2


def test_names_are_text_and_no_markup(call):
    kernel = machine(FAMILY)
    kernel.processes["<b>&"] = kernel.processes.pop("P2")
    call(Machine(kernel), "--html", "p.html")
    text = Path("p.html").read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;" in text


def test_a_page_that_cannot_be_written_is_an_error(call):
    code, _, err = call(Machine(machine(FAMILY)), "--html", "no/where.html")
    assert (code, err) == (4, "rmaplab: no/where.html: cannot be written: No such file or directory\n")
