"""All registers of one node: its acceptor and its proposers, behind one `receive` and one `tick`.

Theory of operation
-------------------
Requests go to the acceptor, answers to the proposer of their key, and the name of a group to both. Some keys
are *led* (jobs are, locks are not): for these, every member of the group takes part in an
election, from the moment at which its acceptor holds a vote until that vote is terminal or somebody else's.

What the machines want to send to their own node is handed over here, at once and behind the effects that came
before it: so a proposer may count its own acceptor's vote although nothing is on disk yet, since whatever
follows from that vote stands behind its `Save` in the same list (see the contract in
`membership.register_effects`).

Proposers are made when a key is first used and stay until `close`; one that has nothing to do costs nothing.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from typing import assert_never

from membership.acceptor import Acceptor
from membership.election import Election, ElectionEffect, Stand, StepDown
from membership.errors import UnknownRegister
from membership.proposer import Proposer
from membership.register import (
    NO_BALLOT,
    AcceptorId,
    Ballot,
    BallotSource,
    Change,
    Group,
    Record,
)
from membership.register_config import RegisterConfig
from membership.register_effects import (
    Committed,
    Leads,
    Outbid,
    QuorumLost,
    QuorumRegained,
    RegisterEffect,
    RegisterEvent,
    Report,
    SendTo,
)
from membership.register_messages import (
    Accept,
    Accepted,
    AskHearing,
    Birth,
    Born,
    Hearing,
    Heartbeat,
    Nack,
    Prepare,
    Promise,
    RegisterMessage,
    Unborn,
)
from membership.view import NodeId

__all__ = ["Registers"]


class Registers:
    """One life of one node's registers.

    Args:
        me: our acceptor's id.
        life: a number that no other start of this node has or had (`Member.session`).
        config: times and bounds.
        rng: the only source of randomness.
        absorbs: whether a payload of this key is terminal.
        is_led: whether a key has a leader.
        now: in seconds.
        saved: what the disk holds, by key.

    Raises:
        DamagedVote: the disk does not hold what was saved; start with a new disk id.
    """

    acceptor_type: type[Acceptor] = Acceptor
    proposer_type: type[Proposer] = Proposer

    def __init__(
        self,
        *,
        me: AcceptorId,
        life: int,
        config: RegisterConfig,
        rng: random.Random,
        absorbs: Callable[[str, bytes], bool] = lambda _key, _payload: False,
        is_led: Callable[[str], bool] = lambda _key: False,
        now: float,
        saved: Mapping[str, bytes] | None = None,
    ) -> None:
        self.me = me
        self.acceptor = self.acceptor_type(me, config, saved)
        self.proposers: dict[str, Proposer] = {}
        self.elections: dict[str, Election] = {}
        self._config = config
        self._rng = rng
        self._absorbs = absorbs
        self._is_led = is_led
        self._ballots = BallotSource(me.node, life)
        self._suspected: frozenset[NodeId] = frozenset()
        self._health = 0
        self._due: dict[str, float] = {}  # of the keys that wait for something
        for key in self.acceptor:
            self._complete(key, (), now)

    # ------------------------------------------------------------------ what the owner calls

    def group(self, key: str) -> Group | None:
        """Return the latest group of a key that this node knows of, None if it knows nothing of it."""
        known = self.acceptor.group(key)
        proposer = self.proposers.get(key)
        if proposer is not None and (known is None or known.place < proposer.group.place):
            return proposer.group
        return known

    def found(self, key: str, record: Record, now: float) -> list[RegisterEffect]:
        """Bring a register to life; see `Proposer.found`."""
        proposer = self.proposers.get(key)
        if proposer is None:
            proposer = self._open(Group(key=key, place=record.place, members=record.members))
        return self._complete(key, proposer.found(record, now), now)

    def propose(self, key: str, change: Change, now: float) -> tuple[int, list[RegisterEffect]]:
        """Change or read a register; see `Proposer.propose`.

        Raises:
            UnknownRegister: nobody has told this node who keeps the key.
            TooManyProposals: the queue is full.
        """
        number, effects = self._proposer(key).propose(change, now)
        return number, self._complete(key, effects, now)

    def lead(self, key: str, now: float, *, above: Ballot = NO_BALLOT) -> list[RegisterEffect]:
        """Become the distinguished proposer of a key; see `Proposer.lead`.

        Raises:
            UnknownRegister: nobody has told this node who keeps the key.
        """
        return self._complete(key, self._proposer(key).lead(now, above=above), now)

    def resign(self, key: str, now: float) -> list[RegisterEffect]:
        """Stop leading a key; see `Proposer.resign`."""
        proposer = self.proposers.get(key)
        return [] if proposer is None else self._complete(key, proposer.resign(), now)

    def seal(self, key: str, members: Sequence[AcceptorId], now: float) -> list[RegisterEffect]:
        """Hand a key to other members; see `Proposer.seal`.

        Raises:
            UnknownRegister: nobody has told this node who keeps the key.
        """
        return self._complete(key, self._proposer(key).seal(members, now), now)

    def learn(self, group: Group, now: float) -> list[RegisterEffect]:
        """Take note of who keeps a key (from a handle, from gossip); old news changes nothing."""
        if group.key not in self.proposers:
            mine = self.acceptor.group(group.key)
            if mine is None or mine.place < group.place:
                self._open(group, before=mine)
            else:
                self._open(mine)
        return self._complete(group.key, self._hear_of(group, now), now)

    def observe(self, suspected: Collection[NodeId], health: int, now: float) -> list[RegisterEffect]:
        """Take note of what membership believes; see `Election.observe`."""
        self._suspected, self._health = frozenset(suspected), health
        out: list[RegisterEffect] = []
        for key, election in list(self.elections.items()):
            out += self._complete(key, election.observe(self._suspected, health, now), now)
        return out

    def leader(self, key: str) -> NodeId | None:
        """Return who leads a key, as far as this node has heard."""
        election = self.elections.get(key)
        return None if election is None else election.leader

    def close(self, key: str) -> None:
        """Drop the proposer of a key; what it had not finished stays uncertain."""
        self.proposers.pop(key, None)
        self._note_due(key)

    def forget(self, key: str) -> list[RegisterEffect]:
        """Drop everything about a key for good; see `Acceptor.forget`."""
        self.elections.pop(key, None)
        self.close(key)
        return self.acceptor.forget(key)

    # ------------------------------------------------------------------ what the shell calls

    def receive(self, message: RegisterMessage, sender: NodeId, now: float) -> list[RegisterEffect]:
        """Take a message.

        Args:
            message: what was said.
            sender: who said it, as the connection has authenticated it.
            now: in seconds.
        """
        return self._complete(message.key, self._take(message, sender, now), now)

    def tick(self, now: float) -> list[RegisterEffect]:
        """Do what is due at `now` (seconds)."""
        out: list[RegisterEffect] = []
        for key in [key for key, due in self._due.items() if due <= now]:
            proposer, election = self.proposers.get(key), self.elections.get(key)
            effects: list[ElectionEffect] = []
            if proposer is not None:
                effects += proposer.tick(now)
            if election is not None:
                effects += election.tick(now)
            out += self._complete(key, effects, now)
        return out

    def next_deadline(self) -> float:
        """When to be ticked again (seconds)."""
        return min(self._due.values(), default=inf)

    # ------------------------------------------------------------------ helpers

    def _take(self, message: RegisterMessage, sender: NodeId, now: float) -> Sequence[ElectionEffect]:
        key = message.key
        match message:
            case Prepare() | Accept() | Birth():
                return self.acceptor.receive(message, sender, now) + self._catch_up(key, now)
            case Group():
                return self._hear_of(message, now)
            case Promise() | Accepted() | Nack() | Born() | Unborn():
                proposer = self.proposers.get(key)
                if proposer is None or message.acceptor.node != sender:
                    return []
                return proposer.receive(message, now)
            case Heartbeat() | AskHearing() | Hearing():
                election = self.elections.get(key)
                if election is not None:
                    if (proposer := self.proposers.get(key)) is not None:
                        election.asks(proposer.asks)
                    return election.receive(message, sender, now)
                if isinstance(message, AskHearing):
                    return [SendTo(sender, Hearing(key=key, number=message.number, leader=None, fence=None))]
                return []
            case _:
                assert_never(message)

    def _catch_up(self, key: str, now: float) -> list[RegisterEffect]:
        """Let the proposer of a key know of the group that our acceptor was born into."""
        proposer, group = self.proposers.get(key), self.acceptor.group(key)
        if proposer is None or group is None or group.place <= proposer.group.place:
            return []
        return proposer.learn(group, now)

    def _hear_of(self, group: Group, now: float) -> list[RegisterEffect]:
        out = self.acceptor.receive(group, self.me.node, now)
        proposer = self.proposers.get(group.key)
        return out if proposer is None else out + proposer.receive(group, now)

    def _complete(self, key: str, effects: Iterable[ElectionEffect], now: float) -> list[RegisterEffect]:
        """Hand over what is for ourselves, in order, and note when the key is due next."""
        out: list[RegisterEffect] = []
        waiting = deque(effects)
        while True:
            while waiting:
                effect = waiting.popleft()
                match effect:
                    case SendTo(to, message) if to == self.me.node:
                        waiting.extend(self._take(message, to, now))
                    case Stand(above):
                        waiting.extend(self._proposer(key).lead(now, above=above))
                    case StepDown(by):
                        waiting.extend(self._proposer(key).resign(by))
                    case Report(event):
                        out.append(effect)
                        waiting.extend(self._tell_election(key, event, now))
                    case _:
                        out.append(effect)
            waiting.extend(self._review_election(key, now))
            if not waiting:
                break
        self._note_due(key)
        return out

    def _note_due(self, key: str) -> None:
        proposer, election = self.proposers.get(key), self.elections.get(key)
        due = min(
            inf if proposer is None else proposer.next_deadline(),
            inf if election is None else election.next_deadline(),
        )
        if due < inf:
            self._due[key] = due
        else:
            self._due.pop(key, None)

    # ------------------------------------------------------------------ elections

    def _review_election(self, key: str, now: float) -> Sequence[ElectionEffect]:
        """Take part in the election of a key, or no more, as our votes demand."""
        if not self._is_led(key):
            return []
        vote, proposer, election = self.acceptor.get(key), self.proposers.get(key), self.elections.get(key)
        leads = proposer is not None and proposer.leads
        has_a_say = vote is not None and self.me in vote.record.members and not vote.record.terminal
        if not has_a_say and not leads:
            if election is not None:
                del self.elections[key]
            return []
        group = self.group(key)
        assert group is not None
        if election is not None and election.place.generation == group.place.generation:
            election.group_is(group.place, group.members)
            return []
        election = self.elections[key] = Election(
            key=key,
            me=self.me.node,
            place=group.place,
            members=group.members,
            config=self._config,
            now=now,
            nobody_led=vote is not None and vote.accepted == NO_BALLOT and vote.place.epoch == 0,
        )
        if proposer is not None and proposer.leads and proposer.fence is not None:
            return election.elected(proposer.fence, now)
        return election.observe(self._suspected, self._health, now)

    def _tell_election(self, key: str, event: RegisterEvent, now: float) -> Sequence[ElectionEffect]:
        """Let the election know how its proposer fares."""
        election, proposer = self.elections.get(key), self.proposers.get(key)
        if election is None or proposer is None:
            return []
        match event:
            case Leads(fence=fence):
                return election.elected(fence, now)
            case Committed(fence=fence) if proposer.leads:
                election.renewed(fence, steady=True, now=now)
            case QuorumRegained() | QuorumLost() if proposer.leads and proposer.fence is not None:
                steady = isinstance(event, QuorumRegained)
                election.renewed(proposer.fence, steady=steady, now=now)
            case Outbid():
                return election.deposed(now)
            case _:
                pass
        return []

    # ------------------------------------------------------------------ proposers

    def _proposer(self, key: str) -> Proposer:
        proposer = self.proposers.get(key)
        if proposer is None:
            group = self.acceptor.group(key)
            if group is None:
                raise UnknownRegister(f"nobody has told this node who keeps {key}")
            proposer = self._open(group)
        return proposer

    def _open(self, group: Group, before: Group | None = None) -> Proposer:
        key = group.key
        proposer = self.proposer_type(
            group=group,
            ballots=self._ballots,
            config=self._config,
            rng=self._rng,
            absorbs=lambda payload: self._absorbs(key, payload),
            before=before,
        )
        self.proposers[key] = proposer
        return proposer
