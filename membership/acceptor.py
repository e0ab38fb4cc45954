"""The acceptor: what one node has promised and accepted, for every key, and how that survives it.

Theory of operation
-------------------
For each key there is one `Vote`, or none ("unborn"). A vote has a place (generation and epoch), and the table
of what a request does depends on how the request's place compares with it. `p` is the vote's promise:

=========  =================  =====================================  ==============  =================
request    unborn, or the     same place                             vote is later   we are no member
           vote is earlier                                                           of the vote's
                                                                                     group
=========  =================  =====================================  ==============  =================
Prepare b  Unborn             b < p: Nack(p); else promise b:        Group           Group
                              Promise
Accept b   born by it, as in  accepted at b already: Accepted;       Group           Group
           the next column    b < p: Nack(p); else accept: Accepted
Birth      born: Born         Born, and nothing changes              Group           Group
Group      if it is settled   nothing                                nothing         nothing
           and we are left
           out: forget the
           vote
=========  =================  =====================================  ==============  =================

Whatever changes is saved before the answer that rests on it. What is said again (a doubled request) is not
saved again.

*Born by an Accept.* An accept of a place is sent only after a majority of its members promised there, which
only the born do; so it proves that the place began, and who never voted there may begin with it.

*Retired.* Who is no member of a later group keeps that group's name instead of its vote, and answers
everybody with it, so that those who come late to an old group find the new one. It does so only when that
group is settled: before, votes in the old one may be needed to bring the new one to life.

*On disk* a vote is one msgpack list with a version before and a digest behind it. A vote whose digest does
not fit is `DamagedVote`, which is a lost disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import inf
from typing import Any, assert_never

import msgpack

from membership.errors import DamagedVote
from membership.register import NO_BALLOT, AcceptorId, Ballot, Group, Place, Record
from membership.register_config import RegisterConfig
from membership.register_effects import RegisterEffect, Save, SendTo
from membership.register_messages import (
    Accept,
    Accepted,
    Birth,
    Born,
    Nack,
    Prepare,
    Promise,
    RegisterMessage,
    Request,
    Unborn,
)
from membership.view import NodeId

__all__ = ["Acceptor", "Vote", "decode_vote", "encode_vote"]

FORMAT = 1
DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Vote:
    """An acceptor's state of one key.

    Attributes:
        promised: nothing below this is accepted any more.
        accepted: the ballot at which `record` was accepted; `NO_BALLOT` for the record of the birth.
        record: what was accepted last. At an acceptor that is no member of its group, only the group counts.
    """

    promised: Ballot
    accepted: Ballot
    record: Record

    @property
    def place(self) -> Place:
        """The place of the record."""
        return self.record.place


def encode_vote(vote: Vote) -> bytes:
    """Return a vote as bytes for the disk."""
    record = vote.record
    body: bytes = msgpack.packb(
        (
            FORMAT,
            _plain(vote.promised),
            _plain(vote.accepted),
            record.generation,
            record.epoch,
            [(member.node, member.disk) for member in record.members],
            [(member.node, member.disk) for member in record.sealed_to],
            record.terminal,
            record.payload,
        )
    )
    return body + blake2b(body, digest_size=DIGEST_BYTES).digest()


def decode_vote(data: bytes) -> Vote:
    """Return the vote that these bytes hold.

    Raises:
        DamagedVote: they are not what `encode_vote` wrote.
    """
    body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if len(digest) != DIGEST_BYTES or blake2b(body, digest_size=DIGEST_BYTES).digest() != digest:
        raise DamagedVote("a vote does not fit its digest: the disk has lost what this acceptor promised")
    # The digest shows that we wrote it; what we wrote needs no further check but that of its version.
    version, *fields = msgpack.unpackb(body)
    if version != FORMAT:
        raise DamagedVote(f"a vote was written in format {version}, this version reads {FORMAT}")
    promised, accepted, generation, epoch, members, sealed_to, terminal, payload = fields
    record = Record(
        generation=generation,
        epoch=epoch,
        members=tuple(AcceptorId(NodeId(node), disk) for node, disk in members),
        sealed_to=tuple(AcceptorId(NodeId(node), disk) for node, disk in sealed_to),
        terminal=terminal,
        payload=payload,
    )
    return Vote(_ballot(promised), _ballot(accepted), record)


def _plain(ballot: Ballot) -> tuple[int, str, int]:
    return ballot.round, ballot.node, ballot.life


def _ballot(plain: Any) -> Ballot:
    number, node, life = plain
    return Ballot(number, NodeId(node), life)


class Acceptor:
    """All votes of one acceptor.

    Args:
        me: our own id: the node's, and the disk's that `saved` was read from.
        config: bounds.
        saved: what earlier lives have saved on this disk, by key.

    Raises:
        DamagedVote: a vote cannot be read back; come back with a new disk id.
    """

    def __init__(
        self, me: AcceptorId, config: RegisterConfig, saved: Mapping[str, bytes] | None = None
    ) -> None:
        self.me = me
        self._keys_max = config.keys_max
        self._votes = {key: decode_vote(data) for key, data in (saved or {}).items()}

    # ------------------------------------------------------------------ what the owner may ask

    def __len__(self) -> int:
        return len(self._votes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._votes)

    def get(self, key: str) -> Vote | None:
        """Return the vote of a key: what we accepted, which may never have been chosen."""
        return self._votes.get(key)

    def group(self, key: str) -> Group | None:
        """Return the latest group of a key that we know of."""
        vote = self._votes.get(key)
        return None if vote is None else self._group(key, vote)

    def forget(self, key: str) -> list[RegisterEffect]:
        """Drop a key for good.

        The owner vouches that the register has served its time: a birth of it that is still on its way
        somewhere would begin it anew.
        """
        if self._votes.pop(key, None) is None:
            return []
        return [Save(key, None)]

    # ------------------------------------------------------------------ what the shell calls

    def receive(self, message: Request, sender: NodeId, _now: float) -> list[RegisterEffect]:
        """Take a request, and answer it.

        Args:
            message: what is asked.
            sender: the node that asks.
            _now: in seconds; no promise expires.
        """
        if not isinstance(message, Group) and message.to != self.me:
            return []  # meant for a disk that this node has lost, or never had
        match message:
            case Prepare():
                return self._on_prepare(message, sender)
            case Accept():
                return self._on_accept(message, sender)
            case Birth():
                return self._on_birth(message, sender)
            case Group():
                return self._on_group(message)
            case _:
                assert_never(message)

    def tick(self, _now: float) -> list[RegisterEffect]:
        """Nothing is ever due."""
        return []

    def next_deadline(self) -> float:
        """Never."""
        return inf

    # ------------------------------------------------------------------ requests

    def _on_prepare(self, message: Prepare, sender: NodeId) -> list[RegisterEffect]:
        key, place, ballot = message.key, message.place, message.ballot
        vote = self._votes.get(key)
        if vote is None or vote.place < place:
            unborn = Unborn(key=key, place=place, acceptor=self.me, earlier=self.group(key))
            return [SendTo(sender, unborn)]
        if self._has_moved_on(vote, place):
            return [SendTo(sender, self._group(key, vote))]
        if ballot < vote.promised:
            return [SendTo(sender, self._nack(key, place, ballot, vote))]
        promise = Promise(
            key=key,
            place=place,
            ballot=ballot,
            acceptor=self.me,
            accepted=vote.accepted,
            record=vote.record,
        )
        return [*self._save(key, replace(vote, promised=ballot)), SendTo(sender, promise)]

    def _on_accept(self, message: Accept, sender: NodeId) -> list[RegisterEffect]:
        key, ballot, place = message.key, message.ballot, message.record.place
        if self.me not in message.record.members:
            return []  # nobody's vote but the members' counts
        vote = self._votes.get(key)
        if vote is not None and self._belongs_elsewhere(vote, message.record):
            return [SendTo(sender, self._group(key, vote))]
        saves: list[RegisterEffect] = []
        if vote is None or vote.place < place or vote.accepted != ballot:
            if vote is not None and vote.place == place and ballot < vote.promised:
                return [SendTo(sender, self._nack(key, place, ballot, vote))]
            if vote is None and not self._has_room():
                return []
            promised = max(ballot, message.promise)
            saves = self._save(key, Vote(promised=promised, accepted=ballot, record=message.record))
        # Said again when asked again, whatever was promised since: that it was accepted stays true.
        return [*saves, SendTo(sender, Accepted(key=key, place=place, ballot=ballot, acceptor=self.me))]

    def _on_birth(self, message: Birth, sender: NodeId) -> list[RegisterEffect]:
        key, record = message.key, message.record
        if self.me not in record.members:
            return []
        vote = self._votes.get(key)
        if vote is not None and self._belongs_elsewhere(vote, record):
            return [SendTo(sender, self._group(key, vote))]
        saves: list[RegisterEffect] = []
        if vote is None or vote.place < record.place:
            if vote is None and not self._has_room():
                return []
            saves = self._save(key, Vote(promised=NO_BALLOT, accepted=NO_BALLOT, record=record))
        return [*saves, SendTo(sender, Born(key=key, place=record.place, acceptor=self.me))]

    def _on_group(self, message: Group) -> list[RegisterEffect]:
        vote = self._votes.get(message.key)
        if vote is None or message.place <= vote.place or self.me in message.members or not message.settled:
            return []
        place = message.place
        record = Record(generation=place.generation, epoch=place.epoch, members=message.members)
        return self._save(message.key, Vote(promised=NO_BALLOT, accepted=NO_BALLOT, record=record))

    # ------------------------------------------------------------------ helpers

    def _group(self, key: str, vote: Vote) -> Group:
        # Who accepted anything was asked by one whom a majority had promised; who is retired was told so.
        settled = vote.accepted > NO_BALLOT or self.me not in vote.record.members
        return Group(key=key, place=vote.place, members=vote.record.members, settled=settled)

    def _has_moved_on(self, vote: Vote, place: Place) -> bool:
        return vote.place > place or (vote.place == place and self.me not in vote.record.members)

    def _belongs_elsewhere(self, vote: Vote, record: Record) -> bool:
        """Whether we vote in a later group, or in another one of the same place.

        The latter comes from two founders of one key that chose different groups; each acceptor serves the
        one that came first.
        """
        if vote.place == record.place:
            return vote.record.members != record.members
        return vote.place > record.place

    def _has_room(self) -> bool:
        return len(self._votes) < self._keys_max

    def _save(self, key: str, vote: Vote) -> list[RegisterEffect]:
        if self._votes.get(key) == vote:
            return []
        self._votes[key] = vote
        return [Save(key, encode_vote(vote))]

    def _nack(self, key: str, place: Place, ballot: Ballot, vote: Vote) -> RegisterMessage:
        return Nack(key=key, place=place, ballot=ballot, acceptor=self.me, promised=vote.promised)
