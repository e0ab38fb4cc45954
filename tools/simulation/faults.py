"""Which faults a seed turns on and how hard, and the nemesis that does them.

**Swarm configuration.** If every run had every fault a little, none would ever have one fault hard and
the others not at all, and many bugs need just that. So each seed turns each fault on by a coin and draws
its intensity (Groce, Zhang, Eide, Chen, Regehr, *Swarm Testing*, ISSTA 2012). Each fault draws from a
generator of its own name.

**The nemesis** strikes each enabled fault at random intervals during the fault phase, and undoes what it
did after a random time. ``heal`` undoes everything at once: links behave, clocks run right, the paused go
on, those that are down start again, except the few that were killed for good.

Rates (drop, duplicate, …) act on datagrams and are counted by the network when they do; the rest is
counted here, at the moment it is done to a node that was there to suffer it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random

from tools.simulation.chance import child_random
from tools.simulation.kinds import COMMANDS, Fault
from tools.simulation.network import Conditions
from tools.simulation.node import Node, NodeState
from tools.simulation.world import World

__all__ = ["RATES", "Nemesis", "SwarmConfig", "draw_swarm_config"]

RATES = frozenset({Fault.DROP, Fault.DUPLICATE, Fault.REORDER, Fault.DELAY})

MOVED_PORT = 20_000  # a restart elsewhere takes the next port above it

Action = Callable[[Node, Random], bool]
"""Something that only the scenario knows how to do to a node; says whether it was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmConfig:
    """One seed's draw: the conditions of the links, and for each fault that strikes, the mean seconds
    between."""

    fault_phase_s: float
    enabled: tuple[Fault, ...]
    conditions: Conditions
    mean_interval_s: Mapping[Fault, float]
    kill_share: float

    def describe(self) -> str:
        """One line for a reader."""
        return f"faults for {self.fault_phase_s:.0f} s: {', '.join(self.enabled) or 'none'}"


def draw_swarm_config(seed: int, menu: Collection[Fault], fault_phase_s: tuple[float, float]) -> SwarmConfig:
    """Draw the configuration of ``seed`` from the faults in ``menu``; the phase lasts between the two
    times."""
    random = child_random(seed, "swarm")
    phase_s = random.uniform(*fault_phase_s)
    kill_share = random.choice([0.0, 0.2, 0.5])
    conditions = Conditions(
        latency_s=random.choice([0.0002, 0.002, 0.02]), jitter_s=random.choice([0.0002, 0.01])
    )
    enabled = []
    intervals: dict[Fault, float] = {}
    for fault in Fault:  # in the order of definition, whatever the order of the menu
        draw = child_random(seed, "swarm", fault)
        if fault not in menu or draw.random() < 0.5:
            continue
        enabled.append(fault)
        if fault in RATES:
            _set_rate(conditions, fault, draw)
        else:
            intervals[fault] = phase_s / draw.choice([2, 4, 8, 16])
    return SwarmConfig(
        fault_phase_s=phase_s,
        enabled=tuple(enabled),
        conditions=conditions,
        mean_interval_s=intervals,
        kill_share=kill_share,
    )


def _set_rate(conditions: Conditions, fault: Fault, random: Random) -> None:
    rate = random.choice([0.01, 0.05, 0.2])
    if fault is Fault.DROP:
        conditions.drop = rate
    elif fault is Fault.DUPLICATE:
        conditions.duplicate = rate
    elif fault is Fault.REORDER:
        conditions.reorder = rate
        conditions.reorder_s = random.choice([0.05, 0.5, 3.0])
    else:
        conditions.delay = rate
        conditions.delay_s = random.choice([0.1, 1.0, 5.0])


