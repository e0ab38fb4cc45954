"""One life of a simulated peer that works for jobs: the host of `Worker` and `Leader`s.

The real peer's host is `p2p.job_service`.  This one performs the same effects by simpler means: attempts take
a drawn time and are run in this process (`jobs_attempts`), outputs and parts travel as datagrams
(`jobs_transfers`), messages go to the machine that they are for, and a register's choices come from its
stand-in (`jobs_surroundings`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from random import Random
from typing import assert_never, get_args

from mapreduce.effects import (
    Announce,
    CancelPush,
    CancelTask,
    Drop,
    DropJob,
    Fetch,
    FetchPlan,
    Forget,
    Happened,
    LeaderEffect,
    Propose,
    Push,
    ReadInventory,
    RunTask,
    Send,
    StepDown,
    WorkerEffect,
)
from mapreduce.endings import dissolve_of
from mapreduce.leader import Leader
from mapreduce.messages import (
    AskFate,
    Copied,
    CopyOrder,
    Dissolve,
    DropOutputs,
    Message,
    Missing,
    Returned,
    Revoke,
    ToWorker,
)
from mapreduce.record import JobRecord
from membership.view import NodeId, View
from tools.simulation.jobs_attempts import Attempts
from tools.simulation.jobs_store import Store
from tools.simulation.jobs_surroundings import session_of
from tools.simulation.jobs_swarm import Life, Swarm
from tools.simulation.jobs_transfers import Transfer, Transfers
from tools.simulation.node import Node
from tools.simulation.world import Violation

__all__ = ["JobProcess", "process_of", "store_of"]

NOTABLE = (AskFate, Copied, CopyOrder, DropOutputs, Missing, Returned, Revoke)
TO_WORKER = frozenset(get_args(ToWorker))


class JobProcess:
    """One life of a peer.

    Args:
        node: its machine.
        swarm: what all share.
        random: this life's.
    """

    store_type = Store
    attempts_type = Attempts
    transfers_type = Transfers

    def __init__(self, node: Node, swarm: Swarm, random: Random) -> None:
        self.node = node
        self.store = self.store_type(node.disk, syncs=swarm.moods.syncs, fired=swarm.fired)
        self.leaders: dict[str, tuple[str, Leader]] = {}
        self._life = Life(node, swarm, random, node.boots)
        self._swarm = swarm
        self._me = self._life.me
        self.worker = swarm.worker_type(
            me=self._me,
            session=session_of(node),
            slots=swarm.slots,
            view=swarm.view_of(node),
            config=swarm.config,
        )
        self._attempts = self.attempts_type(self._life, self.store, self.worker)
        self._transfers = self.transfers_type(self._life, self.store, self.worker, self._attempts)
        self._ballots: dict[str, int] = {}

    # -- what the world calls ------------------------------------------------------------------------------

    def start(self, now: float) -> list[object]:
        """See ``Process``."""
        for job in self.store.jobs:
            self.worker.on_stored(job, now)
        return []

    def receive(self, message: object, sender: str, now: float) -> Iterable[object]:
        """See ``Process``."""
        if isinstance(message, Transfer):
            return self._transfers.receive(message, sender, now)
        return self.deliver(message, NodeId(sender), now)

    def deliver(self, message: object, sender: NodeId, now: float) -> Iterable[object]:
        """Give a job's message to the machine that it is for."""
        if type(message) in TO_WORKER:
            return self._obey(message, sender, now)  # type: ignore[arg-type]  # as just looked at
        job: str = message.job  # type: ignore[attr-defined]
        leading = self.leaders.get(job)
        if leading is not None:
            return leading[1].receive(message, sender, now)  # type: ignore[arg-type]
        return self._answer_fate(job, sender) if isinstance(message, AskFate) else []

    def _obey(self, message: ToWorker, sender: NodeId, now: float) -> Iterable[object]:
        """Let the worker take an order; one of a deposed leader must move nothing."""
        effects = self.worker.receive(message, sender, now)
        if isinstance(message, Dissolve):
            return effects
        highest = self._ballots.get(message.job, 0)
        self._ballots[message.job] = max(highest, message.ballot)
        if message.ballot < highest and effects:
            raise Violation(f"{self._me} obeyed {sender}, whose ballot {message.ballot} is below {highest}")
        return effects

    def _answer_fate(self, job: str, sender: NodeId) -> list[object]:
        """Say how a job ended: from the terminal record, if we are of its group, or from our own memory."""
        register, fate = self._swarm.registers[job], self.worker.fate_of(job)
        if self.node in register.members and register.record.status.is_final:
            fate = dissolve_of(self._swarm.plans[job], register.record)
        return [Send(to=sender, message=fate)] if fate is not None else []

    def tick(self, now: float) -> Iterable[object]:
        """See ``Process``."""
        effects: list[object] = list(self.worker.tick(now)) if self.worker.next_deadline() <= now else []
        for _, leader in list(self.leaders.values()):
            if leader.next_deadline() <= now:
                effects += leader.tick(now)
        return effects

    def next_deadline(self) -> float:
        """See ``Process``."""
        return min(
            [self.worker.next_deadline()] + [leader.next_deadline() for _, leader in self.leaders.values()]
        )

    def lagged(self, lag_s: float, now: float) -> None:
        """See ``Process``."""

    def on_view(self, view: View, now: float) -> list[object]:
        """Membership has another picture."""
        effects: list[object] = list(self.worker.on_view(view, now))
        for _, leader in list(self.leaders.values()):
            effects += leader.on_view(view, now)
        return effects

    # -- what the register calls -----------------------------------------------------------------------------

    def lead(self, job: str, record: JobRecord, token: str, members: tuple[NodeId, ...]) -> None:
        """See ``Leading``."""
        now = self._life.now
        leader = self._swarm.leader_type(
            me=self._me,
            plan=self._swarm.plans[job],
            record=record,
            token=token,
            members=members,
            view=self._swarm.view_of(self.node),
            config=self._swarm.config,
            wall_offset_s=-now,
        )
        self.leaders[job] = token, leader
        self._swarm.world.inject(self.node, leader.start(now))

    def depose(self, job: str, token: str) -> None:
        """See ``Leading``."""
        if job in self.leaders and self.leaders[job][0] == token:
            del self.leaders[job]

    def chosen(self, job: str, token: str, record: JobRecord) -> None:
        """See ``Leading``."""
        leading = self.leaders.get(job)
        if leading is not None and leading[0] == token:
            self._swarm.world.inject(self.node, leading[1].on_committed(record, self._life.now))

    def quorum(self, job: str, token: str, missing: tuple[NodeId, ...]) -> None:
        """See ``Leading``."""
        leading = self.leaders.get(job)
        if leading is not None and leading[0] == token:
            self._swarm.world.inject(self.node, leading[1].on_quorum(missing, self._life.now))

    # -- effects ---------------------------------------------------------------------------------------------

    def perform(self, effect: object) -> None:
        """See ``Process``."""
        self._perform(effect)  # type: ignore[arg-type]  # leaders and workers return nothing else

    def _perform(self, effect: LeaderEffect | WorkerEffect) -> None:
        match effect:
            case Send():
                self._send(effect.to, effect.message)
            case Propose():
                register = self._swarm.registers[effect.job]
                token = self.leaders[effect.job][0]
                register.propose(self.node, self._life.boot, token, effect.proposal)
            case StepDown():
                self.leaders.pop(effect.job, None)
                self._swarm.registers[effect.job].is_over = True
            case RunTask():
                self._attempts.run(effect)
            case CancelTask():
                self._cancel(effect.job, effect.attempt)
            case Forget():
                for attempt in effect.attempts:
                    self._cancel(effect.job, attempt)
            case Push():
                self._transfers.push(effect)
            case CancelPush():
                self._transfers.cancel_push(effect.number)
            case Fetch():
                self._transfers.fetch(effect)
            case FetchPlan():
                self._transfers.fetch_plan(effect)
            case ReadInventory():
                self._life.later(
                    self._life.random.uniform(0.0, 0.1),
                    lambda now: self.worker.on_inventory(effect.job, self.store.inventory(effect.job), now),
                )
            case Drop():
                self.store.drop(effect.job, effect.stages)
            case DropJob():
                self.store.drop(effect.job, None, but=effect.keep_stage)
            case Announce():
                event = effect.event
                if isinstance(event, Happened):
                    self._swarm.happened[event.event.kind] += 1
                    note = f"{event.event.kind} {event.event.node} {event.event.text}"
                    self._swarm.world.trace.note(self._swarm.world.now, "job", f"{self._me}: {note}")
            case _:
                assert_never(effect)

    def _send(self, to: NodeId, message: Message) -> None:
        if isinstance(message, NOTABLE):
            self._swarm.happened[type(message).__name__] += 1
        if to == self._me:
            self._life.later(0.0001, lambda now: self.deliver(message, self._me, now))
        else:
            self._life.send(to, message)

    def _cancel(self, job: str, attempt: int) -> None:
        self._attempts.cancel(job, attempt)
        self._transfers.cancel_fetch(job, attempt)

    def left_over(self) -> str:
        """What of any job is left in this process, in words."""
        left: dict[str, Sized] = {
            "leaders": self.leaders,
            "outputs": self._attempts.made,
            "tasks": self._attempts.running,
            "pushes": self._transfers.pushes,
            "fetches": self._transfers.fetches,
            "fetched": self._attempts.fetched,
        }
        return ", ".join(f"{len(things)} {name}" for name, things in left.items() if things)


def process_of(node: Node) -> JobProcess:
    """The process of a node that is up."""
    assert isinstance(node.process, JobProcess)
    return node.process


def store_of(node: Node) -> Store:
    """What a node that is up holds of outputs."""
    return process_of(node).store
