"""Named locks in a faulty world: peers with tasks, keepers that come and go, one register between them.

The register here is the ideal one: it chooses one change after another, as `register_history` shows of the
real one. What it keeps of the real one is the doubt: a keeper may never hear what became of its change, and
such a change may be applied later, or twice. Messages are lost, doubled and late; peers crash, are cut off,
and are held for dead while they live; a deposed leader goes on keeping for a while.

What is checked, whenever something happens: tokens of a lock only grow; a task is told a token only after
the register chose it for that very task; and when two tasks believe that they hold one lock, the one with
the lower token has been struck off (so what the lock guards refuses it). And in the end, some time after
the last fault: whoever wants a lock has got it, and nobody is left in the table.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random

from mapreduce.config import JobsConfig
from mapreduce.lock_claims import ClaimsEffect, LockClaims
from mapreduce.lock_keeper import KeeperEffect, LockKeeper
from mapreduce.locking import (
    AmendLocks,
    HasLocks,
    LockDenied,
    LockGranted,
    LockLost,
    SayLocks,
    WantLocks,
    lock_key_of,
)
from membership.locks import LockTable, amend, locks_in
from membership.register import AcceptorId, Change, Record
from membership.view import NodeId
from tools.simulation.world import Violation

__all__ = ["FAULTS", "LockWorld"]

JOB = "0" * 32
PHASE_S = 20.0
PROBE_AFTER_S = 15.0
HEALING_LIMIT_S = 30.0
CONFIG = JobsConfig(lock_wait_s=15.0)
FAULTS = ("another leader", "crash", "cut off", "held for dead", "message lost", "doubt what was chosen")
MEMBERS = (AcceptorId(NodeId("n0"), "d"),)


@dataclass(slots=True, eq=False)
class Task:
    """A task that wants, holds, or has let go of one lock."""

    peer: Peer
    attempt: int
    lock: str
    token: int = 0
    is_over: bool = False


@dataclass(slots=True, eq=False)
class Peer:
    """A node; `claims` is new in each of its lives."""

    name: NodeId
    session: int
    claims: LockClaims
    keeper: Keeping | None = None  # whom it holds for the leader
    cut_until: float = 0.0
    tasks: dict[int, Task] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Keeping:
    """A leadership's keeper; `change` counts its proposals."""

    keeper: LockKeeper
    change: int = 0
    is_over: bool = False


