# SPDX-License-Identifier: GPL-2.0-only
"""The histories a fuzzer builds on: those that showed something new, in memory and in a folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rmaplab.check.steps import steps_of, text_of
from rmaplab.errors import InputError
from rmaplab.scenario import load

if TYPE_CHECKING:
    from random import Random

    from rmaplab.check.steps import Step

__all__ = ["Corpus", "Folder"]

STATE = "fuzz.json"
BROKEN = 0.6  # how often one is chosen of those that broke something
WHOLE = 0.5  # how often it is gone on from its end


@dataclass(slots=True)
class Corpus:
    """Histories worth going on from; each was chosen ``chosen`` times.

    ``broken`` are the numbers of those that end with something broken that does not count.
    """

    entries: list[tuple[Step, ...]] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)

    def add(self, steps: tuple[Step, ...], *, broken: bool = False) -> None:
        """One more."""
        if broken:
            self.broken.append(len(self.entries))
        self.entries.append(steps)
        self.chosen.append(0)

    def choose(self, random: Random) -> tuple[Step, ...]:
        """One that was rarely chosen so far, or its beginning; nothing of an empty corpus."""
        if not self.entries:
            return ()
        among = self.broken if self.broken and random.random() < BROKEN else range(len(self.entries))
        at = min(random.choices(among, k=4), key=lambda at: self.chosen[at])
        self.chosen[at] += 1
        entry = self.entries[at]
        return entry if random.random() < WHOLE else entry[: random.randint(1, len(entry))]


class Folder:
    """A corpus on disk: a scenario a file, and which history comes next."""

    def __init__(self, path: str, series: str, seed: int) -> None:
        self.path = Path(path)
        self.head = {"rmaplab": "fuzz", "series": series, "seed": seed}
        self.saved = 0

    def read(self, corpus: Corpus) -> int:
        """Take over what is there; the number of the next history.

        :class:`InputError` for a folder of another run.
        """
        state = self.path / STATE
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not state.exists():
                return 0
            document = json.loads(state.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}; name a folder for the corpus") from error
        except ValueError as error:
            raise InputError(f"{state}: damaged; remove the folder to begin afresh") from error
        if not isinstance(document, dict) or not isinstance(document.get("next"), int):
            raise InputError(f"{state}: not the state of a corpus; remove the folder to begin afresh")
        for name, value in self.head.items():
            if document.get(name) != value:
                wrong = f"{name} is {document.get(name)!r} there, {value!r} here"
                raise InputError(f"{state}: {wrong}; name another folder")
        for path in sorted(self.path.glob("*.rmap")):
            corpus.add(steps_of(load(str(path))))
        self.saved = len(corpus.entries)
        return int(document["next"])

    def write(self, corpus: Corpus, following: int) -> None:
        """Add what is new, and say which history comes next."""
        try:
            for number in range(self.saved, len(corpus.entries)):
                path = self.path / f"{number:06}.rmap"
                path.write_text(text_of(corpus.entries[number]), encoding="utf-8")
            self.saved = len(corpus.entries)
            whole = self.path / f"{STATE}.part"
            whole.write_text(json.dumps({**self.head, "next": following}) + "\n", encoding="utf-8")
            os.replace(whole, self.path / STATE)
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be written: {error.strerror}") from error
