# SPDX-License-Identifier: GPL-2.0-only
"""Explanations: true of the state, in agreement with what the modelled kernel does, and without a trace."""

import copy as copies
import json
import re

import pytest
from cli_calls import _call, _file, _in_a_folder_of_its_own  # noqa: F401 (fixtures)
from explained import (
    DESIGNS,
    ERAS,
    assert_merges_are_real,
    assert_reuse_is_real,
    assert_walks_are_real,
    explained,
    fork_alone,
    history,
    leveled,
    machine,
)
from jsonschema import Draft202012Validator
from merge_parts import flip

from rmaplab import schema
from rmaplab.check.explain import canonical_names, explain
from rmaplab.check.explain_history import follow
from rmaplab.check.invariants import violations
from rmaplab.cli.catalogue import CATALOGUES
from rmaplab.kernel.flags import VM_DONTDUMP
from rmaplab.scenario import load, parse
from rmaplab.series import ZOO, find

ZOO_SCENARIOS = {f"zoo/{item['name']}": item["scenario"] for item in CATALOGUES["zoo"]()}
REUSE = """\
P0 mmap A 2
P0 write A
P0 fork P1
P1 write A[0]
snapshot two
P1 fork P2
P1 exit
snapshot left
P2 fork P3
"""


def after(text, series="v7.0"):
    followed = follow(find(series), parse(text).statements)
    return followed.kernel, explained(followed.kernel, followed.adoptions)


def whys(answer):
    return [step.why for step in answer.walk]


# --- folios ----------------------------------------------------------------------------------


def test_a_walk_finds_the_parent_and_misses_the_child_that_copied():
    _, answers = after("P0 mmap A 1\nP0 write A\nP0 fork P1\nP1 write A\n")
    old, new = answers["folio1"], answers["folio2"]
    assert old.title == "folio1: a walk visits 2 VMAs, 1 of them maps it"
    assert [(step.process, step.vma, step.maps) for step in old.walk] == [("P0", "vma1", True), ("P1", "vma2", False)]
    copied = "in vain: P1 has folio2 there, its own copy or a page written anew"
    assert whys(old) == [
        "its own av1 is what folio1 names; maps it read-only",
        f"it inherited a link to av1, which folio1 names; {copied}",
    ]
    assert new.title == "folio2: a walk visits 1 VMA, 1 of them maps it"
    assert "exclusive" in new.lines[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("P1 madvise A dontneed", "P1 has nothing there"),
        ("P1 madvise A guard-install", "P1 has a guard there"),
        ("P1 madvise A dontneed\nP1 read A", "P1 has the zero page there"),
        ("P1 madvise A mergeable\nP1 write A\nP1 ksm A same", "P1 has folio2 there, which KSM merged"),
        ("P1 write A\nP1 swapout A", "P1 has a page there that is swapped out (slot1)"),
        ("P0 swapout A cached\nP0 swapin A", "P1 has a swap entry for it there (slot1)"),
    ],
)
def test_why_a_vma_is_met_in_vain(text, why):
    _, answers = after(f"P0 mmap A 1\nP0 write A\nP0 fork P1\n{text}\n")
    assert any(why in told for told in whys(answers["folio1"]))


def test_pages_that_nobody_maps():
    _, answers = after("P0 mmap A 1\nP0 write A\nP0 swapout A cached\n")
    assert answers["folio1"].title == "folio1: is not mapped, so a walk visits nothing"
    assert answers["folio1"].walk == ()
    assert "1 swap entry of slot1" in answers["folio1"].lines[0]


def test_pages_of_ksm():
    text = "P0 mmap A 2\nP0 write A\nP0 madvise A mergeable\nP0 ksm A x\nP0 fork P1\nP1 write A\n"
    kernel, answers = after(text)
    assert_walks_are_real(kernel, answers)
    assert "names no anon_vma" in answers["folio1"].lines[0]
    assert [hold.what.split(" at ")[0] for hold in answers["av1"].holds[2:]] == ["KSM's item of P0"] * 2


def test_a_list_is_visited_as_a_whole():
    kernel, answers = after("P0 mmap A 2\nP0 write A\nP0 mprotect A[0] r\n", "v2.6.34")
    assert_walks_are_real(kernel, answers)
    assert any("leaves the page out" in why for why in whys(answers["folio1"]))


