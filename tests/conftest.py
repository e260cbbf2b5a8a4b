# SPDX-License-Identifier: GPL-2.0-only
"""What all tests have in common.

Properties are judged by what they find, not by the time that takes.  Ctrl-C
reaches what tests start, though a run in the background has it ignored.
"""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
