"""The keeper of one job's locks, at the side of its leader: the side of `mapreduce.locking` that writes.

Theory of operation ------------------- The keeper knows three things: the table that the register chose
last, what each peer last said that it claims, and until when each claimant's lease runs. Whenever no change
is under way it compares them and proposes what is missing, all in one change:

==========================================  ============================================================
a claimant                                  what is proposed
==========================================  ============================================================
is claimed, waits, and is not in the table  it queues
is claimed with a token that is not its     nothing: it lost its lock, and is told so
own in the table
is claimed with a token above all that the  a look, we have missed something; the next one only after
table knows of                              `retry_s` where it is still above
is in the table, and its peer has since     it is struck off
said a list without it
is in the table, and its lease is over      it is struck off, and its peer's list is forgotten
is in the table, and its peer is gone       the same
==========================================  ============================================================

It begins by reading the table; everybody found in it gets a lease, since the keeper before may have heard
of them a moment ago. Two keepers at once (a leader that does not know yet that it was deposed) amend one
register and so agree on every holder; at worst they strike off each other's claimants, who are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from mapreduce.config import JobsConfig
from mapreduce.locking import AmendLocks, HasLocks, HeldLock, LockClaim, TellLocks, WantLocks
from membership.locks import LockTable
from membership.view import NodeId

__all__ = ["KeeperEffect", "LockKeeper"]

KeeperEffect = AmendLocks | TellLocks


@dataclass(slots=True)
class _Peer:
    """What a peer said last, by claimant."""

    session: int
    number: int
    claims: dict[str, LockClaim]


class LockKeeper:
    """The locks of one job under one leadership.

    Args:
        job: its id.
        config: `lock_lease_s`, `retry_s`.
    """

    def __init__(self, *, job: str, config: JobsConfig) -> None:
        self._job = job
        self._config = config
        self._table: LockTable | None = None
        self._peers: dict[NodeId, _Peer] = {}
        self._leases: dict[str, float] = {}
        self._is_busy = False  # a change is under way
        self._proposed: tuple[tuple[str, str], ...] = ()
        self._retry_at = inf
        self._full_until = -inf  # the table took no more claimants
        self._looked_until = -inf  # a look did not bring what a claimant says that it holds

    def start(self) -> list[KeeperEffect]:
        """Read the table."""
        self._is_busy = True
        return [AmendLocks()]

    def receive(self, message: WantLocks, sender: NodeId, now: float) -> list[KeeperEffect]:
        """Take a peer's list.

        Args:
            message: the list.
            sender: who says it, as the connection has authenticated it.
            now: in seconds.
        """
        known = self._peers.get(sender)
        if known is not None and (message.session, message.number) <= (known.session, known.number):
            return []
        claims = {_claimant(sender, message.session, claim.serial): claim for claim in message.claims}
        self._peers[sender] = _Peer(message.session, message.number, claims)
        for claimant in claims:
            self._leases[claimant] = now + self._config.lock_lease_s
        return [*self._tell([sender]), *self._amend(now)]

    def peer_is_gone(self, node: NodeId, now: float) -> list[KeeperEffect]:
        """Membership says that a peer is dead or has left."""
        self._peers.pop(node, None)
        for claimant in self._known():
            if _node_of(claimant) == node:
                self._leases[claimant] = now
        return self._amend(now)

    def on_chosen(self, table: LockTable, now: float) -> list[KeeperEffect]:
        """The change is chosen; this is the table after it."""
        before = frozenset() if self._table is None else frozenset(self._table.tokens().items())
        self._table, self._is_busy, self._retry_at = table, False, inf
        claimants = frozenset(table.claimants())
        if any(claimant not in claimants for _, claimant in self._proposed):
            self._full_until = now + self._config.retry_s
        self._proposed = ()
        for claimant in claimants:
            self._leases.setdefault(claimant, now + self._config.lock_lease_s)
        if self._has_missed(table):
            self._looked_until = now + self._config.retry_s
        listed = {claimant for peer in self._peers.values() for claimant in peer.claims}
        for claimant in [one for one in self._leases if one not in claimants and one not in listed]:
            del self._leases[claimant]
        new = [claimant for claimant, token in table.tokens().items() if (claimant, token) not in before]
        told = [node for node in self._peers if any(_node_of(claimant) == node for claimant in new)]
        return [*self._tell(told), *self._amend(now)]

    def on_failed(self, now: float) -> list[KeeperEffect]:
        """Nobody knows whether the change was chosen: look again, a little later."""
        self._table, self._is_busy = None, False
        self._retry_at = now + self._config.retry_s
        return []

    def tick(self, now: float) -> list[KeeperEffect]:
        """Do what is due."""
        if self._table is None and not self._is_busy and self._retry_at <= now:
            self._retry_at = inf
            return self.start()
        return self._amend(now)

    def next_deadline(self) -> float:
        """When to be ticked again (seconds)."""
        if self._is_busy:
            return inf
        if self._table is None:
            return self._retry_at  # until the table is read, nothing else can be done, however long it is due
        again = [until for until in (self._full_until, self._looked_until) if until > -inf]
        return min(self._retry_at, *again, min(self._leases.values(), default=inf))

    # -- inside ----------------------------------------------------------------------------------------------

    def _known(self) -> list[str]:
        return [] if self._table is None else list(self._table.claimants())

    def _amend(self, now: float) -> list[KeeperEffect]:
        """Propose what makes the table say what the peers say."""
        if self._is_busy or self._table is None:
            return []
        for claimant in [one for one, until in self._leases.items() if until <= now]:
            del self._leases[claimant]
            peer = self._peers.get(_node_of(claimant))
            if peer is not None and claimant in peer.claims:
                del self._peers[_node_of(claimant)]
        known = self._known()
        releases = [claimant for claimant in known if self._is_over(claimant)]
        there = frozenset(known)
        listed = [pair for peer in self._peers.values() for pair in peer.claims.items()]
        claims: list[tuple[str, str]] = []
        if self._full_until <= now:
            self._full_until = -inf
            claims = [(claim.lock, one) for one, claim in listed if one not in there and not claim.token]
        has_missed = False
        if self._looked_until <= now:
            self._looked_until = -inf
            has_missed = self._has_missed(self._table)
        if not releases and not claims and not has_missed:
            return []
        self._is_busy, self._proposed = True, tuple(claims)
        return [AmendLocks(claims=tuple(claims), releases=tuple(releases))]

    def _has_missed(self, table: LockTable) -> bool:
        """Whether somebody holds a token that the table has never given out."""
        claims = (claim for peer in self._peers.values() for claim in peer.claims.values())
        return any(claim.token > table.last_token for claim in claims)

    def _is_over(self, claimant: str) -> bool:
        peer = self._peers.get(_node_of(claimant))
        return claimant not in self._leases or (peer is not None and claimant not in peer.claims)

    def _tell(self, nodes: list[NodeId]) -> list[KeeperEffect]:
        """Say to peers what their claims have come to."""
        if self._table is None:
            return []
        tokens, last_token = self._table.tokens(), self._table.last_token
        out: list[KeeperEffect] = []
        for node in nodes:
            peer = self._peers[node]
            held = [
                HeldLock(serial=claim.serial, token=tokens[claimant])
                for claimant, claim in peer.claims.items()
                if claimant in tokens and claim.token in (0, tokens[claimant])
            ]
            lost = [
                claim.serial
                for claimant, claim in peer.claims.items()
                if 0 < claim.token <= last_token and tokens.get(claimant) != claim.token
            ]
            if held or lost:
                answer = HasLocks(job=self._job, session=peer.session, held=tuple(held), lost=tuple(lost))
                out.append(TellLocks(node, answer))
        return out


def _claimant(node: NodeId, session: int, serial: int) -> str:
    return f"{node}/{session}/{serial}"


def _node_of(claimant: str) -> NodeId:
    return NodeId(claimant.rpartition("/")[0].rpartition("/")[0])
