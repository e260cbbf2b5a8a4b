# SPDX-License-Identifier: GPL-2.0-only
"""The command line: recording a command, and replaying what was recorded."""

import json
import os

from cli_calls import Done, _call, _file, _in_a_folder_of_its_own, _trace  # noqa: F401 (fixtures)

from rmaplab.workload.trace import TraceReader


def test_record_and_replay(call, tmp_path):
    done = call("record", "-o", "t", "--", "sh", "-c", "(true); exit 3")
    assert done.code == 0
    assert "status 3" in done.err
    with TraceReader(tmp_path / "t") as reader:
        assert list(reader)
        assert reader.end.status == 3
    done = call("replay", "t", "--series", "v6.18+1", "--design", "v6.18+2", "--json")
    assert done.code == 0
    results = json.loads(done.out)["results"]
    assert list(results) == ["v6.18+1", "v6.18+2"]
    assert results["v6.18+1"]["events"] == results["v6.18+2"]["events"] > 0


def test_record_refuses(call, file):
    file("", "plain")
    for command, words in (
        (["/no/such/program"], "No such file"),
        (["./plain"], "chmod"),
        (["."], "denied"),
        ([""], "command"),
    ):
        done = call("record", "-o", "t", "--", *command)
        assert (done.code, done.out) == (4, "")
        assert words in done.err
        assert not os.path.exists("t")
    for bad in ("/no/such/dir/t", ".", "/dev/full"):
        assert call("record", "-o", bad, "--", "true").code == 4


def test_quiet_record(call):
    assert call("record", "-q", "-o", "t", "--", "true") == Done(0, "", "")


def test_replay_compares_each_series_once(call, trace):
    done = call("replay", trace, "--series", "v6.18", "--series", "v7.0", "--series", "v6.18")
    assert done.out.splitlines()[0].split() == ["v6.18", "v7.0"]
