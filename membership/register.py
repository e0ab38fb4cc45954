"""One Paxos register per key: what it holds, how its group changes, and why two answers are impossible.

Theory of operation
-------------------
A *register* is one value, a `Record`, that a small fixed group of *acceptors* keeps together. It is read and
changed by *proposers*, of which there may be any number at once: each change is a pure function from the
record to its next payload. There is no log and no leader that the safety depends on; this is CASPaxos (D.
Rystsov, "CASPaxos: Replicated State Machines without logs", 2018), which is single-decree Paxos (L. Lamport,
"Paxos Made Simple", 2001) run over and over on a register, each time with a higher *ballot*.

    proposer                                  each acceptor of the epoch's members
    ────────                                  ────────────────────────────────────
    Prepare(ballot b)          ────────►      promise to accept nothing below b          (on disk first)
                               ◄────────      Promise(the record it accepted last, and at which ballot)
    a majority promised: take the record that was accepted at the highest ballot, apply the change
    Accept(b, next record, b') ────────►      unless it promised more than b: accept it,
                               ◄────────      promise b' as well, and say Accepted(b)    (on disk first)
    a majority accepted: the record is *chosen*

The *distinguished proposer* of a key (`membership.election` says who tries to be it) carries its next
prepare, b', on each accept, so that in the steady state a change takes one round trip and one fsync. Changes
that come while a round is under way share the next one.

*The group.* Who the acceptors are stands in the record. The members of one *epoch* never change. To replace
the dead, a proposer seals the epoch and opens the next with other members:

    epoch e:    … ─► record ─► record, sealed_to = C'           a change like any other, by members C
    copy:       Birth(successor of the sealed record)  ────►    a majority of C' has it on disk
    epoch e+1:  successor ─► …                                  prepared and accepted by members C'

Birth rule: an acceptor without a record of epoch e+1 answers no prepare of e+1 (`Unborn` is a cry for help,
not a vote). It gets one by a `Birth`, or by an `Accept` of that epoch, which is proof that a majority has it.
Once born in e+1 it answers for e no more, except with the name of the later group. The first epoch of a key
is born in the same way, from the record that the founder writes.

*Generations.* When a majority of a group is lost for ever, its register can never speak again, and nobody may
shrink it. Its founder alone may start another generation: a new register under the same key, whose acceptors
forget the old one. `(generation, epoch)` is a `Place`; requests for a lower place than an acceptor's are
answered with the group of its own.

*Acceptor identity.* A promise is worth what its disk is worth. So an acceptor is (node, disk): the disk's id
is made with the data directory and dies with it. A peer that comes back with an empty disk is another
acceptor, which is no member of anything until an epoch names it. Using the old name again would be a broken
promise.

Who does what
-------------
===================  ==================================================================================
`register`           values and pure functions: records, ballots, places, majorities, the next group
`register_messages`  what proposers and acceptors say to each other
`register_effects`   what the machines want done and what they report
`register_config`    times and bounds, the relations between them
`acceptor`           promises and votes of one node, for all keys, and their form on disk
`proposer`           rounds of one key from one node: prepare, accept, retry, seal, open
`tally`              the answers to one round
`changes`            what a proposer has been asked to do
`election`           who tries to be the distinguished proposer of a key, and when
`registers`          a node's acceptor, proposers and elections, behind one `receive` and `tick`
`locks`              payloads and changes of named locks
===================  ==================================================================================

Why it is safe
--------------
Claim: in each generation the chosen records form one sequence, each derived from the one before by one batch
of changes; so reads and changes are linearizable, and a register with absorbing states ends in at most one of
them. Assume acceptors keep what they persisted before they answered, or never answer again under that name.

1. *A ballot names one record.* A ballot is (round, node, life); a life is one start of one process, and takes
   each round once (`BallotSource`). A proposer never changes the record that it proposes at a ballot.
2. *Within an epoch a chosen record is never lost.* Let v be chosen at b. A proposer that accepts at a ballot
   above b had promises from a majority, and any two majorities of one fixed set of members share an acceptor.
   That one had accepted v at b before it promised (after it, it would have refused b), so the proposer saw v
   or something accepted above b; by induction over ballots, something derived from v. The distinguished
   proposer that skips the prepare is no exception: an acceptor that accepted v at b and promised b' in one
   step has accepted nothing above b before, and accepts nothing between b and b' afterwards, so a majority of
   such answers is a majority of promises for b' of which v is the highest.
3. *Sealing ends an epoch.* Every change is the identity on a sealed record (`derive`). So once a record with
   sealed_to = C' is chosen in e, all later choices in e equal it, and C' is unique for e.
4. *An epoch starts only from that record.* Births of e+1 are sent only by who knows the sealed record chosen,
   or handed on by an acceptor that was born so; they are all equal. A proposer accepts in e+1 only after a
   majority of C' promised, and only the born promise, so it builds on the successor of what e chose last, or
   on something derived from it. An acceptor that is born by an Accept has voted for nothing in e+1 before,
   and so is as good as one that was born in time; and what the unborn are helped with is a Birth or an Accept
   that was sent before, so it might have been on its way all the time. That an acceptor forgets its vote in e
   when it is born in e+1, or hears that others were, is safe: it answers for e no more, and silence breaks no
   promise.
5. *Terminal states absorb.* `derive` leaves a terminal payload as it is. (The group of a terminal record can
   still be healed, so that the answer outlives its members; the answer stays the same.)
6. *Changes may be applied twice.* Whose outcome a proposer does not know (outbid, moved to the next epoch),
   it applies again to what it then finds. A change must therefore recognise its own effect: winners are
   written once, an operation that must count once bears an id. That is the contract of `Change`.
7. *Time proves nothing.* No step above mentions a clock, a lease, a suspicion or a heartbeat. They decide who
   proposes and when, never what is chosen. A leader reads by a round as everybody else does.

What is not promised: progress without a majority of the present epoch's members (`QuorumLost` names the
missing); anything across generations (the founder discards what the lost one may still hold); one register
where two founders choose different groups for one generation of a key (each acceptor serves the first it
hears of, but two groups may have enough of them: whoever may found twice must fix the group before); anything
against an acceptor that lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from membership.acceptor_id import AcceptorId
from membership.errors import InvalidGroup
from membership.view import NodeId

__all__ = [
    "NO_BALLOT",
    "AcceptorId",
    "Ballot",
    "BallotSource",
    "Change",
    "Fence",
    "Group",
    "Place",
    "Record",
    "derive",
    "majority",
    "next_group",
    "seal",
    "successor",
]


@dataclass(frozen=True, slots=True, order=True)
class Ballot:
    """One attempt of one proposer; of two, the greater outbids the other.

    Attributes:
        round: counts attempts; a proposer outbids others by a higher one.
        node: whose attempt; makes ballots of equal rounds differ.
        life: one start of that node's process (`Member.session`, or any number no other start of it has).
    """

    round: int
    node: NodeId
    life: int


NO_BALLOT = Ballot(0, NodeId(""), 0)
"""Below every proposer's ballot: the one at which an acceptor holds the record that it was born with."""


