# SPDX-License-Identifier: GPL-2.0-only
"""The specification: Linux's anonymous reverse map, file for file like mm/.

Start with :mod:`rmaplab.kernel.rmap`.  The text here is the newest series,
``v7.0``; what older series did otherwise is in :mod:`rmaplab.series`.
"""

from rmaplab.kernel.kernel import Kernel
from rmaplab.kernel.process import Area, Process

__all__ = ["Area", "Kernel", "Process"]
