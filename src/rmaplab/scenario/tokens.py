# SPDX-License-Identifier: GPL-2.0-only
"""Words of a scenario line, with their columns, and the errors that point at them.

A line is cut by one regular expression. Nothing is judged while cutting: a
character that belongs to no statement becomes a mark of its own, and whoever
reads the line reports it where a word was expected.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from rmaplab.errors import InputError

__all__ = ["Line", "Token", "complaint", "decode", "quote", "suggest"]

_TOKEN = re.compile(r"[ \t]*([A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*|\.\.|\|\||[^ \t])")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_LONGEST_NUMBER = 40  # characters; far beyond every limit, and cheap to convert
_SHOWN = 40  # characters of a word shown in a message
_CONTEXT = 72  # characters of a line shown under a message
_WHOLE_LINE = ("",)  # what ends a statement: the end of the line,
_BRANCHES = (";", "||", "}", "")  # or the marks between the calls of a `par`


def _printable(text: str) -> str:
    """Replace what a terminal would not show in one cell: a tab by a blank, the rest by U+FFFD."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in text)


def quote(word: str) -> str:
    """Show `word` in a message: in backquotes, shortened, or as U+XXXX if it cannot be printed."""
    if len(word) == 1 and not word.isprintable():
        return f"U+{ord(word):04X}{' (a binary file?)' if word == chr(0) else ''}"
    return f"`{_printable(word[:_SHOWN])}{'…' if len(word) > _SHOWN else ''}`"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean `x`?)`` for the closest of `known`, or nothing if none is close."""
    by_folded = {name.lower(): name for name in sorted(known)}
    close = difflib.get_close_matches(word[:_SHOWN].lower(), by_folded, n=1)
    return f" (did you mean `{by_folded[close[0]]}`?)" if close else ""


def complaint(where: tuple[str, int, int], wrong: str, expected: str, source: str = "") -> InputError:
    """Make the error ``FILE:LINE:COLUMN: wrong; expected`` with the line and a caret under the column."""
    name, number, column = where
    message = f"{_printable(name)}:{number}:{column}: {wrong}; {expected}"
    if not source.strip():
        return InputError(message)
    start = max(0, column - 1 - _CONTEXT // 2) if len(source) > _CONTEXT else 0
    shown = _printable(source[start : start + _CONTEXT])
    before = shown[: column - 1 - start]
    width = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in before)
    return InputError(f"{message}\n    {shown.rstrip()}\n    {' ' * width}^")


def decode(data: bytes, name: str) -> str:
    """Return `data` as text; what is not UTF-8 is refused with its offset, line and column."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        start = data.rfind(b"\n", 0, error.start) + 1
        column = len(data[start : error.start].decode("utf-8").removeprefix("\ufeff")) + 1
        where = (name, data.count(b"\n", 0, error.start) + 1, column)
        wrong = f"byte {data[error.start]:#04x} at offset {error.start} is not UTF-8 text (a binary file?)"
        source = data[start : error.start + 1].decode("utf-8", "replace").removeprefix("\ufeff")
        raise complaint(where, wrong, "expected a scenario in UTF-8", source) from None


@dataclass(frozen=True, slots=True)
class Token:
    """A word or mark and the column (from 1, in characters) at which it stands."""

    text: str
    column: int


