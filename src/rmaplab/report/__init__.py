# SPDX-License-Identifier: GPL-2.0-only
"""Results as text, JSON and HTML: one module a format."""
