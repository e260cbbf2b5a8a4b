# SPDX-License-Identifier: GPL-2.0-only
"""What all tests have in common: properties are judged by what they find, not by the time that takes."""

from hypothesis import HealthCheck, settings

settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")