class BallotSource:
    """The ballots of one life of one node, for all its keys: each is handed out once.

    Args:
        node, life: see `Ballot`.
    """

    __slots__ = ("_life", "_node", "_round")

    def __init__(self, node: NodeId, life: int) -> None:
        self._node = node
        self._life = life
        self._round = 0

    def above(self, ballot: Ballot) -> Ballot:
        """Take a ballot that outbids the given one and all that were taken before."""
        self._round = max(self._round, ballot.round) + 1
        return Ballot(self._round, self._node, self._life)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Which of a key's groups, in the order in which they come to be."""

    generation: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Who keeps a key, as of a place: the handle by which a register is found.

    Attributes:
        key: the register's name.
        place: since when.
        members: the acceptors of that epoch; fixed.
        settled: whether a majority of them is known to have been born. Until then the group before is needed:
            it alone may be able to give birth to this one.

    Raises:
        InvalidGroup: no members, or one of them twice.
    """

    key: str
    place: Place
    members: tuple[AcceptorId, ...]
    settled: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        _check_members(self.members)


@dataclass(frozen=True, slots=True, order=True)
class Fence:
    """A token that grows whenever another proposer leads: who holds a lower one is obeyed no more."""

    place: Place
    ballot: Ballot


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a register holds.

    Attributes:
        generation, epoch: the place it belongs to.
        members: the acceptors of this epoch, in the order in which they stand for leader.
        sealed_to: the members of the next epoch, empty while this one is open.
        terminal: the payload absorbs every further change.
        payload: opaque here; its owner knows its form.

    Raises:
        InvalidGroup: no members, or one of them twice.
    """

    generation: int
    epoch: int
    members: tuple[AcceptorId, ...]
    sealed_to: tuple[AcceptorId, ...] = ()
    terminal: bool = False
    payload: bytes = b""

    def __post_init__(self) -> None:
        _check_members(self.members)
        if self.sealed_to:
            _check_members(self.sealed_to)

    @property
    def place(self) -> Place:
        """The generation and epoch."""
        return Place(self.generation, self.epoch)

    @property
    def sealed(self) -> bool:
        """Whether this epoch is over."""
        return bool(self.sealed_to)


