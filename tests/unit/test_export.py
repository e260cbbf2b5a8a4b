# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab export`: what others read, made of a scenario, a counterexample, or the result of a check."""

import json
import shutil
import subprocess
from xml.etree import ElementTree

import pytest
from cli_calls import COMMAND, FORK, _call, _file, _in_a_folder_of_its_own  # noqa: F401 (fixtures)

from rmaplab.cli.catalogue import data_files
from rmaplab.cli.export import _FORMATS

Z02 = "P0 mmap A 1\nP0 write A[0]\nfail 2\nP0 fork P1\n"
LOGIC = ("--series", "v6.18+v2")
DESIGN = """\
from rmaplab.kernel import Kernel


class Mine(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        super().anon_vma_link_child(vma, parent, anon_vma, avc)
        parent.num_children -= 1
"""


@pytest.fixture(name="written")
def _written(call, tmp_path):
    """A counterexample, as `check` writes it."""
    assert call("check", *LOGIC, "--calls", "3", "--counterexamples", "found", "-q").code == 1
    (path,) = (tmp_path / "found").iterdir()
    return path


@pytest.fixture(name="checked")
def _checked(call, tmp_path):
    """The JSON of a check."""
    assert call("check", *LOGIC, "--calls", "3", "--json", "-o", "check.json").code == 1
    return tmp_path / "check.json"


@pytest.mark.parametrize("form", sorted(_FORMATS))
def test_whatever_is_read_gives_the_same_violation(call, file, written, checked, form):
    scenario = file(json.loads(written.read_text())["scenario"])
    made = [call("export", path, *LOGIC, "--to", form) for path in (scenario, written, checked)]
    assert [one.code for one in made] == [0, 0, 0]
    if form not in ("sarif", "junit"):  # which have more of a check than of a scenario
        assert made[0].out == made[1].out == made[2].out
    for one in made:
        assert "fork P1" in one.out or form == "dot"


def test_a_counterexample_opens_without_its_design(call, file, tmp_path):
    """All there is to show is in the file."""
    path = file(DESIGN, "mine.py")
    assert call("check", "--design", "mine.py", "--calls", "4", "--counterexamples", "found", "-q").code == 1
    (found,) = (tmp_path / "found").iterdir()
    before = {form: call("export", found, "--to", form) for form in ("ascii", "dot", "json", "sarif", "svg")}
    path.unlink()
    for form, done in before.items():
        assert done.code == 0
        assert call("export", found, "--to", form).out == done.out
    done = call("export", found, "--to", "c")
    assert (done.code, done.out) == (4, "")
    assert "mine.py: no such file" in done.err


def test_ascii_is_for_mail(call, written):
    text = call("export", written, "--to", "ascii").out
    assert max(map(len, text.splitlines())) <= 72
    assert text.isascii()
    assert "  2  P0 write A[0]" in text
    assert "     fail 2\n  3  P0 fork P1  -> ENOMEM" in text
    assert "! AV-001 does not hold" in text


@pytest.mark.parametrize("path", data_files("zoo", ".rmap"), ids=lambda path: path.stem)
def test_ascii_and_svg_of_the_zoo(call, path):
    series = path.read_text().splitlines()[1].partition("series:")[2].strip()
    text = call("export", path, "--series", series, "--to", "ascii").out
    assert max(map(len, text.splitlines())) <= 72
    picture = ElementTree.fromstring(call("export", path, "--series", series, "--to", "svg").out)
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    told = "".join(picture.itertext())
    assert "violates AV-" in told
    marks = [one.get("class") for one in picture.iter("{http://www.w3.org/2000/svg}circle")]
    assert "own" in marks or "wrong" in marks or path.stem == "Z32"  # at whose end everything is freed


def test_svg_marks_what_is_wrong(call, file):
    z01 = file(
        "P0 mmap A 1 at=0x7f0000000000\nP0 write A[0]\nP0 mmap B 1 at=0x7f0000001000 prot=rwx\n"
        "fail 1\nP0 mprotect A[0] rwx\n"
    )
    picture = ElementTree.fromstring(call("export", z01, "--series", "v6.18+9", "--to", "svg").out)
    marks = [one.get("class") for one in picture.iter("{http://www.w3.org/2000/svg}circle")]
    assert marks == ["own", "own", "wrong"]  # before: one; after: VMA 1 as it was, VMA 2 without an AVC


