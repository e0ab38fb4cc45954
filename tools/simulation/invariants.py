"""What must hold for every view of the members at every time.

Checked in every step, on the node that took it:

* incarnations only grow, in every view and at their owner, and nobody else raises one;
* no resurrection: who was dead or gone at incarnation i in a view is never in the ring there at i or below;
* no accusation is forgotten: whoever heard one at incarnation i knows the accused at i or above from then on,
  also when it was dead already (``Dead@1``, ``Dead@10``, ``Alive@2`` resurrects nobody);
* one record: all views that know an incarnation of one process (id, session, pid) know the same of it;
* a running process never sees itself as anything but alive, unless it is leaving;
* nobody is refused as a double who is none;
* views hold only ids that exist, and the queue of rumours no more than one for each.
"""

from __future__ import annotations

from membership.messages import Ack, Gossip, Ping, PingRequest, SyncState
from membership.swim import Swim
from membership.view import Member, NodeId, Status
from tools.simulation.node import Node
from tools.simulation.swim_process import SwimProcess
from tools.simulation.world import Violation

__all__ = ["Invariants", "brief"]


class Invariants:
    """What must hold for every view at every time."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._issued: dict[NodeId, int] = {}
        self._records: dict[tuple[NodeId, int, int, int], Member] = {}
        self._seen: dict[int, _Seen] = {}

    def check(self, node: Node, process: SwimProcess) -> None:
        """Raise ``Violation`` where the node that just took a step broke one."""
        swim = process.swim
        if process.heard is not None and not swim.stopped:
            self._check_heard(node, swim, *process.heard)
        seen = self._seen.get(node.index)
        if seen is None or seen.boot != node.boots:
            seen = self._seen[node.index] = _Seen(node.boots)
        if swim.version == seen.version:
            return
        seen.version = swim.version
        self._issued[swim.me.id] = max(self._issued.get(swim.me.id, 0), swim.me.incarnation)
        # The machine shows its queue to nobody; that it is bounded is a promise all the same.
        if len(swim._beliefs.queue) > len(self._names):
            raise Violation(f"{node.name} has {len(swim._beliefs.queue)} rumours on {len(self._names)} ids")
        view = swim.view
        if [member.id for member in view] != sorted({member.id for member in view}):
            raise Violation(f"{node.name}'s view is not sorted or holds an id twice")
        own = view.get(swim.me.id)
        if own is None or (own.status is not Status.ALIVE and not process.leaving):
            raise Violation(f"{node.name} runs and sees itself as {brief(own)}")
        for member in view:
            self._check_member(node, seen, member)

    def _check_heard(self, node: Node, swim: Swim, message: object, sender: str) -> None:
        for member in _records_in(message, swim.me.id):
            if member.status is Status.ALIVE or member.id in (swim.me.id, sender):
                continue
            known = swim._beliefs.known(member.id)  # a tombstone counts; the view does not show those
            if known is None or known.incarnation < member.incarnation:
                raise Violation(f"{node.name} heard {brief(member)} from {sender} and holds {brief(known)}")

    def _check_member(self, node: Node, seen: _Seen, member: Member) -> None:
        here = f"in the view of {node.name}"
        if member.id not in self._names:
            raise Violation(f"{member.id!r} {here} does not exist")
        if member.incarnation > self._issued.get(member.id, 0):
            raise Violation(f"{brief(member)} {here}: its owner never took that incarnation")
        before = seen.incarnation.get(member.id, 0)
        if member.incarnation < before:
            raise Violation(f"{brief(member)} {here}: it was at incarnation {before} there")
        seen.incarnation[member.id] = member.incarnation
        if not member.status.in_ring:
            seen.buried[member.id] = member.incarnation
        elif seen.buried.get(member.id, 0) >= member.incarnation:
            raise Violation(f"{brief(member)} {here}: it was buried there at {seen.buried[member.id]}")
        key = (member.id, member.incarnation, member.session, member.pid)
        facts = _without_status(member)
        if self._records.setdefault(key, facts) != facts:
            raise Violation(f"two records of {brief(member)}: {self._records[key]} and {facts}")


def _records_in(message: object, reader: NodeId) -> tuple[Member, ...]:
    """The records that ``reader`` takes from a message."""
    match message:
        case Ping(target=target) if target != reader:
            return ()
        case Ping() | Ack() | PingRequest() | Gossip():
            return tuple(rumour.member for rumour in message.rumours)
        case SyncState():
            return message.members
    return ()


class _Seen:
    """What one life of a node has seen so far."""

    def __init__(self, boot: int) -> None:
        self.boot = boot
        self.version = -1
        self.incarnation: dict[NodeId, int] = {}
        self.buried: dict[NodeId, int] = {}


def _without_status(member: Member) -> Member:
    if member.status is Status.ALIVE:
        return member
    return Member(
        id=member.id,
        address=member.address,
        incarnation=member.incarnation,
        zone=member.zone,
        weight=member.weight,
        slots=member.slots,
        pid=member.pid,
        session=member.session,
        meta=member.meta,
    )


def brief(member: Member | None) -> str:
    """A belief in a word or two."""
    if member is None:
        return "unknown"
    return f"{member.id} {member.status}@{member.incarnation}"
