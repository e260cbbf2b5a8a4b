# SPDX-License-Identifier: GPL-2.0-only
"""Every JSON document obeys its published schema, and the schemas refuse damage."""

import copy
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import validator_for

from rmaplab import run, schema
from rmaplab.check.explore import _Search
from rmaplab.cli import demo as demo_verb
from rmaplab.cli.catalogue import CATALOGUES as CATALOGUE_OF
from rmaplab.cli.main import main
from rmaplab.kernel import Kernel
from rmaplab.report.documents import stamp
from rmaplab.workload.trace import KINDS as EVENT_KINDS
from rmaplab.workload.trace import Header, TraceWriter

PAGE = 4096
FOLDER = Path(schema.__file__).parent
Z02 = "P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\n"
SCENARIOS = {
    "fork": "P0 mmap A 2\nP0 write A\nsnapshot s\nP0 fork P1\nP1 write A[0]\nwalk P0 A[0]\nexpect anon_vmas 2\n",
    "kinds": "P0 mmap A 1 file=x\nP0 mmap B 2 shared\nP0 mmap C 1 prot=none\nP0 write A\nP0 write C\nwalk P0 B[0]\n",
    "empty state": "P0 exit\nP0 mmap A 1\nexpect processes 0\n",
    "unmet": "P0 mmap A 1\nexpect anon_vmas 7\nexpect P0 vmas 9\n",
    "broken": Z02 + "expect violates AV-001\nexpect P0 fork ENOMEM\nP0 mmap B 1\nP0 write B\nsnapshot broken\n",
    "refused": "P0 mmap A 1 prot=r\nP0 write A\nP0 munmap A\nP0 read A\nwalk P0 A[0]\n",
}
CATALOGUES = ("designs", "invariants", "series", "workloads", "zoo")


def validator(kind):
    return Draft202012Validator(schema.load(kind))


@pytest.fixture
def document(capsys):
    """Run a verb with --json, and return its one document, which must be valid."""

    def call(*args, code=0):
        assert main([*map(str, args), "--json"]) == code
        found = json.loads(capsys.readouterr().out)
        assert found["kind"] == args[0]
        validator(args[0]).validate(found)
        return found

    return call


