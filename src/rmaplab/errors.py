# SPDX-License-Identifier: GPL-2.0-only
"""Errors: one class per exit code, each message naming the place and the remedy.

The command line turns any of these into one line on stderr and the class's
exit code; everything else that escapes is a bug of rmaplab itself (exit 70).
"""

__all__ = ["InputError", "NoVerdictError", "RmaplabError", "UsageError"]


class RmaplabError(Exception):
    """Base of every error that a user can cause and mend."""

    exit_code = 70


class UsageError(RmaplabError):
    """The call's words are off: an unknown series, verb or option (exit 2)."""

    exit_code = 2


class NoVerdictError(RmaplabError):
    """A bound, time or memory ran out before there was an answer (exit 3)."""

    exit_code = 3


class InputError(RmaplabError):
    """A file, command or kernel cannot be read or run (exit 4)."""

    exit_code = 4
