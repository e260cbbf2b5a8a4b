# SPDX-License-Identifier: GPL-2.0-only
"""Runs the code blocks of a Markdown document.

=========== ==================================================================
block       what is done with it
=========== ==================================================================
``console`` lines ``$ COMMAND`` are run by one bash; the lines below a command
            are its output, stderr included, where ``...`` stands for any
            text, on a line of its own for any lines.  ``> `` continues a
            command that ends in a backslash.  ``make TARGET`` is looked up in
            the Makefile instead.
``python``  is executed; with ``>>>`` as a doctest.  The blocks of one
            document share their names.
``rmap``    is run with ``rmaplab run -``
others      nothing
=========== ==================================================================

A comment on the last line before a block changes that: ``<!-- docs: exit 1 -->`` (the
exit code of the block's last command; all others end with 0),
``<!-- docs: not run: REASON -->``, or ``<!-- docs: needs: PART, PART -->``, which
runs the block where the parts are (:func:`lacking`); also ``exit 1; needs: PART``.
"""

from __future__ import annotations

import contextlib
import difflib
import doctest
import importlib.util
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rmaplab.realkernel.guest import cache

__all__ = ["Block", "Document", "Step", "lacking", "make_targets", "matches", "parse", "steps"]

TIMEOUT = 300
_FENCE = re.compile(r"( {0,3})(`{3,})([\w+-]*)[^`]*")
_DIRECTIVE = re.compile(r"<!-- docs: (.*) -->")
_BTF = Path("/sys/kernel/btf/vmlinux")
_PARTS = {"drgn", "host", *cache.KERNELS}
_MARK = "=== end of command, exit code "


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the line (from 1) of its first line of code, its code."""

    language: str
    line: int
    code: str
    exit_code: int = 0
    not_run: str | None = None
    needs: tuple[str, ...] = ()


class _Directive(NamedTuple):
    """What the comment before a block says."""

    exit_code: int = 0
    not_run: str | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """A command of a console block and the lines that it must print."""

    command: str
    expected: tuple[str, ...]


def parse(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text. Raises ValueError for a block without an end or a wrong comment."""
    blocks = []
    before = ""
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        if not (fence := _FENCE.fullmatch(line)):
            before = line or before
            continue
        indent, ticks, language = fence.groups()
        code = []
        for _, inner in lines:
            if inner.strip().startswith(ticks) and not inner.strip(" `"):
                break
            code.append(inner.removeprefix(indent))
        else:
            raise ValueError(f"line {number}: this block has no end")
        blocks.append(Block(language, number + 1, "".join(f"{row}\n" for row in code), *_directive(before, number)))
        before = ""
    return blocks


def _directive(line: str, number: int) -> _Directive:
    if not (comment := _DIRECTIVE.fullmatch(line.strip())):
        if line.strip().startswith("<!-- docs"):
            raise ValueError(f"line {number}: expected `<!-- docs: exit N -->`, `not run: REASON` or `needs: PART`")
        return _Directive()
    if reason := re.fullmatch(r"not run: (\S.*)", comment[1]):
        return _Directive(not_run=reason[1])
    if comment[1] and (told := re.fullmatch(r"(?:exit (\d+)(?:; (?=needs)|$))?(?:needs: (\S.*))?", comment[1])):
        names = tuple(told[2].split(", ")) if told[2] else ()
        if _PARTS.issuperset(names):
            return _Directive(exit_code=int(told[1] or 0), needs=names)
    raise ValueError(
        f"line {number}: `docs: {comment[1]}` is neither `exit N` nor `not run: REASON`, "
        f"nor `needs:` with some of {', '.join(sorted(_PARTS))}"
    )


def lacking(part: str) -> str | None:
    """Why a part that a block needs is not to be used here, None if it is.

    A kernel by its name; ``drgn``; ``host``: the running kernel, read by BPF, as root and on request.
    """
    if part == "drgn":
        return None if importlib.util.find_spec("drgn") else "drgn is not installed: pip install 'rmaplab[kernel]'"
    if part != "host":
        return None if cache.find(part) else cache.missing(part)
    if os.environ.get("RMAPLAB_LIVE") != "1":
        return "reads the running kernel: on request, with RMAPLAB_LIVE=1"
    if os.geteuid() != 0:
        return "takes root"
    return None if _BTF.exists() else f"{_BTF} is not there"


def steps(code: str) -> list[Step]:
    """The commands of a console block. Raises ValueError for output above the first command."""
    found: list[tuple[list[str], list[str]]] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif not found:
            raise ValueError(f"{line!r} stands above the first `$ ` line")
        elif line.startswith("> ") and not found[-1][1] and found[-1][0][-1].endswith("\\"):
            found[-1][0].append(line[2:])
        else:
            found[-1][1].append(line)
    return [Step("\n".join(command), tuple(expected)) for command, expected in found]


