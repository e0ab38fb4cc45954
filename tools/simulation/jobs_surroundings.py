"""What surrounds leaders and workers in the simulated swarm: membership and the register, without their cost.

`Watch` stands for membership: each running node learns after a while which others it can reach, as SWIM would
tell it, wrongly where links or pauses deceive it.  `HonestRegister` stands for a job's register with its
election: a value that changes one proposal at a time, by a node that leads and reaches a majority of the
members; it elects another when that node is silent, sometimes without reason, and lets two believe that they
lead.  Both are honest: they keep exactly the promises of `membership.swim` and `membership.register`, whose
own worlds test those.  What they spare is most of the messages, so that thousands of seeds can be run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from mapreduce.changes import Proposal, apply
from mapreduce.record import JobRecord
from membership.view import Member, NodeId, Status, View
from tools.simulation.network import Network
from tools.simulation.node import Node
from tools.simulation.world import World

__all__ = ["HonestRegister", "Leading", "Watch", "WatchedNetwork", "session_of"]

PERIOD_S = 0.25
WATCH_PERIOD_S = 0.5
PATIENCE_S = 0.8
REPLACE_AFTER_S = 4.0
SESSION_AT_START = 1_000


def session_of(node: Node) -> int:
    """Return the session of a node's present process: what membership and the process itself say of it."""
    return SESSION_AT_START + node.boots


class WatchedNetwork(Network):
    """A network that can be asked whether a link passes anything."""

    def passes(self, source: Node, target: Node) -> bool:
        """Whether a datagram could arrive, were it not for bad luck."""
        link = (source.address, target.address)
        if self._cuts[link]:
            return False
        return not any((link[0] in side) != (link[1] in side) for side in self._partitions)


class Watch:
    """Tells every node who is here, late and sometimes wrongly.

    Args:
        world: with a `WatchedNetwork`.
        random: draws how long each node takes to notice.
        tell: called with (node, its new view).
        slots: of every node.
    """

    def __init__(self, world: World, random: Random, tell: Callable[[Node, View], None], slots: int) -> None:
        self._world = world
        self._tell = tell
        self._slots = slots
        self._notice_s = {n.name: random.uniform(1.0, 2.5) for n in world.nodes}
        self._reached: dict[tuple[str, str], float] = {}
        self._status: dict[tuple[str, str], tuple[Status, int, int]] = {}
        self._told: dict[str, tuple[int, tuple[Member, ...]]] = {}
        self._versions = 0
        self.flags: dict[str, tuple[tuple[str, str], ...]] = {}
        for observer in world.nodes:
            for target in world.nodes:
                self._reached[observer.name, target.name] = world.now

    def begin(self) -> None:
        """Watch from now on."""
        self._turn()

    def view_of(self, observer: Node) -> View:
        """What a node believes now."""
        return View.of([self._member(observer, target) for target in self._world.nodes], self._versions)

    def believes_here(self, observer: Node, target: Node) -> bool:
        """Whether a node holds another one for alive."""
        return self._member(observer, target).status.in_ring

    def reached_at(self, observer: Node, target: Node) -> float:
        """When one last reached the other, in world time."""
        return self._reached[observer.name, target.name]

    def _turn(self) -> None:
        network = self._world.network
        assert isinstance(network, WatchedNetwork)
        for observer in self._world.nodes:
            if not observer.running:
                continue
            for target in self._world.nodes:
                both = network.passes(observer, target) and network.passes(target, observer)
                if target is observer or (target.running and both):
                    self._reached[observer.name, target.name] = self._world.now
            members = tuple(self._member(observer, target) for target in self._world.nodes)
            if self._told.get(observer.name) != (observer.boots, members):
                self._told[observer.name] = observer.boots, members
                self._versions += 1
                self._tell(observer, View.of(members, self._versions))
        self._world.at(self._world.now + WATCH_PERIOD_S, self._turn)

    def _member(self, observer: Node, target: Node) -> Member:
        silent_s = self._world.now - self._reached[observer.name, target.name]
        notice_s = self._notice_s[observer.name]
        status = Status.ALIVE
        if target is observer:
            status = Status.ALIVE
        elif target.boots == 0 or silent_s > notice_s:
            status = Status.DEAD
        elif silent_s > notice_s / 2:
            status = Status.SUSPECT
        key = observer.name, target.name
        before, incarnation, boots = self._status.get(key, (status, 1, 0))
        # Back from the dead, or another process: a higher incarnation, as the owner would outbid.
        if (before is Status.DEAD and status is Status.ALIVE) or boots != target.boots:
            incarnation += 1
        self._status[key] = status, incarnation, target.boots
        return Member(
            id=NodeId(target.name),
            address=target.address,
            incarnation=incarnation,
            status=status,
            slots=self._slots,
            session=session_of(target),
            meta=self.flags.get(target.name, ()),
        )


class Leading(Protocol):
    """What the register needs of a node's process."""

    def lead(self, job: str, record: JobRecord, token: str, members: tuple[NodeId, ...]) -> None:
        """It has been elected, and has read the record."""

    def depose(self, job: str, token: str) -> None:
        """It was outbid."""

    def chosen(self, job: str, token: str, record: JobRecord) -> None:
        """Its proposal was chosen."""

    def quorum(self, job: str, token: str, missing: tuple[NodeId, ...]) -> None:
        """Its register lacks a majority, or has one again."""


