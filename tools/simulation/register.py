"""Registers in the deterministic world, with clients, a founder, and a surgeon that replaces members.

What is checked, while it happens: each register's history is linearizable (``register_history`` says how that
is decided exactly); a closed log stays closed; an epoch has one group only; and after healing nobody is
reported missing who is there.

And in the end: within ``HEALING_LIMIT_S`` after the last fault, a client on every running node has appended
to and looked at every register, and every group is whole again. Where a majority of a group's disks is lost
for ever, that must have been reported as ``QuorumLost``; the founder then starts another generation, and the
same must be true of that one.

Nobody here knows the truth but the one who judges: clients find registers by the founder's handle and by
gossip, and the surgeon works from a list of the living that is wrong as often as the seed likes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from membership.register import AcceptorId, Group, Record, majority, next_group
from membership.register_config import LOCAL_REGISTER
from membership.register_effects import (
    Committed,
    Founded,
    GroupChanged,
    QuorumLost,
    RegisterEvent,
)
from membership.register_messages import Accepted, Born, Promise, RegisterMessage
from membership.registers import Registers
from membership.view import NodeId
from tools.simulation.chance import child_random
from tools.simulation.faults import Nemesis, SwarmConfig, draw_swarm_config
from tools.simulation.kinds import Fault
from tools.simulation.network import Network
from tools.simulation.node import Node, NodeState
from tools.simulation.register_clients import Clients, Register
from tools.simulation.register_history import NotLinearizable
from tools.simulation.register_host import (
    RegisterCodec,
    RegisterProcess,
    disk_of,
    is_led,
    log_of,
    registers_of,
)
from tools.simulation.trace import Trace
from tools.simulation.world import ObjectCodec, Violation, World

__all__ = ["RegisterScenario", "register_maker"]

PHASE_S = (8.0, 25.0)
HEALING_LIMIT_S = 30.0
ALL_UP_AFTER_S = 1.0
SETTLED_AFTER_S = 5.0  # so long after healing, a report of missing members must be true
MENU = (
    *(Fault.DROP, Fault.DUPLICATE, Fault.REORDER, Fault.DELAY),
    *(Fault.CLOG, Fault.CUT, Fault.PARTITION, Fault.REPLAY),
    *(Fault.CRASH, Fault.WIPE, Fault.TORN, Fault.PAUSE, Fault.SKEW, Fault.STEP),
)


class RegisterScenario:
    """One seed of registers.

    Args:
        seed: decides everything.
        trace: where to record.
        machine, process: what to run; plants are subclasses.
        codec: whether messages pass through the real wire format.
        menu: the faults that may be drawn.
    """

    healing_limit_s = HEALING_LIMIT_S
    settling_s = 0.0

    def __init__(
        self,
        seed: int,
        trace: Trace,
        *,
        machine: type[Registers] = Registers,
        process: type[RegisterProcess] = RegisterProcess,
        codec: bool = True,
        menu: Iterable[Fault] = MENU,
    ) -> None:
        draw = child_random(seed, "scenario")
        self.count = draw.randint(3, 7)
        self.size = draw.choice([size for size in (1, 3, 3, 5) if size <= self.count])
        self.keys = draw.randint(1, 2)
        self.clients = draw.randint(2, 6)
        self.think_s = draw.choice([0.01, 0.03, 0.2])
        self.surgery_s = draw.choice([0.2, 1.0, 4.0])
        self.whim = draw.choice([0.0, 0.3, 0.9])  # how often the surgeon replaces members that are well
        self.lies = draw.choice([0.0, 0.1, 0.3])  # how often a living node is held for dead
        self.closing = draw.choice([0.0, 0.0, 0.01])  # how often an append closes the log
        self.impatience = draw.choice(
            [0.0, 0.0, 0.2]
        )  # how often a lost quorum is believed to be lost for ever
        self.config: SwarmConfig = draw_swarm_config(seed, tuple(menu), PHASE_S)
        self.max_down = draw.choice([max(1, (self.count - 1) // 2), self.count - 1, self.count])
        self.world = World(
            seed,
            Network(child_random(seed, "network"), self.config.conditions),
            trace=trace,
            codec=RegisterCodec() if codec else ObjectCodec(),
        )
        self.bypass = draw.choice([0.0, 0.0, 0.1])  # how often a client passes the leader over
        self.restarts = draw.choice([0.0, 0.02, 0.1, 0.3])  # how often an acceptor restarts after it promised
        self.sick = draw.choice([0.0, 0.2])  # how often a node is ill
        kinds = [draw.choice(["job", "lock"]) for _ in range(self.keys)]
        self.registers = [Register(f"{kind}{number}") for number, kind in enumerate(kinds)]
        self._machine = machine
        self._process = process
        self._draw = child_random(seed, "clients")
        self._clients = Clients(
            self.world,
            self.registers,
            self._draw,
            think_s=self.think_s,
            bypass=self.bypass,
            closing=self.closing,
        )
        self._surgery = child_random(seed, "surgeon")
        self._views = child_random(seed, "views")
        self._restarts = child_random(seed, "restarts")
        self._healed_at: float | None = None
        self.events: Counter[str] = Counter()  # what was reported, by type

    @property
    def title(self) -> str:
        """One line: what this seed drew."""
        return (
            f"{self.count} nodes, groups of {self.size}, {self.keys} keys, {self.clients} clients, "
            f"{self.config.describe()}"
        )

    # ------------------------------------------------------------------ the beginning

    def begin(self) -> Nemesis:
        """Boot all nodes, found the registers, let the clients loose."""
        world = self.world

        def program(node: Node, now: float) -> RegisterProcess:
            return self._process(
                node,
                now,
                config=LOCAL_REGISTER,
                rng=child_random(world.seed, "registers", node.name, node.boots),
                machine=self._machine,
                report=self._heard,
                said=self._said,
            )

        for index in range(self.count):
            world.boot(world.add_node(f"n{index}", f"10.0.0.{index}:7000", program))
        for register in self.registers:
            self._found(register)
        self._clients.begin(self.clients)
        self._later(self._surgery, self.surgery_s, lambda: self._operate(calm=False))
        self._later(self._views, 0.3, self._observe)
        self._later(self._draw, 1.0, self._gossip)
        return Nemesis(world, self.config, max_down=self.max_down)

    def _said(self, node: Node, message: RegisterMessage) -> None:
        """Perhaps restart a node just after it has said something that it must not forget."""
        if not isinstance(message, Promise | Accepted | Born) or self._healed_at is not None:
            return
        if Fault.CRASH not in self.config.enabled or self._restarts.random() >= self.restarts:
            return
        wipe = Fault.WIPE in self.config.enabled and self._restarts.random() < 0.05
        self.world.network.fired[Fault.WIPE if wipe else Fault.CRASH] += 1
        self.world.crash(node, wipe=wipe)

        def boot() -> None:
            if node.state is NodeState.DOWN and not node.gone:
                self.world.boot(node)

        self._later(self._restarts, 0.005, boot)

    def _later(self, draw: Random, mean_s: float, action: Callable[[], None]) -> None:
        self.world.at(self.world.now + draw.expovariate(1.0 / mean_s), action)

    # ------------------------------------------------------------------ founder, gossip

    def _found(self, register: Register) -> None:
        """Begin the next generation of a register."""
        living = self._living()
        if not living:
            self._later(self._draw, 0.5, lambda: self._found(register))
            return
        register.generation += 1
        size = min(self.size, len(living) - 1 + len(living) % 2)
        members = tuple(self._draw.sample(living, size))
        register.founding = Record(generation=register.generation, epoch=0, members=members)
        self._write_first(register, register.founding)

    def _write_first(self, register: Register, record: Record) -> None:
        """Write the first record of a generation; again and again, from anywhere, until it is founded."""
        if register.founding is not record:
            return
        node = self._clients.some_node()
        if node is not None:
            now = node.clock.read(self.world.now)
            self.world.inject(node, registers_of(node).found(register.key, record, now))
        self.world.at(self.world.now + 1.0, lambda: self._write_first(register, record))

    def _gossip(self) -> None:
        for register in self.registers:
            node = self._clients.some_node()
            if node is not None and register.latest is not None:
                now = node.clock.read(self.world.now)
                self.world.inject(node, registers_of(node).learn(register.latest, now))
        self._later(self._draw, 0.5 if self._healed_at is None else 0.1, self._gossip)

    # ------------------------------------------------------------------ the surgeon

    def _operate(self, calm: bool) -> None:
        if calm != (self._healed_at is not None):
            return  # another one has taken over
        for register in self.registers:
            asked = self._clients.some_node()
            node = None if asked is None else self._clients.leaders_node(asked, register.key)
            if node is None:
                continue
            registers = registers_of(node)
            group = registers.group(register.key)
            if group is None or register.key not in registers.proposers:
                continue
            alive = self._believed_alive()
            wanted = next_group(group.members, alive, self.size)
            if wanted is None and self._healed_at is None and self._surgery.random() < self.whim:
                wanted = tuple(alive[: self.size]) if len(alive) >= self.size else None
            if wanted is not None:
                self.world.trace.note(self.world.now, "seal", f"{register.key} by {node.name} to {wanted}")
                now = node.clock.read(self.world.now)
                self.world.inject(node, registers.seal(register.key, wanted, now))
        self._later(self._surgery, 0.5 if calm else self.surgery_s, lambda: self._operate(calm))

    def _living(self) -> list[AcceptorId]:
        return [_acceptor(node) for node in self.world.nodes if node.running]

    def _believed_alive(self) -> list[AcceptorId]:
        """The living, as the surgeon sees them: in any order, and not all of them."""
        living = self._living()
        self._surgery.shuffle(living)
        if self._healed_at is not None:
            return living
        return [acceptor for acceptor in living if self._surgery.random() >= self.lies]

    # ------------------------------------------------------------------ membership, as bad as can be

    def _observe(self) -> None:
        """Tell each node whom it suspects (the down, and some of the well), and sometimes that it is ill."""
        calm = self._healed_at is not None
        down = [node.name for node in self.world.nodes if not node.running]
        for node in self.world.nodes:
            if not node.running:
                continue
            suspected = {
                NodeId(other.name)
                for other in self.world.nodes
                if other.name in down or (not calm and self._views.random() < self.lies)
            }
            ill = not calm and self._views.random() < self.sick
            now = node.clock.read(self.world.now)
            effects = registers_of(node).observe(suspected, 8 if ill else 0, now)
            self.world.inject(node, effects)
        self._later(self._views, 0.3, self._observe)

    # ------------------------------------------------------------------ what nodes report

    def _heard(self, node: Node, event: RegisterEvent) -> None:
        what = f"{node.name} {type(event).__name__}"
        self.world.trace.record(self.world.now, "report", what.encode(), lambda: f"{node.name}: {event}")
        self.events[type(event).__name__] += 1
        match event:
            case Committed():
                self._committed(node, event)
            case Founded(group=group):
                register = self._register(group.key)
                if register.founding is not None and register.founding.generation == group.place.generation:
                    register.founding = None
                if register.handle is None or register.handle.place < group.place:
                    register.handle = group
                self._group_seen(group)
            case GroupChanged(group=group):
                self._group_seen(group)
            case QuorumLost():
                self._quorum_lost(event)
            case _:
                pass

    def _committed(self, node: Node, event: Committed) -> None:
        operation = self._clients.acknowledged(node, event)
        if operation is None:
            return
        register = self._register(event.key)
        record = event.record
        history = register.history(record.generation)
        try:
            history.end(
                f"{operation.name} on {node.name} at {record.place}",
                operation.token,
                log_of(record.payload),
                operation.acknowledged_before.get(record.generation, 0),
            )
        except NotLinearizable as broken:
            raise Violation(f"{event.key} is not linearizable: {broken}") from None
        if not operation.done:
            operation.done = True
            operation.then()
        self._group_seen(Group(key=event.key, place=record.place, members=record.members))

    def _group_seen(self, group: Group) -> None:
        register = self._register(group.key)
        if register.groups.setdefault(group.place, group.members) != group.members:
            raise Violation(f"{group.key} has two groups at {group.place}")
        if register.latest is None or register.latest.place < group.place:
            register.latest = group

    def _quorum_lost(self, event: QuorumLost) -> None:
        register = self._register(event.key)
        register.lost = event
        if self._healed_at is None:
            hasty = self._draw.random() < self.impatience and register.generation < 3
            if hasty and event.group.place.generation == register.generation:
                self._found(register)
            return
        if self.world.now < self._healed_at + SETTLED_AFTER_S:
            return
        for acceptor in event.missing:
            node = self._node(acceptor)
            if node is None or not node.running or _acceptor(node) != acceptor:
                continue
            group = registers_of(node).acceptor.group(event.key)
            if group is not None and group.place == event.group.place:
                raise Violation(f"{event} names {acceptor} missing, which is there")

    # ------------------------------------------------------------------ the end

    def unfinished(self) -> str | None:
        """What is not yet as it must be in the end, or None."""
        if self._healed_at is None:
            self._healed_at = self.world.now
            self._clients.is_over = True
        if not self._clients.last:
            if self.world.now < self._healed_at + ALL_UP_AFTER_S:
                return "not all nodes have started again"
            self._finish()
        waiting = [operation for operation in self._clients.last if not operation.done]
        for register in self.registers:
            self._perhaps_give_up(register)
        for register in self.registers:
            if problem := self._unhealed(register):
                return problem
        if waiting:
            first = waiting[0]
            return f"{len(waiting)} operations wait, such as {first.name} on {first.key}"
        return None

    def _finish(self) -> None:
        """A last append or look on every node, tried again until it succeeds; and a surgeon that hurries."""
        self._operate(calm=True)
        for node in self.world.nodes:
            for register in self.registers:
                if node.running:
                    self._clients.begin_last(node, register)

    def _unhealed(self, register: Register) -> str | None:
        """Why a register is not whole yet: members that are gone, or no leader that all members agree on."""
        group = register.latest
        living = self._living()
        if group is None:
            return f"{register.key} was never founded"
        if register.history(group.place.generation).closed:
            return None  # there is nothing more to lead, and nobody to replace members
        if next_group(group.members, living, self.size) is not None:
            return f"{register.key} is kept by {group}"
        if not is_led(register.key):
            return None
        leaders = {
            registers_of(node).leader(register.key)
            for node in self.world.nodes
            if node.running and _acceptor(node) in group.members
        }
        return None if len(leaders) == 1 and None not in leaders else f"{register.key} is led by {leaders}"

    def _perhaps_give_up(self, register: Register) -> None:
        """The founder starts another generation if it has been told that a majority is lost, and it is."""
        lost = register.lost
        if lost is None or lost.group.place.generation != register.generation:
            return
        living = self._living()
        gone = [acceptor for acceptor in lost.missing if acceptor not in living]
        if len(lost.group.members) - len(gone) < majority(lost.group.members):
            self._found(register)

    # ------------------------------------------------------------------ helpers

    def _register(self, key: str) -> Register:
        return next(register for register in self.registers if register.key == key)

    def _node(self, acceptor: AcceptorId) -> Node | None:
        return next((node for node in self.world.nodes if node.name == acceptor.node), None)


def _acceptor(node: Node) -> AcceptorId:
    return AcceptorId(NodeId(node.name), disk_of(node) or "none")


def register_maker(
    *,
    machine: type[Registers] = Registers,
    process: type[RegisterProcess] = RegisterProcess,
    codec: bool = True,
) -> Callable[[int, Trace], RegisterScenario]:
    """What ``run_scenario`` needs to make a register seed with these settings."""

    def make(seed: int, trace: Trace) -> RegisterScenario:
        return RegisterScenario(seed, trace, machine=machine, process=process, codec=codec)

    return make
