# SPDX-License-Identifier: GPL-2.0-only
"""The command line: ``rmaplab VERB``, one module a verb.

Exit codes: 0 holds or done, 1 violation or difference found, 2 usage, 3 no
verdict, 4 input unreadable, 70 a bug of rmaplab, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING

from rmaplab.errors import InputError, RmaplabError, UsageError
from rmaplab.report.documents import version

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_VERBS = (
    "demo",
    "run",
    "check",
    "fuzz",
    "shrink",
    "compare",
    "explain",
    "explore",
    "export",
    "new-design",
    "record",
    "import",
    "replay",
    "experiment",
    "inspect",
    "conform",
    "list",
    "doctor",
)
_MODULES = {"import": "import_", "list": "list_"}
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    try:
        words = sys.argv[1:] if argv is None else argv
        try:
            args = _parse(words)
            code: int = args.run(args)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where it is noticed that nobody reads
        return code
    except RmaplabError as error:
        print(f"rmaplab: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("rmaplab: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return _nobody_reads()
    except OSError as error:
        print(f"rmaplab: the system refused: {error}", file=sys.stderr)
        return InputError.exit_code
    except Exception:
        traceback.print_exc()
        print("rmaplab: this is a bug of rmaplab; please report it with the lines above", file=sys.stderr)
        return RmaplabError.exit_code


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments; traces may stand behind options, too, which argparse does not expect."""
    parser = _parser(words)
    args, rest = parser.parse_known_args(words)
    if rest and (not hasattr(args, "traces") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.traces += rest
    return args


def _nobody_reads() -> int:
    """`rmaplab ... | head` ends as other programs do: of the signal, silently."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be written
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.raise_signal(signal.SIGPIPE)
    return 128 + signal.SIGPIPE  # where it is blocked


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: one line and a hint, exit 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}; `{self.prog} --help` shows the usage")


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all verbs; only the one that is asked for is imported, unless help is wanted."""
    asked = next((word for word in words if not word.startswith("-")), None)
    parser = _Parser(prog="rmaplab", description="Linux's anonymous reverse map as an executable specification.")
    if "--version" in words:
        parser.add_argument("--version", action="version", version=f"rmaplab {version()}")
    else:
        parser.add_argument("--version", action="store_true", help="show program's version number and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for name in _VERBS:
        if asked in _VERBS and name != asked:
            verbs.add_parser(name)
            continue
        module = import_module(f"rmaplab.cli.{_MODULES.get(name, name.replace('-', '_'))}")
        summary = (module.__doc__ or "").splitlines()[0]
        verb = verbs.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.prepare_parser(verb)
        verb.set_defaults(run=module.run)
    return parser
