"""The workers of a job as its leader sees them: their room, what they have in hand, whether they speak.

How much a worker can take is a credit that only the worker knows.  It says it whole each time (`Claim`), with
the number of the last grant it had seen by then; what was granted since is on its way and counts against it.
So room is right whether messages are lost, late or doubled, and a lost grant ties up no room for longer than
it takes the worker to claim again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from mapreduce.messages import Claim
from mapreduce.record import JobRecord
from membership.view import NodeId, Status, View

__all__ = ["Seat", "Seats", "fallen"]


@dataclass(slots=True)
class Seat:
    """One worker.

    Attributes:
        session: of its process; 0 until it has spoken, or membership said that it is another.
        room: as it last claimed.
        idle: slots that it could have used at once when it last claimed, less what was granted since.
        wants_any: it has claimed all tasks of its own and takes those of others.
        waiting_claim: its last claim, which could not be answered yet.
        grants: number of the last grant to it.
        attempts: in its hands, by number.
        knows_inventory: it has said all that it holds.
        asked_at: when its inventory was last asked for.
        revoked_at: when tasks were last asked back from it.
        is_stuck: it had tasks of the stage in hand and ran none of them: its slots are another job's.
        failures: attempts that failed there in this stage, and `successes` those that did not.
    """

    node: NodeId
    session: int = 0
    room: int = 0
    idle: int = 0
    wants_any: bool = False
    waiting_claim: Claim | None = None
    grants: int = 0
    attempts: dict[int, None] = field(default_factory=dict)
    knows_inventory: bool = False
    asked_at: float = -1e18
    revoked_at: float = -1e18
    is_stuck: bool = False
    failures: int = 0
    successes: int = 0
    _unseen: deque[tuple[int, int]] = field(default_factory=deque)

    def claimed(self, claim: Claim) -> None:
        """Take note of a claim."""
        self.room = claim.room
        self.wants_any = not claim.tasks
        while self._unseen and self._unseen[0][0] <= claim.seen:
            self._unseen.popleft()
        self.idle = max(0, claim.idle - sum(count for _, count in self._unseen))

    def granted(self, count: int) -> int:
        """Count a grant of so many tasks; gives its number."""
        self.grants += 1
        self._unseen.append((self.grants, count))
        self.idle = max(0, self.idle - count)
        return self.grants

    @property
    def room_left(self) -> int:
        """How many more tasks may be granted."""
        return self.room - sum(count for _, count in self._unseen)

    def begin_stage(self) -> None:
        """Room is claimed anew in each stage."""
        self.room = self.idle = 0
        self.wants_any = self.is_stuck = False
        self.waiting_claim = None
        self.failures = self.successes = 0
        self._unseen.clear()
        self.attempts.clear()

    def begin_session(self, session: int) -> None:
        """Another process stands behind the same name: it knows nothing."""
        self.begin_stage()
        self.session = session
        self.grants = 0
        self.knows_inventory = False
        self.asked_at = -1e18


class Seats:
    """All workers that are here, by name."""

    def __init__(self) -> None:
        self._seats: dict[NodeId, Seat] = {}

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats.values())

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, node: object) -> bool:
        return node in self._seats

    def get(self, node: NodeId) -> Seat | None:
        """The seat of a worker that is here."""
        return self._seats.get(node)

    def follow(self, view: View) -> tuple[list[Seat], list[Seat]]:
        """Seat those who are here, and no others; gives (who came, who went), each in order of id."""
        here = {member.id for member in view.ring_members}
        gone = [self._seats.pop(node) for node in sorted(set(self._seats) - here)]
        came = [Seat(node) for node in sorted(here - set(self._seats))]
        self._seats |= {seat.node: seat for seat in came}
        return came, gone


def fallen(record: JobRecord, view: View) -> list[NodeId]:
    """Return who died before this leader came, and has not been told of, in order of id.

    They are looked for among those whom the record names: the death of others is no affair of the job.  A
    loss that the former leader saw and had not yet written down is among them.
    """
    told = {event.node for event in record.events if event.kind == "lost"}
    named = {*record.nodes, record.leader} - told
    dead = {member.id for member in view.members if member.status is Status.DEAD}
    return sorted(named & dead)
