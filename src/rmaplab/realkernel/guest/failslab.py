# SPDX-License-Identifier: GPL-2.0-only
"""Allocations that fail in a guest that was built with failslab (mm/failslab.c, lib/fault-inject.c).

``fail-nth`` of a task counts the allocations of its next command, and fails
one.  A GFP_KERNEL retry of it fails as well if failslab itself has failures
to give: it is asked once the count is over, for tasks that it may fail.
"""

from __future__ import annotations

from rmaplab.realkernel.guest.wire import Guest, GuestError

__all__ = ["CACHES", "Failslab"]

_FAILSLAB = "/sys/kernel/debug/failslab"
CACHES = {"rmap": ("anon_vma", "anon_vma_chain"), "vma": ("vm_area_struct",)}
"""The slab caches of a kind of allocation."""


class Failslab(Guest):
    """For guests to mix in."""

    failing_kind = ""
    retries_fail = False

    def set_up_failslab(self) -> None:
        """Let failslab fail nothing, and only chosen caches; without it nothing is set up."""
        self.failing_kind, self.retries_fail = "", False
        settings = {"cache-filter": "Y", "ignore-gfp-wait": "N", "verbose": "0", "task-filter": "Y"}
        settings |= {"interval": "1", "probability": "0", "space": "0"}
        self.batch([f"sys {_FAILSLAB}/{name} {value}" for name, value in settings.items()])

    def watch(self, kind: str) -> None:
        """Choose the caches of a kind; :class:`GuestError` for a kind or a kernel that cannot."""
        if kind == self.failing_kind:
            return
        if kind not in CACHES:
            raise GuestError(
                f"allocations of the kind {kind} cannot be made to fail in a guest: {', '.join(CACHES)} can"
            )
        orders = [(name, int(other == kind)) for other, names in CACHES.items() for name in names]
        for answer in self.batch([f"sys /sys/kernel/slab/{name}/failslab {on}" for name, on in orders]):
            if not answer.ok:
                raise GuestError(f"{self.release} has no failslab: take a user-mode kernel that `make kernels` built")
        self.failing_kind = kind

    def arm(self, slot: int, n: int, *, both: bool = True, kind: str = "rmap") -> None:
        """Let the n-th allocation of a slot's next command fail; ``both``: and its retry."""
        self.watch(kind)
        if both:
            pid = self.pids[slot]
            self.batch(
                [
                    f"sys /proc/{pid}/make-it-fail 1",
                    f"sys {_FAILSLAB}/times 2",
                    f"sys {_FAILSLAB}/probability 100",
                ]
            )
            self.retries_fail = True
        self.batch([f"{slot} fail {n}"])

    def disarm(self) -> int:
        """Let nothing fail any longer; how many failures were not given."""
        if not self.retries_fail:
            return 0
        self.retries_fail = False
        self.batch([f"sys {_FAILSLAB}/probability 0"])
        return int(self.text(f"cat {_FAILSLAB}/times").strip("|"))