@pytest.fixture
def write(tmp_path):
    def file(text, name="a.rmap"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return file


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "hand.trace"
    with TraceWriter(path, Header(("prog",), "x86_64", "6.18.0", PAGE)) as writer:
        for event in (
            ["exec", 0, "/bin/prog", []],
            ["mmap", 0, 16 * PAGE, PAGE, 3, 0x22, 0, None],
            ["anon", 0, [[16 * PAGE, 1]]],
            *(event for task in range(3) for event in (["fork", task, task + 1], ["exit", task])),
            ["other", 3, "shmat"],
            ["munmap", 3, 16 * PAGE, 0],
            ["mremap", 3, 16 * PAGE, PAGE, PAGE, 1, 32 * PAGE],
            ["madvise", 3, 32 * PAGE, PAGE, 12],  # mergeable; KSM is not replayed
        ):
            writer.write(event)
    return path


# --- the schemas themselves -----------------------------------------------------------------


def test_there_is_one_file_a_kind():
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.json"))) == schema.KINDS


@pytest.mark.parametrize("kind", schema.KINDS)
def test_schemas_are_schemas(kind):
    loaded = schema.load(kind)
    assert validator_for(loaded) is Draft202012Validator
    Draft202012Validator.check_schema(loaded)
    assert loaded["$id"] == f"{kind}.json"
    assert loaded["properties"]["kind"] == {"const": kind}
    assert {"rmaplab", "kind"} <= set(loaded["required"])


@pytest.mark.parametrize("kind", schema.KINDS)
def test_schemas_explain_themselves(kind):
    loaded = schema.load(kind)
    assert loaded["title"]
    assert loaded["description"]
    assert "://" not in json.dumps({key: value for key, value in loaded.items() if key != "$schema"}).replace(
        loaded["$schema"], ""
    )


def test_loading_twice_gives_independent_schemas():
    schema.load("run").clear()
    assert schema.load("run")


def test_unknown_kind():
    with pytest.raises(ValueError, match="riddle"):
        schema.load("riddle")


# --- documents ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("series", ["v6.12", "v6.18", "v6.18+1", "v6.18+v2", "v7.0"])
def test_runs(capsys, write, name, series):
    main(["run", str(write(SCENARIOS[name])), "--series", series, "--json"])
    found = json.loads(capsys.readouterr().out)
    validator("run").validate(found)
    assert found["series"] == series
    assert {"statements", "snapshots", "final", "expects", "violations"} <= set(found)


def test_run_says_what_the_contract_promises(document, write):
    found = document("run", write(SCENARIOS["fork"]), "--series", "v6.18")
    assert [statement["line"] for statement in found["statements"]] == [1, 2, 4, 5, 6]
    assert [visit["process"] for visit in found["statements"][-1]["walk"]] == ["P0", "P1"]
    assert found["statements"][0]["walk"] is None
    assert [statement["errno"] for statement in found["statements"]] == [None] * 5
    assert found["expects"] == [{"line": 7, "text": "expect anon_vmas 2", "ok": True, "found": "2"}]
    state = found["final"]
    assert state["slab"] == {"anon_vma": 2, "anon_vma_chain": 3, "bytes": 400}
    assert [len(vma["chain"]) for process in state["processes"] for vma in process["vmas"]] == [1, 2]
    child = state["processes"][1]["vmas"][0]
    assert child["chain"][0] == child["anon_vma"]  # head first: the own one was linked last
    assert found["snapshots"]["s"]["slab"]["anon_vma"] == 1


def test_run_of_every_zoo_entry(document):
    for entry in document("list", "zoo")["items"]:
        found = document("run", entry["scenario"], "--series", entry["series"])
        assert found["violations"]


def test_checks(document, write):
    holds = document("check", "--calls", "3", "--areas", "1", "--jobs", "1")
    assert holds["verdict"] == "holds"
    assert holds["reason"] is None
    assert holds["violations"] == []
    violated = document("check", "--series", "v6.18+v2", "--calls", "3", "--areas", "1", "--jobs", "1", code=1)
    assert violated["verdict"] == "violated"
    assert {"id", "statement", "scenario", "length", "failed_allocation"} <= set(violated["violations"][0])
    everything = document("check", "--series", "v6.18+v2", "--calls", "3", "--areas", "1", "--all", code=1)
    assert len(everything["violations"]) >= len(violated["violations"])
    out = document("check", "--max-states", "5", "--jobs", "1", code=3)
    assert (out["verdict"], bool(out["reason"])) == ("no-verdict", True)
    start = write("P0 mmap A 1\nP0 write A\n")
    assert document("check", start, "--calls", "1", "--series", "v6.18+v2", code=1)["violations"][0]["length"] == 3


def test_fuzzes(document, tmp_path):
    quiet = document("fuzz", "--histories", "20", "--jobs", "1")
    assert (quiet["verdict"], quiet["violations"]) == ("none-found", [])
    assert quiet["histories"] == 20
    found = document("fuzz", "--series", "zoo/Z12", "--histories", "200", code=1)
    assert found["verdict"] == "violated"
    assert set(found["violations"][0]["ids"]) >= {found["violations"][0]["id"]}
    assert_damage_is_seen("fuzz", found)


def test_shrinks(document, write):
    found = document("shrink", write(Z02.replace("fail", "P0 mmap B 1\nfail")), "--series", "v6.18+v2", code=1)
    assert (found["length_before"], found["violations"][0]["length"]) == (4, 3)
    assert_damage_is_seen("shrink", found)


def test_comparisons_of_histories(document):
    found = document("compare", "v6.18", "v7.0", "--calls", "4", code=1)
    assert found["verdict"] == "differ"
    assert {difference["in"] for difference in found["differences"]} <= set(found["aspects"])
    assert document("compare", "v7.0", "v7.3", "--calls", "3")["verdict"] == "same"
    assert document("compare", "v7.0", "v7.3", "--max-states", "3", code=3)["verdict"] == "no-verdict"
    assert_damage_is_seen("compare", found)


def test_counterexamples(document, tmp_path, capsys):
    document("check", "--series", "v6.18+v2", "--calls", "3", "--counterexamples", tmp_path / "found", code=1)
    (path,) = (tmp_path / "found").iterdir()
    found = json.loads(path.read_text())
    validator("counterexample").validate(found)
    assert [step["text"].split()[1] for step in found["steps"]] == ["mmap", "write", "fork"]
    assert found["steps"][-1]["violated"]
    assert found["steps"][1]["changed"]
    assert len(found["steps"][1]["state"]["anon_vmas"]) == 1
    assert_damage_is_seen("counterexample", found)


@pytest.mark.parametrize("entry", ["zoo/Z12", "zoo/Z32", "zoo/Z23"])
def test_counterexamples_of_broken_states(tmp_path, capsys, entry):
    path = next(item["scenario"] for item in CATALOGUE_OF["zoo"]() if item["series"] == entry)
    assert main(["export", path, "--series", entry, "--to", "json"]) == 0
    validator("counterexample").validate(json.loads(capsys.readouterr().out))


def test_replays(document, trace):
    found = document("replay", trace, trace, "--series", "v6.18+1", "--series", "v6.18+2")
    assert list(found["results"]) == ["v6.18+1", "v6.18+2"]
    result = found["results"]["v6.18+2"]
    assert result["unmodelled"] == {"shmat": 2}
    assert result["refused"] == {"munmap EINVAL": 2}
    assert result["approximated"]
    assert result["walk_visits"]
    assert result["wasted_allocations"] == 2 * result["reuses"] > 0


def test_shipped_traces_replay(document):
    for item in document("list", "workloads")["items"]:
        if item["recorded_on"] is None:
            continue
        assert document("replay", item["trace"])["results"]["v7.0"]["final"]["bytes"] == 0


def test_recordings(capfd, tmp_path):
    # The command has stdout as well, so this one is silent.
    assert main(["record", "--json", "-q", "-o", str(tmp_path / "t"), "--", "sh", "-c", "exit 3"]) == 0
    found = json.loads(capfd.readouterr().out)
    validator("record").validate(found)
    assert found["status"] == 3
    assert found["tasks"] == 1
    assert set(found["events"]) <= set(EVENT_KINDS)
    assert_damage_is_seen("record", found)


@pytest.mark.parametrize("what", CATALOGUES)
def test_lists(document, what):
    found = document("list", what)
    assert found["what"] == what
    assert found["items"]
    wrong = {**found, "what": next(other for other in CATALOGUES if other != what)}
    assert not validator("list").is_valid(wrong)


def test_list_of_series_says_what_the_contract_promises(document):
    items = {item["name"]: item for item in document("list", "series")["items"]}
    older = ("v2.6.32", "v2.6.34", "v3.19", "v4.0", "v5.5", "v6.0", "v6.12", "v6.12.112", "v6.18")
    newer = (*(f"v6.18+{n}" for n in range(1, 10)), "v6.18+v2", "v7.0", "v7.3")
    assert {*older, *newer, "zoo/Z01", "zoo/Z23"} <= set(items)
    assert items["v7.0"]["parent"] == "v6.18+9"
    assert items["v6.18+2"]["differs_in"]
    assert all("\n" not in item["summary"] for item in items.values())


def test_doctor(document):
    found = document("doctor")
    assert all(check["remedy"] for check in found["checks"] if not check["ok"])


def test_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_verb, "BOUNDS", demo_verb.Bounds(processes=2, areas=1, pages=1, calls=3, fail_alloc=1))
    monkeypatch.setattr(demo_verb, "WORKLOADS", ())
    args = ["demo", "--no-record", "--html", str(tmp_path / "page.html"), "--jobs", "1", "--json", "-q"]
    assert main([*args, "-o", str(tmp_path / "demo.json")]) in (0, 1)
    found = json.loads((tmp_path / "demo.json").read_text())
    validator("demo").validate(found)
    damaged = copy.deepcopy(found)
    damaged["explorations"][0]["surprise"] = 1
    assert not validator("demo").is_valid(damaged)


