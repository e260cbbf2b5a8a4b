# SPDX-License-Identifier: GPL-2.0-only
"""Answers about every object of a machine: why a walk visits a VMA, what keeps an anon_vma alive, who may merge.

Everything is read from the objects, and verdicts are the series' own
functions; the machine is the same afterwards.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rmaplab.check.explain_anon_vma import anon_vma_answer
from rmaplab.check.explain_answers import Answer
from rmaplab.check.explain_facts import Facts, undisturbed
from rmaplab.check.explain_folio import folio_answer
from rmaplab.check.explain_vma import vma_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rmaplab.check.explain_history import Adoption
    from rmaplab.kernel import Kernel

__all__ = ["canonical_names", "explain"]


def explain(
    kernel: Kernel, *, names: Mapping[str, str] | None = None, adoptions: Iterable[Adoption] = ()
) -> dict[str, Answer]:
    """An answer for each folio, anon_vma and VMA of a machine between two calls.

    Keys are the ids that ``kernel.snapshot(canonical=False)`` gives, or what
    ``names`` has in their place (see :func:`canonical_names`).  ``adoptions``
    is what is known of the past.  A broken state raises nothing: what cannot
    be told there says so.
    """
    with undisturbed(kernel):
        facts = Facts(kernel, names or {}, adoptions)
        answers: dict[str, Answer] = {}
        for folio in facts.folios:
            answers[facts.name(folio)] = _answer(partial(folio_answer, facts, folio), facts.name(folio))
        for anon_vma in facts.state.anon_vmas:
            answers[facts.name(anon_vma)] = _answer(partial(anon_vma_answer, facts, anon_vma), facts.name(anon_vma))
        for vma in facts.state.vmas:
            answers[facts.name(vma)] = _answer(partial(vma_answer, facts, vma), facts.name(vma))
    return answers


def canonical_names(kernel: Kernel) -> dict[str, str]:
    """The ids of ``kernel.snapshot()`` by those of ``kernel.snapshot(canonical=False)``."""
    own, canonical = kernel.snapshot(canonical=False), kernel.snapshot()
    names: dict[str, str] = {}
    for process, other in zip(own.processes, canonical.processes, strict=True):
        names[process.mm] = other.mm
        for vma, renamed in zip(process.vmas, other.vmas, strict=True):
            names[vma.id] = renamed.id
            names.update(zip(vma.chain, renamed.chain, strict=True))
            if vma.anon_vma is not None and renamed.anon_vma is not None:
                names[vma.anon_vma] = renamed.anon_vma
    for anon_vma, renamed_anon_vma in zip(own.anon_vmas, canonical.anon_vmas, strict=True):
        names[anon_vma.id] = renamed_anon_vma.id
    for folio, renamed_folio in zip(own.folios, canonical.folios, strict=True):
        names[folio.id] = renamed_folio.id
        if folio.mapping is not None and renamed_folio.mapping is not None:
            names[folio.mapping] = renamed_folio.mapping
    for slot, renamed_slot in zip(own.swap, canonical.swap, strict=True):
        names[slot.id] = renamed_slot.id
    return names


def _answer(ask: Callable[[], Answer], name: str) -> Answer:
    """The answer, or that a broken state (or a design's own code) has none."""
    try:
        return ask()
    except Exception as error:  # such a state may be anything
        told = f"Cannot be told in this state: {type(error).__name__}: {error}"
        return Answer(f"{name}: cannot be explained", (told,))