# --- anon_vmas -------------------------------------------------------------------------------


def test_what_keeps_a_root():
    _, answers = after(REUSE)
    root = answers["av1"]
    assert [(hold.refs, hold.what.split(":")[0]) for hold in root.holds] == [
        (1, "one for all links"),
        (2, "av2 and av3 of its tree"),
    ]
    assert not root.reuse.may
    assert "a root counting itself (num_children 2)" in root.reuse.why


def test_a_pin_is_unaccounted():
    kernel, _ = after("P0 mmap A 1\nP0 write A\n")
    kernel.get_anon_vma(next(iter(kernel.live_anon_vmas.values())))
    assert [hold.refs for hold in explained(kernel)["av1"].holds] == [1, 1]
    kernel.live_anon_vmas[1].refcount = 0
    assert [hold.refs for hold in explained(kernel)["av1"].holds] == [1, -1]


def test_who_may_be_reused():
    before, _ = REUSE.split("snapshot left")
    _, answers = after(before)
    assert answers["av2"].reuse.may
    assert answers["av2"].reuse.why == "A fork of vma3 of P2 adopts it: no VMA owns it, and it has 1 child."
    _, answers = after(before, "v5.5")
    assert answers["av2"].reuse.why.startswith("A fork of vma3 of P2 adopts it: its degree is 1, below 2")
    _, answers = after(before, "v2.6.34")
    assert answers["av2"].reuse.why == "On v2.6.34 fork never adopts what there is."
    _, answers = after(f"{before}P2 madvise A dontfork\n")
    assert not answers["av2"].reuse.may
    assert "dontfork" in answers["av2"].reuse.why


def test_where_an_anon_vma_was_reused():
    followed = follow(find("v7.0"), parse(REUSE).statements)
    assert [(found.line, found.process, found.vma, found.anon_vma) for found in followed.adoptions] == [
        (9, "P3", "vma4", "av2")
    ]
    answers = explained(followed.kernel, followed.adoptions)
    sentence = (
        "av2 was reused at line 9 (`P2 fork P3`): vma4 of P3 adopted it, as no VMA owned it and it had 1 child."
    )
    assert sentence in answers["av2"].lines
    assert sentence in answers["vma4"].lines
    own = next(link for link in answers["vma4"].chain if link.own)
    assert own.why == "its own, adopted by fork from an ancestor at line 9 (`P2 fork P3`)"
    own = next(link for link in explain(followed.kernel)["vma4"].chain if link.own)
    assert own.why == "its own, adopted by fork: it is older than others of the chain, which hang below it"


# --- VMAs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "series", "why"),
    [
        ("P0 mprotect A[0] r", "v7.0", ["only vma2 has the flags wr"]),
        ("P0 munmap A[0]\nP0 mmap B 1 at=0x7f0000000000 file=f", "v7.0", ["no file", "page offsets do not go on"]),
        ("P0 fork P1\nP1 munmap A[0]\nP1 mmap B 1 at=0x7f0000000000", "v7.0", ["inherited by fork (2 anon_vmas"]),
        ("P0 mremap A[0] B\nP0 mremap B C at=0x7f0000002000", "v7.0", ["page offsets do not go on"]),
    ],
)
def test_refused_merges(text, series, why):
    kernel, answers = after(f"P0 mmap A 2\nP0 write A\n{text}\n", series)
    told = [reason for answer in answers.values() for merge in answer.merge or () for reason in merge.why]
    for part in why:
        assert any(part in reason for reason in told), told
    assert_merges_are_real(kernel, answers, flip_back)


def test_different_anon_vmas():
    # The two halves get anon_vmas of their own while their offsets do not fit, and come to lie side by side.
    text = "P0 mmap A 2\nP0 munmap A[0]\nP0 write A[1]\nP0 mmap B 1 at=0x7f0000100000\nP0 write B\n"
    _, answers = after(f"{text}P0 mremap B C at=0x7f0000000000\n")
    whys_of = [merge.why for answer in answers.values() for merge in answer.merge or ()]
    assert len(whys_of) == 2
    assert all("different anon_vmas" in why[0] and "page offsets" in why[1] for why in whys_of)


