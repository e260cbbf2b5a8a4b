# SPDX-License-Identifier: GPL-2.0-only
"""The package's Python face."""

import doctest
import re
from dataclasses import FrozenInstanceError
from html.parser import HTMLParser

import pytest

import rmaplab
from rmaplab import InputError, Kernel, NoVerdictError, RmaplabError, Scenario, UsageError, check, replay, run
from rmaplab.check.invariants import InvariantViolation
from rmaplab.scenario import parse
from rmaplab.workload.trace import Header, TraceWriter

PAGE = 4096
TEXT = "P0 mmap A 1\nP0 write A\nP0 fork P1\nexpect anon_vmas 2\nexpect anon_vma_chains 3\n"


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "one.trace"
    with TraceWriter(path, Header(("prog",), "x86_64", "6.18.0", PAGE)) as writer:
        for event in (
            ["exec", 0, "/bin/prog", []],
            ["mmap", 0, 16 * PAGE, PAGE, 3, 0x22, 0, None],
            ["anon", 0, [[16 * PAGE, 1]]],
            ["fork", 0, 1],
            ["exit", 1],
            ["exit", 0],
        ):
            writer.write(event)
        writer.close(status=0)
    return path


def test_the_contracts_names_are_there():
    assert {"Kernel", "Scenario", "check", "replay"} <= set(rmaplab.__all__)
    assert all(hasattr(rmaplab, name) for name in rmaplab.__all__)
    assert sorted(rmaplab.__all__) == rmaplab.__all__


def test_the_package_docstring_is_a_true_session():
    result = doctest.testmod(rmaplab)
    assert result.attempted >= 7
    assert result.failed == 0


def test_the_session_of_the_contract():
    k = Kernel("v6.18")
    p = k.spawn()
    a = p.mmap(4)
    p.write(a, 0)
    c = p.fork()
    k.check()
    # Two anon_vmas of 104 bytes; one AVC for the parent, two for the child, of 64.
    slab = k.snapshot().slab
    assert (slab.anon_vma, slab.anon_vma_chain, slab.bytes) == (2, 3, 2 * 104 + 3 * 64)
    c.exit()
    p.exit()
    slab = k.snapshot().slab
    assert (slab.anon_vma, slab.anon_vma_chain, slab.bytes) == (0, 0, 0)


def test_check_raises_with_id_and_place():
    k = Kernel("v6.18")
    p = k.spawn()
    p.write(p.mmap(1), 0)
    p.mm.vmas[0].anon_vma.num_active_vmas += 1
    with pytest.raises(InvariantViolation) as caught:
        k.check()
    assert caught.value.id == "AV-011"
    assert "av1" in str(caught.value.where)
    assert "AV-011" in str(caught.value)


def grown(order):
    """A parent that forks two children, one of which writes, with the objects made in one order or the other."""
    k = Kernel()
    p = k.spawn()
    first, second = p.mmap(1, at=0x7F0000000000), p.mmap(1, at=0x7F0000100000)
    for area in (first, second)[::order]:
        p.write(area, 0)
    return k


def test_snapshots_are_values():
    one, other = grown(1).snapshot(), grown(-1).snapshot()
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other}) == 1
    with pytest.raises(FrozenInstanceError):
        one.slab = None
    with pytest.raises(FrozenInstanceError):
        one.processes[0].name = "other"


def test_snapshots_tell_states_apart():
    k = grown(1)
    before = k.snapshot()
    k.processes["P0"].fork()
    assert k.snapshot() != before


def test_snapshot_does_not_follow_the_machine():
    k = grown(1)
    before = k.snapshot()
    kept = before.as_dict()
    k.processes["P0"].exit()
    assert before.as_dict() == kept
    assert k.snapshot().processes == ()


@pytest.mark.parametrize("scenario", [TEXT, parse(TEXT)], ids=["text", "parsed"])
def test_run_takes_text_and_scenarios(scenario):
    result = run(scenario, "v6.18")
    assert result.ok
    assert [expected.ok for expected in result.expects] == [True, True]
    assert result.kernel.snapshot().slab.anon_vma == 2


def test_scenarios_are_the_parsers():
    assert isinstance(parse(TEXT), Scenario)


