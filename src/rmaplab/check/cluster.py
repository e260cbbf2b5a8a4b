# SPDX-License-Identifier: GPL-2.0-only
"""Explorations on a Ray cluster: the same shards as on one machine's processes, done wherever there is room.

A shard that was lost with its worker is done again elsewhere.  Results are
taken in order, so they are those of one process.
"""

from __future__ import annotations

import socket
import tempfile
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.expand import Expander, Question
from rmaplab.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rmaplab.check.expand import Expansion, History
    from rmaplab.check.explore import Expands
    from rmaplab.check.pool import Expand, Workers

__all__ = ["LOCAL", "Sent", "cluster", "expand_shard"]

LOCAL = "local"
EXISTING = "auto"
PATIENCE = 10.0  # seconds for a connection
AHEAD = 4  # shards of each worker that wait


class Sent(NamedTuple):
    """What a worker on another machine is sent once: the question, and the text of the design if that is a file."""

    question: Question
    source: str | None


_expanders: dict[Sent, Expander] = {}


def expand_shard(sent: Sent, histories: list[History]) -> Expansion:
    """Expand some states; what has been judged in this process is remembered."""
    if sent not in _expanders:
        _expanders.clear()
        _expanders[sent] = Expander(_at_home(sent))
    return _expanders[sent].expand(histories)


def _at_home(sent: Sent) -> Question:
    """The question, with the design's file where this machine can read it."""
    question, source = sent
    if source is None or Path(question.series).is_file():
        return question
    folder = Path(tempfile.mkdtemp(prefix="rmaplab-design-"))
    path = folder / Path(question.series).name
    path.write_text(source, encoding="utf-8")
    return question._replace(series=str(path))


def _answers(address: str) -> None:
    """:class:`InputError` if nobody listens there, for which Ray itself takes minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdecimal()):
        raise UsageError(f"--ray {address}: expected HOST:PORT, ray://HOST:PORT, {EXISTING} or {LOCAL}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--ray {address}: {error}; is the cluster up?") from error


@contextmanager
def cluster(address: str, jobs: int | None = None) -> Iterator[Workers]:
    """Workers on the Ray cluster at an address, or of one with ``jobs`` workers on this machine (:data:`LOCAL`).

    :class:`UsageError` without Ray, :class:`InputError` if nobody answers.
    """
    try:
        import ray
    except ImportError:
        raise UsageError("--ray takes Ray, which is not here: `pip install 'rmaplab[cluster]'`") from None
    if address not in (LOCAL, EXISTING):
        _answers(address)
    try:
        if address == LOCAL:
            ray.init(num_cpus=jobs, log_to_driver=False, include_dashboard=False)
        else:
            ray.init(address=address, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, SystemExit) as error:
        raise InputError(f"--ray {address}: {str(error).splitlines()[0]}; is the cluster up?") from error

    @contextmanager
    def workers(expander: Expands, jobs: int) -> Iterator[Expand]:
        series = expander.question.series
        source = Path(series).read_text(encoding="utf-8") if series.endswith(".py") else None
        sent = ray.put(Sent(expander.question, source))
        task = ray.remote(max_retries=-1)(expand_shard)

        def expand(shards: Iterable[list[History]]) -> Iterator[Expansion]:
            waiting: deque[ray.ObjectRef] = deque()
            for shard in shards:
                waiting.append(task.remote(sent, shard))
                if len(waiting) > AHEAD * jobs:
                    yield ray.get(waiting.popleft())
            while waiting:
                yield ray.get(waiting.popleft())

        yield expand

    try:
        yield workers
    finally:
        ray.shutdown()
