# SPDX-License-Identifier: GPL-2.0-only
"""The explorer's inner loop on rows: which calls a state allows, what tells states apart, what is wrong with one."""