def matches(expected: list[str], actual: list[str]) -> bool:
    """Whether lines are as expected, up to trailing blanks; see the module for ``...``."""
    pattern = "".join(
        r"(?:.*\n)*" if line.strip() == "..." else ".*".join(map(re.escape, line.rstrip().split("..."))) + r"\n"
        for line in _trimmed(expected)
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _trimmed(actual))) is not None


def _trimmed(lines: list[str]) -> list[str]:
    rows = [line.rstrip() for line in lines]
    while rows and not rows[-1]:
        rows.pop()
    return rows


def make_targets(makefile: str) -> set[str]:
    """The phony targets of a Makefile."""
    return {name for line in makefile.splitlines() if line.startswith(".PHONY:") for name in line.split()[1:]}


class Document:
    """A document's blocks, run in a folder in their order, each once.

    ``outcome(block)`` first runs what stands above the block: files and names
    made there are at hand, whichever block is asked for first.  A block that
    lacks a part is left alone.
    """

    def __init__(self, text: str, folder: Path, targets: set[str] | None = None) -> None:
        self.blocks = parse(text)
        self.folder = folder
        self.targets = targets or set()
        self.names: dict[str, object] = {"__name__": "__main__"}
        self._outcomes: list[str | None] = []

    def outcome(self, block: Block) -> str | None:
        """None if the block does what it says, otherwise what went wrong."""
        place = self.blocks.index(block)
        for other in self.blocks[len(self._outcomes) : place + 1]:
            self._outcomes.append(self._run(other))
        return self._outcomes[place]

    @staticmethod
    def lacks(block: Block) -> str | None:
        """Why a block is left alone; None if it has the parts that it needs."""
        return next((why for part in block.needs if (why := lacking(part))), None)

    def _run(self, block: Block) -> str | None:
        if self.lacks(block):
            return None
        match block.language:
            case "console":
                return self._console(block)
            case "python" if not block.not_run:
                return self._doctest(block) if ">>>" in block.code else self._python(block)
            case "rmap" if not block.not_run:
                return self._rmap(block)
        return None

    def _console(self, block: Block) -> str | None:
        run: list[Step] = []
        for step in steps(block.code):
            words = step.command.split("#")[0].split()
            if words[0] != "make":
                run.append(step)
            elif unknown := {word for word in words[1:] if "=" not in word} - self.targets:
                return f"`{step.command}`: the Makefile has no target {', '.join(sorted(unknown))}"
        if block.not_run or not run:
            return None
        script = "".join(f"{step.command}\nprintf '\\n{_MARK}%d\\n' $?\n" for step in run)
        output, _ = _process(["bash", "-c", script], self.folder)
        ends = list(re.finditer(rf"\n{_MARK}(\d+)\n", output))
        if len(ends) < len(run):
            return f"`{run[len(ends)].command}` ended or hung the shell; the output so far:\n{output}"
        start = 0
        for step, end in zip(run, ends, strict=True):
            printed = output[start : end.start()]
            code = block.exit_code if step is run[-1] else 0
            if int(end[1]) != code:
                return f"`{step.command}`: exit code {end[1]} instead of {code}; it printed\n{printed}"
            if not matches(list(step.expected), printed.splitlines()):
                return f"`{step.command}` printed something else:\n{_difference(step.expected, printed.splitlines())}"
            start = end.end()
        return None

    def _rmap(self, block: Block) -> str | None:
        output, code = _process(["rmaplab", "run", "-"], self.folder, block.code)
        if code == block.exit_code:
            return None
        return f"exit code {code} instead of {block.exit_code}; it printed\n{output}"

    def _python(self, block: Block) -> str | None:
        program = "\n" * (block.line - 1) + block.code
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(io.StringIO()):
            try:
                exec(compile(program, "document", "exec", dont_inherit=True), self.names)
            except Exception:
                return traceback.format_exc()
        return None

    def _doctest(self, block: Block) -> str | None:
        test = doctest.DocTestParser().get_doctest(block.code, self.names, "block", "document", block.line - 1)
        report: list[str] = []
        with contextlib.chdir(self.folder):
            result = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(
                test, out=report.append, clear_globs=False
            )
        self.names.update(test.globs)
        return "".join(report) if result.failed else None


def _process(command: list[str], folder: Path, text: str = "") -> tuple[str, int]:
    """What a command prints when it reads text, and its exit code; it is ended after TIMEOUT seconds."""
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "100",
    }
    with subprocess.Popen(
        ["env", *command],  # looks the command up in the PATH of this environment
        cwd=folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(text, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output = f"{process.communicate()[0]}\nnot finished after {TIMEOUT} s: {shlex.join(command)}"
        return output, process.returncode


def _difference(expected: tuple[str, ...], actual: list[str]) -> str:
    return "\n".join(difflib.unified_diff(expected, _trimmed(actual), "the document", "the command", lineterm=""))