def _check_members(members: Sequence[AcceptorId]) -> None:
    if not members:
        raise InvalidGroup("a register needs at least one member")
    if len(set(members)) != len(members):
        raise InvalidGroup(f"a register's members must be distinct, not {members}")


Change = Callable[[Record], bytes]
"""From a record to its next payload; pure.

It may meet a record that bears its own effect already, and must then leave it as it is.
"""


def majority(members: Sequence[AcceptorId]) -> int:
    """Return how many of these members decide."""
    return len(members) // 2 + 1


def derive(record: Record, change: Change, absorbs: Callable[[bytes], bool]) -> Record:
    """Return the record after a change: the only way in which payloads come to be.

    Args:
        record: what the register holds.
        change: what is wanted.
        absorbs: whether a payload is terminal.
    """
    if record.sealed or record.terminal:
        return record
    payload = change(record)
    return replace(record, payload=payload, terminal=absorbs(payload))


def seal(record: Record, members: Sequence[AcceptorId]) -> Record:
    """Return the record that ends this epoch in favour of `members`; a sealed one stays as it is."""
    return record if record.sealed else replace(record, sealed_to=tuple(members))


def successor(sealed: Record) -> Record:
    """Return the record that the next epoch is born with."""
    assert sealed.sealed, "only a sealed record has a successor"
    return replace(sealed, epoch=sealed.epoch + 1, members=sealed.sealed_to, sealed_to=())


SMALLEST_GROUP = 3


def next_group(
    members: Sequence[AcceptorId], alive: Sequence[AcceptorId], size: int
) -> tuple[AcceptorId, ...] | None:
    """Say to whom an epoch should be sealed, or None if its group is as good as it can be.

    Living members stay, in their order, and the first living others fill up. Where too few are alive for
    `size`, the group is the largest odd number that is, since an even one survives no loss more than the odd
    one below it. It never shrinks below three (or `size`, if that is less): of a group of three, two go on,
    and both hold the record, whereas a group of one would trust a single disk without surviving anything more
    for it.

    Args:
        members: of the present epoch.
        alive: all acceptors believed alive, in the order of the key's owners in the ring.
        size: how many there should be; odd.
    """
    staying = [member for member in members if member in alive]
    if len(staying) == len(members) == size:
        return None
    joining = [acceptor for acceptor in alive if acceptor not in members]
    available = staying + joining
    count = min(size, len(available))
    count -= 1 - count % 2
    if count < min(size, SMALLEST_GROUP):
        return None
    chosen = tuple(available[:count])
    if len(staying) == len(members) and count <= len(members):
        return None  # all alive, and no more to be had
    return chosen