def test_interrupted_demo(document, tmp_path, monkeypatch):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_verb, "_explore", interrupt)
    found = document("demo", "--no-record", "--html", tmp_path / "page.html", "-q", code=130)
    assert found["interrupted"]
    assert found["verdicts"] == found["failing_forks"] == []


def test_interrupted_replay(document, trace, monkeypatch):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("rmaplab.workload.machine.Machine._fork", interrupt)
    found = document("replay", trace, "--series", "v6.18", "--series", "v7.0", code=130)
    assert list(found["results"]) == ["v6.18"]
    assert found["results"]["v6.18"]["interrupted"]


def test_interrupted_check(document, monkeypatch):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_Search, "merge", interrupt)
    found = document("check", "--jobs", "1", code=130)
    assert found["verdict"] == "no-verdict"
    assert "interrupted" in found["reason"]


def test_snapshot_documents():
    states = [Kernel().snapshot()]
    for text in SCENARIOS.values():
        for series in ("v6.18+v2", "v7.0"):
            result = run(text, series)
            states += [result.kernel.snapshot(canonical=False), result.kernel.snapshot()]
    for state in states:
        found = json.loads(json.dumps(stamp("snapshot", state.as_dict())))
        validator("snapshot").validate(found)
        validator("snapshot").validate({**found, "series": "v7.0"})
        assert not validator("snapshot").is_valid({**found, "kind": "run"})


