"""Swim in the deterministic world: its host, its invariants, and its agreement after healing.

What is checked after every step, on the node that took it:

* incarnations only grow, in every view and at their owner, and nobody else raises one;
* no resurrection: who was dead or gone at incarnation i in a view is never in the ring there at i or below;
* no accusation is forgotten: whoever heard one at incarnation i knows the accused at i or above from then on,
  also when it was dead already (``Dead@1``, ``Dead@10``, ``Alive@2`` resurrects nobody);
* one record: all views that know (id, incarnation, session) know the same address and the rest;
* a running process never sees itself as anything but alive, unless it is leaving;
* nobody is refused as a double of a process that does not run: in this world every id has one process at
most;
* views hold only ids that exist, and the queue of rumours no more than one for each.

And in the end: within ``healing_limit_s`` after the last fault, every view shows every running node alive
at its own incarnation, nobody else in the ring, and all digests are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random

from membership.config import LAN, LOCAL, SwimConfig
from membership.effects import Announce, ConflictingIdentity, Effect, Persist, Send
from membership.messages import Ack, Gossip, Ping, PingRequest, SyncState
from membership.swim import Swim
from membership.view import Member, NodeId, Status
from p2p.protocol import wire_format
from p2p.wire import Envelope, WireFormat
from tools.simulation.chance import child_random
from tools.simulation.faults import Nemesis, SwarmConfig, draw_swarm_config
from tools.simulation.kinds import Fault
from tools.simulation.network import Network
from tools.simulation.node import Node, NodeState
from tools.simulation.trace import Trace
from tools.simulation.world import ObjectCodec, Violation, World

__all__ = ["MembershipScenario", "SwimProcess", "WireCodec", "healing_limit_s", "membership_maker"]

WALL_CLOCK_AT_START_MS = 1_700_000_000_000
PHASE_IN_PERIODS = (25.0, 80.0)  # how long the faults last, in probe periods
MAX_STEPS = 60_000  # ten times what the busiest seed of a thousand needs: beyond it there is a storm
_WIRE = wire_format()


class SwimProcess:
    """One life of a peer that does nothing but membership."""

    def __init__(self, node: Node, swim: Swim, conflict: Callable[[Node, ConflictingIdentity], None]) -> None:
        self.swim = swim
        self.leaving = False
        self.heard: tuple[object, str] | None = None  # the message of this step, and its sender
        self._node = node
        self._conflict = conflict

    def start(self, now: float) -> list[Effect]:
        """See ``Process``."""
        return self.swim.start(now)

    def receive(self, message: object, sender: str, now: float) -> list[Effect]:
        """See ``Process``."""
        self.heard = message, sender
        return self.swim.receive(message, NodeId(sender), now)  # type: ignore[arg-type]  # as decoded

    def tick(self, now: float) -> list[Effect]:
        """See ``Process``."""
        self.heard = None
        return self.swim.tick(now)

    def next_deadline(self) -> float:
        """See ``Process``."""
        return self.swim.next_deadline()

    def lagged(self, lag_s: float, now: float) -> None:
        """See ``Process``."""
        self.swim.observe_lag(lag_s, now)

    def perform(self, effect: object) -> None:
        """Send, write, or take notice."""
        match effect:
            case Send(to_address, _, message):
                self._node.send_to(to_address, message)
            case Persist(incarnation, session):
                # Lazily, as its contract allows: a crash may lose it.
                self._node.disk.write("identity", (incarnation, session))
            case Announce(ConflictingIdentity() as conflict):
                self._conflict(self._node, conflict)
            case Announce():
                pass
            case _:
                raise AssertionError(f"membership returned {effect!r}")


class WireCodec:
    """The real frames: what the wire cannot carry, or refuses, is found here."""

    def __init__(self, wire: WireFormat = _WIRE) -> None:
        self._wire = wire

    def encode(self, message: object, sender: Node) -> bytes:
        """The frame that a peer would send."""
        process = sender.process
        assert isinstance(process, SwimProcess)
        return self._wire.encode(
            Envelope(
                cluster="simulated",
                ring_digest=process.swim.view.digest,
                sender=NodeId(sender.name),
                incarnation=process.swim.me.incarnation,
                message=message,
            )
        )

    def decode(self, payload: object) -> tuple[object, str]:
        """The message, checked against its schema, and its sender."""
        assert isinstance(payload, bytes)
        envelope = self._wire.decode(payload)
        return envelope.message, envelope.sender

    def fingerprint(self, payload: object) -> bytes:
        """The frame itself."""
        assert isinstance(payload, bytes)
        return payload

    def describe(self, payload: object) -> str:
        """The message in the frame."""
        return repr(self.decode(payload)[0])


def healing_limit_s(config: SwimConfig, nodes: int) -> float:
    """The stated virtual time, in seconds, within which ``nodes`` peers must agree after the last fault.

    The sum of everything that may have to happen one after the other, each at its slowest: every lost
    address is tried (one a ``reconnect_period_s``), notes are compared, every member is probed once by a
    prober in the worst health, and the last suspicion runs its full, unconfirmed time.
    """
    reconnect_s = nodes * config.reconnect_period_s
    probe_s = nodes * config.probe_period_s * (1 + config.awareness_max)
    suspicion_s = config.suspicion_max_mult * config.suspicion_min_s(nodes)
    return reconnect_s + config.sync_period_s + probe_s + suspicion_s


class MembershipScenario:
    """One seed of membership.

    Args:
        seed: decides everything.
        trace: where to record.
        nodes: how many; drawn from 3 to 9 where None.
        codec: whether messages pass through the real wire format.
        machine: what to run; tests plant faults by a subclass.
        menu: the faults that may be drawn.
    """

    def __init__(
        self,
        seed: int,
        trace: Trace,
        *,
        nodes: int | None = None,
        codec: bool = True,
        machine: type[Swim] = Swim,
        menu: Iterable[Fault] = tuple(Fault),
    ) -> None:
        draw = child_random(seed, "scenario")
        self.count = draw.randint(3, 9) if nodes is None else nodes
        self.profile_name, self.profile = _draw_profile(child_random(seed, "profile"))
        self.anchors = draw.randint(
            1, min(3, self.count)
        )  # seeds that every node knows; they never move or vanish
        period_s = self.profile.probe_period_s
        self.config: SwarmConfig = draw_swarm_config(
            seed, tuple(menu), (PHASE_IN_PERIODS[0] * period_s, PHASE_IN_PERIODS[1] * period_s)
        )
        self.world = World(
            seed,
            Network(child_random(seed, "network"), self.config.conditions),
            trace=trace,
            codec=WireCodec() if codec else ObjectCodec(),
            max_steps=MAX_STEPS,
        )
        self.world.checks.append(self._check)
        self.healing_limit_s = healing_limit_s(self.profile, self.count)
        self.settling_s = 2 * self.profile.probe_period_s
        self._machine = machine
        self._arrivals = child_random(seed, "arrivals")
        self._departures = child_random(seed, "departures")
        self._names = frozenset(f"n{index}" for index in range(self.count))
        self._invariants = Invariants(self._names)

    @property
    def title(self) -> str:
        """One line: what this seed drew."""
        return f"{self.count} nodes, {self.profile_name}, {self.anchors} seeds, {self.config.describe()}"

    def begin(self) -> Nemesis:
        """Boot the nodes over the first two periods."""
        world = self.world
        seeds = tuple(f"10.0.0.{index}:7000" for index in range(self.anchors))

        def program(node: Node, _now: float) -> SwimProcess:
            return SwimProcess(node, self._new_machine(node, seeds), self._conflict)

        for index in range(self.count):
            node = world.add_node(f"n{index}", f"10.0.0.{index}:7000", program)
            boot_at = self._arrivals.uniform(0.0, 2 * self.profile.probe_period_s)
            world.at(boot_at, lambda node=node: world.boot(node))  # type: ignore[misc]
        world.run(2 * self.profile.probe_period_s)
        return Nemesis(
            world,
            self.config,
            actions={Fault.LEAVE: self._leave},
            max_down=self.count - 1,
            anchors=[f"n{index}" for index in range(self.anchors)],
        )

    def unfinished(self) -> str | None:
        """What keeps the views from being equal to the truth, or None."""
        running = [(node, _swim_of(node)) for node in self.world.nodes if node.process is not None]
        for node, _ in running:
            assert isinstance(node.process, SwimProcess)
            if node.process.leaving:
                return f"{node.name} is still leaving"
        truth = {swim.me.id: swim.me for _, swim in running}
        for node, swim in running:
            for name in sorted(self._names):
                seen, real = swim.view.get(NodeId(name)), truth.get(NodeId(name))
                if real is None and seen is not None and seen.status.in_ring:
                    return f"{node.name} sees {name} {seen.status}@{seen.incarnation}, but it does not run"
                if real is not None and seen != real:
                    return f"{node.name} sees {name} as {_brief(seen)}, but it is {_brief(real)}"
        if len({swim.view.digest for _, swim in running}) > 1:
            return "equal views with different digests"
        return None

    def _new_machine(self, node: Node, seeds: tuple[str, ...]) -> Swim:
        stored = node.disk.read("identity")
        incarnation, session = stored if isinstance(stored, tuple) else (0, 0)
        return self._machine(
            me=Member(
                id=NodeId(node.name),
                address=node.address,
                incarnation=incarnation + 1,
                session=max(session + 1, WALL_CLOCK_AT_START_MS + int(self.world.now * 1000)),
                pid=100 * node.boots + node.index,
            ),
            config=self.profile,
            rng=child_random(self.world.seed, "swim", node.name, node.boots),
            seeds=seeds,
        )

    def _leave(self, node: Node) -> bool:
        process = node.process
        assert isinstance(process, SwimProcess)
        if process.leaving:
            return False
        process.leaving = True
        self.world.trace.note(self.world.now, "leave", node.name)
        self.world.inject(node, process.swim.leave(node.clock.read(self.world.now)))
        return True

    def _depart(self, node: Node, process: SwimProcess) -> None:
        """The goodbye has spread: the process ends; half of them come back later."""
        if node.process is not process:
            return
        if not node.running:  # paused in the last moment
            self.world.resume(node)
        self.world.crash(node)
        node.gone = node.index >= self.anchors and self._departures.random() < 0.5

        def come_back() -> None:
            if node.state is NodeState.DOWN and not node.gone:
                self.world.boot(node)

        self.world.at(self.world.now + self._departures.uniform(0.1, 10.0), come_back)

    def _conflict(self, node: Node, conflict: ConflictingIdentity) -> None:
        raise Violation(
            f"{node.name} was refused as a double of {_brief(conflict.holder)}, but nobody else has its id"
        )

    def _check(self, node: Node) -> None:
        process = node.process
        assert isinstance(process, SwimProcess)
        self._invariants.check(node, process)
        if process.leaving and process.swim.has_left:
            self.world.at(self.world.now, lambda: self._depart(node, process))


def _draw_profile(draw: Random) -> tuple[str, SwimConfig]:
    """One of the profiles, in some seeds so tight that forgetting and splitting are everyday."""
    name, profile = draw.choice([("local", LOCAL), ("lan", LAN)])
    if draw.random() < 0.25:
        period_s = profile.probe_period_s
        profile = replace(profile, gossip_to_dead_s=4 * period_s, reap_after_s=8 * period_s)
        name += ", forgetful"
    if draw.random() < 0.25:
        profile = replace(profile, sync_members_max=2, rumour_bytes_max=200, relays_max=2, challenges_max=1)
        name += ", tight"
    return name, profile


class Invariants:
    """What must hold for every view at every time; see the module's theory."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._issued: dict[NodeId, int] = {}
        self._records: dict[tuple[NodeId, int, int], Member] = {}
        self._seen: dict[str, _Seen] = {}

    def check(self, node: Node, process: SwimProcess) -> None:
        """Raise ``Violation`` where the node that just took a step broke one."""
        swim = process.swim
        if process.heard is not None and not swim.stopped:
            self._check_heard(node, swim, *process.heard)
        seen = self._seen.get(node.name)
        if seen is None or seen.boot != node.boots:
            seen = self._seen[node.name] = _Seen(node.boots)
        if swim.version == seen.version:
            return
        seen.version = swim.version
        self._issued[swim.me.id] = max(self._issued.get(swim.me.id, 0), swim.me.incarnation)
        # The machine shows its queue to nobody; that it is bounded is a promise all the same.
        if len(swim._beliefs.queue) > len(self._names):
            raise Violation(f"{node.name} has {len(swim._beliefs.queue)} rumours on {len(self._names)} ids")
        view = swim.view
        if [member.id for member in view] != sorted({member.id for member in view}):
            raise Violation(f"{node.name}'s view is not sorted or holds an id twice")
        own = view.get(swim.me.id)
        if own is None or (own.status is not Status.ALIVE and not process.leaving):
            raise Violation(f"{node.name} runs and sees itself as {_brief(own)}")
        for member in view:
            self._check_member(node, seen, member)

    def _check_heard(self, node: Node, swim: Swim, message: object, sender: str) -> None:
        for member in _records_in(message, swim.me.id):
            if member.status is Status.ALIVE or member.id in (swim.me.id, sender):
                continue
            known = swim._beliefs.known(member.id)  # a tombstone counts; the view does not show those
            if known is None or known.incarnation < member.incarnation:
                raise Violation(f"{node.name} heard {_brief(member)} from {sender} and holds {_brief(known)}")

    def _check_member(self, node: Node, seen: _Seen, member: Member) -> None:
        here = f"in the view of {node.name}"
        if member.id not in self._names:
            raise Violation(f"{member.id!r} {here} does not exist")
        if member.incarnation > self._issued.get(member.id, 0):
            raise Violation(f"{_brief(member)} {here}: its owner never took that incarnation")
        before = seen.incarnation.get(member.id, 0)
        if member.incarnation < before:
            raise Violation(f"{_brief(member)} {here}: it was at incarnation {before} there")
        seen.incarnation[member.id] = member.incarnation
        if not member.status.in_ring:
            seen.buried[member.id] = member.incarnation
        elif seen.buried.get(member.id, 0) >= member.incarnation:
            raise Violation(f"{_brief(member)} {here}: it was buried there at {seen.buried[member.id]}")
        key = (member.id, member.incarnation, member.session)
        facts = _without_status(member)
        if self._records.setdefault(key, facts) != facts:
            raise Violation(f"two records of {_brief(member)}: {self._records[key]} and {facts}")


