# SPDX-License-Identifier: GPL-2.0-only
"""Which series a host follows: by its release, its slab counters, and what its guards show."""

import json

import pytest
from jsonschema import Draft202012Validator

from rmaplab import schema
from rmaplab.cli.main import main
from rmaplab.realkernel import hostseries, slabinfo
from rmaplab.realkernel.guests import series_of_release
from rmaplab.series import find

SLABINFO = (
    "slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize>\n"
    "anon_vma_chain      900   1000     64   64    1\nanon_vma            131    200    104   39    1\n"
)


@pytest.fixture(name="files")
def _files(tmp_path, monkeypatch):
    """Where the kernel would tell of its slabs."""
    monkeypatch.setattr(slabinfo, "SYSFS", tmp_path / "slab")
    monkeypatch.setattr(slabinfo, "PROC", tmp_path / "slabinfo")
    (tmp_path / "slab" / "anon_vma").mkdir(parents=True)
    return tmp_path / "slab" / "anon_vma" / "objects", tmp_path / "slabinfo"


def test_counters_come_from_sysfs_or_else_from_proc(files):
    sysfs, proc = files
    assert (slabinfo.source(), slabinfo.objects("anon_vma")) == (None, None)
    proc.write_text(SLABINFO)
    assert (slabinfo.source(), slabinfo.objects("anon_vma")) == (proc, 131)
    assert slabinfo.objects("anon_vma_chain") == 900
    sysfs.write_text("140 N0=140\n")
    assert (slabinfo.source(), slabinfo.objects("anon_vma")) == (sysfs, 140)
    assert slabinfo.objects("anon_vma_chain") == 900
    assert slabinfo.objects("vm_area_struct") is None


@pytest.mark.parametrize("text", ["", "\n", "many\n", "\xff\xfe"])
def test_counters_that_say_nothing_are_not_there(files, text):
    for path in files:
        path.write_bytes(text.encode("latin-1"))
    assert slabinfo.source() is None
    assert hostseries.anon_vmas_of_the_history() is None


@pytest.mark.parametrize(
    ("series", "count"), [("v6.0", 7), ("v6.12", 7), ("v6.18", 7), ("v6.18+2", 7), ("v7.0", 6), ("v7.3", 6)]
)
def test_the_history_tells_the_orders_apart(series, count):
    assert hostseries.anon_vmas_of_the_model(find(series)) == count


@pytest.mark.parametrize(
    ("release", "series"),
    [
        *(("7.3.4+deb13-cloud-amd64", "v7.3"), ("7.2.0-rc1", "v7.0"), ("7.1.9", "v7.0"), ("7.0.13", "v7.0")),
        *(("6.18.44-fc-v669", "v6.18"), ("6.12.117", "v6.12.112"), ("6.12.111", "v6.12"), ("6.1.0-56-amd64", "v6.1")),
        *(("6.0.1", "v6.0"), ("5.10.0-30-amd64", "v5.5"), ("4.19", "v4.0"), ("3.10.0-1160", "v3.19"), ("?", "v3.19")),
    ],
)
def test_releases_follow_series(release, series):
    assert series_of_release(release) == series


@pytest.fixture(name="host")
def _host(monkeypatch, files):
    """A host that is described."""

    def host(release, count, guards=False):
        files[1].write_text(SLABINFO)
        monkeypatch.setattr(hostseries.platform, "release", lambda: release)
        monkeypatch.setattr(hostseries, "anon_vmas_of_the_history", lambda: count)
        monkeypatch.setattr(hostseries, "guards_are_flagged", lambda: guards)

    return host


@pytest.mark.parametrize(
    ("release", "count", "agrees", "words"),
    [
        ("6.18.44", 6.98, True, "order of cloning: as before patch 8; 6.98 anon_vmas a VMA"),
        ("7.0.3", 6.02, True, "order of cloning: as since patch 8; 6.02 anon_vmas a VMA"),
        ("6.18.44", 6.02, False, "order of cloning: as since patch 8"),
        ("6.18.44", 6.5, True, "cannot tell: 6.50 anon_vmas a VMA"),
        ("6.18.44", 3.0, True, "cannot tell"),
        ("6.18.44", None, True, "not seen, no slab counter can be read"),
    ],
)
def test_what_is_seen_is_held_against_the_release(host, capsys, release, count, agrees, words):
    host(release, count)
    found = hostseries.host_series()
    assert (found.name, found.agrees) == (series_of_release(release), agrees)
    assert words in found.evidence[-1]
    assert main(["doctor", "--series", "--json"]) in (0, 1)
    document = json.loads(capsys.readouterr().out)
    Draft202012Validator(schema.load("doctor")).validate(document)


def test_guards_that_a_stable_release_flags_are_evidence(host):
    host("6.18.44", 7.0, guards=True)
    assert any("guards: VMAs are flagged" in line for line in hostseries.host_series().evidence)
    host("7.0.1", 6.0, guards=True)
    assert not any(line.startswith("guards:") for line in hostseries.host_series().evidence)


def test_this_host_answers(capsys):
    """Whatever it is; with slab counters to read, by its own behaviour."""
    assert main(["doctor", "--series"]) in (0, 1)
    assert capsys.readouterr().out
    assert hostseries.guards_are_flagged() in (False, True)