def test_an_unfaulted_vma_absorbs_since_v6_16():
    text = "P0 mmap A 2\nP0 madvise A[0] dontdump\nP0 write A[1]\n"
    for series, refused in (("v6.12", True), ("v6.18", False)):
        kernel = leveled(after(text, series)[0])
        answers = explain(kernel)
        (faulted,) = (answer for answer in answers.values() if answer.chain)
        (merge,) = faulted.merge
        assert merge.allowed is not refused
        assert any("on v6.12 a VMA without anon_vma does not absorb" in why for why in merge.why) is refused
        assert_merges_are_real(kernel, answers, flip_back)


def test_chain_of_a_grandchild():
    before, _ = REUSE.split("P1 exit")
    _, answers = after(before)
    chain = answers["vma3"].chain
    assert [link.anon_vma for link in chain] == ["av3", "av1", "av2"]
    assert [link.own for link in chain] == [True, False, False]
    assert chain[0].why == "its own, below av2: made when the VMA was forked, or adopted then"
    assert "vma1 of P0 owns it now" in chain[1].why


# --- all that happens ------------------------------------------------------------------------


def flip_back(vma, process, area):
    """Flags are set aside behind the kernel's back, and come back by a call."""
    vma.vm_flags ^= VM_DONTDUMP
    flip(process, area)


@pytest.mark.parametrize("series", [*ERAS, *DESIGNS])
@pytest.mark.parametrize("seed", range(3))
def test_random_histories(series, seed):
    for number, (kernel, adoptions) in enumerate(history(series, f"{series} {seed}")):
        answers = explained(kernel, adoptions)
        if kernel.has_links and not violations(kernel):
            assert not any("accounted" in hold.what for answer in answers.values() for hold in answer.holds or ())
        assert_walks_are_real(kernel, answers)
        if number % 3 == 0:
            assert_reuse_is_real(kernel, answers)
            assert_merges_are_real(kernel, answers, flip_back)
            level = leveled(kernel)
            assert_merges_are_real(level, explained(level), flip_back)


@pytest.mark.parametrize("series", ["v3.19", "v6.0", "v7.0"])
def test_a_whole_fork_adopts_what_is_told(series):
    adopted = 0
    for seed in range(30):
        for kernel, _ in history(series, f"fork {seed}", 30):
            answers = explain(kernel)
            for process in list(kernel.processes.values()):
                faulted = [str(vma) for vma in process.mm.vmas if vma.anon_vma is not None]
                if len(faulted) != 1 or not fork_alone(kernel, faulted[0]):
                    continue
                copy = kernel.copy()
                child = copy.processes[process.name].fork("child")
                own = next(str(vma.anon_vma) for vma in child.mm.vmas if vma.anon_vma is not None)
                assert answers[own].reuse.may
                adopted += 1
        if adopted > 20:
            return
    assert adopted


@pytest.mark.parametrize("entry", ZOO)
def test_broken_states(entry):
    scenario = load(ZOO_SCENARIOS[entry])
    for upto in range(len(scenario.statements) + 1):
        followed = follow(ZOO[entry], scenario.statements[:upto])
        explained(followed.kernel, followed.adoptions)


def test_an_adoption_that_nothing_allows():
    scenario = load(ZOO_SCENARIOS["zoo/Z25"])
    (found,) = follow(ZOO["zoo/Z25"], scenario.statements).adoptions
    assert found.why == "though its degree was 3"


def test_canonical_names():
    for series in ("v7.0", "v5.5"):
        for kernel, _ in history(series, "names"):
            names, state = canonical_names(kernel), kernel.snapshot()
            answers = explain(kernel, names=names)
            vmas = {vma.id for process in state.processes for vma in process.vmas}
            objects = {*(anon_vma.id for anon_vma in state.anon_vmas), *(folio.id for folio in state.folios)}
            assert set(answers) == vmas | objects


def test_a_design_that_fails_is_told():
    kernel = machine("v7.0")
    area = kernel.processes["P0"].mmap(1)
    kernel.processes["P0"].write(area)
    kernel.can_vma_merge_left = kernel.vma_address = None
    answers = explain(kernel)
    assert answers["folio1"].title == "folio1: cannot be explained"
    assert answers["folio1"].lines[0].startswith("Cannot be told in this state: TypeError")