class LockWorld:
    """One seed.

    Args:
        seed: decides everything.
        keeper_type: what to run; plants are subclasses.
        note: takes a line about everything that happens, for who replays a seed.

    Attributes:
        granted, lost: how many locks tasks were given, and how many were taken from the living.
        fired: which misfortunes really happened, and how often.
    """

    def __init__(
        self,
        seed: int,
        *,
        keeper_type: type[LockKeeper] = LockKeeper,
        note: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._rng = Random(seed)
        self._keeper_type = keeper_type
        self._note = note
        self.fired: Counter[str] = Counter()
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._record = Record(generation=0, epoch=0, members=MEMBERS)
        self._chosen: dict[int, tuple[str, str]] = {}  # token -> lock, claimant
        self._loss = self._rng.choice([0.0, 0.05, 0.3])
        self._doubt = self._rng.choice([0.0, 0.1, 0.4])
        self._lies = self._rng.choice([0.0, 0.3])
        self.peers = [self._born(NodeId(f"n{number}")) for number in range(self._rng.randint(2, 5))]
        self.locks = ["a", "b"][: self._rng.randint(1, 2)]
        self._leading: Keeping | None = None
        self.granted = 0
        self.lost = 0

    def run(self) -> None:
        """Run to the end.

        Raises:
            Violation: what must not be.
        """
        self._elect()
        for peer in self.peers:
            for _ in range(self._rng.randint(1, 3)):
                self._later(0.3, partial(self._begin, peer))
        self._later(1.0, self._fault)
        self._tick()
        heapq.heappush(self._events, (PHASE_S + PROBE_AFTER_S, self._count, self._probe))
        while self._events and self.now < PHASE_S + HEALING_LIMIT_S:
            self.now, _, action = heapq.heappop(self._events)
            action()
        left = [task for peer in self.peers for task in peer.tasks.values()]
        if left:
            raise Violation(f"{len(left)} tasks still wait for a lock, or hold it")
        if self._table.locks:
            raise Violation(f"locks without tasks are left: {self._table.locks}")

    # ------------------------------------------------------------------ time and chance

    def _later(self, mean_s: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + self._rng.expovariate(1 / mean_s), self._count, action))

    @property
    def _healed(self) -> bool:
        return self.now >= PHASE_S

    def _chance(self, chance: float) -> bool:
        return not self._healed and self._rng.random() < chance

    def _tick(self) -> None:
        for peer in self.peers:
            if peer.claims.next_deadline() <= self.now:
                self._perform(peer, peer.claims.tick(self.now))
        for keeping in self._keepings():
            if keeping.keeper.next_deadline() <= self.now:
                self._keep(keeping, keeping.keeper.tick(self.now))
        self._later(0.1, self._tick)

    def _keepings(self) -> Iterator[Keeping]:
        known = [self._leading, *(peer.keeper for peer in self.peers)]
        for keeping in dict.fromkeys(known):
            if keeping is not None and not keeping.is_over:
                yield keeping

    # ------------------------------------------------------------------ faults

    def _fault(self) -> None:
        if self._healed:
            return
        peer = self._rng.choice(self.peers)
        match self._rng.randrange(4):
            case 0:
                self._hurts("another leader")
                self._elect()
            case 1:
                self._hurts("crash", peer)
                self._crash(peer)
            case 2:
                self._hurts("cut off", peer)
                peer.cut_until = self.now + self._rng.uniform(0.5, 8.0)
            case 3 if self._rng.random() < self._lies:
                self._hurts("held for dead", peer)
                self._accuse(peer.name)
        self._later(1.0, self._fault)

    def _hurts(self, fault: str, peer: Peer | None = None) -> None:
        self.fired[fault] += 1
        self._say(f"{fault} {peer.name if peer is not None else ''}".rstrip())

    def _say(self, text: str) -> None:
        self._note(f"{self.now:8.3f}  {text}")

    def _elect(self) -> None:
        """Somebody else leads; the one before notices later, and so do the peers."""
        former = self._leading
        leading = self._leading = Keeping(self._keeper_type(job=JOB, config=CONFIG))
        self._keep(leading, leading.keeper.start())
        for peer in self.peers:
            self._later(0.5, partial(self._look_up, peer))
        if former is not None:
            self._later(2.0, lambda: setattr(former, "is_over", True))

    def _look_up(self, peer: Peer) -> None:
        peer.keeper = self._leading

    def _crash(self, peer: Peer) -> None:
        for task in peer.tasks.values():
            task.is_over = True
        born = self._born(peer.name, peer.session + 1)
        self.peers[self.peers.index(peer)] = born
        born.keeper = self._leading
        self._later(0.5, lambda: self._accuse(peer.name))
        self._later(0.5, lambda: self._begin(born))

    def _accuse(self, name: NodeId) -> None:
        for keeping in self._keepings():
            self._keep(keeping, keeping.keeper.peer_is_gone(name, self.now))

    def _born(self, name: NodeId, session: int = 1) -> Peer:
        return Peer(name, session, LockClaims(session=session, config=CONFIG))

    # ------------------------------------------------------------------ tasks

    def _begin(self, peer: Peer) -> None:
        if not self._healed and peer in self.peers:
            self._want(peer, self._rng.choice(self.locks))

    def _probe(self) -> None:
        """Want every lock once more: a change that came late may have left somebody in the table."""
        for lock in self.locks:
            self._want(self.peers[0], lock)

    def _want(self, peer: Peer, lock: str) -> None:
        self._count += 1
        task = Task(peer, self._count, lock)
        peer.tasks[task.attempt] = task
        self._say(f"{peer.name} task {task.attempt} wants {lock}")
        self._perform(peer, peer.claims.want(JOB, task.attempt, 1, task.lock, self.now))

    def _end(self, task: Task) -> None:
        if task.is_over or task.peer not in self.peers:
            return
        task.is_over = True
        self._say(f"{task.peer.name} task {task.attempt} is over")
        del task.peer.tasks[task.attempt]
        self._perform(task.peer, task.peer.claims.attempt_ended(JOB, task.attempt, self.now))
        self._later(0.3, lambda: self._begin(task.peer))

    def _perform(self, peer: Peer, effects: list[ClaimsEffect]) -> None:
        for effect in effects:
            match effect:
                case SayLocks(message=message):
                    if peer.keeper is not None:
                        self._send(peer, partial(self._heard, peer.keeper, message, peer.name))
                case LockGranted(attempt=attempt, token=token):
                    self._grant(peer.tasks[attempt], token)
                case LockDenied(attempt=attempt):
                    self._end(peer.tasks[attempt])
                case LockLost(attempt=attempt):
                    self.lost += 1
                    self._end(peer.tasks[attempt])

    def _grant(self, task: Task, token: int) -> None:
        self.granted += 1
        self._say(f"{task.peer.name} task {task.attempt} is told token {token} of {task.lock}")
        lock, claimant = self._chosen.get(token, ("", ""))
        its_own = f"{task.peer.name}/{task.peer.session}/"
        if lock != lock_key_of(task.lock) or not claimant.startswith(its_own):
            raise Violation(f"{task.peer.name} was told token {token}, which was not chosen for it")
        task.token = token
        holders = self._table.tokens()
        for peer in self.peers:
            for other in peer.tasks.values():
                if other is task or other.lock != task.lock or not other.token:
                    continue
                lower = min(other.token, token)
                if other.token == token or lower in holders.values():
                    raise Violation(f"tokens {other.token} and {token} both hold the lock {task.lock!r}")
        hold_s = 0.05 if self._healed else self._rng.choice([0.05, 0.5, 2.0])
        self._later(hold_s, lambda: self._end(task))

    # ------------------------------------------------------------------ messages, register

    def _heard(self, keeping: Keeping, message: WantLocks, sender: NodeId) -> None:
        if not keeping.is_over:
            self._keep(keeping, keeping.keeper.receive(message, sender, self.now))

    def _answered(self, peer: Peer, message: HasLocks) -> None:
        if peer in self.peers:
            self._perform(peer, peer.claims.receive(message))

    def _send(self, peer: Peer, deliver: Callable[[], None]) -> None:
        if self.now < peer.cut_until and not self._healed:
            return
        for _ in range(1 + self._chance(self._loss)):
            if self._chance(self._loss):
                self.fired["message lost"] += 1
            else:
                self._later(self._rng.choice([0.005, 0.005, 0.5]), deliver)

    def _keep(self, keeping: Keeping, effects: list[KeeperEffect]) -> None:
        for effect in effects:
            if isinstance(effect, AmendLocks):
                keeping.change += 1
                self._propose(keeping, keeping.change, amend(effect.claims, effect.releases))
                continue
            for peer in self.peers:
                if peer.name == effect.to:
                    self._send(peer, partial(self._answered, peer, effect.message))

    def _propose(self, keeping: Keeping, number: int, change: Change) -> None:
        if not self._chance(self._doubt):
            self._later(0.01, lambda: self._choose(change, keeping, number))
            return
        self.fired["doubt what was chosen"] += 1
        for _ in range(self._rng.randrange(3)):  # perhaps never, perhaps twice
            self._later(1.0, lambda: self._choose(change))
        self._later(0.5, lambda: None if keeping.is_over else self._keep_failed(keeping))

    def _keep_failed(self, keeping: Keeping) -> None:
        self._keep(keeping, keeping.keeper.on_failed(self.now))

    @property
    def _table(self) -> LockTable:
        return locks_in(self._record)

    def _choose(self, change: Change, keeping: Keeping | None = None, number: int = 0) -> None:
        """The register chooses a change, and perhaps tells its proposer."""
        before = self._table
        self._record = Record(generation=0, epoch=0, members=MEMBERS, payload=change(self._record))
        after = self._table
        if after != before:
            queues = [f"{name[:6]} {lock.token}: {' '.join(lock.claimants)}" for name, lock in after.locks]
            self._say(f"chosen: {', '.join(queues) or 'nobody holds or wants anything'}")
        for name, lock in after.locks:
            if self._chosen.setdefault(lock.token, (name, lock.holder)) != (name, lock.holder):
                raise Violation(f"token {lock.token} was given out twice")
            held = before.get(name)
            if (held is None or held.holder != lock.holder) and lock.token <= before.last_token:
                raise Violation(f"token {lock.token} is no higher than those before it")
        if keeping is not None and not keeping.is_over and keeping.change == number:
            self._keep(keeping, keeping.keeper.on_chosen(after, self.now))
