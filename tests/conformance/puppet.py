# SPDX-License-Identifier: GPL-2.0-only
"""A process that does what it is told: one system call or one access for each request.

Run as a program, with the numbers of its inherited channels as arguments: the
first is its own, the others are for the processes it will fork.  Imported, it
is the protocol.  It keeps to itself: nothing here touches the addresses that
the requests are about.
"""

import ctypes
import errno
import gc
import os
import resource
import signal
import struct
import sys

REQUEST = struct.Struct("<4sQQQQ")  # verb, protection or slot, FILE and SHARED, address, length in bytes
# For madvise: verb, advice, 0, address, length.
# For UFFDIO_MOVE: verb, length, new address, old address, where the window begins with its pages in the low bits.
# For mremap: verb, new length, new address or 0 for the old one, old address, old length and DONTUNMAP.
ANSWER = struct.Struct("<iI")  # errno or 0; the process id of a new child

MMAP, MUNMAP, MPROTECT, MREMAP = b"mmap", b"unmp", b"prot", b"remp"
MADVISE, MLOCK, MUNLOCK = b"advi", b"lock", b"unlk"
HEAP, BRK = b"heap", b"brk_"  # where the heap begins; where it shall end
MOVE = b"uffd"  # UFFDIO_MOVE
PIN = b"pin_"  # for a device: as a buffer of io_uring, until the process ends
READ, WRITE = b"read", b"writ"  # ordinary accesses: SIGSEGV where they are not allowed
TRY_READ, TRY_WRITE = b"tryr", b"tryw"  # accesses by system calls: EFAULT where they are not allowed
FORK, EXIT = b"fork", b"exit"

PROT = {"r": 1, "w": 2, "x": 4}
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 0x1, 0x2, 0x10, 0x20
MAP_GROWSDOWN = 0x100
ADVICE = {
    **{"dontneed": 4, "dontfork": 10, "dofork": 11, "mergeable": 12, "unmergeable": 13, "hugepage": 14},
    **{"nohugepage": 15, "dontdump": 16, "dodump": 17, "wipeonfork": 18, "keeponfork": 19, "pageout": 21},
    **{"guard-install": 102, "guard-remove": 103},
}
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 0x1, 0x2, 0x4
DONTUNMAP = 0x1
FILE, SHARED, STACK = 0x1, 0x2, 0x4  # what is mapped: the file all puppets have, or nothing; shared, or private
SYS_BRK, SYS_USERFAULTFD, SYS_IO_URING_SETUP, SYS_IO_URING_REGISTER = 12, 323, 425, 427
IORING_REGISTER_BUFFERS, IO_URING_PARAMS_BYTES = 0, 120
UFFD_USER_MODE_ONLY = 1
UFFD_API, UFFD_FEATURE_MOVE = 0xAA, 1 << 16
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_MOVE = 0xC018_AA3F, 0xC020_AA00, 0xC028_AA05
UFFDIO_UNREGISTER, UFFDIO_REGISTER_MODE_MISSING = 0x8010_AA01, 1
PR_SET_MM, PR_SET_MM_MAP = 35, 14
# struct prctl_mm_map: code, data, brk, stack, arguments, environment; no auxiliary vector, no file
MM_MAP = struct.Struct("<11QQIi")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
PR_SET_CHILD_SUBREAPER = 36
FILE_BYTES = 64 << 12


