// SPDX-License-Identifier: GPL-2.0-only
/*
 * A family of processes that do what they are told, one line at a time.
 *
 * As PID 1 it is all of a guest's user space and talks over the device that the
 * kernel's command line names (GUEST_CHANNEL=/dev/ttyS0); as an ordinary process
 * it talks over stdin and stdout.  The first process, the controller, reads the
 * lines.  A line for a slot goes to that slot's process through a pipe, and the
 * slot answers by itself.  guest/wire.py has the commands.
 *
 * No slot maps, unmaps or touches anything in the arena (256 to 896 MiB) unless
 * it is told to, and its own mappings stay as they are from its first command
 * on: no malloc, no stdio.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 64
#define WORDS 16 /* of a line */
#define FILE_BYTES (64 * 4096L)
#define FILES 8

enum verb { MMAP, MUNMAP, MPROTECT, MREMAP, MADVISE, READ, WRITE, BRK, HEAP, MLOCK, MUNLOCK, FORK, FAIL, EXIT };

static const char *const verbs[] = {
	"mmap", "munmap", "mprotect", "mremap", "madvise", "read", "write",
	"brk", "heap", "mlock", "munlock", "fork", "fail", "exit",
};

struct request {
	long verb;
	unsigned long arg[5]; /* of MMAP the last is 0, or the number of a file from 1 on */
};

/* What controller and slots share: memory that is mapped shared before any fork. */
struct shared {
	volatile int pid[SLOTS];
	volatile int busy; /* the slot that has not answered yet, or -1 */
	int controller;
};

static struct shared *shared;
static int pipes[SLOTS][2];
static int channel_in, channel_out;
static int files[FILES]; /* all slots have them */
static jmp_buf fault;

/* ---- answers ------------------------------------------------------------ */

static char *put_text(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	return to;
}

static char *put_number(char *to, unsigned long value)
{
	char digits[24];
	int count = 0;

	do
		digits[count++] = '0' + value % 10;
	while (value /= 10);
	while (count)
		*to++ = digits[--count];
	return to;
}

static void send_bytes(const char *bytes, size_t size)
{
	while (size) {
		ssize_t sent = write(channel_out, bytes, size);

		if (sent <= 0)
			return;
		bytes += sent;
		size -= sent;
	}
}

/* "ok VALUE" or "err ERRNO", and after an order to fail what is left of it. */
static void answer(long result, long left)
{
	char line[96], *end;

	end = put_text(line, result < 0 ? "err " : "ok ");
	end = put_number(end, result < 0 ? -result : result);
	if (left >= 0) {
		end = put_text(end, " left ");
		end = put_number(end, left);
	}
	*end++ = '\n';
	send_bytes(line, end - line);
}

static long result_of(long rc)
{
	return rc == -1 ? -errno : rc;
}

/* ---- a slot ---------------------------------------------------------------- */

static void on_fault(int signal_number)
{
	(void)signal_number;
	longjmp(fault, 1);
}

static long touch(unsigned long address, int write_it, char value)
{
	volatile char *byte = (volatile char *)address;

	if (setjmp(fault))
		return -EFAULT;
	if (write_it)
		*byte = value;
	else
		(void)*byte;
	return 0;
}

/* fail-nth: the Nth allocation that failslab watches, counted from now on. */
static long set_fail_nth(unsigned long nth)
{
	char text[24];
	long rc;
	int fd = open("/proc/thread-self/fail-nth", O_WRONLY);

	if (fd < 0)
		return -errno;
	rc = write(fd, text, put_number(text, nth) - text);
	rc = rc < 0 ? -errno : 0;
	close(fd);
	return rc;
}

static long get_fail_nth(void)
{
	char text[24] = "";
	int fd = open("/proc/thread-self/fail-nth", O_RDONLY);

	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '0';
	close(fd);
	return atol(text);
}

