# SPDX-License-Identifier: GPL-2.0-only
"""Reads what ``strace -f -o FILE`` writes, with or without times (-t, -tt, -ttt, -r) and paths (-y)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.workload.strace_names import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rmaplab.workload.importing import Step

__all__ = ["is_strace", "strace_steps"]

_LINE = re.compile(
    r"(?:\[pid +(?P<bracket>\d+)\] |(?P<pid>\d+) +)?(?:(?:\d+:\d\d:\d\d(?:\.\d+)?|\d+\.\d+) +)?(?P<rest>.*)"
)
_CALL = re.compile(r"(?P<name>\w+)\((?P<args>.*)\) += (?P<result>-?\w+)")
_UNFINISHED = re.compile(r"(?P<begun>\w+\(.*?) ?<unfinished \.\.\.>$")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(?P<more>.*)")
_ENDED = re.compile(r"\+\+\+ (?:exited with|killed by) ")
_SUPERSEDED = re.compile(r"\+\+\+ superseded by execve in pid (\d+)")
_OTHER = (
    "mlock",
    "mlock2",
    "mlockall",
    "munlock",
    "munlockall",
    "process_madvise",
    "remap_file_pages",
    "shmat",
    "shmdt",
)
_FORKS = ("clone", "clone3", "fork", "vfork")


def is_strace(line: str) -> bool:
    """Whether a line looks like strace's."""
    rest = _LINE.fullmatch(line.rstrip("\n"))
    return rest is not None and any(form.match(rest["rest"]) for form in (_CALL, _UNFINISHED, _RESUMED, _ENDED))


def strace_steps(lines: Iterable[str]) -> Iterator[Step]:
    """The steps of all processes; :class:`InputError` names the line that cannot be understood."""
    begun: dict[int, str] = {}
    bare = None
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line.rstrip("\n"))
        if match is None:
            continue  # a line end within it: not strace's
        text = match["bracket"] or match["pid"]
        if text is None and bare is None:
            bare = number
        if text is not None and bare is not None:
            raise InputError(f"line {number}: line {bare} does not say whose it is: write with `strace -f -o FILE`")
        pid, rest = int(text or 0), match["rest"]
        if unfinished := _UNFINISHED.match(rest):
            begun[pid] = unfinished["begun"]
            continue
        if resumed := _RESUMED.match(rest):
            rest = begun.pop(pid, "") + resumed["more"]
        if _ENDED.match(rest):
            yield pid, "exit", ()
        elif superseded := _SUPERSEDED.match(rest):
            yield int(superseded[1]), "exit", ()
        elif call := _CALL.match(rest):
            try:
                yield from _steps(pid, call["name"], call["args"], call["result"])
            except (ValueError, IndexError) as error:
                raise InputError(f"line {number}: {call['name']}: not as strace writes it: {error}") from error


def _steps(pid: int, name: str, text: str, told: str) -> Iterator[Step]:
    """A call that returned."""
    if told.startswith("-") or told == "?":
        return
    args, result = _split(text), int(told, 0)
    if name in ("execve", "execveat"):
        yield pid, "exec", (_string(args[1 if name == "execveat" else 0]),)
    elif name in _FORKS:
        yield pid, "fork", (result, name if name == "vfork" else _sharing(text))
    elif name in ("mmap", "mmap2"):
        length, prot, flags = (_number(arg) for arg in args[1:4])
        offset = _number(args[5]) * (4096 if name == "mmap2" else 1)
        path = re.fullmatch(r"-?\d+<(.*)>", args[4])
        yield pid, "mmap", (result, length, prot, flags, offset, path[1] if path else f"fd {args[4]}")
    elif name == "munmap":
        yield pid, "munmap", tuple(_number(arg) for arg in args[:2])
    elif name in ("mprotect", "pkey_mprotect"):
        address, length, prot = (_number(arg) for arg in args[:3])
        if length:
            yield pid, "mprotect", (address, length, prot)
    elif name == "mremap":
        yield pid, "mremap", (*(_number(arg) for arg in args[:4]), result)
    elif name == "madvise":
        address, length, advice = (_number(arg) for arg in args[:3])
        if length:
            yield pid, "madvise", (address, length, advice)
    elif name == "brk":
        yield pid, "brk", (result,)
    elif name in _OTHER:
        yield pid, "other", (name,)


def _sharing(text: str) -> str:
    """How the new task shares, by the flags of clone."""
    if "CLONE_THREAD" in text:
        return "thread"
    if "CLONE_VM" not in text:
        return "fork"
    return "vfork" if "CLONE_VFORK" in text else "vm"


def _split(text: str) -> list[str]:
    """The arguments, which commas separate but within quotes and brackets."""
    args, depth, quoted, start, at = [], 0, False, 0, 0
    while at < len(text):
        char = text[at]
        if quoted:
            at += char == "\\"
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            args.append(text[start:at].strip())
            start = at + 1
        at += 1
    return [*args, text[start:].strip()]


def _string(text: str) -> str:
    return text.strip('."')


def _number(text: str) -> int:
    """A number, or names of flags joined by bars; a comment and names of no concern count nothing."""
    value = 0
    for word in re.sub(r"/\*.*?\*/", "", text).split("|"):
        known = NUMBERS.get(word.strip())
        if known is not None:
            value |= known
        elif re.fullmatch(r"0x[0-9a-f]+|\d+", word.strip()):
            value |= int(word, 0 if word.strip() == "0" or not word.strip().startswith("0") or "x" in word else 8)
        elif not re.fullmatch(r"\d*<<?[A-Z_]*|[A-Z][A-Z0-9_]*(<<\w+)?", word.strip()):
            raise ValueError(f"{text!r} is no number")
    return value