class Line:
    """One line of a scenario, read from left to right; every method that fails raises `InputError`."""

    def __init__(self, name: str, number: int, source: str) -> None:
        self.name = name
        self.number = number
        self.source = source
        self.text = source.partition("#")[0].strip(" \t")
        content = source.partition("#")[0]
        self._tokens = [Token(m[1], m.start(1) + 1) for m in _TOKEN.finditer(content)]
        self._end = Token("", len(content.rstrip(" \t")) + 1)
        self._next = 0
        self._ends: tuple[str, ...] = _WHOLE_LINE

    def between_braces(self, inside: bool) -> None:
        """Let `;`, `||` and `}` end a statement while `inside` the braces of a `par`."""
        self._ends = _BRANCHES if inside else _WHOLE_LINE

    @property
    def ended(self) -> bool:
        """Whether the statement being read may end at the next token."""
        return self.peek().text in self._ends

    @property
    def ending(self) -> str:
        """What a message calls the end of the statement being read."""
        return "the end of the line (one statement a line)" if self._ends == _WHOLE_LINE else "`;`, `||` or `}`"

    def text_from(self, first: Token) -> str:
        """Return the source from the token `first` to the last token read."""
        last = self._tokens[self._next - 1]
        return self.source[first.column - 1 : last.column - 1 + len(last.text)]

    def peek(self, ahead: int = 0) -> Token:
        """Return the token `ahead` of the reading position; past the end, an empty one."""
        index = self._next + ahead
        return self._tokens[index] if index < len(self._tokens) else self._end

    def take(self) -> Token:
        """Return the next token and move past it."""
        token = self.peek()
        self._next += 1
        return token

    def skip(self, text: str) -> bool:
        """Move past the next token if it is `text`; tell whether it was."""
        found = self.peek().text == text
        self._next += found
        return found

    def error(self, at: Token, wrong: str, expected: str) -> InputError:
        """Make an error that points at the token `at`."""
        return complaint((self.name, self.number, at.column), wrong, expected, self.source)

    def unexpected(self, expected: str, known: Iterable[str] = ()) -> InputError:
        """Make an error about the next token, which is not what was `expected`."""
        token = self.peek()
        found = f"found {quote(token.text)}{suggest(token.text, known)}"
        return self.error(token, found if token.text else "the line ends here", f"expected {expected}")

    def identifier(self, what: str) -> Token:
        """Read a name: a letter or underscore, then letters, digits and underscores (ASCII)."""
        if not _NAME.fullmatch(self.peek().text):
            raise self.unexpected(f"{what} (letters, digits and `_`, no digit first)")
        return self.take()

    def one_of(self, words: Iterable[str], what: str) -> str:
        """Read one of `words`."""
        known = tuple(words)
        if self.peek().text not in known:
            raise self.unexpected(f"{what}: {', '.join(known)}", known)
        return self.take().text

    def optional(self, words: Iterable[str], what: str = "") -> str:
        """Read one of `words`, or nothing where the statement ends; `what` tells of the words in a message."""
        known = tuple(words)
        if self.ended:
            return ""
        if self.peek().text not in known:
            raise self.unexpected(f"{what or quote(known[0])} or {self.ending}", known)
        return self.take().text

    def mark(self, text: str, what: str) -> None:
        """Read the mark `text`."""
        if not self.skip(text):
            raise self.unexpected(f"`{text}` {what}")

    def integer(self, what: str, low: int, high: int) -> int:
        """Read a decimal or 0x number from `low` to `high`."""
        token = self.peek()
        if not _NUMBER.fullmatch(token.text):
            raise self.unexpected(f"{what.rstrip(',')}, a number from {low} to {high}")
        value = high + 1
        if len(token.text) <= _LONGEST_NUMBER:
            value = int(token.text, 16 if token.text[:2] in ("0x", "0X") else 10)
        if not low <= value <= high:
            wrong = f"{what} cannot be {quote(token.text)}"
            raise self.error(token, wrong, f"expected a number from {low} to {high}")
        self.take()
        return value

    def finish(self) -> None:
        """Hold that nothing follows what has been read."""
        if self.peek().text:
            done = quote(self.source[: self.peek().column - 1].strip(" \t"))
            raise self.unexpected(f"the end of the line after {done} (one statement a line)")

    def finish_call(self) -> None:
        """Hold that a mark that separates calls, or the closing brace, follows what has been read."""
        if not self.ended:
            raise self.unexpected(f"{self.ending} after the call")