# --- the verb --------------------------------------------------------------------------------


def test_text(call, file):
    done = call("explain", file(REUSE), "P0", "A[0]")
    assert done.code == 0
    assert "folio1: a walk visits 3 VMAs, 1 of them maps it" in done.out
    assert max(map(len, done.out.splitlines())) <= 100
    done = call("explain", file(REUSE), "P3 A")
    assert "was reused at line 9 (`P2 fork P3`)" in " ".join(done.out.split())
    assert max(map(len, done.out.splitlines())) <= 100


@pytest.mark.parametrize("what", ["folio1", "av2", "vma4", "P0 A", "P3 A[1]", "P0 0x7f0000001234"])
def test_documents(call, file, what):
    check = Draft202012Validator(schema.load("explain"))
    done = call("explain", file(REUSE), *what.split(), "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    check.validate(found)
    assert found["what"] == what
    for key in found:
        damaged = copies.deepcopy(found)
        del damaged[key]
        assert not check.is_valid(damaged)
    for answer in found["answers"].values():
        answer["surprise"] = 1
        assert not check.is_valid(found)


def test_the_moment(call, file):
    path = file(REUSE)
    for at in ("two", "5"):
        done = call("explain", path, "av1", "--at", at, "--json")
        assert json.loads(done.out)["at"] == {"line": 5, "text": "snapshot two"}
    assert "2 of them" not in call("explain", path, "folio1", "--at", "left").out
    assert call("explain", path, "av2", "--series", "v5.5").out.count("degree") >= 1
    done = call("explain", path, "av2", "--at", "9", "--json")
    assert [found["line"] for found in json.loads(done.out)["adoptions"]] == [9]


def test_broken_state(call, file):
    done = call("explain", file("P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\n"), "av1", "--series", "v6.18+v2")
    assert done.code == 0
    assert "the state is broken here: AV-001" in done.err
    assert "AV-001 is violated here" in done.out
    assert "VMA that no process has" in " ".join(done.out.split())


def test_counterexamples(call, file, tmp_path):
    options = ("--series", "v6.18+v2", "--calls", "3", "--areas", "1", "--jobs", "1", "--counterexamples", tmp_path)
    call("check", *options)
    path = next(tmp_path.glob("AV-*.json"))
    done = call("explain", path, "av1")
    assert done.code == 0
    assert "on v6.18+v2" in done.out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ["vma9"],
            r"there is no vma9 \(did you mean `vma\d`\?\) here; there are folios folio1, .*anon_vmas av1, av2",
        ),
        (["P0", "B"], "P0 has no area B; it has: A"),
        (["P0", "A[2]"], "A has pages 0 to 1"),
        (["P1", "A"], "process P1 does not run here"),
        (["P0", "A", "B"], "is no id and no place"),
        (["P0", "A[x]"], "is no place"),
        (["P0", "0x1000"], "no anonymous page is there, but no VMA"),
        (["av1", "--at", "99"], "its last statement is in line 9"),
        (["av1", "--at", "lef"], "no such snapshot"),
        (["av1", "--series", "v9"], "unknown series"),
    ],
)
def test_errors(call, file, args, told):
    done = call("explain", file(REUSE), *args)
    assert (done.code, done.out) == (2, "")
    assert re.search(told, done.err)


def test_pages_that_cannot_be_walked(call, file):
    for text, told in (
        ("P0 mmap A 1\n", "nothing yet"),
        ("P0 mmap A 1\nP0 read A\n", "the zero page"),
        ("P0 mmap A 1\nP0 write A\nP0 swapout A\n", "a swap entry (slot1)"),
        ("P0 mmap A 1\nP0 madvise A guard-install\n", "a guard"),
    ):
        done = call("explain", file(text), "P0 A[0]")
        assert done.code == 2
        assert told in done.err


def test_unreadable_input(call, file):
    assert call("explain", "nowhere.rmap", "av1").code == 4
    assert call("explain", file("P0 mmap\n"), "av1").code == 4
