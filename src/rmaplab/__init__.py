# SPDX-License-Identifier: GPL-2.0-only
"""Linux's anonymous reverse map as an executable specification."""
