# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers in C: they compile without a warning, run, and say which allocation must fail."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rmaplab.check.run import run
from rmaplab.cli.catalogue import data_files
from rmaplab.report.reproducer import reproducer
from rmaplab.scenario import load, parse
from rmaplab.series import find

CC = shutil.which("cc")
STRICT = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wmissing-prototypes"]
SKIPPED = 4  # as in kselftest
needs_compiler = pytest.mark.skipif(CC is None, reason="no C compiler: apt-get install gcc libc6-dev")

ALL_CALLS = """\
P0 mmap A 4 at=0x7f0000000000
P0 write A[0..3]
P0 read A[1]
P0 mprotect A[0..1] r
P0 mprotect A[0..1] rw
P0 madvise A[3] dontfork
P0 fork P1
P1 write A[0]
P1 mremap A[2] B
P1 munmap A[1]
P0 madvise A[2] dontneed
P0 madvise A[0] mergeable
P0 brk +2
P0 fork P2
P2 mmap C 2 prot=r
P2 read C
P2 exit
P1 exit
P0 munmap A
"""


def compiled(tmp_path, text):
    source, program = tmp_path / "test.c", tmp_path / "test"
    source.write_text(text)
    done = subprocess.run([CC, *STRICT, "-o", program, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def told(program):
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def source_of(path):
    scenario = load(path)
    series = re.search(r"^# series: (\S+)$", path.read_text(), re.MULTILINE)[1]
    violations = [(violation.id, violation.detail) for violation in run(scenario, find(series)).violations]
    return reproducer(scenario, series=series, violations=violations)


@needs_compiler
@pytest.mark.parametrize("path", data_files("zoo", ".rmap"), ids=lambda path: path.stem)
def test_the_zoo_compiles_without_warnings(tmp_path, path):
    compiled(tmp_path, source_of(path))


@needs_compiler
def test_it_makes_the_calls(tmp_path):
    text = reproducer(parse(ALL_CALLS), series="v7.0")
    code, out = told(compiled(tmp_path, text))
    assert out.startswith("TAP version 13\n1..")
    assert (code, "not ok" in out) == (0, False), out
    for line in ("P0 fork P1", "P1 mremap A[2] B", "P2 exit"):
        assert line in text


@needs_compiler
def test_a_call_that_ends_otherwise_is_not_ok(tmp_path):
    text = reproducer(parse("P0 mmap A 1\nP0 munmap A"), series="v7.0")
    changed = text.replace('check("P0 munmap A[0]", 0,', 'check("P0 munmap A[0]", ENOMEM,')
    assert changed != text
    code, out = told(compiled(tmp_path, changed))
    assert code == 1
    assert "# P0 munmap A[0]: expected Cannot allocate memory, got success" in out
    assert "not ok 1 - 1 calls ended otherwise than modelled" in out


@needs_compiler
def test_it_says_which_allocation_must_fail(tmp_path):
    scenario = parse("P0 mmap A 1\nP0 write A\nP0 mmap B 1\nfail 3\nP0 fork P1")
    text = reproducer(scenario, series="v7.0")
    program = compiled(tmp_path, text)
    assert "3rd" in text
    assert "failslab" in text
    assert "fail-nth" in text
    assert "Takes CONFIG_FAILSLAB" in text
    if not Path("/proc/self/fail-nth").exists():
        code, out = told(program)
        assert code == SKIPPED
        assert "SKIP" in out


def test_the_head_tells_what_it_is_about():
    text = source_of(next(path for path in data_files("zoo", ".rmap") if path.stem == "Z23"))
    head = text[: text.index("*/", text.index("*/") + 1)]
    assert head.startswith("// SPDX-License-Identifier: GPL-2.0")
    assert "AV-043" in head
    assert "P3 fork P4" in head
    assert max(map(len, text.expandtabs(8).splitlines())) <= 100


def test_the_same_twice():
    path = data_files("zoo", ".rmap")[0]
    assert source_of(path) == source_of(path)
