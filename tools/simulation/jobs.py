"""Jobs on a simulated swarm: real leaders and workers, real user code, and the answer byte for byte.

Every node hosts a `Worker` and, where it is elected, `Leader`s (`jobs_process`); membership and the register
are honest stand-ins (`jobs_surroundings`); a store on a failing disk holds the outputs (`jobs_store`); tasks
run real mappers and reducers on real bytes (`jobs_engine`, `jobs_workloads`). Messages pass the real codec.

Each seed draws how many peers there are and how many copies, which jobs are submitted, and what befalls them
(`jobs_misfortunes`). What must hold at every step is in `jobs_invariants`; and within ``healing_limit_s``
after the last fault everything must be as `jobs_ending` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from mapreduce.changes import Proposal, apply
from mapreduce.config import JobsConfig
from mapreduce.leader import Leader
from mapreduce.record import JobRecord, born
from mapreduce.spec import job_id_of
from mapreduce.stages import StageGraph
from mapreduce.worker import Worker
from membership.view import View
from p2p.spec_packing import pack_spec, spec_digest, unpack_spec
from tools.simulation.chance import child_random
from tools.simulation.faults import Nemesis, SwarmConfig, draw_swarm_config
from tools.simulation.jobs_codec import JobsCodec
from tools.simulation.jobs_ending import unfinished
from tools.simulation.jobs_invariants import Invariants, SeenJob
from tools.simulation.jobs_misfortunes import GENTLE, ROUGH, Luck, Misfortunes, SparingNemesis
from tools.simulation.jobs_process import JobProcess, process_of
from tools.simulation.jobs_store import JobFault
from tools.simulation.jobs_surroundings import HonestRegister, Leading, Watch, WatchedNetwork
from tools.simulation.jobs_swarm import Moods, Swarm
from tools.simulation.jobs_workloads import NAMES, workload
from tools.simulation.kinds import Fault
from tools.simulation.node import Node
from tools.simulation.trace import Trace
from tools.simulation.world import World

__all__ = ["JobsScenario", "jobs_maker"]

Apply = Callable[[JobRecord, Proposal], JobRecord]

SLOTS = 2
HEALING_LIMIT_S = 120.0
SETTLING_S = 1.0


class JobsScenario:
    """One seed of jobs.

    Args:
        seed: decides everything.
        trace: where to record.
        leader, worker, process, apply: what to run; tests plant mistakes in them.
        calm: no faults at all, for measuring.
    """

    healing_limit_s = HEALING_LIMIT_S
    settling_s = SETTLING_S
    watch_type: type[Watch] = Watch

    def __init__(
        self,
        seed: int,
        trace: Trace,
        *,
        leader: type[Leader] = Leader,
        worker: type[Worker] = Worker,
        process: type[JobProcess] = JobProcess,
        apply: Apply = apply,
        calm: bool = False,
    ) -> None:
        self._process = process
        self._apply = apply
        draw = child_random(seed, "jobs")
        self.gentle = draw.random() < 0.5
        self.replicas = draw.choice([1, 2, 2, 2, 3])
        self.count = draw.randint(max(2, self.replicas), 7)
        menu = () if calm else GENTLE if self.gentle else ROUGH
        self.config: SwarmConfig = draw_swarm_config(seed, menu, (4.0, 25.0))
        network = WatchedNetwork(child_random(seed, "network"), self.config.conditions)
        self.world = World(seed, network, trace=trace, codec=JobsCodec())
        self.fired: Counter[JobFault] = Counter()
        self.jobs: list[SeenJob] = []
        self._draw = draw
        self._luck = Luck.draw(seed, draw, calm=calm, gentle=self.gentle)
        self._caprice = 0.0 if calm else draw.choice([0.0, 0.0, 0.02, 0.1])
        self.swarm = Swarm(
            world=self.world,
            config=JobsConfig(),
            moods=Moods(
                task_s=draw.choice([(0.001, 0.01), (0.1, 0.5), (0.3, 1.5)]),
                slow=draw.choice([0.0, 0.0, 0.05]),
                slow_s=8.0,
                user_errors=0.0 if calm else draw.choice([0.0, 0.0, 0.05, 0.2]),
                deaths=0.0 if calm else draw.choice([0.0, 0.05]),
                syncs=self.gentle or draw.random() < 0.5,
            ),
            works={},
            plans={},
            digests={},
            registers={},
            address_of={},
            node_of={},
            view_of=lambda node: self.watch.view_of(node),  # noqa: PLW0108 - there is no watch yet
            watch_run=lambda node, order: self.invariants.begins(node, order),  # noqa: PLW0108 - nor invariants
            leader_type=leader,
            worker_type=worker,
            slots=SLOTS,
            happened=Counter(),
            fired=self.fired,
        )
        self._names = [draw.choice(NAMES) for _ in range(draw.choice([1, 1, 1, 2]))]

    @property
    def title(self) -> str:
        """One line: what this seed drew."""
        kind = "gentle" if self.gentle else "rough"
        jobs = ", ".join(self._names)
        return f"{self.count} nodes, R={self.replicas}, {jobs}, {kind}, {self.config.describe()}"

    # -- beginning -------------------------------------------------------------------------------------------

    def begin(self) -> Nemesis:
        """Boot the nodes and submit the jobs."""
        world = self.world

        def program(node: Node, _now: float) -> JobProcess:
            random = child_random(world.seed, "process", node.name, node.boots)
            process = self._process(node, self.swarm, random)
            self.swarm.up_since[node.name] = self.swarm.disturbed_at = world.now
            node.disk.tears = self.misfortunes.tear
            process.store.is_full = self.misfortunes.is_full(node)
            return process

        for index in range(self.count):
            node = world.add_node(f"n{index}", f"10.0.0.{index}:7000", program)
            self.swarm.address_of[node.name] = node.address
            self.swarm.node_of[node.name] = node
        self.watch = self.watch_type(world, child_random(world.seed, "watch"), self._tell, SLOTS)
        phase_s = self.config.fault_phase_s
        self.misfortunes = Misfortunes(
            world, self.swarm, self.watch, luck=self._luck, replicas=self.replicas, phase_s=phase_s
        )
        self.invariants = Invariants(
            world,
            self.swarm,
            self.watch,
            self.jobs,
            luck=self._luck,
            gentle=self.gentle,
            replicas=self.replicas,
            phase_s=phase_s,
        )
        world.checks.append(self.invariants.check)
        for node in world.nodes:
            world.boot(node)
        self.watch.begin()
        for number, name in enumerate(self._names):
            at = self._draw.uniform(0.0, 0.5) * phase_s
            world.at(at, lambda number=number, name=name: self._submit(number, name))  # type: ignore[misc]
        world.run(0.5)
        self.misfortunes.schedule()
        nemesis = SparingNemesis(
            world,
            self.config,
            actions={Fault.LEAVE: self.misfortunes.leave},
            max_down=self.replicas - 1 if self.gentle else self.count - 1,
        )
        nemesis.spared = max(self.replicas, 2)
        nemesis.gentle = self.gentle
        nemesis.registers = self.swarm.registers.values
        nemesis.leaves = self.misfortunes.leaves
        return nemesis

    def _submit(self, number: int, name: str) -> None:
        world, draw = self.world, child_random(self.world.seed, "submit", number)
        work = workload(name)
        packed = pack_spec(work.spec(replicas=self.replicas, priority=draw.choice([-1, 0, 0, 3])))
        digest = spec_digest(packed)
        job = job_id_of(digest, str(number))
        plan = unpack_spec(packed).plan
        able = [node for node in world.nodes if node.running] or world.nodes
        count = min(2 * self.replicas - 1, (self.count - 1) // 2 * 2 + 1)
        register = HonestRegister(
            world=world,
            random=child_random(world.seed, "register", number),
            job=job,
            record=born(job, digest, world.now),
            members=draw.sample(able, min(count, len(able))),
            call=self._call,
            caprice=self._caprice,
            caprice_until=self.config.fault_phase_s,
            on_chosen=lambda before, after, proposal: self.invariants.chosen(seen, before, after, proposal),
            apply=self._apply,
            leaves=self.misfortunes.leaves,
        )
        seen = SeenJob(job, name, StageGraph(plan), register, world.now)
        self.swarm.works[job] = work
        self.swarm.plans[job] = plan
        self.swarm.digests[job] = digest
        self.swarm.registers[job] = register
        self.jobs.append(seen)
        register.begin()

    def _call(self, node: Node, boot: int, action: Callable[[Leading], None]) -> None:
        """Do something with a process, as soon as it runs, if it is still the same."""
        if node.process is None or node.boots != boot:
            return
        if not node.running:
            self.world.at(self.world.now + 0.05, lambda: self._call(node, boot, action))
            return
        action(process_of(node))

    def _tell(self, node: Node, view: View) -> None:
        self.swarm.disturbed_at = self.world.now
        self.world.inject(node, process_of(node).on_view(view, node.clock.read(self.world.now)))

    # -- the end ---------------------------------------------------------------------------------------------

    def unfinished(self) -> str | None:
        """What is not yet as it must be, or None."""
        if len(self.jobs) < len(self._names):
            return "a job is not submitted yet"
        return unfinished(self.world, self.jobs, gentle=self.gentle)


def jobs_maker(
    *,
    leader: type[Leader] = Leader,
    worker: type[Worker] = Worker,
    process: type[JobProcess] = JobProcess,
    apply: Apply = apply,
    calm: bool = False,
) -> Callable[[int, Trace], JobsScenario]:
    """What ``run_scenario`` needs to make a seed of jobs with these settings."""

    def make(seed: int, trace: Trace) -> JobsScenario:
        return JobsScenario(
            seed, trace, leader=leader, worker=worker, process=process, apply=apply, calm=calm
        )

    return make
