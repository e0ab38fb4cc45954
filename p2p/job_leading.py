"""The jobs that this peer leads: from the election that it has won to the day on which it resigns.

A leader (`mapreduce.leader`) needs its job's plan, which may have to be fetched first; until then a
leadership holds its place here without one.  What a leader proposes is applied to whatever record the
register has by then; its proposal's number there tells its own commits from other people's reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from mapreduce.changes import Proposal, apply
from mapreduce.config import JobsConfig
from mapreduce.failpoints import failpoint
from mapreduce.leader import Leader
from mapreduce.record import JobRecord
from mapreduce.spec import JobPlan
from membership import register_effects as reg
from membership.register import Fence, Record, next_group
from membership.view import NodeId, View
from p2p.job_keys import JOB_KEY, nodes_of
from p2p.submissions import acceptors

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["JobLeading"]

HEAL_PAUSE_S = 2.0


@dataclass(slots=True)
class _Leading:
    """A job that this peer leads; `leader` is None until its plan is here, `token` names the leadership."""

    key: str
    token: str
    record: JobRecord
    leader: Leader | None = None
    proposal: int = -1  # its number at the register


class JobLeading:
    """All leaders on one peer; `desk` is the service that this is a part of."""

    def __init__(self, desk: JobService, config: JobsConfig) -> None:
        self._desk = desk
        self._config = config
        self._leading: dict[str, _Leading] = {}
        self._healed_at: dict[str, float] = {}

    def get(self, job: str) -> Leader | None:
        """Return the leader of a job, if this peer leads it."""
        leading = self._leading.get(job)
        return None if leading is None else leading.leader

    # ---- what the register says ----------------------------------------------------------------------------

    def on_register(
        self,
        event: reg.Refused | reg.Leads | reg.Outbid | reg.GroupChanged | reg.QuorumLost | reg.QuorumRegained,
        now: float,
    ) -> None:
        """A job's register has news for whoever leads it."""
        match event:
            case reg.Refused(key=key, proposal=number, payload_bytes=size):
                leading = self._leading.get(key.removeprefix(JOB_KEY))
                if leading is not None and leading.leader is not None and leading.proposal == number:
                    self._desk.perform(leading.leader.on_refused(f"{size:,} bytes", now))
            case reg.Leads(key=key, record=record, fence=fence):
                self._begin_leading(key, record, fence, now)
            case reg.Outbid(key=key):
                self._leading.pop(key.removeprefix(JOB_KEY), None)
            case reg.GroupChanged(group=group):
                failpoint("seal.done")
                leading = self._leading.get(group.key.removeprefix(JOB_KEY))
                if leading is not None and leading.leader is not None:
                    self._desk.perform(leading.leader.on_members(nodes_of(group.members), now))
            case reg.QuorumLost(key=key, missing=missing):
                self._quorum(key, nodes_of(missing), now)
            case reg.QuorumRegained(key=key):
                self._quorum(key, (), now)

    def on_committed(self, event: reg.Committed, now: float) -> bool:
        """A change was chosen; False if no leader here has proposed it."""
        job = event.key.removeprefix(JOB_KEY)
        leading = self._leading.get(job)
        if leading is None or leading.leader is None or leading.proposal != event.proposal:
            return False
        failpoint("commit.chosen")
        self._desk.perform(leading.leader.on_committed(self._desk.record_in(event.record), now))
        self._desk.answers.job_moved(job, now)
        return True

    def _begin_leading(self, key: str, record: Record, fence: Fence, now: float) -> None:
        failpoint("lead.elected")
        job = key.removeprefix(JOB_KEY)
        led = self._leading.get(job)
        job_record = self._desk.record_in(record)
        if led is not None and led.leader is not None and led.token == job_record.token:
            return  # we have led it all along, and now do so in another epoch of its group
        self._leading[job] = _Leading(key, _token(self._desk.me, fence), job_record)
        plan = self._desk.plan(job)
        if plan is not None:
            self._lead(job, plan, now)
            return
        group = self._desk.registers.group(key)
        others = [node for node in nodes_of(group.members if group else ()) if node != self._desk.me]
        others += [
            member.id for member in self._desk.swim.view.alive if member.id not in (*others, self._desk.me)
        ]
        self._desk.arrivals.want_spec(job, others, ("lead", job), now)

    def _lead(self, job: str, plan: JobPlan, now: float) -> None:
        leading = self._leading[job]
        group = self._desk.registers.group(leading.key)
        assert group is not None, "who leads a register knows its group"
        leading.leader = Leader(
            me=self._desk.me,
            plan=plan,
            record=leading.record,
            token=leading.token,
            members=nodes_of(group.members),
            view=self._desk.swim.view,
            config=self._config,
            wall_offset_s=self._desk.wall_offset_s,
        )
        self._desk.log(f"leads job {job[:12]} ({plan.name})")
        failpoint("lead.begin")
        self._desk.perform(leading.leader.start(now))
        self._desk.locks.lead(job, leading.record, now)

    def spec_sought(self, job: str, now: float) -> None:
        """The search for a job's spec is over, well or not."""
        leading = self._leading.get(job)
        if leading is None or leading.leader is not None:
            return
        plan = self._desk.plan(job)
        if plan is not None:
            self._lead(job, plan, now)
        else:  # somebody else may have the spec
            self._desk.log(f"cannot lead job {job[:12]}: nobody here has its spec")
            self.step_down(job, now)

    def _quorum(self, key: str, missing: tuple[NodeId, ...], now: float) -> None:
        leading = self._leading.get(key.removeprefix(JOB_KEY))
        if leading is not None and leading.leader is not None:
            self._desk.perform(leading.leader.on_quorum(missing, now))
            self._desk.answers.job_moved(leading.record.job, now)

    # ---- what leaders want ---------------------------------------------------------------------------------

    def propose(self, job: str, proposal: Proposal, now: float) -> None:
        """A leader wants its job's record changed."""
        leading = self._leading.get(job)
        if leading is None:
            return

        def change(record: Record) -> bytes:
            before = self._desk.record_in(record)
            after = apply(before, proposal)
            if after is before:
                return record.payload
            return self._desk.packed(after)

        failpoint("commit.propose")
        number = self._desk.propose(job, change, now)
        if number is None:  # to go on beating would keep everybody else from leading it
            self.step_down(job, now)
        else:
            leading.proposal = number

    def step_down(self, job: str, now: float) -> None:
        """Lead a job no more."""
        leading = self._leading.pop(job, None)
        if leading is not None:
            self._desk.perform_register(self._desk.registers.resign(leading.key, now))

    def heal(self, now: float) -> None:
        """Give the jobs that we lead a group of the living again."""
        view = self._desk.swim.view
        for job, leading in self._leading.items():
            leader, group = leading.leader, self._desk.registers.group(leading.key)
            plan = self._desk.plan(job)
            if leader is None or group is None or plan is None or leader.has_ended:
                continue
            if now - self._healed_at.get(job, -inf) < HEAL_PAUSE_S:
                continue
            size = 2 * plan.replicas - 1
            members = next_group(group.members, acceptors(job, view), size)
            if members is not None and set(members) != set(group.members):
                failpoint("seal.begin")
                self._healed_at[job] = now
                self._desk.perform_register(self._desk.registers.seal(leading.key, members, now))

    # ---- time, and who is here -----------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        for leading in list(self._leading.values()):
            if leading.leader is not None and leading.leader.next_deadline() <= now:
                self._desk.perform(leading.leader.tick(now))

    def next_deadline(self) -> float:
        """When to be ticked again."""
        leaders = (one.leader.next_deadline() for one in self._leading.values() if one.leader is not None)
        return min(leaders, default=inf)

    def on_view(self, view: View, now: float) -> None:
        """Membership has news."""
        for leading in self._leading.values():
            if leading.leader is not None:
                self._desk.perform(leading.leader.on_view(view, now))

    def resign(self, now: float) -> None:
        """Lead nothing more: this peer is about to go."""
        for key in [leading.key for leading in self._leading.values()]:
            self._desk.perform_register(self._desk.registers.resign(key, now))

    def forget(self, job: str) -> None:
        """A job's time to live is over."""
        self._leading.pop(job, None)
        self._healed_at.pop(job, None)


def _token(me: NodeId, fence: Fence) -> str:
    """A name for a leadership that no other one has."""
    place, ballot = fence.place, fence.ballot
    return f"{place.generation}.{place.epoch}.{ballot.round}.{me}.{ballot.life}"
