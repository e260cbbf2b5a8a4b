# SPDX-License-Identifier: GPL-2.0-only
"""Linux's anonymous reverse map as an executable specification.

>>> from rmaplab import Kernel
>>> k = Kernel("v6.18")
>>> p = k.spawn()
>>> a = p.mmap(4)
>>> p.write(a, 0)
>>> c = p.fork()
>>> k.check()
>>> k.snapshot().slab
SlabView(anon_vma=2, anon_vma_chain=3, bytes=400)
"""

from rmaplab.api import Kernel, check, replay, run
from rmaplab.check.invariants import InvariantViolation
from rmaplab.errors import InputError, NoVerdictError, RmaplabError, UsageError
from rmaplab.scenario import Scenario

__all__ = [
    "InputError",
    "InvariantViolation",
    "Kernel",
    "NoVerdictError",
    "RmaplabError",
    "Scenario",
    "UsageError",
    "check",
    "replay",
    "run",
]
