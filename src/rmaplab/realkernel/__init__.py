# SPDX-License-Identifier: GPL-2.0-only
"""Real kernels: reading the anonymous reverse map out of them, and holding the model against them."""
