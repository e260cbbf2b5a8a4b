# SPDX-License-Identifier: GPL-2.0-only
"""Guests: kernels that are booted, told what to do, and read."""
