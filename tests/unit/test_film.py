# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios as films: moments inside of calls, what is being made, words, and the comments that become notes."""

import json
from itertools import pairwise

import pytest

from rmaplab.check.explain import explain
from rmaplab.check.film import delayed, film, still
from rmaplab.check.retrace import retrace
from rmaplab.check.words import words
from rmaplab.kernel import Kernel
from rmaplab.report.explorer import _states, track
from rmaplab.scenario import parse
from rmaplab.scenario.remarks import remarks
from rmaplab.series import find
from rmaplab.snapshot import Snapshot
from rmaplab.workload.sources import find_workload
from rmaplab.workload.stills import stills

FORK = "P0 mmap A 1\nP0 write A\nP0 fork P1\n"
FAILS = "P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\n"


def of(text, series="v7.0", **options):
    return film(find(series), parse(text), **options)


def inside(frames, call):
    return [frame for frame in frames if frame.call == call and frame.inner]


def vmas(frame):
    return {vma["id"]: vma for process in frame.state["processes"] for vma in process["vmas"]}


def test_states_after_calls_are_those_of_a_run():
    text = "P0 mmap A 2\nP0 write A\nP0 fork P1\nP1 write A[0]\nP0 exit\nP1 swapout A[0]\nP1 munmap A\n"
    frames = [frame for frame in of(text) if not frame.inner][1:]
    moments = retrace(find("v7.0"), parse(text))
    assert [frame.text for frame in frames] == [moment.text for moment in moments]
    for frame, moment in zip(frames, moments, strict=True):
        assert Snapshot.from_dict(json.loads(json.dumps(frame.state))) == moment.state


def test_looking_inside_changes_nothing():
    bare, whole = of(FORK, inner=False), of(FORK)
    assert [frame for frame in whole if not frame.inner] == bare
    assert [frame.inner for frame in inside(whole, 2)] == list(range(1, len(inside(whole, 2)) + 1))


def test_steps_of_a_fork_come_in_the_order_of_the_kernel():
    verbs = [(frame.verb, frame.text.split()[1]) for frame in inside(of(FORK), 2)]
    assert [verb for verb, _ in verbs] == [
        *("alloc", "alloc", "alloc", "assign", "lock", "insert", "unlock", "assign", "lock", "insert", "unlock"),
    ]
    older = [frame.verb for frame in inside(of(FORK, "v6.18+1"), 2)]
    assert older[:5] == ["alloc", "lock", "assign", "insert", "unlock"]  # links first, the own anon_vma after


def test_a_child_that_is_being_made_is_in_the_picture_and_its_links_are_seen_as_they_come():
    frames = inside(of(FORK), 2)
    first, last = frames[0], frames[-1]
    assert [(process["name"], process.get("building", False)) for process in first.state["processes"]] == [
        ("P0", False),
        ("P1", True),
    ]
    assert vmas(first)["vma2"]["chain"] == []
    assert vmas(last)["vma2"]["chain"] == ["av2", "av1"]
    assert vmas(last)["vma2"]["building"]
    on_the_list = next(frame for frame in frames if vmas(frame)["vma2"]["chain"])
    trees = {one["id"]: one["tree"] for one in on_the_list.state["anon_vmas"]}
    assert "vma2" not in trees["av1"]  # linked on one side
    trees = {one["id"]: one["tree"] for one in last.state["anon_vmas"]}
    assert trees == {"av1": ["vma1", "vma2"], "av2": ["vma2"]}
    assert not any(one.get("building") for one in vmas(of(FORK)[-1]).values())


def test_locks_are_told_while_they_are_held():
    frames = inside(of(FORK), 2)
    held = [frame.state["locks"] for frame in frames]
    assert ["av1 write"] in held
    assert held[-1] == []


def test_a_failing_fork_shows_the_half_built_vma_before_the_patch_and_none_after():
    before, after = (of(FAILS, series) for series in ("v6.18+1", "v6.18+2"))
    assert any(frame.verb == "report" and "half-built" in frame.text for frame in inside(before, 2))
    assert "AV-039" in before[-1].violated
    assert [frame.verb for frame in inside(after, 2)] == ["alloc", "fail", "free"]
    assert after[-1].violated == {}
    for frames in (before, after):
        assert (frames[-1].errno, frames[-1].fail) == ("ENOMEM", "fail 2")


@pytest.mark.parametrize(
    "series", ["v2.6.32", "v2.6.34", "v3.19", "v6.18+v2", "v7.3", "lazy", "cow_context", "zoo/Z23"]
)
def test_every_logic_can_be_filmed(series):
    text = "P0 mmap A 2\nP0 write A\nP0 fork P1\nP1 write A[0]\nP1 fork P2\nP0 exit\nP1 mprotect A[1] r\nP1 exit\n"
    frames = of(text, series)
    assert len([frame for frame in frames if not frame.inner]) == 9
    for frame in frames:
        json.dumps(frame.state)
        assert (frame.answers is None) == bool(frame.inner)


