# SPDX-License-Identifier: GPL-2.0-only
"""A distribution's kernel as a guest, in QEMU: its memory is a file that is read while the guest runs.

No KVM, no root.  The kernel is told to stay where it was linked to (nokaslr),
and talks over a virtio serial port.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.realkernel.guest.gdb import Allocations, Gdb
from rmaplab.realkernel.guest.qmp import Qmp
from rmaplab.realkernel.guest.um import die_with_parent
from rmaplab.realkernel.guest.wire import Guest, GuestDiedError, GuestError, GuestHangsError, words_of
from rmaplab.realkernel.memory import FileMemory
from rmaplab.realkernel.x86_facts import SYMBOLS, X86Facts, boot_segments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.realkernel.guest.cache import Kernel
    from rmaplab.realkernel.target import Target

__all__ = ["EMULATOR", "QemuGuest"]

EMULATOR = "qemu-system-x86_64"
MEMORY = 256 << 20  # bytes of guest memory
_STARTS = 20.0  # seconds in which QEMU makes its sockets
_ENDS = 2.0  # seconds in which QEMU ends that has hung up
_KERNEL_OPTIONS = (
    *("console=ttyS0", "quiet", "nokaslr", "slab_nomerge", "panic=-1", "panic_on_warn=1"),
    *("mitigations=off", "transparent_hugepage=never", "audit=0", "GUEST_CHANNEL=/dev/vport0p1"),
)

_FUNCTIONS = ("kmem_cache_alloc_noprof", "kmem_cache_alloc")  # the first since v6.10
_CACHES = {"rmap": ("anon_vma_cachep", "anon_vma_chain_cachep"), "vma": ("vm_area_cachep",)}


class _Files(NamedTuple):
    """What a running guest has in the file system: a folder of its own, and a file in memory that has no name there.

    Nothing is left of the guest's memory when both processes are gone, however they ended.
    """

    folder: Path
    descriptor: int
    console: Path
    qmp: Path
    control: Path
    gdb: Path

    @classmethod
    def make(cls) -> _Files:
        descriptor = os.memfd_create("memory of a guest")
        os.ftruncate(descriptor, MEMORY)
        folder = Path(tempfile.mkdtemp(prefix="rmaplab-"))
        return cls(folder, descriptor, folder / "console", folder / "qmp", folder / "control", folder / "gdb")

    @property
    def memory(self) -> Path:
        """A name for the guest's memory, here and in QEMU, which inherits the descriptor."""
        return Path(f"/proc/self/fd/{self.descriptor}")

    def remove(self) -> None:
        os.close(self.descriptor)
        shutil.rmtree(self.folder, ignore_errors=True)


