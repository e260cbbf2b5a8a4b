# SPDX-License-Identifier: GPL-2.0-only
"""The parts in C that a reproducer is put together from; only those that it uses."""

from __future__ import annotations

__all__ = ["FAILSLAB", "GONE", "HELPERS", "TAINT", "TURNS"]

HELPERS = {
    "touch": """\
/* Reads or writes a byte of each page; EFAULT stands for SIGSEGV or SIGBUS. */
static sigjmp_buf fault;

static void on_fault(int sig)
{
	(void)sig;
	siglongjmp(fault, 1);
}

static long touch(volatile char *start, unsigned long pages, int write)
{
	if (sigsetjmp(fault, 1)) {
		errno = EFAULT;
		return -1;
	}
	signal(SIGSEGV, on_fault);
	signal(SIGBUS, on_fault);
	for (unsigned long i = 0; i < pages; i++) {
		char byte = start[i * PAGE];

		if (write)
			start[i * PAGE] = byte + 1;
	}
	return 0;
}
""",
    "map": """\
static long map(char *start, unsigned long pages, int prot, int flags, int fd)
{
	return mmap(start, pages * PAGE, prot, flags | MAP_FIXED, fd, 0) == MAP_FAILED ? -1 : 0;
}
""",
    "move": """\
static long move(char *from, unsigned long pages, unsigned long new_pages, int flags, char *to)
{
	return mremap(from, pages * PAGE, new_pages * PAGE, flags, to) == MAP_FAILED ? -1 : 0;
}
""",
    "file": """\
/* A file of its own for each name; the descriptors are made before the first fork. */
static int file(const char *name)
{
	int fd = memfd_create(name, 0);

	if (fd < 0 || ftruncate(fd, 64 * PAGE))
		fd = -1;
	return fd;
}
""",
    "scan": """\
/* Waits for ksmd, which has to be told to run by root, to look at everything twice. */
static long ksm_scans(void)
{
	char text[32] = "0";
	int fd = open("/sys/kernel/mm/ksm/full_scans", O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		return -1;
	close(fd);
	return atol(text);
}

static long scan(void)
{
	long before = ksm_scans();
	int fd = open("/sys/kernel/mm/ksm/run", O_WRONLY);

	if (fd < 0 || write(fd, "1", 1) != 1)
		return -1;
	close(fd);
	for (int i = 0; i < 600 && ksm_scans() < before + 2; i++)
		usleep(100000);
	return 0;
}
""",
}
"""Functions that calls take, by name."""

TURNS = """\
/* Shared by all processes: whose turn it is, what went otherwise, and who is who. */
static struct {
	int turn;
	int differences;
	pid_t pids[64];
} *all;

static void wait_for(int turn)
{
	while (__atomic_load_n(&all->turn, __ATOMIC_ACQUIRE) != turn)
		usleep(100);
}

static void check(const char *call, int expected, long rc)
{
	int got = rc < 0 ? errno : 0;

	if (got != expected) {
		dprintf(1, "# %s: expected %s, got %s\\n", call,
			expected ? strerror(expected) : "success",
			got ? strerror(got) : "success");
		all->differences++;
	}
	__atomic_add_fetch(&all->turn, 1, __ATOMIC_RELEASE);
}
"""
"""Who makes the next call, and whether a call ended as the model says."""

GONE = """\
/* An exit is over when nobody is there any more. */
static void gone(int who)
{
	while (!kill(all->pids[who], 0))
		usleep(100);
	__atomic_add_fetch(&all->turn, 1, __ATOMIC_RELEASE);
}
"""
"""How main() waits for the end of a process."""

FAILSLAB = """\
static int set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	ssize_t written;

	if (fd < 0)
		return -1;
	written = write(fd, value, strlen(value));
	close(fd);
	return written < 0 ? -1 : 0;
}

/* The nth allocation from now on fails; "times" has one more for a retry that may wait. */
static void fail_nth(const char *nth, int retry_too)
{
	set("/proc/thread-self/make-it-fail", "1");
	set("/sys/kernel/debug/failslab/times", retry_too ? "2" : "1");
	set("/sys/kernel/debug/failslab/probability", retry_too ? "100" : "0");
	set("/proc/thread-self/fail-nth", nth);
}

static long no_more(long rc)
{
	int saved = errno;

	set("/proc/thread-self/fail-nth", "0");
	set("/sys/kernel/debug/failslab/probability", "0");
	errno = saved;
	return rc;
}
"""
"""How one allocation of a call is made to fail (mm/failslab.c, lib/fault-inject.c)."""

TAINT = """\
static long taint(void)
{
	char text[32] = "0";
	int fd = open("/proc/sys/kernel/tainted", O_RDONLY);

	if (fd >= 0) {
		if (read(fd, text, sizeof(text) - 1) < 0)
			text[0] = '0';
		close(fd);
	}
	return atol(text);
}
"""
"""What a warning or an oops leaves behind."""