/* Where the heap begins and ends, by both ways that kernels have: one needs an option, the other a capability. */
static long set_heap(unsigned long address)
{
	struct prctl_mm_map map = { .start_brk = address, .brk = address, .exe_fd = -1 };
	char text[1024];
	unsigned long field[64] = { 0 };
	int fd = open("/proc/self/stat", O_RDONLY), count = 2;
	ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	char *at;

	if (fd >= 0)
		close(fd);
	text[size > 0 ? size : 0] = 0;
	at = strrchr(text, ')');
	for (at = at ? strchr(at, ' ') : NULL; at && count < 63; at = strchr(at + 1, ' '))
		field[++count] = strtoul(at + 1, NULL, 10);
	map.start_code = field[26], map.end_code = field[27], map.start_stack = field[28];
	map.start_data = field[45], map.end_data = field[46];
	map.arg_start = field[48], map.arg_end = field[49], map.env_start = field[50], map.env_end = field[51];
	if (!prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0))
		return 0;
	/* One after the other the beginning must never be above the end. */
	if (!prctl(PR_SET_MM, PR_SET_MM_START_BRK, address, 0, 0))
		return result_of(prctl(PR_SET_MM, PR_SET_MM_BRK, address, 0, 0));
	if (prctl(PR_SET_MM, PR_SET_MM_BRK, address, 0, 0))
		return -errno;
	return result_of(prctl(PR_SET_MM, PR_SET_MM_START_BRK, address, 0, 0));
}

static void serve(int slot);

/* The child is the controller's child, too: it waits for all of them. */
static long do_fork(int slot)
{
	long pid;

	shared->pid[slot] = 0;
	pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		serve(slot);
	if (pid < 0)
		return -errno;
	while (shared->pid[slot] != pid)
		sched_yield();
	return pid;
}

static long perform(int slot, const struct request *request)
{
	const unsigned long *arg = request->arg;
	char value = slot + 1;

	switch (request->verb) {
	case MMAP:
		return syscall(SYS_mmap, arg[0], arg[1], arg[2], arg[3],
			       arg[4] ? files[arg[4] - 1] : -1, 0) == -1 ? -errno : 0;
	case MUNMAP:
		return result_of(syscall(SYS_munmap, arg[0], arg[1]));
	case MPROTECT:
		return result_of(syscall(SYS_mprotect, arg[0], arg[1], arg[2]));
	case MREMAP:
		return result_of(syscall(SYS_mremap, arg[0], arg[1], arg[2], arg[3], arg[4]));
	case MADVISE:
		return result_of(syscall(SYS_madvise, arg[0], arg[1], arg[2]));
	case READ:
	case WRITE:
		return touch(arg[0], request->verb == WRITE, value);
	case BRK:
		return (unsigned long)syscall(SYS_brk, arg[0]) == arg[0] ? 0 : -ENOMEM;
	case HEAP:
		return set_heap(arg[0]);
	case MLOCK:
		return result_of(syscall(SYS_mlock, arg[0], arg[1]));
	case MUNLOCK:
		return result_of(syscall(SYS_munlock, arg[0], arg[1]));
	case FORK:
		return do_fork(arg[0]);
	}
	return -ENOSYS;
}

static void serve(int slot)
{
	struct request request;
	unsigned long nth = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* no slot outlives the controller */
	if (getppid() != shared->controller)
		_exit(1);
	shared->pid[slot] = getpid();
	while (read(pipes[slot][0], &request, sizeof(request)) == sizeof(request)) {
		long result = 0, left = -1;

		if (request.verb == EXIT)
			_exit(0);
		if (request.verb == FAIL) {
			nth = request.arg[0];
		} else {
			if (nth)
				result = set_fail_nth(nth);
			if (result == 0)
				result = perform(slot, &request);
			if (nth) {
				left = get_fail_nth();
				set_fail_nth(0);
				nth = 0;
			}
		}
		answer(result, left);
		shared->busy = -1; /* not before: the next answer may be the controller's */
	}
	_exit(1);
}

/* ---- the controller ----------------------------------------------------------- */

/* Nothing is left in its pipe for the next process of the slot. */
static void forget(int slot)
{
	struct request request;
	int size;

	while (!ioctl(pipes[slot][0], FIONREAD, &size) && size > 0)
		if (read(pipes[slot][0], &request, sizeof(request)) <= 0)
			break;
	shared->pid[slot] = 0;
}

/* A slot that dies by itself answers no more: this does it for the slot. */
static void on_child(int signal_number)
{
	int status, slot, pid, saved = errno;
	char line[32], *end;

	(void)signal_number;
	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
		for (slot = 0; slot < SLOTS && shared->pid[slot] != pid; slot++)
			;
		if (slot == SLOTS)
			continue;
		forget(slot);
		if (shared->busy == slot) {
			shared->busy = -1;
			end = put_text(line, "died ");
			end = put_number(end, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
			*end++ = '\n';
			send_bytes(line, end - line);
		}
	}
	errno = saved;
}

