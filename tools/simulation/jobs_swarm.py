"""What the peers of one simulated swarm share, and what one life of a peer has of its own.

`Swarm` is the seed: its jobs, their registers, the `Moods` of its machines, and the counts of what happened.
`Life` is a node from one boot to its next crash. All parts of a process draw, send and wait through it; what
they have put off until later dies with it, and comes late where the node was paused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from mapreduce.config import JobsConfig
from mapreduce.effects import RunTask
from mapreduce.leader import Leader
from mapreduce.spec import JobPlan
from mapreduce.worker import Worker
from membership.view import NodeId, View
from tools.simulation.jobs_store import JobFault
from tools.simulation.jobs_surroundings import HonestRegister
from tools.simulation.jobs_workloads import Workload
from tools.simulation.node import Node
from tools.simulation.world import World

__all__ = ["Life", "Moods", "Swarm"]

PAUSED_RETRY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Moods:
    """How user code and machines behave in a seed.

    Attributes:
        task_s: the range of what a task takes.
        slow: how likely a task takes `slow_s` instead.
        user_errors: how likely an attempt fails by an exception, at most once a task in a row.
        deaths: how likely the child dies, sometimes before it began.
        syncs: whether segments are synced before they are acknowledged.
    """

    task_s: tuple[float, float]
    slow: float
    slow_s: float
    user_errors: float
    deaths: float
    syncs: bool


@dataclass(slots=True)
class Swarm:
    """What all processes of a world share.

    `works`, `plans`, `digests` and `registers` are by job. `watch_run` is called with every attempt that
    begins. `happened` counts what leaders announce and rare messages, `fired` what disks did.
    `disturbed_at` is when somebody last came, went or was told so, and `up_since` when each node booted, in
    world time.
    """

    world: World
    config: JobsConfig
    moods: Moods
    works: dict[str, Workload]
    plans: dict[str, JobPlan]
    digests: dict[str, str]
    registers: dict[str, HonestRegister]
    address_of: dict[str, str]
    node_of: dict[str, Node]
    view_of: Callable[[Node], View]
    watch_run: Callable[[Node, RunTask], None]
    leader_type: type[Leader]
    worker_type: type[Worker]
    slots: int
    happened: Counter[str]
    fired: Counter[JobFault]
    disturbed_at: float = 0.0
    up_since: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a node's process.

    Attributes:
        node: its machine.
        swarm: what all share.
        random: this life's.
        boot: which of the node's lives it is.
    """

    node: Node
    swarm: Swarm
    random: Random
    boot: int

    @property
    def me(self) -> NodeId:
        """The node's name, as the machines call it."""
        return NodeId(self.node.name)

    @property
    def now(self) -> float:
        """What the node's clock shows."""
        return self.node.clock.read(self.swarm.world.now)

    def send(self, to: str, message: object) -> None:
        """Send a datagram to a node by its name."""
        self.node.send_to(self.swarm.address_of[to], message)

    def later(self, delay_s: float, action: Callable[[float], Iterable[object]]) -> None:
        """Do something in this life, as a step of its own; a paused process does it late."""
        world = self.swarm.world

        def act() -> None:
            if self.node.process is None or self.node.boots != self.boot:
                return
            if not self.node.running:
                world.at(world.now + PAUSED_RETRY_S, act)
                return
            world.inject(self.node, action(self.now))

        world.at(world.now + delay_s, act)
