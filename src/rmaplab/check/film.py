# SPDX-License-Identifier: GPL-2.0-only
"""A scenario as a film: the state before the first call, after each, and after each step inside of it.

Inside a call are objects that no address space has: a VMA that is being made,
a copy of an mm that fork has not returned yet.  They are in the film, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rmaplab.check.execute import execute
from rmaplab.check.explain import explain
from rmaplab.check.explain_history import Follower
from rmaplab.check.monitor import Monitor, monitored
from rmaplab.check.steps import plan_text, steps_of
from rmaplab.check.words import words
from rmaplab.kernel.locking import ANON_VMA_LOCK
from rmaplab.kernel.view import view_of_vma
from rmaplab.scenario import Fork, format_statement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rmaplab.check.explain_history import Adoption
    from rmaplab.check.steps import Step
    from rmaplab.kernel import Kernel
    from rmaplab.kernel.events import Event
    from rmaplab.kernel.objects import AnonVma, AnonVmaChain, Mm, Vma
    from rmaplab.scenario import Scenario
    from rmaplab.snapshot import Snapshot

__all__ = ["Frame", "delayed", "film", "size", "still"]

State = dict[str, Any]

_SENTENCES = {
    "alloc": "allocate {0} ({1})",
    "fail": "no memory for another {0} ({1})",
    "free": "free {0}",
    "lock": "{1} lock of {0}'s tree",
    "unlock": "unlock {0}'s tree",
    "assign": "put {0} on the list of {1}",
    "insert": "{0} enters the tree: walks of {1}",
    "remove": "{0} leaves the tree: walks of {1}",
    "visit": "visit {0}: {1}",
    "report": "{0}: {1}",
}
"""What a step is called, with its object and the detail of its event."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A moment: the state after a call (``inner`` 0), or after the inner-th step inside of it.

    ``call`` counts from 0; it is -1 before the first.  ``violated`` maps ids
    of invariants to circumstances, ``state`` is a snapshot's dictionary with
    ``locks`` and with what is being ``building``.
    """

    call: int
    text: str
    state: State
    inner: int = 0
    verb: str | None = None
    process: str | None = None
    fail: str | None = None
    errno: str | None = None
    words: tuple[str, ...] = ()
    violated: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Any] | None = None


def film(series: type[Kernel], scenario: Scenario, *, inner: bool = True) -> list[Frame]:
    """Every moment of a scenario, with the answers to questions about it; a crash is the last."""
    kernel = _shooting(series)()
    kernel.foreign = True  # a state that is broken may break what looks at it
    kernel.spawn("P0")
    frames = [still(kernel, -1, "the machine before the first call")]
    for at, step in enumerate(steps_of(scenario)):
        frames += _scene(kernel, at, step, inner=inner)
        if "AV-045" in frames[-1].violated:
            break
    return frames


def still(kernel: Kernel, call: int, text: str, *, most: int | None = None) -> Frame:
    """The present state of a machine; with more than ``most`` VMAs and folios, without folios and without answers."""
    snapshot = kernel.snapshot(canonical=False)
    state = _state(kernel, snapshot)
    if most is not None and size(snapshot) > most:
        state["folios"] = []
        return Frame(call, text, state)
    return Frame(call, text, state, answers=_answers(kernel))


def size(snapshot: Snapshot) -> int:
    """VMAs and folios: what answers take their time by."""
    return len(snapshot.folios) + sum(len(process.vmas) for process in snapshot.processes)


def delayed(frames: Sequence[Frame]) -> list[Frame]:
    """The film that shows the state before each call, and inside of one the state before each step."""
    found: list[Frame] = []
    call = step = frames[0]
    for frame in frames:
        before = step if frame.inner else call
        found.append(replace(frame, state=before.state, words=(), violated=before.violated, answers=before.answers))
        step = frame
        call = call if frame.inner else frame
    return found


def _scene(kernel: Shooting, at: int, step: Step, *, inner: bool) -> Iterator[Frame]:
    """The frames of one call, the state after it last."""
    call, plan = step
    process = getattr(call, "process", None)
    before = last = kernel.snapshot(canonical=False)
    frames: list[Frame] = []

    def listen(event: Event) -> None:
        nonlocal last
        if event.verb not in _SENTENCES or (event.verb in ("lock", "unlock") and "anon_vma" not in event.detail):
            return
        now = kernel.snapshot(canonical=False)
        text = _SENTENCES[event.verb].format(event.object, event.detail.removeprefix("anon_vma "))
        told = tuple(words(last, now))
        frames.append(Frame(at, text, _state(kernel, now), len(frames) + 1, event.verb, process, words=told))
        last = now

    kernel.child = call.child if isinstance(call, Fork) else None
    if inner:
        kernel.events.listeners.append(listen)
    follower = Follower(kernel, call)
    outcome = execute(kernel, call, plan)
    kernel.events.listeners.clear()
    kernel.adoptions += follower.adoptions(format_statement(call))
    yield from frames
    after = kernel.snapshot(canonical=False)
    yield Frame(
        at,
        format_statement(call),
        _state(kernel, after),
        process=process,
        fail=plan_text(plan) or None,
        errno=outcome.errno,
        words=tuple(words(before, after)),
        violated=outcome.violated,
        answers=_answers(kernel),
    )


def _answers(kernel: Kernel) -> dict[str, Any]:
    adoptions = kernel.adoptions if isinstance(kernel, Shooting) else ()
    return {ident: answer.as_dict() for ident, answer in explain(kernel, adoptions=adoptions).items()}


def _state(kernel: Kernel, snapshot: Snapshot) -> State:
    """A snapshot with the locks that are held and, while a call runs, with what is being made."""
    state = snapshot.as_dict()
    state["processes"] = [{**process, "vmas": [*process["vmas"]]} for process in state["processes"]]
    state["locks"] = [
        f"{owner} {mode.name.lower()}" for lock, owner, mode in kernel.locks.held if lock is ANON_VMA_LOCK
    ]
    if isinstance(kernel, Shooting):
        kernel.add_unfinished(state, between_calls=not kernel.locks.held)
    return state


# --- what is being made -----------------------------------------------------------------------


class Shooting(Monitor):
    """Tells of links as steps, and knows the VMAs that are in no address space."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[Vma, None] = {}
        self.owners: dict[str, str] = {}  # the process of each mm that ever had one
        self.child: str | None = None  # of the fork that is going on
        self.adoptions: list[Adoption] = []

    def vm_area_alloc(
        self, mm: Mm, start: int, end: int, pgoff: int, flags: int, file: str | None = None
    ) -> Vma | None:
        """Remember it."""
        vma = super().vm_area_alloc(mm, start, end, pgoff, flags, file)
        if vma is not None:
            self.made[vma] = None
        return vma

    def anon_vma_chain_assign(self, vma: Vma, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """A step."""
        super().anon_vma_chain_assign(vma, avc, anon_vma)
        self.events.emit("assign", avc, f"{vma}: a link to {anon_vma}")

    def anon_vma_interval_tree_insert(self, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """A step."""
        super().anon_vma_interval_tree_insert(avc, anon_vma)
        self.events.emit("insert", avc, f"{anon_vma} come to {avc.vma}")

    def anon_vma_interval_tree_remove(self, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """A step."""
        super().anon_vma_interval_tree_remove(avc, anon_vma)
        self.events.emit("remove", avc, f"{anon_vma} no longer come to {avc.vma}")

    def add_unfinished(self, state: State, *, between_calls: bool) -> None:
        """Put what no process has into a state: copies of an mm as a process, VMAs with the process they are of.

        Between calls only what is still linked to something: it was forgotten.
        """
        self.made = {vma: None for vma in self.made if not vma.freed}
        shown = {vma["id"] for process in state["processes"] for vma in process["vmas"]}
        at = {process["mm"]: process for process in state["processes"]}
        self.owners |= {mm: process["name"] for mm, process in at.items()}
        for vma in self.made:
            if str(vma) in shown or (between_calls and not vma.anon_vma_chain):
                continue
            mm = str(vma.vm_mm)
            if mm not in at:
                name = self.owners.get(mm) or self.child or mm
                at[mm] = {"name": name, "mm": mm, "vmas": [], "building": True}
                state["processes"].append(at[mm])
            made = view_of_vma(self, vma)
            at[mm]["vmas"].append({**asdict(made), "chain": list(made.chain), "building": True})
            at[mm]["vmas"].sort(key=lambda one: (one["start"], one["id"]))
        trees = {str(anon_vma): anon_vma.rb_root for anon_vma in self.slab.anon_vma.live.values()}
        for view in state["anon_vmas"]:
            view["tree"] = ["?" if avc.vma.freed else str(avc.vma) for avc in trees[view["id"]]]


def _shooting(series: type[Kernel]) -> type[Shooting]:
    """A watched series that tells of its links."""
    return type(f"Filmed{series.__name__}", (Shooting, monitored(series)), {"name": series.name})
