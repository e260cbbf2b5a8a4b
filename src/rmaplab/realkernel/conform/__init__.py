# SPDX-License-Identifier: GPL-2.0-only
"""Holds the model against a real kernel: the same programs on both, and the graphs compared after every call."""
