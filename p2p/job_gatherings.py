"""Questions to several peers that make one answer to a client: which jobs there are, where parts lie.

A list waits for everybody who is here, but not for long; who has not answered by then is named.  Of parts the
first who knows ends it: asking one alone, who may just have died, would cost its silence.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from mapreduce.failpoints import failpoint
from membership.view import NodeId
from p2p import job_inquiries as iq
from p2p import job_questions as q
from p2p.transport import Connection

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["JobGatherings"]

ASK_LIMIT_S = 1.0
MAX_GATHERINGS = 256
MAX_ROWS = 1_000


@dataclass(slots=True)
class _Gathering:
    """Questions to several peers that make one answer to a client."""

    connection: Connection
    number: int
    waiting: set[NodeId]
    until: float
    rows: dict[str, q.JobRow] = field(default_factory=dict)
    parts: iq.PartsRead | None = None
    is_parts: bool = False


class JobGatherings:
    """All that are under way on one peer.

    Args:
        desk: the service that this is a part of.
        keepers: says who should know a job.
    """

    def __init__(self, desk: JobService, keepers: Callable[[str], list[NodeId]]) -> None:
        self._desk = desk
        self._keepers = keepers
        self._gatherings: OrderedDict[int, _Gathering] = OrderedDict()

    def ask_jobs(self, ask: q.AskJobs, connection: Connection, now: float) -> None:
        """A client asks which jobs there are."""
        number = self._gather(_Gathering(connection, ask.number, set(), now + ASK_LIMIT_S))
        gathering = self._gatherings[number]
        gathering.waiting = self._desk.here()
        for node in sorted(gathering.waiting):
            self._desk.say(node, iq.FindJobs(number=number, prefix=ask.prefix))

    def ask_parts(self, ask: q.AskParts, connection: Connection, now: float) -> None:
        """A client asks where the parts of a result lie."""
        failpoint("result.list")
        number = self._gather(_Gathering(connection, ask.number, set(), now + ASK_LIMIT_S, is_parts=True))
        gathering = self._gatherings[number]
        # The first who knows ends it; asking one alone, who may just have died, would cost its silence.
        gathering.waiting = set(self._keepers(ask.job)) or self._desk.here()
        for node in sorted(gathering.waiting):
            self._desk.say(node, iq.ReadParts(number=number, job=ask.job, first=ask.first))

    def on_peer(self, message: iq.JobsFound | iq.PartsRead, sender: NodeId) -> None:
        """A peer answers."""
        gathering = self._gatherings.get(message.number)
        if gathering is None:
            return
        gathering.waiting.discard(sender)
        if isinstance(message, iq.PartsRead):
            if message.total >= 0:
                gathering.parts = message
                gathering.waiting.clear()
        else:
            for row in message.jobs:
                known = gathering.rows.get(row.job)
                if known is None or _better(row, known):
                    gathering.rows[row.job] = row
        if not gathering.waiting:
            self._end_gathering(message.number)

    def peer_is_gone(self, node: NodeId) -> None:
        """Do not wait for its answers."""
        for number, gathering in list(self._gatherings.items()):
            if node in gathering.waiting:
                gathering.waiting.discard(node)
                if not gathering.waiting:
                    self._end_gathering(number)

    def tick(self, now: float) -> None:
        """Answer with what there is, where it has taken long enough."""
        for number, gathering in list(self._gatherings.items()):
            if gathering.until <= now:
                self._end_gathering(number)

    def next_deadline(self) -> float:
        """When to be ticked again."""
        return min((gathering.until for gathering in self._gatherings.values()), default=inf)

    def _gather(self, gathering: _Gathering) -> int:
        number = self._desk.fresh_number()
        self._gatherings[number] = gathering
        if len(self._gatherings) > MAX_GATHERINGS:
            self._gatherings.popitem(last=False)
        return number

    def _end_gathering(self, number: int) -> None:
        gathering = self._gatherings.pop(number)
        answer: Any
        if gathering.is_parts:
            parts = gathering.parts
            answer = q.PartsAre(
                number=gathering.number,
                total=-1 if parts is None else parts.total,
                rows=() if parts is None else parts.rows,
            )
        else:
            rows = sorted(gathering.rows.values(), key=lambda row: (-row.born_at_s, row.job))[:MAX_ROWS]
            silent = tuple(sorted(gathering.waiting))
            answer = q.JobsAre(number=gathering.number, jobs=tuple(rows), silent=silent)
        self._desk.answer(gathering.connection, answer)


def _better(row: q.JobRow, known: q.JobRow) -> bool:
    """Which of two lines about one job to believe: the truth, else the one that has got further."""
    if row.is_fresh != known.is_fresh:
        return row.is_fresh
    return (row.state.is_final, row.ended_at_s, row.done) > (
        known.state.is_final,
        known.ended_at_s,
        known.done,
    )