class Puppet:
    """Serves requests until its channel closes or it is told to exit."""

    def __init__(self, channels: list[int]) -> None:
        self.channels = channels
        self.own = channels[0]
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mmap.restype = self.libc.mremap.restype = ctypes.c_void_p
        self.libc.syscall.restype = ctypes.c_long
        self.libc.read.restype = self.libc.write.restype = ctypes.c_ssize_t
        self.zero = os.open("/dev/zero", os.O_RDONLY)
        self.pipe = os.pipe()
        self.rings: list[int] = []
        self.file = os.memfd_create("conformance")
        os.ftruncate(self.file, FILE_BYTES)

    def serve(self) -> None:
        """Answer requests for ever."""
        while request := os.read(self.own, REQUEST.size):
            verb, argument, what, address, length = REQUEST.unpack(request)
            if verb == EXIT:
                break
            code, child = (
                self.fork(argument) if verb == FORK else (self.call(verb, argument, what, address, length), 0)
            )
            if code >= 0:
                os.write(self.own, ANSWER.pack(code, child))
        os._exit(0)

    def fork(self, slot: int) -> tuple[int, int]:
        """Fork; the child serves the channel of the slot, and its answer here is to stay silent."""
        try:
            pid = os.fork()
        except OSError as error:
            return error.errno or errno.EIO, 0
        if pid == 0:
            self.own = self.channels[slot]
            for ring in self.rings:  # the pins are the parent's, and end with it
                os.close(ring)
            self.rings = []
            return -1, 0
        return 0, pid

    def set_heap(self, address: int) -> int:
        """Let the heap begin at an address, and the C library never ask for a part of it."""
        self.libc.mallopt(M_MMAP_THRESHOLD, 0)
        self.libc.mallopt(M_TRIM_THRESHOLD, -1)
        with open("/proc/self/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        code_data = [int(fields[n]) for n in (23, 24, 42, 43)]
        stack_arguments = [int(fields[n]) for n in (25, 45, 46, 47, 48)]
        layout = MM_MAP.pack(*code_data, address, address, *stack_arguments, 0, 0, -1)
        self.libc.prctl(PR_SET_MM, PR_SET_MM_MAP, layout, ctypes.c_ulong(len(layout)), ctypes.c_ulong(0))
        return ctypes.get_errno()

    def move(self, dst: int, src: int, size: int, window: int, length: int) -> int:
        """UFFDIO_MOVE; the whole window is registered for it, and not any more at the end."""
        uffd = self.libc.syscall(SYS_USERFAULTFD, UFFD_USER_MODE_ONLY | os.O_CLOEXEC)
        if uffd < 0:
            return ctypes.get_errno()
        try:
            if self.ioctl(uffd, UFFDIO_API, struct.pack("<3Q", UFFD_API, UFFD_FEATURE_MOVE, 0)):
                return errno.ENOSYS
            code = self.ioctl(
                uffd, UFFDIO_REGISTER, struct.pack("<4Q", window, length, UFFDIO_REGISTER_MODE_MISSING, 0)
            )
            if code == 0:
                code = self.ioctl(uffd, UFFDIO_MOVE, struct.pack("<4Qq", dst, src, size, 0, 0))
                self.ioctl(uffd, UFFDIO_UNREGISTER, struct.pack("<2Q", window, length))
            return code
        finally:
            os.close(uffd)

    def pin(self, address: int, length: int) -> int:
        """Register a buffer, whose pages are pinned for writing (FOLL_PIN, FOLL_LONGTERM)."""
        parameters = ctypes.create_string_buffer(IO_URING_PARAMS_BYTES)
        ring = self.libc.syscall(SYS_IO_URING_SETUP, 1, parameters)
        if ring < 0:
            return ctypes.get_errno()
        buffer = ctypes.create_string_buffer(struct.pack("<2Q", address, length), 16)
        code = 0
        if self.libc.syscall(SYS_IO_URING_REGISTER, ring, IORING_REGISTER_BUFFERS, buffer, 1) != 0:
            code = ctypes.get_errno()
            os.close(ring)
        else:
            self.rings.append(ring)
        return code

    def ioctl(self, fd: int, request: int, argument: bytes) -> int:
        """The errno, or 0."""
        ctypes.set_errno(0)
        self.libc.ioctl(fd, ctypes.c_ulong(request), ctypes.create_string_buffer(argument, len(argument)))
        return ctypes.get_errno()

    def call(self, verb: bytes, argument: int, what: int, address: int, length: int) -> int:
        """One call or access; its errno or 0."""
        libc, at, size = self.libc, ctypes.c_void_p(address), ctypes.c_size_t(length)
        ctypes.set_errno(0)
        if verb == MMAP:
            flags = MAP_FIXED | (MAP_SHARED if what & SHARED else MAP_PRIVATE)
            if not what & FILE:
                flags |= MAP_ANONYMOUS | (MAP_GROWSDOWN if what & STACK else 0)
            libc.mmap(at, size, argument, flags, self.file if what & FILE else -1, ctypes.c_long(0))
        elif verb == MUNMAP:
            libc.munmap(at, size)
        elif verb == MPROTECT:
            libc.mprotect(at, size, argument)
        elif verb == MREMAP:
            flags = MREMAP_MAYMOVE | MREMAP_FIXED if what else 0
            flags |= MREMAP_DONTUNMAP if length & DONTUNMAP else 0
            old, new = ctypes.c_size_t(length & ~DONTUNMAP), ctypes.c_size_t(argument)
            libc.mremap(at, old, new, flags, ctypes.c_void_p(what))
        elif verb == MADVISE:
            libc.madvise(at, size, argument)
        elif verb == MLOCK:
            libc.mlock(at, size)
        elif verb == MUNLOCK:
            libc.munlock(at, size)
        elif verb == MOVE:
            return self.move(what, address, argument, length & -4096, (length & 4095) << 12)
        elif verb == PIN:
            return self.pin(address, length)
        elif verb == HEAP:
            return self.set_heap(address)
        elif verb == BRK:
            return 0 if libc.syscall(SYS_BRK, at) == address else errno.ENOMEM
        elif verb == READ:
            ctypes.string_at(address, 1)
        elif verb == WRITE:
            ctypes.memset(address, 1, 1)
        elif verb == TRY_WRITE:
            libc.read(self.zero, at, ctypes.c_size_t(1))
        elif libc.write(self.pipe[1], at, ctypes.c_size_t(1)) == 1:
            os.read(self.pipe[0], 1)
        return ctypes.get_errno()


if __name__ == "__main__":
    gc.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children vanish when they exit
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # and so do their orphans
    Puppet([int(argument) for argument in sys.argv[1:]]).serve()