def test_check_holds_and_finds():
    assert check("v7.0", calls=3, areas=1).verdict == "holds"
    found = check("v6.18+v2", calls=3, areas=1)
    assert found.verdict == "violated"
    assert run(next(iter(found.findings.values())).scenario, "v6.18+v2").violations


def test_check_starts_from_a_scenario():
    result = check("v6.18+v2", parse("P0 mmap A 1\nP0 write A\n"), calls=1)
    assert result.verdict == "violated"
    assert all(finding.length == 3 for finding in result.findings.values())


def test_replay_takes_paths_and_strings(trace):
    by_path, by_text = replay(trace), replay(str(trace), series="v6.18")
    assert by_path.series == "v7.0"
    assert by_text.series == "v6.18"
    assert by_path.events == by_text.events == 6  # five calls and a page fault
    assert replay(trace, trace).forks == 2


class Balanced(HTMLParser):
    """Collects the text of a page, and asserts that every tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.words = [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_results_show_in_notebooks(trace):
    results = {
        "series": [run(TEXT), check(calls=2), replay(trace)],
        "slab": [Kernel().snapshot()],
    }
    for word, shown in results.items():
        for result in shown:
            page = result._repr_html_()
            assert page.startswith("<table>")
            assert word in " ".join(Balanced(page).words)


def test_machines_and_counterexamples_are_drawn_in_notebooks():
    k = Kernel()
    p = k.spawn("P0")
    p.write(p.mmap(2))
    p.fork("P1")
    for shown in (k, k.snapshot()):
        page = shown._repr_html_()
        assert page.startswith("<svg")
        words = [word.strip("└ ") for word in Balanced(page).words]
        assert {"P0", "P1", "av0", "av1", "all of it"} <= set(words)
        assert page.count('class="own"') == 2
        assert page.count('class="avc"') == 1
    assert Kernel().snapshot()._repr_html_().startswith("<table>")  # nothing to draw
    found = check("v6.18+9", calls=4, operations=("mmap", "write", "mprotect", "rwx"))
    page = found._repr_html_()
    assert page.startswith("<svg")
    assert next(iter(found.findings)) in page
    assert "P0 mprotect A[0]" in page


def test_a_picture_keeps_its_style_to_itself():
    k = Kernel()
    p = k.spawn("P0")
    p.write(p.mmap(1))
    rules = re.findall(r"([^{}]+)\{[^}]*\}", re.search(r"<style>(.*?)</style>", k._repr_html_(), re.DOTALL)[1])
    assert rules
    assert all(rule.strip().startswith(".rmaplab ") for rule in rules)


def test_notebook_tables_escape():
    result = check(calls=1)
    result.series = "<script>alert(1)</script>"
    assert "<script>" not in result._repr_html_()
    assert "&lt;script&gt;" in result._repr_html_()


@pytest.mark.parametrize(
    "call",
    [lambda: Kernel("v7.00"), lambda: run(TEXT, "v7.00"), lambda: check("v7.00"), lambda: replay(series="v7.00")],
    ids=["Kernel", "run", "check", "replay"],
)
def test_unknown_series(call):
    with pytest.raises(UsageError, match=r"unknown series 'v7\.00'; did you mean v7\.0\?"):
        call()


def test_unknown_bounds_and_bad_bounds():
    with pytest.raises(TypeError):
        check(callz=3)
    for name in ("processes", "areas", "pages"):
        with pytest.raises(UsageError, match=name):
            check(**{name: 0})


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match=":1:"):
        run("P0 frobnicate\n")
    with pytest.raises(InputError, match="no"):
        replay(tmp_path / "none.trace")


def test_the_kernels_refusals_are_os_errors():
    p = Kernel().spawn()
    area = p.mmap(1, prot="r")
    with pytest.raises(OSError, match="Bad address"):
        p.write(area, 0)
    p.exit()
    with pytest.raises(ProcessLookupError):
        p.mmap(1)


def test_names_are_taken_once():
    k = Kernel()
    k.spawn("P0")
    with pytest.raises(ValueError, match="P0"):
        k.spawn("P0")


def test_errors_carry_exit_codes():
    assert [error.exit_code for error in (RmaplabError, UsageError, NoVerdictError, InputError)] == [70, 2, 3, 4]
    assert all(issubclass(error, RmaplabError) for error in (UsageError, NoVerdictError, InputError))
