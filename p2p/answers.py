"""Answers clients' questions about the ring, and keeps watchers informed.

A watcher holds a lease and renews it; one that died is forgotten when its lease ends, and a full table
forgets the one whose lease ends first.  The ring is kept from one question to the next and changed by
what came and went, which is much cheaper than building it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, assert_never

from membership import effects as events
from membership.effects import Event
from membership.ring import Ring
from membership.swim import Swim
from membership.view import Member, NodeId
from p2p.questions import AskMembers, MembersAre
from p2p.ring_questions import (
    AskWhere,
    AskWhy,
    Happened,
    Question,
    Story,
    Watch,
    WhereIs,
    WhyIs,
    WhyLine,
)
from p2p.service import Effect, Origin, Reply
from p2p.transport import Connection

__all__ = ["Answers", "describe"]

MAX_WATCHERS = 64
MAX_LEASE_S = 60.0
MAX_STORIES = 32


@dataclass(slots=True)
class _Watcher:
    number: int
    connection: Connection
    until_s: float
    told: int = 0


class Answers:
    """A service of the peer's loop.

    Args:
        cluster: our cluster's name.
        swim: our membership, which is only read.
        refused: gives the counters of refusals.
        counters: gives all other counters.
    """

    handles = frozenset({AskMembers, AskWhere, AskWhy, Watch})

    def __init__(
        self,
        cluster: str,
        swim: Swim,
        refused: Callable[[], Mapping[str, int]],
        counters: Callable[[], Mapping[str, int]],
    ) -> None:
        self._cluster = cluster
        self._swim = swim
        self._refused = refused
        self._counters = counters
        self._ring = Ring()
        self._ring_version = -1
        self._watchers: dict[tuple[NodeId, int], _Watcher] = {}

    def start(self, _now: float) -> Sequence[Effect]:
        """See `Service.start`."""
        return ()

    def receive(self, message: Any, origin: Origin, now: float) -> Sequence[Effect]:
        """See `Service.receive`."""
        if origin.connection is None:
            return ()  # a question sent as an answer: nobody to tell
        question: Question = message
        match question:
            case AskMembers():
                answer: object = self._members(question)
            case AskWhere():
                answer = self._where(question)
            case AskWhy():
                answer = self._why(question, now)
            case Watch():
                answer = self._watch(question, origin, origin.connection, now)
            case _:
                assert_never(question)
        return (Reply(origin.connection, answer),)

    def hear(self, event: Event, _now: float) -> Sequence[Effect]:
        """See `Service.hear`."""
        told: list[Effect] = []
        for watcher in self._watchers.values():
            watcher.told += 1
            told.append(Reply(watcher.connection, describe(event, watcher.number, watcher.told)))
        return told

    def tick(self, now: float) -> Sequence[Effect]:
        """See `Service.tick`."""
        for key in [key for key, watcher in self._watchers.items() if watcher.until_s <= now]:
            del self._watchers[key]
        return ()

    def next_deadline(self) -> float:
        """See `Service.next_deadline`."""
        return min((watcher.until_s for watcher in self._watchers.values()), default=inf)

    @property
    def ring(self) -> Ring:
        """The ring of those who are alive or suspected, as this peer sees them now."""
        if self._ring_version != self._swim.version:
            self._ring = self._ring.changed_to(self._swim.view.ring_members)
            self._ring_version = self._swim.version
        return self._ring

    def _members(self, question: AskMembers) -> MembersAre:
        view = self._swim.view
        return MembersAre(
            number=question.number,
            cluster=self._cluster,
            me=self._swim.me.id,
            health=self._swim.health,
            ring_digest=view.digest,
            members=view.members,
            refused=dict(self._refused()),
            counters=dict(self._counters()),
        )

    def _where(self, question: AskWhere) -> WhereIs:
        ring = self.ring
        nodes = ring.owners(question.key, question.count) if len(ring) else ()
        owners = tuple(member for node in nodes if (member := self._swim.get(node)) is not None)
        explanation = tuple(ring.explain(question.key, question.count))
        return WhereIs(number=question.number, key=question.key, owners=owners, explanation=explanation)

    def _why(self, question: AskWhy, now: float) -> WhyIs:
        exact = self._swim.get(NodeId(question.node))
        found = (exact,) if exact else [m for m in self._swim.view if m.id.startswith(question.node)]
        stories = tuple(self._story(member, now) for member in found[:MAX_STORIES])
        return WhyIs(number=question.number, node=question.node, stories=stories)

    def _story(self, member: Member, now: float) -> Story:
        steps = tuple(
            WhyLine(
                age_s=max(0.0, now - entry.at_s),
                cause=entry.cause,
                by=entry.by,
                status=entry.status,
                incarnation=entry.incarnation,
            )
            for entry in self._swim.why(member.id)
        )
        return Story(member=member, steps=steps)

    def _watch(self, question: Watch, origin: Origin, connection: Connection, now: float) -> Happened:
        key = (origin.node, question.number)
        watcher = self._watchers.get(key)
        if watcher is None:
            if len(self._watchers) >= MAX_WATCHERS:
                first_to_end = min(self._watchers, key=lambda other: self._watchers[other].until_s)
                del self._watchers[first_to_end]
            watcher = self._watchers[key] = _Watcher(question.number, connection, now)
        watcher.connection = connection
        watcher.until_s = now + min(max(question.lease_s, 0.0), MAX_LEASE_S)
        me = self._swim.me
        return Happened(
            number=question.number,
            sequence=watcher.told,
            event="watching",
            node=me.id,
            address=me.address,
            incarnation=me.incarnation,
            by=(),
        )


def describe(event: Event, number: int = 0, sequence: int = 0) -> Happened:
    """A membership event as watchers and the log are told of it."""
    by: tuple[NodeId, ...] = ()
    match event:
        case events.MemberJoined(member):
            name = "joined"
        case events.MemberReturned(member):
            name = "returned"
        case events.MemberSuspected(member, accusers):
            name, by = "suspected", accusers
        case events.MemberRefuted(member):
            name = "refuted"
        case events.MemberDied(member, accusers):
            name, by = "died", accusers
        case events.MemberLeft(member):
            name = "left"
        case events.MemberUpdated(member):
            name = "updated"
        case events.SelfRefuted(incarnation, _, accusers):
            return _happened(number, sequence, "self_refuted", "", "", incarnation, accusers)
        case events.ConflictingIdentity(_, holder):
            member, name = holder, "identity_taken"
        case events.SeedSilent(address):
            return _happened(number, sequence, "seed_silent", "", address, 0, ())
        case _:
            assert_never(event)
    return _happened(number, sequence, name, member.id, member.address, member.incarnation, by)


def _happened(
    number: int, sequence: int, event: str, node: str, address: str, incarnation: int, by: tuple[NodeId, ...]
) -> Happened:
    return Happened(
        number=number,
        sequence=sequence,
        event=event,
        node=node,
        address=address,
        incarnation=incarnation,
        by=by,
    )