def test_answers_are_those_of_explain():
    kernel = find("v7.0")()
    process = kernel.spawn("P0")
    process.write(process.mmap(1))
    frame = still(kernel, -1, "now")
    assert frame.answers == {ident: answer.as_dict() for ident, answer in explain(kernel).items()}
    assert still(kernel, -1, "now", most=1).answers is None
    assert still(kernel, -1, "now", most=1).state["folios"] == []


def test_patches_lead_to_the_states():
    frames = of("P0 mmap A 2\nP0 write A\nP0 fork P1\nP1 write A[0]\nP0 swapout A[1]\nP0 exit\nP1 exit\n")
    moments = track("v7.0", frames)["moments"]
    for frame, state in zip(frames, _states(moments), strict=True):
        for part in ("processes", "anon_vmas", "folios", "swap"):
            key = "name" if part == "processes" else "id"
            assert {one[key]: one for one in state[part]} == {one[key]: one for one in frame.state[part]}
        for part in ("locks", "slab", "guards", "ksm"):
            assert state[part] == frame.state[part]


def test_a_delayed_film_has_the_state_before_each_moment():
    frames = of(FORK)
    late = delayed(frames)
    assert [(frame.call, frame.inner, frame.text) for frame in late] == [
        (frame.call, frame.inner, frame.text) for frame in frames
    ]
    calls, inner = (
        [at for at, frame in enumerate(frames) if bool(frame.inner) is inside] for inside in (False, True)
    )
    assert [late[at].state for at in calls[1:]] == [frames[at].state for at in calls[:-1]]
    assert [late[at].state for at in inner] == [frames[at - 1].state for at in inner]


# --- words -------------------------------------------------------------------------------------------


def told(text):
    return of(text, inner=False)[-1].words


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("P0 mmap A 2 prot=rx\n", "P0's vma1 is new: 2 pages at 0x7f0000000000, r-x"),
        ("P0 mmap A 1\nP0 write A\n", "P0's vma1: av1 is its own (before: none)"),
        ("P0 mmap A 1\nP0 write A\n", "folio1 is new: names av1, mapped by P0, exclusively"),
        (FORK, "P1 begins"),
        (FORK, "P1's vma2 is linked to av2, av1; av2 is its own"),
        (FORK, "av1: references 1 -> 2, children 1 -> 2"),
        (FORK, "walks of av1 come to vma2 now"),
        (FORK + "P0 exit\n", "P0 is gone"),
        (FORK + "P0 exit\n", "walks of av1 no longer come to vma1"),
        (FORK + "P0 exit\nP1 write A\n", "folio1 names av2 now, no longer av1"),
        (FORK + "P0 exit\nP1 exit\n", "av1 is freed"),
        ("P0 brk +1\nP0 brk +1\n", "P0's vma1 now has 2 pages at 0x555555556000 (before: 1 page at 0x555555556000)"),
        ("P0 mmap A 1\nP0 write A\nP0 swapout A\n", "folio1 is gone"),
    ],
)
def test_changes_in_words(text, sentence):
    assert sentence in told(text)


def test_nothing_changed_is_nothing_said():
    kernel = Kernel()
    process = kernel.spawn("P0")
    process.write(process.mmap(2))
    state = kernel.snapshot(canonical=False)
    assert list(words(state, state)) == []


def test_every_change_is_said():
    """Whatever a call changes in VMAs, anon_vmas and folios has a sentence that names the object."""
    text = (
        "P0 mmap A 3\nP0 write A\nP0 fork P1\nP1 mprotect A[1] r\nP1 write A[0]\nP0 munmap A[2]\nP0 exit\nP1 exit\n"
    )
    states = [Snapshot.from_dict(json.loads(json.dumps(frame.state))) for frame in of(text, inner=False)]
    for before, after in pairwise(states):
        said = " ".join(words(before, after))
        for kind in ("anon_vmas", "folios"):
            old, new = ({one.id: one for one in getattr(state, kind)} for state in (before, after))
            assert all(ident in said for ident in {*old, *new} if old.get(ident) != new.get(ident))


# --- comments --------------------------------------------------------------------------------------------


def test_comments_become_title_text_and_notes():
    said = remarks(
        "# A title\n# series: v6.18 v7.0\n#\n# One paragraph\n# of two lines.\n#\n# Another.\n"
        "P0 mmap A 1   # first\n\n# above\n# it\nP0 write A\nfail 1  # of the plan\nP0 fork P1\n"
    )
    assert said.title == "A title"
    assert said.series == ("v6.18", "v7.0")
    assert said.text == ("One paragraph of two lines.", "Another.")
    assert said.notes == {8: "first", 12: "above it", 13: "of the plan"}
    assert remarks("P0 mmap A 1\n") == ("", (), (), {})


# --- replays ---------------------------------------------------------------------------------------------


def test_stills_of_a_workload_are_even_and_end_at_its_end():
    shots = list(stills(find_workload("thousand:vmas=3,children=1"), find("v7.0"), 4))
    assert len(shots) == 4
    assert [text.split(":")[0] for text, _ in shots][-1].startswith("after 10 of 10")
    assert [len(kernel.processes) for _, kernel in shots][-1] == 0
