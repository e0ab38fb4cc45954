"""What befalls the peers of a simulated swarm: which faults a seed may draw, and those that only jobs know.

A *gentle* seed keeps what the promises ask for: never more than R-1 peers down at once, disks kept, and time
to heal between two deaths; so nothing may be lost and no map run again. A *rough* one does not; its answer
must be right all the same.

Beside the faults of every world (`faults`), disks rot, fill, tear, misdirect writes, fail to sync and become
slow (`jobs_store` says what a store makes of it), and peers leave: they drain first, and go when no job's
group needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from mapreduce.placement import DRAINING, FULL
from tools.simulation.chance import child_random
from tools.simulation.faults import Nemesis
from tools.simulation.jobs_process import JobProcess, process_of
from tools.simulation.jobs_store import JobFault, Segment, Store, torn
from tools.simulation.jobs_surroundings import HonestRegister, Watch
from tools.simulation.jobs_swarm import Swarm
from tools.simulation.kinds import Fault
from tools.simulation.node import Node
from tools.simulation.world import World

__all__ = ["GENTLE", "ROUGH", "Luck", "Misfortunes", "SparingNemesis"]

GENTLE = (
    Fault.DROP,
    Fault.DUPLICATE,
    Fault.REORDER,
    Fault.DELAY,
    Fault.CLOG,
    Fault.REPLAY,
    Fault.CRASH,
    Fault.PAUSE,
    Fault.SKEW,
    Fault.STEP,
)
ROUGH = (*GENTLE, Fault.TORN, Fault.CUT, Fault.PARTITION, Fault.WIPE, Fault.LEAVE)
CALM_BETWEEN_DEATHS_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Luck:
    """Which misfortunes of disks a seed has turned on."""

    rots: bool
    fills: bool
    misdirects: bool
    fails_to_sync: bool
    is_slow: bool

    @classmethod
    def draw(cls, seed: int, random: Random, *, calm: bool, gentle: bool) -> Luck:
        """Draw them: none in a calm seed, in a gentle one only those that lose nothing."""
        rots = not calm and not gentle and random.random() < 0.3
        fills = not calm and not gentle and random.random() < 0.4
        disks = child_random(seed, "disks")
        return cls(
            rots=rots,
            fills=fills,
            misdirects=not calm and not gentle and disks.random() < 0.2,
            fails_to_sync=not calm and disks.random() < 0.3,
            is_slow=not calm and disks.random() < 0.3,
        )


class SparingNemesis(Nemesis):
    """Lets a node vanish for good only where the promises hold without it.

    `spared` nodes always stay. A majority of no job's group goes. With `gentle`, the swarm has time to heal
    between two deaths.
    """

    spared = 2
    gentle = False
    registers: Callable[[], Iterable[HonestRegister]]
    leaves: Callable[[Node], bool]
    last_gone_s = -1e9

    def _may_vanish(self, node: Node) -> bool:
        now, nodes = self._world.now, self._world.nodes
        if sum(not other.gone and not self.leaves(other) for other in nodes) <= self.spared:
            return False
        if self.gentle and now - self.last_gone_s < CALM_BETWEEN_DEATHS_S:
            return False
        for register in self.registers():
            left = sum(not m.gone and m is not node for m in register.members)
            if 2 * left <= len(register.members):
                return False
        self.last_gone_s = now
        return True


class Misfortunes:
    """What a seed does to disks, and how peers leave.

    Args:
        world: with the nodes.
        swarm: of the seed; hears when somebody was disturbed, and counts what really happened.
        watch: tells the others that a node is full, or leaves.
        luck: which of them happen.
        replicas: so many peers stay.
        phase_s: how long faults last, in world time.
    """

    def __init__(
        self, world: World, swarm: Swarm, watch: Watch, *, luck: Luck, replicas: int, phase_s: float
    ) -> None:
        self._world = world
        self._swarm = swarm
        self._watch = watch
        self._luck = luck
        self._replicas = replicas
        self._phase_s = phase_s

    def schedule(self) -> None:
        """Draw when each of them is to happen."""
        draw, phase_s = child_random(self._world.seed, "misfortunes"), self._phase_s
        if self._luck.rots:
            for _ in range(draw.randint(1, 6)):
                self._world.at(draw.uniform(0.5, phase_s), lambda: self._rot(draw))
        if self._luck.fills:
            for _ in range(draw.randint(1, 3)):
                until = draw.uniform(2.0, 15.0)
                self._world.at(draw.uniform(0.1, phase_s), lambda until=until: self._fill(draw, until))  # type: ignore[misc]

        disks = child_random(self._world.seed, "misfortunes of disks")
        for happens, most, act in (
            (self._luck.misdirects, 3, self._misdirect),
            (self._luck.fails_to_sync, 8, self._fail_to_sync),
            (self._luck.is_slow, 3, self._be_slow),
        ):
            for _ in range(disks.randint(1, most) if happens else 0):
                self._world.at(disks.uniform(0.5, phase_s), lambda act=act: self._of_somebody(disks, act))  # type: ignore[misc]

    def _of_somebody(self, draw: Random, act: Callable[[Store, Random], None]) -> None:
        """Let something happen to the disk of a node that is drawn, if it is up."""
        stores = [n.process.store for n in self._world.nodes if isinstance(n.process, JobProcess)]
        if stores:
            act(draw.choice(stores), draw)
            self._swarm.disturbed_at = self._world.now

    def _rot(self, draw: Random) -> None:
        def rot(store: Store, draw: Random) -> None:
            self._swarm.fired[JobFault.ROT] += store.rot(draw)

        self._of_somebody(draw, rot)

    def _misdirect(self, store: Store, draw: Random) -> None:
        store.misdirects = draw

    def _fail_to_sync(self, store: Store, draw: Random) -> None:
        store.bad_syncs = draw.randint(1, 4)

    def _be_slow(self, store: Store, draw: Random) -> None:
        store.slow_s = draw.choice([0.05, 0.3, 2.0])

        def recover() -> None:
            store.slow_s = 0.0

        self._world.at(self._world.now + draw.uniform(2.0, 15.0), recover)

    def tear(self, value: object, random: Random) -> object:
        """What a crash makes of a segment that is being written, see `Disk`."""
        if not isinstance(value, Segment) or random.random() < 0.5:
            return value
        self._swarm.fired[JobFault.TORN] += 1
        return torn(value)

    def _fill(self, draw: Random, lasts_s: float) -> None:
        node = draw.choice(self._world.nodes)
        if node.name in self._watch.flags:
            return
        self._swarm.fired[JobFault.FULL] += 1
        self._set_full(node, full=True)
        self._world.at(self._world.now + lasts_s, lambda: self._set_full(node, full=False))

    def _set_full(self, node: Node, *, full: bool) -> None:
        self._swarm.disturbed_at = self._world.now
        if isinstance(node.process, JobProcess):
            node.process.store.is_full = full
        if full:
            self._watch.flags[node.name] = ((FULL, "1"),)
        elif self._watch.flags.get(node.name) == ((FULL, "1"),):
            del self._watch.flags[node.name]

    def is_full(self, node: Node) -> bool:
        """Whether the node's disk takes nothing more."""
        return any(name == FULL for name, _ in self._watch.flags.get(node.name, ()))

    def leaves(self, node: Node) -> bool:
        """Whether the node is about to go for good."""
        return self._watch.flags.get(node.name) == ((DRAINING, "1"),)

    def leave(self, node: Node, _random: Random) -> bool:
        """Drain, then go for good."""
        staying = [n for n in self._world.nodes if not n.gone and n.name not in self._watch.flags]
        if node.name in self._watch.flags or len(staying) <= max(2, self._replicas):
            return False
        self._watch.flags[node.name] = ((DRAINING, "1"),)
        self._world.inject(node, process_of(node).worker.drain(node.clock.read(self._world.now)))

        def go() -> None:
            if any(node in register.members for register in self._swarm.registers.values()):
                self._world.at(self._world.now + 1.0, go)  # its groups are healed first
                return
            if node.process is not None:
                if not node.running:
                    self._world.resume(node)
                self._world.crash(node)
            node.gone = True

        self._world.at(self._world.now + 12.0, go)
        return True
