# SPDX-License-Identifier: GPL-2.0-only
"""What real programs do: recorder, trace format, replay."""
