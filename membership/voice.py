"""What this peer says: every outgoing message is put together here.

Two habits hold for all of them. News ride along wherever there is room (SWIM 4.1), and whoever talks to us or
is talked to hears first what we hold against it (Lifeguard's buddy system, IV-C): an accused peer that is
alive then objects at once, rather than when the rumour happens to reach it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from membership.beliefs import Beliefs
from membership.config import SwimConfig
from membership.effects import Send
from membership.messages import (
    Ack,
    Gossip,
    Message,
    Ping,
    PingRequest,
    Rumour,
    SyncRequest,
    SyncState,
)
from membership.sync import chunks, differing
from membership.view import Member, NodeId, Status

__all__ = ["Voice"]


class Voice:
    """Puts messages together from what is believed.

    Args:
        beliefs: what we know, and the news we have to tell.
        config: settings.
        rng: for the first number, and for the choice of listeners.
    """

    __slots__ = ("_beliefs", "_config", "_rng", "number")

    def __init__(self, *, beliefs: Beliefs, config: SwimConfig, rng: random.Random) -> None:
        self._beliefs = beliefs
        self._config = config
        self._rng = rng
        # Random at first, so that a late answer to a former process of this peer matches no number of ours.
        self.number = rng.getrandbits(40)

    def next_number(self) -> int:
        """Return a number that no earlier message of this process bears."""
        self.number += 1
        return self.number

    def news(self, but: NodeId | None = None) -> tuple[Rumour, ...]:
        """Return the rumours for one message and count them as told; none about `but`."""
        queue = self._beliefs.queue
        if not queue:
            return ()
        return queue.take(self._config.rumour_bytes_max, self._beliefs.transmissions, but)

    def send(self, node: NodeId, message: Message) -> Send:
        """Address a message to a member of the roster."""
        member = self._beliefs.members.get(node)
        assert member is not None, f"{node} is in the roster but not in the table"
        return Send(member.address, node, message)

    def ping(self, target: Member, number: int) -> Send:
        """Ask a peer whether it is there."""
        rumours = self._news_for(target)
        reply_to = self._beliefs.me.address
        return Send(
            target.address,
            target.id,
            Ping(number=number, target=target.id, reply_to=reply_to, rumours=rumours),
        )

    def ping_request(self, relay: NodeId, target: Member, number: int) -> Send:
        """Ask a third peer to ping the target for us."""
        request = PingRequest(
            number=number,
            target=target.id,
            target_address=target.address,
            reply_to=self._beliefs.me.address,
            rumours=self.news(),
        )
        return self.send(relay, request)

    def ack(self, number: int, to: NodeId, address: str) -> Send:
        """Answer a ping, ours or a relayed one."""
        known = self._beliefs.known(to)
        rumours = self.news(but=to) if known is None else self._news_for(known)
        return Send(address, to, Ack(number=number, rumours=rumours))

    def gossip(self, now: float) -> Iterator[Send]:
        """Tell the news to a few members, and one of the recently dead what we hold against it."""
        for node in self._beliefs.roster.sample(self._config.gossip_fanout, self._rng):
            rumours = self.news()
            if rumours:
                yield self.send(node, Gossip(rumours=rumours))
        dead = self._beliefs.recently_dead(now)
        if dead:
            # That is extra: news told to the dead are told to nobody, and where many have died they would use
            # up what the living should hear.
            _, node = dead[int(self._rng.random() * len(dead))]
            member = self._beliefs.members.get(node)
            if member is not None and member.status is Status.DEAD:
                yield Send(member.address, node, Gossip(rumours=(self._beliefs.rumour_about(member),)))

    def sync_request(self) -> SyncRequest:
        """Ask somebody to compare notes."""
        digests = self._beliefs.members.digests()
        return SyncRequest(number=self.next_number(), me=self._beliefs.me, digests=digests)

    def sync_answer(self, request: SyncRequest) -> Iterator[Send]:
        """Send the records in the buckets where the other side differs; an empty answer if none do."""
        members = self._beliefs.members
        buckets = differing(members.digests(), request.digests)
        parts = list(chunks(members.in_buckets(buckets), self._config.sync_members_max))
        for bits, some in parts or [(0, [])]:
            yield self._state(request.number, request.me, bits, some)

    def sync_reply(self, state: SyncState, better: list[Member]) -> Iterator[Send]:
        """Send back what we know better."""
        size = self._config.sync_members_max
        for first in range(0, len(better), size):
            yield self._state(state.number, state.me, 0, better[first : first + size])

    def _state(self, number: int, to: Member, buckets: int, members: list[Member]) -> Send:
        # What we believe of the receiver comes first: it learns that we know it, or what it must outbid.
        theirs = self._beliefs.known(to.id)
        first = () if theirs is None else (theirs,)
        rest = (member for member in members if member.id != to.id)
        state = SyncState(
            number=number,
            me=self._beliefs.me,
            buckets=buckets,
            members=(*first, *rest),
            reply_wanted=buckets != 0,
        )
        return Send(to.address, to.id, state)

    def _news_for(self, listener: Member) -> tuple[Rumour, ...]:
        rumours = self.news(but=listener.id)
        if listener.status is Status.ALIVE:
            return rumours
        return (self._beliefs.rumour_about(listener), *rumours)
