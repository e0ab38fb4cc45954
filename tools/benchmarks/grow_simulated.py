"""How the cost grows up to a thousand peers, in the simulator: gossip, election and repair, jobs.

*Gossip* is `tools.simulation.gossip`: an idle cluster's load, and the time until a killed peer is suspected.

*Election*: a register of three on a cluster of any size, real machines, real frames.  Its leader is killed,
all others are told so, and counted are the seconds and messages until another leads, and from there until the
group is whole again.  What detection takes comes before, and stands in the gossip's picture.

*Jobs*: the same small job, without faults, on swarms of any size: real leaders and workers.  Membership is a
stand-in there, which tells everybody at once that all are here, and whose messages are not counted; neither
are the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from membership.register import AcceptorId, Group, Record, next_group
from membership.register_config import LOCAL_REGISTER
from membership.register_effects import GroupChanged, Leads, RegisterEvent
from membership.registers import Registers
from membership.view import Member, NodeId, View
from tools.benchmarks.curves import Curves
from tools.simulation.chance import child_random
from tools.simulation.gossip import Calm, measure_calm
from tools.simulation.jobs import JobsScenario
from tools.simulation.jobs_surroundings import SESSION_AT_START, Watch
from tools.simulation.network import Network
from tools.simulation.node import Node
from tools.simulation.register_host import RegisterCodec, RegisterProcess, disk_of, registers_of
from tools.simulation.trace import Trace
from tools.simulation.world import World

KEY = "job0"
GROUP_SIZE = 3
SETTLING_S = 2.0
LIMIT_S = 60.0
STEP_S = 0.01
JOB_STEP_S = 0.1
JOB_REPLICAS = 2
# Of the job world's messages, those of its data plane.
DATA = (b"SimPush", b"SimFetch")


class Traffic(Trace):
    """Counts what is sent, and forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self.messages = 0
        self.sent_bytes = 0

    def record(
        self,
        now: float,  # noqa: ARG002 - as its base is called
        what: str,
        detail: bytes,
        describe: Callable[[], str] | None = None,  # noqa: ARG002 - as its base is called
    ) -> None:
        """Count a frame; see `World._transmit` for what `detail` is."""
        if what == "send":
            frame = detail.split(b" ", 2)[2]
            if not frame.startswith(DATA):
                self.messages += 1
                self.sent_bytes += len(frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """What it took after all knew that the leader was dead; messages and bytes of all peers together."""

    nodes: int
    election_s: float
    election_messages: int
    repair_s: float
    repair_messages: int
    sent_bytes: int


class NoTakeover(Exception):
    """Nobody took over, or the group was not repaired, within `LIMIT_S`."""


def measure_takeover(nodes: int, seed: int) -> Takeover:
    """Kill the leader of a register that three of the nodes keep.

    Raises:
        NoTakeover: it did not come to that.
    """
    traffic = Traffic()
    world = World(seed, Network(child_random(seed, "network")), trace=traffic, codec=RegisterCodec())
    heard: list[tuple[Node, RegisterEvent]] = []

    def program(node: Node, now: float) -> RegisterProcess:
        return RegisterProcess(
            node,
            now,
            config=LOCAL_REGISTER,
            rng=child_random(seed, "registers", node.name),
            machine=Registers,
            report=lambda node, event: heard.append((node, event)),
            said=lambda _node, _message: None,
        )

    for index in range(nodes):
        world.boot(world.add_node(f"n{index}", f"10.0.0.{index}:7000", program))
    acceptors = [AcceptorId(NodeId(node.name), disk_of(node) or "none") for node in world.nodes]
    members = tuple(acceptors[:GROUP_SIZE])
    record = Record(generation=0, epoch=0, members=members)
    world.inject(world.nodes[0], registers_of(world.nodes[0]).found(KEY, record, _now(world, 0)))
    world.run(SETTLING_S / 2)
    for index, node in enumerate(world.nodes):
        group = Group(key=KEY, place=record.place, members=members)
        world.inject(node, registers_of(node).learn(group, _now(world, index)))
    _until(world, lambda: any(isinstance(event, Leads) for _, event in heard), "nobody led at first")
    world.run(world.now + SETTLING_S)

    leader = next(node for node, event in reversed(heard) if isinstance(event, Leads))
    world.crash(leader)
    heard.clear()
    messages, sent_bytes, began = traffic.messages, traffic.sent_bytes, world.now
    for index, node in enumerate(world.nodes):
        if node.running:
            dead = {NodeId(leader.name)}
            world.inject(node, registers_of(node).observe(dead, 0, _now(world, index)))
    _until(world, lambda: any(isinstance(event, Leads) for _, event in heard), "nobody took over")
    election_s, election_messages = world.now - began, traffic.messages - messages

    successor = next(node for node, event in heard if isinstance(event, Leads))
    alive = [acceptor for acceptor in acceptors if acceptor.node != leader.name]
    wanted = next_group(members, alive, GROUP_SIZE)
    if wanted is not None:
        now = successor.clock.read(world.now)
        world.inject(successor, registers_of(successor).seal(KEY, wanted, now))
        _until(world, lambda: any(isinstance(event, GroupChanged) for _, event in heard), "no new group")
    return Takeover(
        nodes=nodes,
        election_s=election_s,
        election_messages=election_messages,
        repair_s=world.now - began - election_s,
        repair_messages=traffic.messages - messages - election_messages,
        sent_bytes=traffic.sent_bytes - sent_bytes,
    )


def _now(world: World, index: int) -> float:
    return world.nodes[index].clock.read(world.now)


def _until(world: World, holds: Callable[[], bool], otherwise: str) -> None:
    limit = world.now + LIMIT_S
    while not holds():
        if world.now >= limit:
            raise NoTakeover(f"{otherwise} within {LIMIT_S:g} s")
        world.run(world.now + STEP_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTraffic:
    """What one job's control cost, all peers together."""

    nodes: int
    tasks: int
    messages: int
    sent_bytes: int
    took_s: float


class AllHere(Watch):
    """Knows that all are here; what it stands for looks at every pair of nodes, again and again."""

    def __init__(self, world: World, random: Random, tell: Callable[[Node, View], None], slots: int) -> None:
        super().__init__(world, random, tell, slots)
        session = SESSION_AT_START + 1
        members = [Member(NodeId(n.name), n.address, slots=slots, session=session) for n in world.nodes]
        self._view = View.of(members, 1)

    def begin(self) -> None:
        """Nothing changes."""

    def view_of(self, _observer: Node) -> View:
        """What a node believes."""
        return self._view

    def believes_here(self, _observer: Node, _target: Node) -> bool:
        """Whether a node holds another one for alive."""
        return True


class OneJob(JobsScenario):
    """A word count on so many nodes, without faults; what the seed would draw is set."""

    watch_type = AllHere

    def __init__(self, seed: int, trace: Trace, nodes: int) -> None:
        super().__init__(seed, trace, calm=True)
        self.count = nodes
        self.replicas = JOB_REPLICAS
        self._names = ["count"]


def measure_job(nodes: int, seed: int) -> JobTraffic:
    """Run a word count on a swarm without faults, in virtual time.

    Raises:
        NoTakeover: it did not end.
    """
    traffic = Traffic()
    scenario = OneJob(seed, traffic, nodes)
    scenario.begin()
    limit = scenario.world.now + LIMIT_S
    while scenario.unfinished() is not None:
        if scenario.world.now >= limit:
            raise NoTakeover(f"the job did not end within {LIMIT_S:g} s: {scenario.unfinished()}")
        scenario.world.run(scenario.world.now + JOB_STEP_S)
    [job] = scenario.jobs
    return JobTraffic(
        nodes=nodes,
        tasks=sum(stage.tasks for stage in job.register.record.stages),
        messages=traffic.messages,
        sent_bytes=traffic.sent_bytes,
        took_s=scenario.world.now - job.submitted_at,
    )


def simulated_curves(sizes: Sequence[int], seed: int) -> list[Curves]:
    """Measure all sizes and return the pictures."""
    calm = [measure_calm(nodes, seed) for nodes in sizes]
    takeovers = [measure_takeover(nodes, seed) for nodes in sizes]
    return [*_gossip_curves(calm), *_takeover_curves(takeovers)]


def _gossip_curves(calm: Sequence[Calm]) -> list[Curves]:
    detection_s = [each.first_suspected_s for each in calm]
    return [
        Curves(
            name="gossip-load",
            title="Gossip of an idle peer",
            grows_with="peers",
            unit="a second and peer",
            lines={
                "messages": [(each.nodes, each.messages_per_node_s) for each in calm],
                "kB": [(each.nodes, each.bytes_per_node_s / 1e3) for each in calm],
            },
            bound="Bound by the period: one probe and its answer a second, whatever the size (SWIM, section "
            "3). Bytes grow while there is news to pass on, and with the rare full exchange.",
        ),
        Curves(
            name="detection",
            title="A killed peer is found out",
            grows_with="peers",
            unit="seconds",
            lines={
                "first suspicion": list(zip([each.nodes for each in calm], detection_s, strict=True)),
                "first verdict": [(each.nodes, each.first_dead_s) for each in calm],
                "last verdict": [(each.nodes, each.last_dead_s) for each in calm],
            },
            bound="The first suspicion is bound by the probe's period and timeout; the verdict by the "
            "suspicion's timeout, which grows with log10 of the size: a refutation must have time to come.",
        ),
    ]


def _takeover_curves(takeovers: Sequence[Takeover]) -> list[Curves]:
    return [
        Curves(
            name="takeover-time",
            title="A leader is replaced, after all know that it is dead",
            grows_with="peers",
            unit="seconds",
            lines={
                "election": [(each.nodes, each.election_s) for each in takeovers],
                "repair of the group": [(each.nodes, each.repair_s) for each in takeovers],
            },
            bound="Bound by waiting: the silence after which a member stands, and its rank; then three round "
            "trips. Only the group takes part, so the size of the swarm does not matter.",
        ),
        Curves(
            name="takeover-messages",
            title="Messages of an election and a repair",
            grows_with="peers",
            unit="messages",
            lines={
                "all peers together": [
                    (each.nodes, each.election_messages + each.repair_messages) for each in takeovers
                ],
                "a peer": [
                    (each.nodes, (each.election_messages + each.repair_messages) / each.nodes)
                    for each in takeovers
                ],
            },
            bound="Bound by the group of three, who ask and answer each other; who only follows the job "
            "hears of it by gossip.",
        ),
    ]


def job_curves(jobs: Sequence[JobTraffic]) -> list[Curves]:
    """Return the pictures of one job on swarms of several sizes."""
    counted: dict[str, tuple[str, list[float]]] = {
        "messages": ("messages", [each.messages for each in jobs]),
        "bytes": ("kB", [each.sent_bytes / 1e3 for each in jobs]),
    }
    return [
        Curves(
            name=f"job-{what}",
            title=f"Control {what} of a job of {jobs[0].tasks} tasks",
            grows_with="peers",
            unit=unit,
            lines={
                "a task": [(j.nodes, sent / j.tasks) for j, sent in zip(jobs, all_sent, strict=True)],
                "a peer": [(j.nodes, sent / j.nodes) for j, sent in zip(jobs, all_sent, strict=True)],
            },
            bound="Each peer hears of the job, asks for work and hears of the end, so what a peer says is "
            "bound by the job's stages; a job of fewer tasks than peers tells also those it does not need.",
        )
        for what, (unit, all_sent) in counted.items()
    ]
