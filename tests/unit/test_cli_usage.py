# SPDX-License-Identifier: GPL-2.0-only
"""The command line: its verbs and options, and what is no use of them."""

import json

import pytest
from cli_calls import SMALL, _call, _in_a_folder_of_its_own  # noqa: F401 (fixtures)

VERBS = ("demo", "run", "check", "fuzz", "shrink", "compare", "record", "replay", "list", "doctor")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "VERB"),
        (["frob"], "'frob'"),
        (["run"], "SCENARIO"),
        (["replay"], "TRACE"),
        (["list"], "what"),
        (["list", "sries"], "'sries'"),
        (["record", "--", "true"], "-o"),
        (["record", "-o", "t"], "COMMAND"),
        (["record", "-o", "t", "--"], "COMMAND"),
        (["check", "--frob"], "--frob"),
        (["check", "--calls", "many"], "many"),
        (["check", "--series"], "--series"),
        (["check", "--series", "v6.8"], "did you mean v6.18?"),
        (["check", "--series", "v7"], "v7"),
        (["check", "--design", "nope"], "rmaplab list series"),
        (["run", "a.rmap", "--series", "v9"], "unknown series 'v9'"),
        (["replay", "x.trace", "--series", "v7.0", "--series", "v6.19+1"], "did you mean"),
        (["check", "--processes", "0"], "processes"),
        (["check", "--areas", "0"], "areas"),
        (["check", "--areas", "27"], "26"),
        (["check", "--pages", "0"], "pages"),
        (["check", "--pages", "-1"], "pages"),
        (["check", "--calls", "-1"], "calls"),
        (["check", "--fail-alloc", "-1"], "fail"),
        (["check", "--operations", "mmap,wirte"], "did you mean write?"),
        (["check", "--operations", ""], "operations"),
        (["check", "--only", "AV-999"], "'AV-999'"),
        (["check", "--memory", "much"], "much"),
        (["check", "--resume"], "--save"),
        (["fuzz", "--time", "-1"], "-1"),
        (["fuzz", "--histories", "0"], "0"),
        (["fuzz", "--series", "v6.81"], "did you mean"),
        (["shrink"], "SCENARIO"),
        (["compare", "v6.18"], "B"),
        (["compare", "v6.18", "v7.00"], "did you mean v7.0?"),
        (["export", "x.rmap"], "--to"),
        (["export", "x.rmap", "--to", "pdf"], "'pdf'"),
        (["new-design"], "FILE.py"),
        (["new-design", "mine.txt"], "mine.py"),
        (["new-design", "mine.py", "--function", "anon_vma_frok"], "did you mean anon_vma_fork?"),
        (["new-design", "mine.py", "--series", "v6.8"], "did you mean v6.18?"),
        (["doctor", "--seed", "x"], "x"),
        (["demo", "--html"], "--html"),
    ],
)
def test_usage(call, args, words):
    done = call(*args)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("rmaplab: ")
    assert words in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    "option", [("--jobs", "0"), ("--jobs", "-3"), ("--time", "-1"), ("--time", "nan"), ("--max-states", "-1")]
)
def test_bounds_that_mean_nothing(call, option):
    assert call(*SMALL, *option).code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_the_common_options(call, verb):
    done = call(verb, "--help")
    assert done.code == 0
    for option in ("--json", "-q", "-v", "--seed", "-o"):
        assert option in done.out


def test_version(call):
    done = call("--version")
    assert done.code == 0
    assert done.out.startswith("rmaplab ")


@pytest.mark.parametrize("what", ["designs", "invariants", "series", "workloads", "zoo"])
def test_lists(call, what):
    assert call("list", what).out
    items = json.loads(call("list", what, "--json").out)["items"]
    text = call("list", what).out
    assert all((item.get("name") or item["id"]) in text for item in items)


def test_doctor(call):
    done = call("doctor")
    assert done.code == 0
    assert all(line.startswith(("ok ", "missing ", " ")) for line in done.out.splitlines())
