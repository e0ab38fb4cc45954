"""Swim in the deterministic world: its nodes, the faults they suffer, and their agreement after healing.

What must hold all the time is in ``invariants``. And in the end: within ``healing_limit_s`` after the last
fault, every view shows every running node alive at its own incarnation, nobody else in the ring, all digests
are equal, and everybody is reached without a detour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random

from membership.config import LAN, LOCAL, SwimConfig
from membership.effects import ConflictingIdentity
from membership.swim import Swim
from membership.view import Member, NodeId
from tools.simulation.chance import child_random
from tools.simulation.faults import Nemesis, SwarmConfig, draw_swarm_config
from tools.simulation.invariants import Invariants, brief
from tools.simulation.kinds import Fault
from tools.simulation.network import Network
from tools.simulation.node import Node, NodeState
from tools.simulation.swim_process import SwimProcess, WireCodec
from tools.simulation.trace import Trace
from tools.simulation.world import ObjectCodec, Violation, World

__all__ = ["MembershipScenario", "healing_limit_s", "membership_maker"]

WALL_CLOCK_AT_START_MS = 1_700_000_000_000
SESSION_JITTER = 1000  # two processes that start from copies of one disk must not have the same session
WALL_CLOCK_ERROR_MS = 3_600_000
PHASE_IN_PERIODS = (25.0, 80.0)  # how long the faults last, in probe periods
DOUBLES_MAX = 2
MAX_STEPS = 60_000  # ten times what the busiest seed of a thousand needs: beyond it there is a storm


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
        self._doubles = 0
        self._stamps = child_random(seed, "stamps")
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

        for index in range(self.count):
            node = world.add_node(f"n{index}", f"10.0.0.{index}:7000", self._program)
            boot_at = self._arrivals.uniform(0.0, 2 * self.profile.probe_period_s)
            world.at(boot_at, lambda node=node: world.boot(node))  # type: ignore[misc]
        world.run(2 * self.profile.probe_period_s)
        return Nemesis(
            world,
            self.config,
            actions={Fault.LEAVE: self._leave, Fault.CHANGE: self._change, Fault.DOUBLE: self._double},
            max_down=self.count - 1,
            anchors=[f"n{index}" for index in range(self.anchors)],
        )

    def unfinished(self) -> str | None:
        """What keeps the views from being equal to the truth, or None."""
        running = [(node, _swim_of(node)) for node in self.world.nodes if node.process is not None]
        names = [node.name for node, _ in running]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            return f"two processes call themselves {twice[0]}"
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
                    return f"{node.name} sees {name} as {brief(seen)}, but it is {brief(real)}"
                if (relay := swim.detour(NodeId(name))) is not None:
                    return f"{node.name} reaches {name} over {relay.id}, but every link is whole"
        if len({swim.view.digest for _, swim in running}) > 1:
            return "equal views with different digests"
        return None

    def _program(self, node: Node, _now: float) -> SwimProcess:
        return SwimProcess(node, self._new_machine(node), self._conflict)

    def _new_machine(self, node: Node) -> Swim:
        stored = node.disk.read("identity")
        incarnation, session = stored if isinstance(stored, tuple) else (0, 0)
        return self._machine(
            me=Member(
                id=NodeId(node.name),
                address=node.address,
                incarnation=incarnation + 1,
                session=max(session + 1, self._wall_clock_ms(node)) + self._stamps.randrange(SESSION_JITTER),
                pid=100 * node.boots + node.index,
            ),
            config=self.profile,
            rng=child_random(self.world.seed, "swim", node.index, node.boots),
            seeds=tuple(f"10.0.0.{index}:7000" for index in range(self.anchors)),
        )

    def _wall_clock_ms(self, node: Node) -> int:
        """What the host believes the time to be: where clocks are skewed, wrong by an hour at most."""
        error_ms = 0.0
        if Fault.SKEW in self.config.enabled:
            draw = child_random(self.world.seed, "wall clock", node.index, node.boots)
            error_ms = draw.uniform(-WALL_CLOCK_ERROR_MS, WALL_CLOCK_ERROR_MS)
        return int(WALL_CLOCK_AT_START_MS + self.world.now * 1000 + error_ms)

    def _leave(self, node: Node, _random: Random) -> bool:
        process = node.process
        assert isinstance(process, SwimProcess)
        down = sum(not other.running for other in self.world.nodes)
        if process.swim.stopped or process.leaving or down >= self.count - 1:
            return False
        process.leaving = True
        self.world.trace.note(self.world.now, "leave", node.name)
        self.world.inject(node, process.swim.leave(node.clock.read(self.world.now)))
        return True

    def _change(self, node: Node, random: Random) -> bool:
        """The peer's operator gives it another weight and another flag."""
        process = node.process
        assert isinstance(process, SwimProcess)
        if process.swim.stopped or process.leaving:
            return False
        now = node.clock.read(self.world.now)
        meta = (("changed", str(random.randint(0, 9))),)
        self.world.inject(node, process.swim.update_self(now, weight=random.randint(1, 9), meta=meta))
        return True

    def _double(self, node: Node, random: Random) -> bool:
        """Somebody starts a second process with the id, from a copy of the node's disk or an empty one."""
        if node.index < self.anchors:
            return False  # if it took over, elsewhere, nobody who starts anew would find it
        if self._doubles == DOUBLES_MAX or any(other is not node for other in self._named(node.name)):
            return False
        self._doubles += 1
        double = self.world.add_node(node.name, f"10.0.1.{self._doubles}:7000", self._program)
        if random.random() < 0.5:
            double.disk.durable.update(node.disk.durable)
        self.world.boot(double)
        return True

    def _named(self, name: str) -> list[Node]:
        """The nodes with one id that run or will run again."""
        return [node for node in self.world.nodes if node.name == name and not node.gone]

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
        """Refused: its process ends for good, and there must be another one that keeps the id."""
        if len(self._named(node.name)) < 2:
            raise Violation(
                f"{node.name} was refused as a double of {brief(conflict.holder)}, but nobody else has its id"
            )
        self.world.trace.note(self.world.now, "refused", f"{node.name} at {node.address}")
        self.world.crash(node)
        self.world.remove_node(node)

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


def _swim_of(node: Node) -> Swim:
    assert isinstance(node.process, SwimProcess)
    return node.process.swim


def membership_maker(
    *,
    nodes: int | None = None,
    codec: bool = True,
    machine: type[Swim] = Swim,
    menu: Iterable[Fault] = tuple(Fault),
) -> Callable[[int, Trace], MembershipScenario]:
    """What ``run_scenario`` needs to make a membership seed with these settings."""

    def make(seed: int, trace: Trace) -> MembershipScenario:
        return MembershipScenario(seed, trace, nodes=nodes, codec=codec, machine=machine, menu=menu)

    return make