# --- damage ---------------------------------------------------------------------------------


def containers(node):
    """Every object in a document."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from containers(item)


TALLIES = {"snapshots", "reached", "results", "acquisitions_by_class", "chain_length", "walk_visits", "events"}
TALLIES |= {"allocations", "locks", "tree_operations", "unmodelled", "approximated", "refused", "failures", "calls"}


def assert_damage_is_seen(kind, found):
    check = validator(kind)
    check.validate(found)
    free = {id(part[name]) for part in containers(found) for name in TALLIES & set(part)}
    for part in list(containers(found)):
        if id(part) in free:
            continue
        part["surprise"] = 1
        with pytest.raises(ValidationError):
            check.validate(found)
        del part["surprise"]
        for key, value in list(part.items()):
            del part[key]
            assert not check.is_valid(found), f"{kind} without {key}"
            part[key] = {"not": ["this"]}
            assert not check.is_valid(found), f"{kind}: {key} of another type"
            part[key] = value
    check.validate(found)


def test_damaged_runs(document, write):
    assert_damage_is_seen("run", document("run", write(SCENARIOS["broken"]), "--series", "v6.18+v2"))


def test_damaged_checks(document):
    assert_damage_is_seen("check", document("check", "--series", "v6.18+v2", "--calls", "3", "--jobs", "1", code=1))


def test_damaged_replays(document, trace):
    assert_damage_is_seen("replay", document("replay", trace))


def test_damaged_others(document):
    assert_damage_is_seen("doctor", document("doctor"))
    for what in CATALOGUES:
        found = document("list", what)
        assert_damage_is_seen("list", {**found, "items": found["items"][:2]} if what != "designs" else found)


@pytest.mark.parametrize(
    "change",
    [{"verdict": "maybe"}, {"states": -1}, {"seconds": "1"}, {"digest": "x"}, {"kind": "run"}, {"violations": [{}]}],
)
def test_wrong_values_in_checks(document, change):
    found = document("check", "--calls", "1", "--jobs", "1")
    assert not validator("check").is_valid({**found, **change})