static void watch_children(int yes)
{
	struct sigaction action = { .sa_handler = yes ? on_child : SIG_DFL, .sa_flags = SA_RESTART };

	sigaction(SIGCHLD, &action, NULL);
}

static void spawn(int slot)
{
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		serve(slot);
	while (pid > 0 && shared->pid[slot] != pid)
		sched_yield();
	answer(pid < 0 ? -errno : pid, -1);
}

/* Its address space is gone when this returns. */
static void end_slot(int slot, int kill_it)
{
	static const struct request leave = { .verb = EXIT };
	int pid = shared->pid[slot];

	if (!pid)
		return;
	watch_children(0);
	if (kill_it)
		kill(pid, SIGKILL);
	else if (write(pipes[slot][1], &leave, sizeof(leave)) < 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	forget(slot);
	watch_children(1);
}

static void end_all(void)
{
	watch_children(0);
	for (int slot = 0; slot < SLOTS; slot++)
		if (shared->pid[slot])
			kill(shared->pid[slot], SIGKILL);
	for (int slot = 0; slot < SLOTS; slot++)
		end_slot(slot, 1);
	watch_children(1);
}

static void write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	long rc = fd < 0 ? -errno : result_of(write(fd, value, strlen(value)));

	if (fd >= 0)
		close(fd);
	answer(rc < 0 ? rc : 0, -1);
}

static void show_file(const char *path)
{
	static char text[4096];
	ssize_t size = 0, got;
	int fd = open(path, O_RDONLY);

	if (fd < 0) {
		answer(-errno, -1);
		return;
	}
	while (size < 4000 && (got = read(fd, text + size, 4000 - size)) > 0)
		size += got;
	close(fd);
	for (ssize_t at = 0; at < size; at++)
		if (text[at] == '\n')
			text[at] = '|';
	text[size++] = '\n';
	send_bytes(text, size);
}

/* The addresses of symbols as /proc/kallsyms has them, 0 for what it has not. */
static void show_symbols(int count, char **name)
{
	static char text[1 << 16];
	unsigned long address[WORDS] = { 0 };
	char reply[24 * WORDS], *to = reply;
	size_t kept = 0;
	ssize_t got;
	int fd = open("/proc/kallsyms", O_RDONLY);

	if (fd < 0) {
		answer(-errno, -1);
		return;
	}
	while ((got = read(fd, text + kept, sizeof(text) - kept)) > 0) {
		char *line = text, *end, *last = text + kept + got;

		/* "ffffffff81000000 T _text", and behind a tab the module. */
		for (; (end = memchr(line, '\n', last - line)); line = end + 1) {
			for (int at = 0; at < count; at++) {
				size_t length = strlen(name[at]);

				if (!address[at] && end - line >= (ssize_t)(19 + length) &&
				    !memcmp(line + 19, name[at], length) &&
				    (line[19 + length] == '\n' || line[19 + length] == '\t'))
					address[at] = strtoul(line, NULL, 16);
			}
		}
		kept = last - line;
		memmove(text, line, kept);
	}
	close(fd);
	for (int at = 0; at < count; at++) {
		to = put_number(to, address[at]);
		*to++ = at + 1 < count ? ' ' : '\n';
	}
	send_bytes(reply, to - reply);
}

static int slot_of(const char *word)
{
	char *end;
	long slot = strtol(word, &end, 10);

	return *end || end == word || slot < 0 || slot >= SLOTS ? -1 : (int)slot;
}

static void for_slot(int count, char **word)
{
	struct request request = { .verb = -1 };
	int slot = slot_of(word[0]);

	for (size_t verb = 0; count > 1 && verb < sizeof(verbs) / sizeof(verbs[0]); verb++)
		if (!strcmp(word[1], verbs[verb]))
			request.verb = verb;
	if (request.verb < 0) {
		answer(-ENOSYS, -1);
		return;
	}
	if (slot < 0 || !shared->pid[slot]) {
		answer(-ESRCH, -1);
		return;
	}
	if (request.verb == EXIT) {
		end_slot(slot, 0);
		answer(0, -1);
		return;
	}
	for (int at = 2; at < count && at < 7; at++)
		request.arg[at - 2] = strtoul(word[at], NULL, 0);
	if (request.verb == FORK && (count < 3 || slot_of(word[2]) < 0 || shared->pid[slot_of(word[2])])) {
		answer(-EINVAL, -1);
		return;
	}
	if (request.verb == MMAP && count > 6) {
		unsigned long number = strtoul(word[6] + strcspn(word[6], "0123456789"), NULL, 10);

		if (strncmp(word[6], "file", 4) || number >= FILES) {
			answer(-EINVAL, -1);
			return;
		}
		request.arg[4] = number + 1;
	}
	shared->busy = slot;
	if (write(pipes[slot][1], &request, sizeof(request)) != sizeof(request))
		answer(-EIO, -1);
}

