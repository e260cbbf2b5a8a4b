# SPDX-License-Identifier: GPL-2.0-only
"""Mutants of a source file, as code objects to put into its functions."""

from __future__ import annotations

import difflib
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

from mutmut.mutation.file_mutation import mutate_file_contents

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutant:
    """One small fault in one function."""

    path: Path  # from the project's folder
    name: str  # mutmut's
    module: str
    function: str  # Class.method or function
    line: int  # the first that differs
    change: tuple[str, ...]  # the lines that differ, with - or + in front
    code: CodeType


def mutants_of(path: Path) -> list[Mutant]:
    """Every mutant that mutmut makes of a file and that its functions take."""
    source = path.read_text(encoding="utf-8")
    relative = path.relative_to(ROOT)
    # Among its mutants mutmut leaves the original: mangled names tell them apart.
    mutated = mutate_file_contents(str(relative), source)
    codes = {code.co_name: code for code in code_objects(compile(mutated.code, str(path), "exec"))}
    lines = mutated.code.split("\n")
    spans = mutated.line_span_by_function_name
    made = []
    for name in mutated.mutant_names:
        mangled = name.rpartition("__mutmut_")[0]
        original = text(lines, spans[f"{mangled}__mutmut_orig"])
        changed = text(lines, spans[name])
        skipped, change = difference(original, changed)
        mutant = Mutant(relative, name, module_of(relative), function_name(mangled), skipped, change, codes[name])
        code = function_of(mutant).__code__
        if code.co_freevars == mutant.code.co_freevars:
            line = source_line(source.split("\n"), code, skipped)
            made.append(Mutant(*(line if key == "line" else getattr(mutant, key) for key in Mutant.__annotations__)))
    return made


def code_objects(code: CodeType) -> Iterator[CodeType]:
    """A code object and all within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from code_objects(constant)


def text(lines: list[str], span: object) -> list[str]:
    """The lines of a function, from its ``def`` on."""
    found = lines[span.start - 1 : span.end]
    start = next(number for number, line in enumerate(found) if line.lstrip().startswith("def "))
    return found[start:]


def difference(original: list[str], changed: list[str]) -> tuple[int, tuple[str, ...]]:
    """Lines before the first that differs, and those that do; the first line has the mangled name."""
    original, changed = ([lines[0].partition("(")[2], *lines[1:]] for lines in (original, changed))
    skipped = next((n for n, pair in enumerate(zip(original, changed, strict=False)) if pair[0] != pair[1]), 0)
    change = (line for line in difflib.ndiff(original, changed) if line[0] in "-+")
    return skipped, tuple(f"{line[0]} {line[2:].strip()}" for line in change)


def source_line(source: list[str], code: CodeType, skipped: int) -> int:
    """The line of the file that is ``skipped`` lines below the function's ``def``."""
    line = code.co_firstlineno
    while not source[line - 1].lstrip().startswith("def "):  # decorators come first
        line += 1
    return line + skipped


def module_of(path: Path) -> str:
    """The dotted name of the module in a file."""
    parts = path.with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def function_name(mangled: str) -> str:
    """``Class.method`` or ``function`` of the name that mutmut makes of it."""
    return ".".join(mangled.split("ǁ")[1:]) if "ǁ" in mangled else mangled.removeprefix("x_")


def function_of(mutant: Mutant) -> FunctionType:
    """The function that a mutant is of, as it was defined."""
    owner = importlib.import_module(mutant.module)
    *classes, name = mutant.function.split(".")
    for part in classes:
        owner = getattr(owner, part)
    found = vars(owner)[name]
    found = getattr(found, "__func__", getattr(found, "fget", getattr(found, "func", found)))
    return inspect.unwrap(found)