@dataclass(slots=True)
class HonestRegister:
    """One job's register and election.

    Args:
        world: with a `WatchedNetwork`.
        random: draws latencies and caprices.
        job: its id.
        record: the first.
        members: the group.
        call: performs an action with a node's process, in its own time, if that process still lives.
        caprice: how likely somebody else is elected in a period, without reason,
        caprice_until: before this world time.
        on_chosen: called with (before, after, proposal) of each chosen proposal.
        leaves: whether a node is about to go for good.
        apply: `mapreduce.changes.apply`, or what a test plants in its place.
    """

    world: World
    random: Random
    job: str
    record: JobRecord
    members: list[Node]
    call: Callable[[Node, int, Callable[[Leading], None]], None]
    caprice: float
    caprice_until: float
    on_chosen: Callable[[JobRecord, JobRecord, Proposal], None]
    leaves: Callable[[Node], bool]
    apply: Callable[[JobRecord, Proposal], JobRecord] = apply
    leader: Node | None = None
    leader_boot: int = 0
    token: str = ""
    is_over: bool = False
    elections: int = 0
    uncertain: int = 0
    proposed_at: float = 0.0
    _silent_since: float = 0.0
    _down_since: dict[str, float] = field(default_factory=dict)
    _elected: list[tuple[Node, int, str]] = field(default_factory=list)

    def begin(self) -> None:
        """Elect the first leader."""
        self._elect(self.members[0])
        self.world.at(self.world.now + PERIOD_S, self._turn)

    def propose(self, node: Node, boot: int, token: str, proposal: Proposal) -> None:
        """A leader proposes; the answer comes later, or never."""
        self.proposed_at = self.world.now
        later = self.world.now + self.random.choice([0.001, 0.005, 0.05])
        self.world.at(later, lambda: self._decide(node, boot, token, proposal, told=False))

    def _decide(self, node: Node, boot: int, token: str, proposal: Proposal, *, told: bool) -> None:
        if node.boots != boot or node.process is None:
            return
        if not node.running:
            self._again(node, boot, token, proposal, told=told)
            return
        missing = self._missing(node)
        if missing:
            if not told:
                self.call(node, boot, lambda process: process.quorum(self.job, token, missing))
            self._again(node, boot, token, proposal, told=True)
            return
        if told:
            self.call(node, boot, lambda process: process.quorum(self.job, token, ()))
        if token != self.token:
            self._depose(node, boot, token)
            return
        before, self.record = self.record, self.apply(self.record, proposal)
        self.on_chosen(before, self.record, proposal)
        if self.random.random() < 0.1:
            # The answer was lost: whoever proposed does it again, and may have been applied twice.
            self.uncertain += 1
            self._again(node, boot, token, proposal, told=False)
            return
        record = self.record
        self.call(node, boot, lambda process: process.chosen(self.job, token, record))

    def _again(self, node: Node, boot: int, token: str, proposal: Proposal, *, told: bool) -> None:
        later = self.world.now + self.random.uniform(0.05, 0.3)
        self.world.at(later, lambda: self._decide(node, boot, token, proposal, told=told))

    def _missing(self, node: Node) -> tuple[NodeId, ...]:
        """The members that a node does not reach, if they are too many."""
        silent = [m for m in self.members if not self._reaches(node, m)]
        if 2 * len(silent) < len(self.members):
            return ()
        return tuple([NodeId(member.name) for member in silent])

    def _reaches(self, node: Node, member: Node) -> bool:
        network = self.world.network
        assert isinstance(network, WatchedNetwork)
        if not node.running or not member.running:
            return False
        return node is member or (network.passes(node, member) and network.passes(member, node))

    def _turn(self) -> None:
        """Heal the group, and elect where it is time."""
        now = self.world.now
        self.world.at(now + PERIOD_S, self._turn)
        for node in self.world.nodes:
            if node.running:
                self._down_since.pop(node.name, None)
            else:
                self._down_since.setdefault(node.name, now)
        self._heal()
        self._tell_the_deposed()
        leader = self.leader
        well = leader is not None and leader.boots == self.leader_boot and not self._missing(leader)
        if well and leader is not None and leader.running:
            self._silent_since = now
        fickle = now < self.caprice_until and self.random.random() < self.caprice
        if self.is_over or (fickle and self.record.status.is_final):
            return  # whoever led last has told everybody, and the record stays as it is
        if now - self._silent_since > PATIENCE_S or fickle:
            able = [m for m in self.members if m.running and not self._missing(m)]
            others = [m for m in able if m is not leader] or able
            if others:
                self._elect(others[0] if not fickle else self.random.choice(others))

    def _tell_the_deposed(self) -> None:
        """Who led before and reaches a majority hears that it does not lead any more."""
        for node, boot, token in list(self._elected):
            if node.boots != boot:
                self._elected.remove((node, boot, token))
            elif token != self.token and node.running and not self._missing(node):
                self._elected.remove((node, boot, token))
                self._depose(node, boot, token)

    def _depose(self, node: Node, boot: int, token: str) -> None:
        self.call(node, boot, lambda process: process.depose(self.job, token))

    def _heal(self) -> None:
        """Replace a member that has been down for long, where the others are a majority."""
        for index, member in enumerate(self.members):
            down_s = self.world.now - self._down_since.get(member.name, self.world.now)
            spare = [
                n for n in self.world.nodes if n.running and n not in self.members and not self.leaves(n)
            ]
            able = any(not self._missing(other) for other in self.members if other.running)
            if (down_s > REPLACE_AFTER_S or self.leaves(member)) and spare and able:
                self.members[index] = spare[0]
                return

    def _elect(self, node: Node) -> None:
        self.elections += 1
        self.token = f"{self.elections}.{node.name}.{node.boots}"
        self.leader, self.leader_boot = node, node.boots
        self._silent_since = self.world.now
        self._elected.append((node, node.boots, self.token))
        record, token = self.record, self.token
        members = tuple([NodeId(member.name) for member in self.members])
        self.call(node, node.boots, lambda process: process.lead(self.job, record, token, members))