class Nemesis:
    """Does the faults of a configuration to a world.

    Args: world: whom to hurt. config: how. actions: for faults that only the scenario can do (such as
        LEAVE), how to do them. max_down: so many nodes may be down, paused or gone at a time; further
        strikes of that kind are let go. anchors: names of nodes that never move to another address
        (the seeds that all others know).
    """

    def __init__(
        self,
        world: World,
        config: SwarmConfig,
        *,
        actions: Mapping[Fault, Action] | None = None,
        max_down: int,
        anchors: Collection[str] = (),
    ) -> None:
        self.fired: Counter[Fault] = Counter()
        self._world = world
        self._config = config
        self._actions = dict(actions or {})
        self._max_down = max_down
        self._anchors = frozenset(anchors)
        self._healed = False
        self._moves = 0

    def begin(self) -> None:
        """Schedule the first strike of every fault."""
        end = self._world.now + self._config.fault_phase_s
        for fault, interval_s in self._config.mean_interval_s.items():
            self._schedule(fault, interval_s, child_random(self._world.seed, "nemesis", fault), end)

    def heal(self) -> None:
        """Undo everything; nobody strikes any more."""
        self._healed = True
        world = self._world
        world.network.heal()
        for place, node in enumerate(world.nodes):
            node.torn_after = node.when_torn = None
            if node.clock.rate != 1.0:
                node.clock.turn_to_rate(1.0, world.now)
                if node.running:
                    world.rearm(node)
            if node.state is NodeState.PAUSED:
                world.resume(node)
            if node.state is NodeState.DOWN and not node.gone:
                # Not all in one instant: stamps of the wall clock would be equal.
                world.at(world.now + 0.01 * place, lambda node=node: self._boot(node))  # type: ignore[misc]

    def _schedule(self, fault: Fault, interval_s: float, random: Random, end: float) -> None:
        time = self._world.now + random.expovariate(1 / interval_s)
        if time >= end:
            return

        def strike() -> None:
            if self._healed:
                return
            if self._strike(fault, random):
                self.fired[fault] += 1
                self._world.trace.note(self._world.now, "strike", fault)
            self._schedule(fault, interval_s, random, end)

        self._world.at(time, strike)

    def _strike(self, fault: Fault, random: Random) -> bool:
        """Do one fault now; whether there was somebody to do it to (the network counts its own kinds)."""
        if fault is Fault.CUT:
            return self._cut(random)
        if fault is Fault.PARTITION:
            return self._partition(random)
        if fault is Fault.CLOG:
            return self._clog(random)
        if fault is Fault.REPLAY:
            self._world.replay(random.randint(1, 50))
            return False
        running = [node for node in self._world.nodes if node.running]
        if not running:
            return False
        node = random.choice(running)
        if fault in COMMANDS:
            return fault in self._actions and self._actions[fault](node, random)
        if fault is Fault.SKEW:
            node.clock.turn_to_rate(random.uniform(0.8, 1.25), self._world.now)
            self._world.rearm(node)
            return True
        if fault is Fault.STEP:
            node.clock.offset_s += random.choice([0.1, 1.0, 10.0, 100.0])
            self._world.rearm(node)
            return True
        return self._room_for_one_more_down() and self._interrupt(fault, node, random)

    def _interrupt(self, fault: Fault, node: Node, random: Random) -> bool:
        world = self._world
        down_s = random.choice([0.05, 0.5, 2.0, 8.0, 20.0]) * random.uniform(0.5, 1.5)
        if fault is Fault.PAUSE:
            world.pause(node)
            self._later(down_s, lambda: self._resume(node))
            return True
        if fault is Fault.TORN:
            # Counted when it happens: within the effects of one of the node's next steps.
            node.torn_after = random.randint(0, 5)
            node.when_torn = lambda: self._tear(node, down_s)
            return False
        if fault is Fault.MOVE and node.name in self._anchors:
            return False
        world.crash(node, wipe=fault is Fault.WIPE)
        if fault is Fault.MOVE:
            self._moves += 1
            world.move(node, f"{node.address.rpartition(':')[0]}:{MOVED_PORT + self._moves}")
        elif random.random() < self._config.kill_share and self._may_vanish(node):
            node.gone = True
            return True
        self._later(down_s, lambda: self._boot(node))
        return True

    def _tear(self, node: Node, down_s: float) -> None:
        self.fired[Fault.TORN] += 1
        self._world.crash(node)
        self._later(down_s, lambda: self._boot(node))

    def _resume(self, node: Node) -> None:
        if node.state is NodeState.PAUSED:
            self._world.resume(node)

    def _boot(self, node: Node) -> None:
        if node.state is NodeState.DOWN and not node.gone:
            self._world.boot(node)

    def _may_vanish(self, node: Node) -> bool:
        nodes = self._world.nodes
        return node.name not in self._anchors and 2 * sum(other.gone for other in nodes) < len(nodes) - 2

    def _room_for_one_more_down(self) -> bool:
        return sum(not node.running for node in self._world.nodes) < self._max_down

    def _cut(self, random: Random) -> bool:
        source, target = random.sample(self._world.nodes, 2)
        link = source.address, target.address
        self._world.network.cut(*link)
        self._later(random.uniform(0.5, 20.0), lambda: self._world.network.mend(*link))
        return False

    def _partition(self, random: Random) -> bool:
        nodes = self._world.nodes
        side = frozenset(node.address for node in random.sample(nodes, random.randint(1, len(nodes) - 1)))
        self._world.network.partition(side)
        self._later(random.uniform(0.5, 30.0), lambda: self._world.network.rejoin(side))
        return False

    def _clog(self, random: Random) -> bool:
        source, target = random.sample(self._world.nodes, 2)
        until = self._world.now + random.uniform(0.2, 5.0)
        self._world.network.clog(source.address, target.address, until)
        return False

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Undo a fault after a while, unless healing has undone it by then."""

        def unless_healed() -> None:
            if not self._healed:
                action()

        self._world.at(self._world.now + delay_s, unless_healed)
