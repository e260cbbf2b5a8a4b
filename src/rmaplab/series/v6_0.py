# SPDX-License-Identifier: GPL-2.0-only
"""v6.0: two counters in the place of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.series.older_calls import NoMadviseCollapse, VmasInRedBlackTree
from rmaplab.series.v6_1 import V6_1

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma
    from rmaplab.kernel.vma import VmaMerge

__all__ = ["V6_0"]


class V6_0(VmasInRedBlackTree, NoMadviseCollapse, V6_1):  # noqa: N801
    """2555283eb40d: an anon_vma counts VMAs and children apart, and is reused without any of the former.

    v6.1 has another home for VMAs and MADV_COLLAPSE; links and counters are
    the same.
    """

    name = "v6.0"
    parent: ClassVar[str | None] = "v5.5"
    commits: ClassVar[tuple[str, ...]] = (
        "e346b3813067",
        "3917c80280c9",
        "70e806e4e645",
        "09854ba94c6a",
        "97113eb39fa7",
        "6c54dc6c7437",
        "6c287605fd56",
        "2555283eb40d",
    )
    release = "v6.0"
    summary = "num_children and num_active_vmas instead of degree: no double reuse"

    def vma_merge_mapped_range(self, vmg: VmaMerge) -> Vma | None:
        """By vma_merge, as every other caller."""
        return self.vma_merge_new_range(vmg)
