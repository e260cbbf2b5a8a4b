# SPDX-License-Identifier: GPL-2.0-only
"""Write a commented starter: a file that overrides one function of a series, for `check --design`.

The function's present text is shown with it, so that the first edit is yours.
"""

from __future__ import annotations

import difflib
import inspect
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from rmaplab.cli.common import note, write_file
from rmaplab.errors import InputError, UsageError
from rmaplab.series import DEFAULT, SERIES, ZOO

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rmaplab.kernel import Kernel

__all__ = ["prepare_parser", "run"]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("file", metavar="FILE.py", help="the file to write; it must not exist")
    parser.add_argument("--series", metavar="NAME", default=DEFAULT, help=f"what to start from (default {DEFAULT})")
    parser.add_argument(
        "--function", metavar="NAME", default="anon_vma_fork", help="what to override (default anon_vma_fork)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no message on stderr")


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    known = {**SERIES, **ZOO}
    if args.series not in known:
        raise UsageError(f"unknown series {args.series!r}{_meant(args.series, list(known))}")
    series = known[args.series]
    names = sorted(
        name for name in dir(series) if not name.startswith("_") and inspect.isfunction(getattr(series, name))
    )
    if args.function not in names:
        raise UsageError(f"{args.series} has no function {args.function!r}{_meant(args.function, names)}")
    path = Path(args.file)
    if path.suffix != ".py":
        raise UsageError(f"{path}: a design is a Python file; call it {path.with_suffix('.py')}")
    if path.exists():
        raise InputError(f"{path}: is there already; name another file")
    write_file(str(path), starter(series, args.function, str(path)))
    note(args, f"{path}: edit {args.function}, then `rmaplab check --design {path}`")
    return 0


def starter(series: type[Kernel], function: str, path: str) -> str:
    """The text of a design that does what the series does, until somebody edits it."""
    owner = next(base for base in series.__mro__ if function in vars(base))
    source = textwrap.dedent(inspect.getsource(vars(owner)[function]))
    parameters = list(inspect.signature(vars(owner)[function]).parameters.values())
    arguments = ", ".join(_argument(parameter) for parameter in parameters[1:])
    head = _head(parameters)
    shown = textwrap.indent(source.rstrip(), "    # ", lambda line: True).replace("# \n", "#\n")
    return f'''\
# SPDX-License-Identifier: GPL-2.0-only
"""What if {function}() did something else?

    rmaplab check --design {path}             the shortest history that breaks it, if one does
    rmaplab fuzz --design {path}              longer ones, at random
    rmaplab compare {series.name} {path}         where it parts from {series.name}
    rmaplab check --design {path} --counterexamples found
    rmaplab export found/AV-....json --to c   a C program that makes the same calls on a real kernel

Effects go through three services, so that failures, locks and events are seen:
self.slab (alloc, free), self.locks (acquire, release), self.events (report).
Functions return 0 or a negative errno.  A function of your own begins with _.
"""

from rmaplab.series import find


class Mine(find("{series.name}")):
    def {function}({head}):
        # Before: what it does now, and what you want to try; after: the rest.
        return super().{function}({arguments})

    # {series.name} has it like this ({owner.__module__.replace(".", "/")}.py); names it uses are imported there:
    #
{shown}
'''


def _head(parameters: Sequence[inspect.Parameter]) -> str:
    """The parameters as they are declared, without types."""
    plain = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
    return str(inspect.Signature(plain))[1:-1]


def _argument(parameter: inspect.Parameter) -> str:
    return f"{parameter.name}={parameter.name}" if parameter.kind is parameter.KEYWORD_ONLY else parameter.name


def _meant(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else "; `rmaplab list series` shows what there is"
