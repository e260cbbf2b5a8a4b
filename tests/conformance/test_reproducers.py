# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers on kernels with failslab: the allocation that must fail does, and every call ends as modelled."""

import re
import shutil
import stat
import subprocess

import pytest

from rmaplab.realkernel.guest import cache
from rmaplab.realkernel.guest.cpio import Entry, archive
from rmaplab.report.reproducer import reproducer
from rmaplab.scenario import parse

SERIES = {"um-6.12": "v6.12.112", "um-7.3": "v7.3"}
SCENARIOS = {
    "chain": "P0 mmap A 1\nP0 write A\nfail 1\nP0 fork P1",
    "anon_vma": "P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\nP0 fork P2\nP2 exit",
    "own": "P0 mmap A 1\nP0 write A\nfail 3\nP0 fork P1",
    "second": "P0 mmap A 1\nP0 write A\nP0 mmap B 2\nP0 write B\nP0 fork P1\nfail 4\nP1 fork P2\nP1 write A\nP1 exit",
    "merge": "P0 mmap A 1 at=0x7f0000000000\nP0 write A\nP0 mmap B 1 at=0x7f0000001000 prot=rwx\nfail 1\n"
    "P0 mprotect A rwx\nP0 mprotect A r",
    "split": "P0 mmap A 3\nP0 write A\nfail 1\nP0 munmap A[1]\nP0 munmap A[1]",
    "move": "P0 mmap A 2\nP0 write A\nP0 fork P1\nfail 2\nP1 mremap A B\nP1 write A",
    "none": "P0 mmap A 1\nP0 write A\nP0 fork P1\nP1 write A\nP0 exit\nP1 munmap A",
}
# Runs what is in /tests, says how each ended, and switches off.
INIT = r"""
#include <dirent.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	DIR *folder = opendir("/tests");
	struct dirent *entry;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	while (folder && (entry = readdir(folder))) {
		char path[300];
		int status = 0;
		pid_t pid;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/tests/%s", entry->d_name);
		printf("BEGIN %s\n", entry->d_name);
		fflush(stdout);
		pid = fork();
		if (!pid) {
			execl(path, path, (char *)NULL);
			_exit(127);
		}
		waitpid(pid, &status, 0);
		printf("END %s %d\n", entry->d_name, status);
		fflush(stdout);
	}
	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
"""


def build(source, program):
    flags = ["-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(["gcc", *flags, "-o", program, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program.read_bytes()


@pytest.mark.parametrize("kernel", SERIES)
def test_what_fails_is_what_the_scenario_says(tmp_path, kernel):
    found = cache.find(kernel)
    if found is None:
        pytest.skip(cache.missing(kernel))
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: apt-get install gcc libc6-dev")
    programs = {}
    for name, text in SCENARIOS.items():
        (tmp_path / f"{name}.c").write_text(reproducer(parse(text), series=SERIES[kernel]))
        programs[name] = build(tmp_path / f"{name}.c", tmp_path / name)
    (tmp_path / "init.c").write_text(INIT)
    folder, executable = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    (tmp_path / "initramfs").write_bytes(
        archive(
            [
                *(Entry(path, folder) for path in ("dev", "proc", "sys", "tests")),
                Entry("dev/console", stat.S_IFCHR | 0o600, major=5, minor=1),
                Entry("init", executable, build(tmp_path / "init.c", tmp_path / "init")),
                *(Entry(f"tests/{name}", executable, data) for name, data in programs.items()),
            ]
        )
    )
    options = ("mem=96M", "slab_nomerge", "quiet", "panic=-1", "panic_on_warn=1", "con=null", "con0=null,fd:1")
    done = subprocess.run(
        [found.image, f"initrd={tmp_path / 'initramfs'}", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    ended = dict(re.findall(r"^END (\S+) (\d+)", done.stdout, re.MULTILINE))
    assert ended == dict.fromkeys(SCENARIOS, "0"), done.stdout + done.stderr
    assert done.stdout.count("ok 1 - made all calls") == len(SCENARIOS)