/* One line; -1 when the driver asks to leave. */
static int obey(char *line)
{
	char *word[WORDS];
	int count = 0;

	while (shared->busy >= 0) /* only if lines are sent ahead */
		sched_yield();
	for (char *at = strtok(line, " \r"); at && count < WORDS; at = strtok(NULL, " \r"))
		word[count++] = at;
	if (!count)
		return 0;
	if (!strcmp(word[0], "quit")) {
		end_all();
		answer(0, -1);
		return -1;
	}
	if (!strcmp(word[0], "reset")) {
		end_all();
		answer(0, -1);
	} else if (!strcmp(word[0], "spawn") && count == 2 && slot_of(word[1]) >= 0) {
		end_slot(slot_of(word[1]), 1);
		spawn(slot_of(word[1]));
	} else if (!strcmp(word[0], "sys") && count == 3) {
		write_file(word[1], word[2]);
	} else if (!strcmp(word[0], "cat") && count == 2) {
		show_file(word[1]);
	} else if (!strcmp(word[0], "symbols") && count > 1) {
		show_symbols(count - 1, word + 1);
	} else {
		for_slot(count, word);
	}
	return 0;
}

static void control(void)
{
	static char text[8192];
	size_t kept = 0;

	for (;;) {
		ssize_t got = read(channel_in, text + kept, sizeof(text) - 1 - kept);
		char *line = text, *end;

		if (got <= 0)
			return;
		kept += got;
		while ((end = memchr(line, '\n', text + kept - line))) {
			*end = 0;
			if (obey(line) < 0)
				return;
			line = end + 1;
		}
		kept = text + kept - line;
		memmove(text, line, kept);
		if (kept == sizeof(text) - 1)
			kept = 0; /* no command is that long */
	}
}

/* ---- beginning and end ------------------------------------------------------------ */

/* One pass over /modules; how many were loaded. */
static int load_some_modules(void)
{
	DIR *folder = opendir("/modules");
	struct dirent *entry;
	int loaded = 0;

	while (folder && (entry = readdir(folder))) {
		char path[300];
		int fd;

		if (entry->d_name[0] == '.')
			continue;
		*put_text(put_text(path, "/modules/"), entry->d_name) = 0;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (!syscall(SYS_finit_module, fd, "", 0))
			loaded++;
		close(fd);
	}
	if (folder)
		closedir(folder);
	return loaded;
}

/* A device comes a little after its driver. */
static int open_channel(const char *device)
{
	static const struct timespec moment = { .tv_nsec = 10000000 };

	for (int tries = 0; tries < 1000; tries++) {
		int fd = open(device, O_RDWR | O_NOCTTY);

		if (fd >= 0)
			return fd;
		nanosleep(&moment, NULL);
	}
	return -1;
}

static void set_up_guest(void)
{
	const char *device = getenv("GUEST_CHANNEL");
	struct termios raw;

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	mount("debug", "/sys/kernel/debug", "debugfs", 0, NULL);
	while (load_some_modules()) /* those that need others come after them */
		;
	channel_in = channel_out = open_channel(device ? device : "/dev/console");
	if (channel_in < 0) {
		channel_in = 0;
		channel_out = 1;
	}
	if (!tcgetattr(channel_in, &raw)) {
		cfmakeraw(&raw);
		tcsetattr(channel_in, TCSANOW, &raw);
	}
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };
	int guest = getpid() == 1;

	channel_in = 0;
	channel_out = 1;
	if (guest)
		set_up_guest();
	for (int number = 0; number < FILES; number++) {
		files[number] = syscall(SYS_memfd_create, "shared by all slots", 0);
		if (files[number] >= 0 && ftruncate(files[number], FILE_BYTES))
			files[number] = -1;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared->busy = -1;
	shared->controller = getpid();
	for (int slot = 0; slot < SLOTS; slot++)
		if (pipe(pipes[slot]))
			return 1;
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	watch_children(1);
	send_bytes("ready\n", 6);
	control();
	end_all();
	if (guest)
		reboot(RB_POWER_OFF);
	return 0;
}
