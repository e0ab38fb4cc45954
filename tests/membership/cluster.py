"""A few real machines, a clock that the test turns, and a network that does as it is told.

Everything is a function of the seed: latencies, losses and the machines' own choices come from generators
derived from it.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from membership.config import LAN, SwimConfig
from membership.effects import Announce, Effect, Event, Persist, Send
from membership.messages import Message
from membership.swim import Swim
from membership.table import MemberTable
from membership.view import Member, NodeId, Status


def node(number: int) -> NodeId:
    """The id of the number-th node."""
    return NodeId(f"n{number:02d}")


def record(number: int, **changes: object) -> Member:
    """The record of the number-th node."""
    base = Member(id=node(number), address=f"10.0.0.{number}:7000", incarnation=1, session=1)
    return replace(base, **changes)  # type: ignore[arg-type]


@dataclass
class Host:
    """One process: its machine, and whether it runs, stands still, or is gone."""

    swim: Swim
    address: str
    running: bool = True
    paused: bool = False
    persisted: tuple[int, int] = (0, 0)
    inbox: list[tuple[str, NodeId, str, Message]] = field(default_factory=list)


class Cluster:
    """Machines and the network between them.

    Args:
        count: so many nodes n00, n01, … start knowing each other; 0 for an empty cluster.
        config: of all of them.
        seed: of everything random.
        latency_s: of each message, plus up to as much again.
        loss: the part of all messages that vanish.
    """

    def __init__(
        self,
        count: int = 0,
        *,
        config: SwimConfig = LAN,
        seed: int = 1,
        latency_s: float = 0.001,
        loss: float = 0.0,
    ) -> None:
        self.config = config
        self.seed = seed
        self.now = 0.0
        self.latency_s = latency_s
        self.loss = loss
        self.rng = random.Random(f"network {seed}")
        self.hosts: dict[NodeId, Host] = {}
        self.at: dict[str, Host] = {}
        self.events: list[tuple[float, NodeId, Event]] = []
        self.sent: Counter[str] = Counter()
        self.log: list[tuple[float, NodeId, str, Message]] = []
        self.cut: Callable[[str, str], bool] = lambda _from, _to: False
        self._flying: list[tuple[float, int, str, NodeId, str, Message]] = []
        self._count = 0
        base = MemberTable(record(number) for number in range(count))
        for number in range(count):
            self.add(record(number), known=base)

    # Processes.

    def add(self, me: Member, *, known: Iterable[Member] = (), seeds: Iterable[str] = ()) -> Swim:
        """Start a process. One with an id that already runs gets a place of its own by its address."""
        rng = random.Random(f"{me.id} {me.session} {self.seed}")
        swim = Swim(me=me, config=self.config, rng=rng, known=known, seeds=tuple(seeds))
        host = Host(swim, me.address)
        self.at[me.address] = host
        self.hosts[me.id] = host
        self.perform(host, swim.start(self.now))
        return swim

    def __getitem__(self, number: int) -> Swim:
        return self.hosts[node(number)].swim

    def kill(self, number: int) -> None:
        """SIGKILL."""
        self.hosts[node(number)].running = False

    def pause(self, number: int) -> None:
        """SIGSTOP: nothing is received or done, but messages pile up in the inbox."""
        self.hosts[node(number)].paused = True

    def resume(self, number: int) -> None:
        """SIGCONT: the shell ticks first, which is the harder case, then the inbox is read."""
        host = self.hosts[node(number)]
        host.paused = False
        for unread in host.inbox:
            heapq.heappush(self._flying, (self.now, self._count, *unread))
            self._count += 1
        host.inbox.clear()

    def restart(self, number: int, *, seeds: Iterable[str] = (), **changes: object) -> Swim:
        """Start a killed process again, as a shell would: with the persisted incarnation and session + 1."""
        host = self.hosts[node(number)]
        incarnation, session = host.persisted
        changes = {"incarnation": incarnation + 1, "session": session + 1, **changes}
        return self.add(replace(host.swim.me, status=Status.ALIVE, **changes), seeds=seeds)  # type: ignore[arg-type]

    # Time.

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.step(end):
            pass
        self.now = end

    def run_until(self, condition: Callable[[], bool], within: float) -> float:
        """Let time pass until the condition holds; return how long it took; fail after `within` seconds."""
        begin = self.now
        while not condition():
            assert self.step(begin + within), f"not within {within} s"
        return self.now - begin

    def step(self, end: float) -> bool:
        """Do the next thing that is due before `end`; return whether there was one."""
        due, host = end, None
        for candidate in self.at.values():
            deadline = candidate.swim.next_deadline()
            if candidate.running and not candidate.paused and deadline < due:
                due, host = deadline, candidate
        if self._flying and self._flying[0][0] <= due:
            arrival, _, source, sender, address, message = heapq.heappop(self._flying)
            if arrival >= end:
                heapq.heappush(self._flying, (arrival, self._count, source, sender, address, message))
                self._count += 1
                return False
            self.now = max(self.now, arrival)
            self._deliver(source, sender, address, message)
            return True
        if host is None:
            return False
        self.now = max(self.now, due)
        self.perform(host, host.swim.tick(self.now))
        return True

    # The network.

    def perform(self, host: Host, effects: Iterable[Effect]) -> None:
        """Do what a machine wants done."""
        me = host.swim.me.id
        for effect in effects:
            match effect:
                case Send(address, _, message):
                    self.sent[type(message).__name__] += 1
                    self.log.append((self.now, me, address, message))
                    if self.rng.random() >= self.loss and not self.cut(host.address, address):
                        arrival = self.now + self.latency_s * (1 + self.rng.random())
                        flight = (arrival, self._count, host.address, me, address, message)
                        self._count += 1
                        heapq.heappush(self._flying, flight)
                case Persist(incarnation, session):
                    host.persisted = (incarnation, session)
                case Announce(event):
                    self.events.append((self.now, me, event))

    def _deliver(self, source: str, sender: NodeId, address: str, message: Message) -> None:
        host = self.at.get(address)
        if host is None or not host.running:
            return
        if host.paused:
            host.inbox.append((source, sender, address, message))
            return
        self.perform(host, host.swim.receive(message, sender, self.now))

    # What to look at.

    def alive(self) -> list[Swim]:
        """The machines of running processes."""
        return [host.swim for host in self.at.values() if host.running and not host.swim.stopped]

    def status(self, of: int) -> set[Status | None]:
        """What the other running machines believe of a node."""
        return {
            None if (member := swim.get(node(of))) is None else member.status
            for swim in self.alive()
            if swim.me.id != node(of)
        }

    def agreed(self) -> bool:
        """Whether all running machines see the same ring, and everybody in it."""
        machines = self.alive()
        if len({swim.view.digest for swim in machines}) != 1:
            return False
        running = {swim.me.id for swim in machines}
        rings = [{member.id for member in swim.view.ring_members} for swim in machines]
        nobody_accused = all(len(swim.view.alive) == len(running) for swim in machines)
        return nobody_accused and all(ring == running for ring in rings)

    def announced(self, kind: type[Event]) -> list[tuple[float, NodeId, Event]]:
        """The events of one kind so far."""
        return [entry for entry in self.events if isinstance(entry[2], kind)]
