"""What one peer believes about all others, and what follows when it hears something new.

Everything that changes a belief comes through here, whoever says it: a rumour, a state exchange, our own
failed probe, a suspicion whose time is up. `view.supersedes` decides whether it is news; if it is, then in
this order

1. the record replaces the old one, and the roster of those who are probed follows;
2. a suspicion begins or ends;
3. the story is written down (`why`), the events are announced;
4. the news is queued to be told to others.

The dead and departed stay in the table for a while (`reap_after_s`), so that a living one among them can be
told and object. Then only a tombstone is kept: the last record, against resurrection by old news, and to
knock at its address now and then.

News that we cannot use are not lost for others: an accusation of somebody we never heard of is remembered and
passed on. Together with telling everyone who talks to us what we hold against it (see `swim`), this keeps
accusation and accused from missing each other for ever in a mass restart (hashicorp/memberlist issue 311).
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from math import inf

from membership.awareness import Awareness
from membership.config import SwimConfig
from membership.effects import (
    Announce,
    Effect,
    Event,
    MemberDied,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MemberReturned,
    MemberSuspected,
    MemberUpdated,
)
from membership.gossip import GossipQueue, transmissions_max
from membership.history import Cause, History, WhyEntry
from membership.messages import Rumour
from membership.roster import Roster
from membership.suspicion import Suspicion, Suspicions
from membership.table import Members, MemberTable
from membership.view import Member, NodeId, Status, supersedes

__all__ = ["Beliefs", "events_of"]


def events_of(before: Member | None, after: Member, by: tuple[NodeId, ...]) -> list[Event]:
    """Return what there is to announce when one belief replaces another.

    Args:
        before: the old belief (a tombstone counts), or None.
        after: the new one.
        by: on whose word.
    """
    events: list[Event] = []
    if after.status.in_ring:
        if before is None:
            events.append(MemberJoined(after))
        elif not before.status.in_ring:
            events.append(MemberReturned(after, before.status))
        elif before.description != after.description:
            events.append(MemberUpdated(after, before))
    was = None if before is None else before.status
    if after.status is Status.ALIVE and was is Status.SUSPECT:
        events.append(MemberRefuted(after))
    elif after.status is Status.SUSPECT:
        events.append(MemberSuspected(after, by))
    elif after.status is Status.DEAD and was is not Status.DEAD:
        events.append(MemberDied(after, by))
    elif after.status is Status.LEFT and was is not Status.LEFT:
        events.append(MemberLeft(after))
    return events


_CAUSES: dict[type[Event], Cause] = {
    MemberJoined: Cause.JOINED,
    MemberReturned: Cause.RETURNED,
    MemberUpdated: Cause.UPDATED,
    MemberRefuted: Cause.REFUTED,
    MemberSuspected: Cause.ACCUSED,
    MemberDied: Cause.DECLARED_DEAD,
    MemberLeft: Cause.LEFT,
}


class Beliefs:
    """The table of members with all that hangs on it.

    Args:
        me: our own record, which is part of the table but never of the roster or of what we hear here.
        config: settings.
        awareness: our own health, which stretches the suspicions that we begin.
        base: what we know from the start.

    Attributes:
        me: our own record.
        members, roster, queue, suspicions, history: see their modules.
        tombstones: the last records of the forgotten, and of the dead whom we never knew alive; oldest first.
        reap_at: when somebody may have to be forgotten: not later than the first of them, perhaps earlier.
    """

    def __init__(self, *, me: Member, config: SwimConfig, awareness: Awareness, base: MemberTable) -> None:
        self.me = me
        self._config = config
        self._awareness = awareness
        self._base = base
        self.members = Members(base)
        self.roster = Roster(base.ids, base.position)
        for node in (me.id, *base.not_in_ring):
            self.roster.remove(node)
        if base.by_id.get(me.id) != me:
            self.members.put(me)
        self.queue = GossipQueue()
        self.suspicions = Suspicions()
        self.history = History(config.history_max)
        self.tombstones: dict[NodeId, Member] = {}
        self._departed: dict[NodeId, float] = {}  # in the table but not in the ring -> since when
        self._recently_dead: deque[tuple[float, NodeId]] = deque()
        self.reap_at = inf

    def start(self, now: float) -> None:
        """Begin the clocks of the suspects and the dead that we know from the start."""
        for node in self._base.not_in_ring:
            self._departed[node] = now
            self.reap_at = now + self._config.reap_after_s
        for node in self._base.suspects:
            self._suspect(node, (self.me.id,), now)

    # What we are.

    def become(self, me: Member) -> None:
        """Replace our own record and tell everybody."""
        self.me = me
        self.members.put(me)
        self.queue.put(Rumour(member=me))

    def repeat(self, member: Member) -> None:
        """Tell once more what we believe of somebody, if we are not telling it anyway."""
        if member.id not in self.queue:
            self.queue.put(self.rumour_about(member))

    # What we know.

    def known(self, node: NodeId) -> Member | None:
        """Return the last record of a node, even a forgotten one's."""
        return self.members.get(node) or self.tombstones.get(node)

    def is_alive(self, node: NodeId) -> bool:
        """Return whether a node is here and nobody accuses it."""
        member = self.members.get(node)
        return member is not None and member.status is Status.ALIVE

    def rumour_about(self, member: Member) -> Rumour:
        """Return what we would tell about a member, with its accusers."""
        suspicion = self.suspicions.get(member.id)
        return Rumour(member=member, accusers=() if suspicion is None else suspicion.accusers)

    @property
    def transmissions(self) -> int:
        """How often each rumour is sent, in a cluster of this size."""
        return transmissions_max(self._config.retransmit_mult, len(self.roster) + 1)

    def recently_dead(self, now: float) -> deque[tuple[float, NodeId]]:
        """Return those who died within `gossip_to_dead_s`, with the time; some may have returned since."""
        while self._recently_dead and self._recently_dead[0][0] <= now - self._config.gossip_to_dead_s:
            self._recently_dead.popleft()
        return self._recently_dead

    def lost(self) -> int:
        """Return how many nodes there are to knock at: the dead that we remember."""
        return len(self._departed) + len(self.tombstones)

    def lost_one(self, place: int) -> Member | None:
        """Return the node at a place below `lost`; None if it said goodbye and need not be looked for."""
        nodes = self._departed if place < len(self._departed) else self.tombstones
        for skipped, node in enumerate(nodes, 0 if nodes is self._departed else len(self._departed)):
            if skipped == place:
                member = self.known(node)
                return member if member is not None and member.status is Status.DEAD else None
        return None

    # What we hear.

    def hear(self, new: Member, accusers: tuple[NodeId, ...], now: float, out: list[Effect]) -> None:
        """Take a belief about another node, from whomever."""
        listed = self.members.get(new.id)
        if listed is new and new.status is not Status.SUSPECT:
            return  # records are shared within a simulation; of a suspect the accusers may still be news
        known = listed if listed is not None else self.tombstones.get(new.id)
        if known is not None and not supersedes(new, known):
            self._hear_old_news(known, new, accusers, now)
        elif listed is None and not new.status.in_ring:
            # Nobody we know has died: keep the incarnation and pass it on, the accused may be alive.
            self._lay_tombstone(new)
            self.queue.put(Rumour(member=new, accusers=self._bounded(accusers)))
        elif listed is not None or len(self.members) < self._config.members_max:
            self._believe(known, new, accusers, now, out)

    def hear_in_state(self, new: Member, sender: NodeId, now: float, out: list[Effect]) -> None:
        """Take a belief from a state exchange: a death there is only an accusation here.

        When islands meet, each holds the whole other one for dead. Burying on their word would empty both
        rings until everybody has objected; suspecting gives them the time (as memberlist does).
        """
        listed = self.members.get(new.id)
        if listed is new:
            return
        accusers: tuple[NodeId, ...] = ()
        if listed is None and not new.status.in_ring:
            # Remembered, but not passed on: a state holds all the dead of a day, and they are no news.
            if supersedes(new, self.tombstones.get(new.id)):
                self._lay_tombstone(new)
            return
        if listed is not None and listed.status.in_ring and new.status is Status.DEAD:
            new, accusers = replace(new, status=Status.SUSPECT), (sender,)
        self.hear(new, accusers, now, out)

    def accuse(self, node: NodeId, now: float, out: list[Effect]) -> None:
        """Our own probe of a node failed: suspect it, or confirm the suspicion."""
        member = self.members.get(node)
        if member is not None and member.status is Status.ALIVE:
            suspect = replace(member, status=Status.SUSPECT)
            self._believe(member, suspect, (self.me.id,), now, out, cause=Cause.PROBE_FAILED)
        elif member is not None and member.status is Status.SUSPECT:
            self._confirm(member, (self.me.id,), now)

    def bury_due(self, now: float, out: list[Effect]) -> None:
        """Declare those dead who did not object in time."""
        for node, suspicion in self.suspicions.pop_due(now):
            member = self.members.get(node)
            if member is not None:
                dead = replace(member, status=Status.DEAD)
                self._believe(member, dead, suspicion.accusers, now, out, cause=Cause.TIMED_OUT)

    def reap_due(self, now: float) -> None:
        """Forget those who are dead or departed long enough, but for a tombstone."""
        while self._departed:
            node, since = next(iter(self._departed.items()))
            self.reap_at = since + self._config.reap_after_s
            if self.reap_at > now:
                return
            del self._departed[node]
            member = self.members.get(node)
            if member is not None:
                self.members.remove(node)
                self._lay_tombstone(member)
            self.queue.drop(node)
            self.history.forget(node)
        self.reap_at = inf

    # What follows.

    def _hear_old_news(self, known: Member, new: Member, accusers: tuple[NodeId, ...], now: float) -> None:
        if known.incarnation == new.incarnation and known.status is new.status is Status.SUSPECT:
            self._confirm(known, accusers, now)

    def _believe(
        self,
        before: Member | None,
        new: Member,
        accusers: tuple[NodeId, ...],
        now: float,
        out: list[Effect],
        cause: Cause | None = None,
    ) -> None:
        node = new.id
        self.members.put(new)
        self.tombstones.pop(node, None)
        if new.status.in_ring:
            self.roster.add(node)
            self._departed.pop(node, None)
        else:
            self.roster.remove(node)
            self._departed.setdefault(node, now)
            self.reap_at = min(self.reap_at, now + self._config.reap_after_s)
            if new.status is Status.DEAD:
                self._recently_dead.append((now, node))
        self.suspicions.drop(node)
        if new.status is Status.SUSPECT:
            self._suspect(node, accusers, now)
        for event in events_of(before, new, accusers):
            by = accusers if new.status is Status.SUSPECT or new.status is Status.DEAD else (node,)
            self._write(new, cause or _CAUSES[type(event)], by, now)
            out.append(Announce(event))
        bounded = self._bounded(accusers) if new.status is not Status.ALIVE else ()
        self.queue.put(Rumour(member=new, accusers=bounded))

    def _suspect(self, node: NodeId, accusers: tuple[NodeId, ...], now: float) -> None:
        members = len(self.roster) + 1
        min_s = self._config.suspicion_min_s(members)
        suspicion = Suspicion(
            accusers=self._bounded(accusers),
            started_s=now,
            # Neither the suspect nor the first accuser confirms: in a small cluster few are left.
            expected=max(0, min(self._config.suspicion_confirmations, members - 2)),
            min_s=min_s,
            # Our own ill health gives the suspect more time only as long as nobody confirms.
            max_s=self._awareness.scale(min_s * self._config.suspicion_max_mult),
        )
        self.suspicions.put(node, suspicion)

    def _confirm(self, member: Member, accusers: tuple[NodeId, ...], now: float) -> None:
        suspicion = self.suspicions.get(member.id)
        if suspicion is None:
            return
        confirmed = suspicion.confirm(accusers, self._config.suspicion_confirmations + 1)
        if confirmed is not suspicion:
            self.suspicions.put(member.id, confirmed)
            further = confirmed.accusers[len(suspicion.accusers) :]
            self._write(member, Cause.CONFIRMED, further, now)
            self.queue.put(Rumour(member=member, accusers=confirmed.accusers))

    def _lay_tombstone(self, member: Member) -> None:
        self.tombstones.pop(member.id, None)
        while len(self.tombstones) >= self._config.tombstones_max:
            del self.tombstones[next(iter(self.tombstones))]
        self.tombstones[member.id] = member

    def _bounded(self, accusers: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
        return accusers[: self._config.suspicion_confirmations + 1]

    def _write(self, member: Member, cause: Cause, by: tuple[NodeId, ...], now: float) -> None:
        entry = WhyEntry(at_s=now, cause=cause, by=by, status=member.status, incarnation=member.incarnation)
        self.history.add(member.id, entry)
