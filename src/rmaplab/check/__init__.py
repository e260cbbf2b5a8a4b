# SPDX-License-Identifier: GPL-2.0-only
"""Judging states and histories: invariants, the run of a scenario, the explorer."""