def _records_in(message: object, reader: NodeId) -> tuple[Member, ...]:
    """The records that ``reader`` takes from a message."""
    match message:
        case Ping(target=target) if target != reader:
            return ()
        case Ping() | Ack() | PingRequest() | Gossip():
            return tuple(rumour.member for rumour in message.rumours)
        case SyncState():
            return message.members
    return ()


class _Seen:
    """What one life of a node has seen so far."""

    def __init__(self, boot: int) -> None:
        self.boot = boot
        self.version = -1
        self.incarnation: dict[NodeId, int] = {}
        self.buried: dict[NodeId, int] = {}


def _without_status(member: Member) -> Member:
    if member.status is Status.ALIVE:
        return member
    return Member(
        id=member.id,
        address=member.address,
        incarnation=member.incarnation,
        zone=member.zone,
        weight=member.weight,
        slots=member.slots,
        pid=member.pid,
        session=member.session,
        meta=member.meta,
    )


def _brief(member: Member | None) -> str:
    if member is None:
        return "unknown"
    return f"{member.id} {member.status}@{member.incarnation}"


def _swim_of(node: Node) -> Swim:
    assert isinstance(node.process, SwimProcess)
    return node.process.swim


def membership_maker(
    *, nodes: int | None = None, codec: bool = True, machine: type[Swim] = Swim
) -> Callable[[int, Trace], MembershipScenario]:
    """What ``run_scenario`` needs to make a membership seed with these settings."""

    def make(seed: int, trace: Trace) -> MembershipScenario:
        return MembershipScenario(seed, trace, nodes=nodes, codec=codec, machine=machine)

    return make