def test_svg_and_dot_take_what_violates_nothing(call, file):
    path = file(FORK)
    assert "P0 fork P1" in call("export", path, "--to", "svg").out
    text = call("export", path, "--to", "dot").out
    assert text.startswith("digraph rmap {")
    assert text.count("[shape=ellipse") == 2
    assert text.count("dir=both") == 3
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=text, text=True, capture_output=True, check=True)
    for form in ("ascii", "json"):
        done = call("export", path, "--to", form)
        assert (done.code, done.out) == (2, "")
        assert "violates nothing on v7.0" in done.err


def test_sarif_has_what_code_hosts_want(call, file):
    file(DESIGN, "mine.py")
    call("check", "--design", "mine.py", "--calls", "4", "--json", "-o", "check.json")
    log = json.loads(call("export", "check.json", "--to", "sarif").out)
    assert (log["version"], log["$schema"].rsplit("/", 1)[1]) == ("2.1.0", "sarif-2.1.0.json")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["AV-012", "AV-016"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "mine.py"
        flow = result["codeFlows"][0]["threadFlows"][0]["locations"]
        assert [one["location"]["message"]["text"].split()[1] for one in flow] == ["mmap", "write", "fork"]


def test_junit_has_a_case_for_each_invariant(call, checked):
    suite = ElementTree.fromstring(call("export", checked, "--to", "junit").out)
    cases = suite.findall("testcase")
    failed = [case for case in cases if case.find("failure") is not None]
    violated = {violation["id"] for violation in json.loads(checked.read_text())["violations"]}
    assert {case.get("name").split(":")[0] for case in failed} == violated
    assert int(suite.get("tests")) == len(cases) > 30
    assert int(suite.get("failures")) == len(failed)
    assert suite.get("errors") == "0"


@pytest.mark.parametrize(("more", "code", "errors"), [([], 0, "0"), (["--max-states", "5"], 3, "1")])
def test_a_pass_and_an_unfinished_check(call, more, code, errors):
    assert call("check", "--calls", "3", *more, "--json", "-o", "check.json").code == code
    suite = ElementTree.fromstring(call("export", "check.json", "--to", "junit").out)
    assert (suite.get("failures"), suite.get("errors")) == ("0", errors)
    (run,) = json.loads(call("export", "check.json", "--to", "sarif").out)["runs"]
    assert run["results"] == []
    assert run["invocations"][0]["executionSuccessful"] == (errors == "0")
    done = call("export", "check.json", "--to", "c")
    assert (done.code, done.out) == (2, "")
    assert "has no violation" in done.err


def test_a_pipe_from_check_to_export(file):
    check = subprocess.run([*COMMAND, "check", *LOGIC, "--calls", "3", "--json"], capture_output=True)
    done = subprocess.run(
        [*COMMAND, "export", "-", "--to", "sarif"], input=check.stdout, capture_output=True, check=True
    )
    assert json.loads(done.stdout)["runs"][0]["results"]
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "of the kind None"),
        ('{"kind": "run"}', "of the kind 'run'"),
        ('{"kind": "check"}', "not a whole document"),
        ('{"kind": "check", "series": "v7.0", "violations": [7]}', "not a whole document"),
        ('{"kind": "counterexample", "series": "v7.0", "scenario": "P0 mmap"}', "expected"),
        ('{"kind": "check", "series": "v7.0", "violations": [{"scenario": "P0 mmap A 1"}]}', "not a whole document"),
    ],
)
@pytest.mark.parametrize("verb", [("export", "--to", "ascii"), ("shrink",)], ids=["export", "shrink"])
def test_documents_that_are_none(call, file, verb, text, words):
    done = call(*verb, file(text, "bad.json"))
    assert (done.code, done.out) == (4, "")
    assert words in done.err
    assert "bad.json" in done.err


def test_a_cut_counterexample(call, file, written):
    whole = written.read_text()
    document = json.loads(whole)
    del document["steps"][-1]["state"]["anon_vmas"]
    for text in (whole[: len(whole) // 2], json.dumps(document)):
        done = call("export", file(text, "cut.json"), "--to", "svg")
        assert (done.code, done.out) == (4, "")
        assert "cut.json" in done.err