class QemuGuest(Guest):
    """Boots in some seconds; :class:`GuestError` if it cannot."""

    process: subprocess.Popen[bytes]

    def __init__(self, kernel: Kernel, options: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.kernel = kernel
        self.release = kernel.version
        self.options = options
        self.facts = X86Facts.load(kernel)
        self._boot()

    # --- beginning and end --------------------------------------------------------------------

    def _boot(self) -> None:
        if shutil.which(EMULATOR) is None:
            raise GuestError(f"{EMULATOR} is not installed: apt-get install qemu-system-x86")
        self.files = _Files.make()
        self._channel: socket.socket | None = None
        self._memory: FileMemory | None = None
        self._allocations: Allocations | None = None
        try:
            self._start()
            self.greet()
            self._target = self._open_target()
        except BaseException:
            self._end()
            raise

    def _start(self) -> None:
        files = self.files
        with files.console.with_name("log").open("wb") as log:
            self.process = subprocess.Popen(
                _command(self.kernel, files, self.options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(files.descriptor,),
                preexec_fn=die_with_parent,
            )
        self._channel = socket.socket(socket.AF_UNIX)
        ends = time.monotonic() + _STARTS
        while True:
            try:
                self._channel.connect(str(files.control))
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > ends:
                    raise GuestError(f"{EMULATOR} does not start: {self.last_words()}") from None
                time.sleep(0.01)

    def restart(self) -> None:
        """Kill it and boot another."""
        self._end()
        self._boot()

    def close(self) -> None:
        """Kill it."""
        self._end()

    def _end(self) -> None:
        if hasattr(self, "process"):
            self.process.kill()
            self.process.wait()
        if self._channel is not None:
            self._channel.close()
        if self._allocations is not None:
            self._allocations.gdb.close()
        if self._memory is not None:
            self._memory.close()
        self.files.remove()

    @property
    def channel(self) -> tuple[int, int]:
        """Its virtio serial port, which has no terminal in between."""
        assert self._channel is not None
        return self._channel.fileno(), self._channel.fileno()

    def last_words(self) -> str:
        """What its console says happened, or else QEMU."""
        paths = [path for path in (self.files.console, self.files.folder / "log") if path.exists()]
        return next(filter(None, (words_of(path.read_text("utf-8", "replace")) for path in paths)), "")

    # --- reading it ------------------------------------------------------------------------------

    def target(self) -> Target:
        """The guest's memory, with the types of its BTF."""
        return self._target

    def _open_target(self) -> Target:
        if self.facts is None:
            words = self.text(f"symbols {' '.join(SYMBOLS)}").split()
            if len(words) != len(SYMBOLS):
                raise GuestError(f"{self.release}: its /proc/kallsyms cannot be read")
            symbols = dict(zip(SYMBOLS, map(int, words), strict=True))
            self.facts = X86Facts.learn(self._map(symbols), symbols)
            self.facts.save(self.kernel)
        return self.facts.target(self._map(self.facts.symbols), self.release)

    def _map(self, symbols: dict[str, int]) -> FileMemory:
        if self._memory is not None:
            self._memory.close()
        self._memory = FileMemory(self.files.memory, boot_segments(self.files.memory, MEMORY, symbols))
        return self._memory

    def dump(self, path: Path) -> None:
        """Write a core of the whole guest: ELF, as kdump makes it."""
        with Qmp(self.files.qmp) as qmp:
            qmp.execute("dump-guest-memory", paging=False, protocol=f"file:{path.absolute()}")

    # --- failing allocations ---------------------------------------------------------------------

    def arm(self, slot: int, n: int, *, both: bool = True, kind: str = "rmap") -> None:
        """Let the n-th allocation of a slot's next command fail; ``both``: and the one after it, its retry."""
        if kind not in _CACHES:
            raise GuestError(f"allocations of the kind {kind} cannot be made to fail here: {', '.join(_CACHES)} can")
        assert self.facts is not None
        assert self._memory is not None
        symbols = self.facts.symbols
        function = next((symbols[name] for name in _FUNCTIONS if symbols[name]), 0)
        if not function or not all(symbols[name] for name in _CACHES[kind]):
            raise GuestError(f"{self.release}: its /proc/kallsyms lacks what allocates {kind} objects")
        if self._allocations is None:
            with Qmp(self.files.qmp) as qmp:
                qmp.monitor(f"gdbserver unix:{self.files.gdb},server=on,wait=off")
            self._allocations = Allocations(Gdb(self.files.gdb), function)
        caches = [int.from_bytes(self._memory.read(symbols[name], 8), "little") for name in _CACHES[kind]]
        with self._told_of():
            self._allocations.arm(caches, n, both=both)

    def disarm(self) -> int:
        """Let nothing fail any longer; how many failures were not given."""
        if self._allocations is None or not self._allocations.armed:
            return 0
        with self._told_of():
            return self._allocations.disarm()

    def _line(self, patience: float) -> str:
        if self._allocations is not None and self._allocations.armed and b"\n" not in self._buffer:
            with self._told_of():
                self._allocations.attend(self.channel[1], patience)
        return super()._line(patience)

    @contextmanager
    def _told_of(self) -> Iterator[None]:
        """A guest that ends while its allocations are counted says so as at any other time, with its last words."""
        try:
            yield
        except (GuestDiedError, GuestHangsError) as error:
            code: object = "none yet"
            with suppress(subprocess.TimeoutExpired):
                code = self.process.wait(_ENDS)  # what it says last is written by then
            raise self._gone(type(error), f"is gone ({error}; QEMU's exit code: {code})") from error


def _command(kernel: Kernel, files: _Files, options: tuple[str, ...]) -> list[str]:
    memory = f"memory-backend-file,id=ram,size={MEMORY},mem-path={files.memory},share=on"
    return [
        *(EMULATOR, "-accel", "tcg", "-cpu", "max,la57=off", "-m", f"{MEMORY >> 20}M", "-smp", "1"),
        *("-object", memory, "-machine", "q35,memory-backend=ram"),
        *("-nodefaults", "-nographic", "-no-reboot"),
        *("-kernel", str(kernel.image), "-initrd", str(kernel.initramfs)),
        *("-append", " ".join((*_KERNEL_OPTIONS, *options))),
        *("-serial", f"file:{files.console}", "-device", "vmcoreinfo"),
        *("-qmp", f"unix:{files.qmp},server=on,wait=off"),
        *("-chardev", f"socket,id=control,path={files.control},server=on,wait=off"),
        *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=control,name=guest"),
    ]
