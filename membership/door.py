"""Two processes, one id: who is it?

Node ids live in data directories, and these get copied, restored and mounted twice. Sometimes the second
process is right (the peer was restarted on another host), sometimes it is wrong (the first one still runs).
The record alone does not tell, so we ask:

    claim                            verdict
    -------------------------------  ---------------------------------------------------------------------
    same session                     one process; the incarnation decides
    other session, same address      a restart: the old one cannot live where the new one listens
    other session, other address,    a restart: the old one said so
      the holder has LEFT
    other session, other address     the holder is pinged at its own address (`challenge_pings` times). If it
                                     answers, the claimant gets a `Conflict` and stops; if not, it is admitted

The check is made by every peer that hears a claim from the claimant itself, that is at the door. Once
admitted anywhere, a record travels as any other. Hence "the younger" is the one who comes to the door while
the other one answers.

A holder that could not be reached (cut off, stopped by a debugger) may come back later, its own zombie: the
id has an admitted holder with a greater session. When the zombie hears of it, from anybody, it asks that
holder at its address, as often as the door pings; the holder answers with a `Conflict`, and the zombie stops.
Without an answer it outbids the record. For the holder may be gone: refused at one door, where the elder
could be reached, and admitted at another, where it could not. Were hearsay enough, both would stop. Sessions
order processes by start: a shell uses max(persisted + 1, wall clock in ms), so processes of one data
directory are ordered even by a clock that is wrong. A claimant at the door that finds a greater session
already dead there raises its own above it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from membership.view import Member, NodeId, Status

__all__ = ["Challenge", "Door", "must_be_challenged"]


def must_be_challenged(claimant: Member, holder: Member | None) -> bool:
    """Return whether the claim to an id needs the holder's silence; see the table above."""
    return (
        holder is not None
        and claimant.session != holder.session
        and claimant.address != holder.address
        and holder.status is not Status.LEFT
    )


@dataclass(frozen=True, slots=True)
class Challenge:
    """A claim under examination.

    Attributes:
        claimant, holder: the two records with one id.
        number: of the pings to the holder.
        pings: how many were sent.
        due_s: when the next ping, or the admission, is due.
    """

    claimant: Member
    holder: Member
    number: int
    pings: int
    due_s: float


class Door:
    """The claims under examination, by id.

    Args:
        challenges_max: further claims are ignored; the claimants come again.

    Attributes:
        deadline_s: when the next step is due; infinity if there is none.
    """

    __slots__ = ("_by_node", "_challenges_max", "deadline_s")

    def __init__(self, challenges_max: int) -> None:
        self._challenges_max = challenges_max
        self._by_node: dict[NodeId, Challenge] = {}
        self.deadline_s = inf

    def __len__(self) -> int:
        return len(self._by_node)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._by_node

    def put(self, challenge: Challenge) -> bool:
        """Begin or continue an examination; return False if there are too many."""
        node = challenge.claimant.id
        if node not in self._by_node and len(self._by_node) >= self._challenges_max:
            return False
        self._by_node[node] = challenge
        self._note_deadline()
        return True

    def answered(self, number: int) -> Challenge | None:
        """End the examination whose pings bear this number, as the holder answered, and return it."""
        for node, challenge in self._by_node.items():
            if challenge.number == number:
                del self._by_node[node]
                self._note_deadline()
                return challenge
        return None

    def pop_due(self, now: float) -> list[Challenge]:
        """Take out and return the examinations whose step is due, oldest first."""
        due = [challenge for challenge in self._by_node.values() if challenge.due_s <= now]
        for challenge in due:
            del self._by_node[challenge.claimant.id]
        self._note_deadline()
        return due

    def postpone(self, by_s: float) -> None:
        """Move all deadlines: we were asleep, or our clock was set."""
        for node, challenge in self._by_node.items():
            self._by_node[node] = replace(challenge, due_s=challenge.due_s + by_s)
        self._note_deadline()

    def _note_deadline(self) -> None:
        self.deadline_s = min((challenge.due_s for challenge in self._by_node.values()), default=inf)
