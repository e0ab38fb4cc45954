"""The leader of one job: grants its tasks, commits their winners, and can be replaced at any moment.

Theory of operation
-------------------
A leader is the distinguished proposer of the job's register, and for as long as that lasts nobody else's
changes are chosen.  All it knows besides the record is what workers tell it, and they tell it again to
whoever leads next.  So a leader has no state that must survive, and its death costs a takeover:

phase        event                                        next phase
TAKING_OVER  the takeover is chosen; nothing was done     RUNNING
TAKING_OVER  the takeover is chosen                       GATHERING
GATHERING    all who are alive have said what they hold,  RUNNING
             or `gather_s` is over
RUNNING      a stage is complete in the record            RUNNING, in the next stage
RUNNING      winners are lost with all their copies       RUNNING, in the stage that must run again
any          the record is final                          ENDED
ENDED        `linger_s` is over                           the shell drops the leader

While GATHERING nothing is granted and nothing is given up: what seems undone may be in somebody's hands.

*Proposals* are one at a time (`mapreduce.proposals`).  Each carries all that follows from it as well: the
next stage is opened by the same write of the register that completes the last one.

*Stages* begin for workers only when the record says so.  A reduce task is granted when the winners of all map
tasks are chosen, to a peer that holds them all.

Who calls what, and when
------------------------
The shell makes a `Leader` when the job's election makes this peer the proposer, with the record it has read
from the register; it calls `start` once, and then

* `receive` for every message of `mapreduce.messages.ToLeader`,
* `on_view` when membership's view changes,
* `on_committed` when a `Propose` was chosen, with the record right after it, or `on_refused`,
* `on_quorum` when the register begins or ceases to lack a majority,
* `cancel` when somebody who may asks for it,
* `tick` at `next_deadline`.

When another proposer has outbid this one, the shell drops the object.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import Enum
from math import inf
from typing import assert_never

from mapreduce.changes import (
    Change,
    CommitTasks,
    Lost,
    Redo,
)
from mapreduce.config import JobsConfig
from mapreduce.counts import Numbers
from mapreduce.current_stage import CurrentStage
from mapreduce.disks import Disks
from mapreduce.effects import Announce, JobEnded, LeaderEffect, Propose, Stalled
from mapreduce.endings import Ending
from mapreduce.inventories import Inventories
from mapreduce.keeper import Keeper
from mapreduce.messages import (
    AskFate,
    AskOffer,
    Beat,
    Claim,
    Copied,
    DropOutputs,
    Failed,
    Finished,
    Inventory,
    Missing,
    Returned,
    ToLeader,
    Working,
)
from mapreduce.openings import warnings_of
from mapreduce.outbox import Outbox
from mapreduce.placement import can_work
from mapreduce.proposals import Proposals
from mapreduce.record import Failure, JobRecord
from mapreduce.seats import Seat, Seats, fallen
from mapreduce.spec import JobPlan
from mapreduce.stage_run import StageRun
from mapreduce.stages import StageGraph, task_name
from mapreduce.stalls import StallWatch
from membership.view import NodeId, Status, View

__all__ = ["Leader", "LeaderPhase"]


class LeaderPhase(Enum):
    """Where a leadership stands; see the module's table."""

    TAKING_OVER = "taking over"
    GATHERING = "gathering"
    RUNNING = "running"
    ENDED = "ended"


class Leader:
    """Leads one job.

    Args:
        me: this peer.
        plan: the job's.
        record: as read from the register.
        token: names this leadership among all others of the job: made of the register's fence.
        members: the job's group, of the current epoch.
        view: membership's.
        config: see there.
        wall_offset_s: what to add to `now` for the wall clock that events show.
    """

    # What it is made of; the simulator replaces parts to see that their mistakes are found.
    graph_type = StageGraph
    inventories_type = Inventories
    keeper_type = Keeper
    run_type = StageRun

    def __init__(
        self,
        *,
        me: NodeId,
        plan: JobPlan,
        record: JobRecord,
        token: str,
        members: tuple[NodeId, ...],
        view: View,
        config: JobsConfig,
        wall_offset_s: float,
    ) -> None:
        self.record = record
        self.phase = LeaderPhase.TAKING_OVER
        self._me = me
        self._job = record.job
        self._plan = plan
        self._graph = self.graph_type(plan)
        self._token = token
        self._members = members
        self._view = view
        self._config = config
        self._numbers = Numbers(record.job, record.ballot)
        self._keeper = self.keeper_type(self._graph, record.job, view, config)
        self._seats = Seats()
        self._inventories = self.inventories_type(record.job, self._seats, self._keeper, config)
        self._stage = CurrentStage(
            plan, self._graph, self._seats, self._keeper, self._numbers, config, self.run_type
        )
        self._fed = -1
        self._proposals = Proposals(
            leader=me,
            token=token,
            graph=self._graph,
            keeper=self._keeper,
            numbers=self._numbers,
            config=config,
            wall_offset_s=wall_offset_s,
        )
        self._disks = Disks()
        self._quorum_missing: tuple[NodeId, ...] = ()
        self._beat_at = inf
        self._stalls = StallWatch(config.stall_s, inf)
        self._ending: Ending | None = None
        self._out = Outbox(record.job, wall_offset_s, self._proposals.note)

    # -- what the shell calls ------------------------------------------------------------------------------

    def start(self, now: float) -> list[LeaderEffect]:
        """Take over: have the record name us, then announce, ask what there is, go on."""
        self._stalls = StallWatch(self._config.stall_s, now)
        if self.record.status.is_final:
            self._end(now)
            return self._out.take()
        came, _ = self._seats.follow(self._view)
        if not self.record.stages:  # nobody holds anything of a job that has not begun
            for seat in came:
                seat.knows_inventory = True
        self._out.event("leader", self._me, f"leads in place of {self.record.leader or 'nobody'}", now)
        for node in fallen(self.record, self._view):
            self._note_loss(node, now)
        for text in warnings_of(self._plan, len(self._view.ring_members)):
            self._out.event("warning", self._me, text, now)
        self._note_disks(now)
        self._propose(now)
        return self._out.take()

    def receive(self, message: ToLeader, sender: NodeId, now: float) -> list[LeaderEffect]:
        """Take a worker's message; those for another leadership are answered with who leads."""
        if self.phase is LeaderPhase.TAKING_OVER:
            return []
        if self._ending is not None:
            self._out.send(sender, self._ending.fate)
        elif isinstance(message, AskFate) or message.ballot < self.record.ballot:
            self._out.send(sender, self._beat(sender))
        elif message.ballot == self.record.ballot and (seat := self._seats.get(sender)) is not None:
            self._hear(message, seat, now)
        return self._out.take()

    def on_view(self, view: View, now: float) -> list[LeaderEffect]:
        """Members came, went or began anew: move places, take back what the dead had in hand."""
        before, self._view = self._view, view
        if self.phase is LeaderPhase.ENDED:
            return []
        came, gone = self._seats.follow(view)
        for seat in gone:
            self._leave(seat, now)
        anew = [seat for seat in self._seats if 0 < _session_of(seat, before) < _session_of(seat, view)]
        for seat in anew:  # before its first word: until then others' reports could count for what is lost
            self._begin_anew(seat, _session_of(seat, view), now)
        self._note_disks(now)
        moved = self._keeper.on_view(view)
        if self.phase is LeaderPhase.TAKING_OVER:
            return []
        for seat in came:
            self._out.event("came", seat.node, "is here", now)
        self._stage.follow_view(self.record, self._view, anyone_gone=bool(gone))
        if moved:
            self._out.event("replanned", self._me, "places move: " + self._keeper.moves_text(), now)
            self._proposals.soon(self._stage.run, now)
        if moved or any(self._keeper.doubts(seat.node) for seat in (*came, *anew)):
            if self._stage.run is not None:
                self._make_offer()
        elif (offer := self._stage.offer) is not None:
            self._out.send_all((seat.node, offer) for seat in came)
        self._go_on(now)
        return self._out.take()

    def on_members(self, members: tuple[NodeId, ...], now: float) -> list[LeaderEffect]:
        """The job's group was healed: a new epoch has other members."""
        self._members = members
        self._out.event("healed", self._me, f"the group is now {', '.join(members)}", now)
        if self._stage.offer is not None and self.phase is not LeaderPhase.ENDED:
            self._make_offer()
        return self._out.take()

    def on_committed(self, record: JobRecord, now: float) -> list[LeaderEffect]:
        """The last proposal was chosen, and this is the record right after it."""
        proposal = self._proposals.ended()
        before, self.record = self.record, record
        if proposal is None or record.token != self._token:
            return []
        if record.status.is_final:
            self._end(now)
            return self._out.take()
        if self.phase is LeaderPhase.TAKING_OVER:
            self._take_over(now)
        else:
            self._follow(proposal.changes, before, now)
        if self._stage.run is not None and self._stage.run.ready:
            self._proposals.soon(self._stage.run, now)
        self._go_on(now)
        return self._out.take()

    def on_refused(self, reason: str, now: float) -> list[LeaderEffect]:
        """The last proposal can never be chosen, since the record would be too large."""
        self._proposals.refused()
        message = f"the job's record does not fit its register: {reason}; use fewer, larger splits"
        self._fail(Failure(kind="JobDefinitionError", message=message), now)
        self._go_on(now)
        return self._out.take()

    def on_quorum(self, missing: tuple[NodeId, ...], now: float) -> list[LeaderEffect]:
        """The register waits for these members, who are too many; empty: it waits no more."""
        if bool(missing) != bool(self._quorum_missing):
            text = f"a quorum of {_named(missing)} is missing" if missing else "the quorum is back"
            self._out.event("quorum", self._me, text, now)
        self._quorum_missing = missing
        self._inventories.doubt()
        self._go_on(now)
        return self._out.take()

    def cancel(self, by: str, now: float) -> list[LeaderEffect]:
        """End the job as cancelled; nothing happens where it has ended."""
        if self.phase is not LeaderPhase.ENDED and self._proposals.cancel(by, now):
            self._go_on(now)
        return self._out.take()

    def tick(self, now: float) -> list[LeaderEffect]:
        """Do what is due."""
        if self._ending is not None:
            return self._ending.tick(self._view, now)
        if now >= self._beat_at:
            self._beat_at = now + self._config.beat_s
            self._out.send_all((seat.node, self._beat(seat.node)) for seat in self._seats)
            self._ask_inventories(now)
            for source, order in self._keeper.unanswered(now):
                self._out.send(source, replace(order, ballot=self.record.ballot))
            if self._stage.run is not None and self._may_grant:
                self._out.send_all(self._stage.run.tick(now))
        self._go_on(now)
        return self._out.take()

    def next_deadline(self) -> float:
        """When to be ticked again."""
        if self._ending is not None:
            return self._ending.next_deadline
        if self.phase is LeaderPhase.TAKING_OVER:
            return self._stalls.due_at
        due = [self._beat_at, self._stalls.due_at, self._inventories.gather_until, self._keeper.look_at]
        if self._proposals.under_way is None:
            due += [self._proposals.due_at, self._inventories.gives_up_at]
        if self._stage.run is not None and self._may_grant:
            due.append(self._stage.run.next_deadline)
        return min(due)

    @property
    def has_ended(self) -> bool:
        """Whether the job is over and this leader only answers stragglers."""
        return self.phase is LeaderPhase.ENDED

    @property
    def lacks_quorum(self) -> bool:
        """Whether a round of the register gets no majority."""
        return bool(self._quorum_missing)

    @property
    def waiting_for(self) -> str:
        """What the job waits for, in words."""
        run = self._stage.run
        if self._quorum_missing:
            return f"waiting for a quorum: {_named(self._quorum_missing)} do not answer"
        if self.phase is LeaderPhase.TAKING_OVER or run is None:
            return "waiting for the job's group to agree on a leader"
        if self.phase is LeaderPhase.GATHERING:
            return f"waiting for {_named(self._inventories.silent)} to say what they hold"
        if self._inventories.missed:
            return f"waiting for copies of {self._inventories.missed} outputs that nobody holds"
        return run.waiting_for(self._nobody_holds)

    @property
    def _nobody_holds(self) -> str:
        """That nobody takes copies, and what failing disks answer; "" where somebody does."""
        if self._keeper.copies_possible:
            return ""
        answers = self._disks.answers()
        return "; no peer takes copies" + (f" ({answers})" if answers else "")

    # -- hearing -------------------------------------------------------------------------------------------

    def _hear(self, message: ToLeader, seat: Seat, now: float) -> None:
        if isinstance(message, Claim | Working | Inventory) and not self._same_process(
            seat, message.session, now
        ):
            return
        run = self._stage.run
        if run is None:
            return  # no stage could be begun, and that the job has failed is being written
        match message:
            case Claim():
                self._numbers.doings.note("claimed", seat.node, len(message.tasks) or message.room, now)
                if message.stage != run.stage.index:
                    self._out.send(seat.node, self._beat(seat.node))
                elif self._may_grant:
                    self._out.send_all(run.claim(seat, message, now))
                else:
                    seat.waiting_claim = message
            case Working():
                if message.stage == run.stage.index:
                    self._out.send_all(run.working(seat, message, now))
            case Finished():
                size_bytes = sum(item.replica_bytes for item in message.items)
                self._numbers.doings.note("pushed", seat.node, len(message.items), now, size_bytes=size_bytes)
                if message.stage == run.stage.index:
                    self._out.send_all(run.finished(seat.node, message, now))
                    self._proposals.soon(self._stage.run, now)
                else:
                    self._out.send(seat.node, run.settled(seat.node, [i.attempt for i in message.items])[1])
            case Failed():
                self._hear_failed(message, seat, run, now)
            case Returned():
                if message.stage == run.stage.index:
                    self._out.send_all(run.returned(seat, message.attempts, now))
            case AskOffer():
                if self._stage.offer is not None:
                    self._out.send(seat.node, self._stage.offer)
            case Inventory():
                self._keeper.inventory(seat.node, message.groups)
                seat.knows_inventory = seat.knows_inventory or message.is_last
            case Copied():
                text = self._keeper.copied(message.number, message.reason, now)
                if text:
                    self._out.event("copied", seat.node, text, now, weighty=False)
                    self._numbers.doings.note("copied", seat.node, 1, now)
            case Missing():
                self._keeper.missing(seat.node, message.stage, message.tasks)
                self._out.event(
                    "missing", seat.node, f"{len(message.tasks)} outputs are damaged or gone", now
                )
            case AskFate():
                pass  # answered to whoever asks
            case _:
                assert_never(message)
        self._go_on(now)

    def _hear_failed(self, message: Failed, seat: Seat, run: StageRun, now: float) -> None:
        if message.stage == run.stage.index:
            name = task_name(run.stage.kind, message.task)
            self._out.event("failed", seat.node, f"{name}: {message.failure.message}", now)
            failure = run.failed(seat, message, now)
            if failure is not None:
                self._fail(failure, now)
        self._out.send(seat.node, run.settled(seat.node, [message.attempt])[1])

    def _same_process(self, seat: Seat, session: int, now: float) -> bool:
        """Notice when another process stands behind a name; False for what an earlier one said."""
        known = _session_of(seat, self._view)
        if session < known:
            return False
        if session > known > 0:
            self._begin_anew(seat, session, now)
            if self._stage.run is not None:
                self._make_offer()  # only of a new version does it count what others say that lies there
        seat.session = session
        return True

    def _begin_anew(self, seat: Seat, session: int, now: float) -> None:
        """Another process stands behind a name: it has nothing in hand, and may hold nothing."""
        self._out.event("restarted", seat.node, "is another process than before", now)
        run = self._stage.run
        if run is not None:
            run.leave(seat)
        self._keeper.forget(seat.node)
        if run is not None:
            run.places_gone()
        seat.begin_session(session)

    def _note_disks(self, now: float) -> None:
        """Tell of disks that take nothing any more, or do again; their places move with the view."""
        for node, text in self._disks.look(self._view):
            self._out.event("refuses", node, text, now)

    def _note_loss(self, node: NodeId, now: float) -> None:
        self._out.event("lost", node, "is dead", now)
        self._numbers.unsaved_peers_lost += 1

    def _leave(self, seat: Seat, now: float) -> None:
        """A member is gone, with what it had in hand and all that it held."""
        member = self._view.get(seat.node)
        if member is not None and member.status is Status.LEFT:
            self._out.event("left", seat.node, "has left", now)
        else:
            self._note_loss(seat.node, now)
        if self._stage.run is not None:
            self._stage.run.leave(seat)
        self._keeper.forget(seat.node)

    # -- following the record --------------------------------------------------------------------------------

    def _take_over(self, now: float) -> None:
        self._numbers.ballot = self.record.ballot
        self._beat_at = now + self._config.beat_s
        self._keeper.follow(self.record)
        self._keeper.on_view(self._view)
        self.phase = LeaderPhase.GATHERING
        self._inventories.begin_gathering(now)
        self._enter(now)
        self._ask_inventories(now)

    def _follow(self, changes: Sequence[Change], before: JobRecord, now: float) -> None:
        """Do what the changes mean that were just chosen."""
        run = self._stage.run
        assert run is not None
        commits = next((change for change in changes if isinstance(change, CommitTasks)), None)
        if commits is not None and commits.commits:
            text = f"{len(commits.commits)} {run.stage.kind} tasks"
            self._out.event("committed", self._me, text, now, weighty=False)
            self._numbers.moves += len(commits.commits)
            self._out.send_all(run.committed(self.record.stages[run.stage.index]))
        lost = [change for change in changes if isinstance(change, Lost)]
        for change in lost:
            self._keeper.lost(change.stage, [one.task for one in change.tasks])
        self._keeper.follow(self.record)
        dropped = [
            index
            for index, stage in enumerate(self.record.stages[: len(before.stages)])
            if stage.is_dropped and not before.stages[index].is_dropped
        ]
        if dropped:
            self._out.send_all((seat.node, self._drop(dropped)) for seat in self._seats)
        back = lost or any(isinstance(change, Redo) for change in changes)
        if back or self.record.stage != run.stage.index:
            self._enter(now)

    def _enter(self, now: float) -> None:
        """Begin the stage that the record says is the current one."""
        failure = self._stage.enter(self.record, self._view, now)
        if failure is not None:
            self._fail(failure, now)
            return
        self._out.event("stage", self._me, self._stage.describe(), now)
        self._make_offer()

    def _make_offer(self) -> None:
        """Tell everybody what the stage is, and where its outputs shall lie."""
        offer = self._stage.offer_anew(self.record, self._view, self._members)
        self._out.send_all((seat.node, offer) for seat in self._seats)

    # -- going on --------------------------------------------------------------------------------------------

    @property
    def _may_grant(self) -> bool:
        decided = self._proposals.last_word is not None
        return self.phase is LeaderPhase.RUNNING and not self._quorum_missing and not decided

    def _go_on(self, now: float) -> None:
        """Do whatever can be done now; called after everything that may have changed something."""
        if self.phase is LeaderPhase.GATHERING and self._inventories.has_gathered(self._view, now):
            self.phase = LeaderPhase.RUNNING
            self._inventories.end_gathering()
            self._stage.begin(self.record, self._view, now)
        if self.phase is LeaderPhase.RUNNING:
            for source, order in self._keeper.orders(now):
                self._out.send(source, replace(order, ballot=self.record.ballot))
            if self._may_grant and self._stage.run is not None:
                self._grant_more(self._stage.run, now)
        self._propose(now)
        text = self._stalls.look(self._numbers.moves, now, lambda: self.waiting_for)
        if text is not None:
            self._out.add(Announce(event=Stalled(job=self._job, text=text)))

    def _grant_more(self, run: StageRun, now: float) -> None:
        for seat in self._seats:
            if seat.waiting_claim is not None:
                claim, seat.waiting_claim = seat.waiting_claim, None
                self._out.send_all(run.claim(seat, claim, now))
        more_held = self._fed != self._keeper.generation
        self._fed = self._keeper.generation
        self._out.send_all(run.go_on(now, more_held=more_held))

    def _ask_inventories(self, now: float) -> None:
        if self._proposals.last_word is not None:
            return  # it ends, whoever holds what
        self._out.send_all(self._inventories.requests(self.record.ballot, now))

    def _propose(self, now: float) -> None:
        proposals = self._proposals
        if proposals.under_way is not None:
            return
        losses = self._given_up(now) if proposals.last_word is None else []
        for loss in losses:
            if isinstance(loss, Lost):
                text = f"{len(loss.tasks)} outputs of stage {loss.stage} have no copy left"
                self._out.event("again", self._me, text + ": they are made again", now)
        takes_over = self.phase is LeaderPhase.TAKING_OVER
        proposal = proposals.next(
            self.record, self._stage.run, self._view, losses, now, takes_over=takes_over
        )
        if proposal is not None:
            self._out.add(Propose(job=self._job, proposal=proposal))

    def _given_up(self, now: float) -> list[Change]:
        """What is taken back because nobody holds it; see `mapreduce.inventories`."""
        if self.phase is not LeaderPhase.RUNNING or self._quorum_missing or not self._inventories.knows_all:
            return []
        given_up = self._inventories.give_up(now)
        self._ask_inventories(now)
        return given_up

    def _fail(self, failure: Failure, now: float) -> None:
        if self._proposals.fail(failure, now):
            self._out.event("failed", failure.node, failure.message, now)

    # -- the end ---------------------------------------------------------------------------------------------

    def _end(self, now: float) -> None:
        self.phase = LeaderPhase.ENDED
        self._stage.end()
        self._ending = Ending(self._plan, self.record, self._config, now)
        for effect in self._ending.tick(self._view, now):
            self._out.add(effect)
        self._out.add(Announce(event=JobEnded(job=self._job, status=self.record.status)))

    # -- telling ---------------------------------------------------------------------------------------------

    def _beat(self, to: NodeId) -> Beat:
        member = self._view.get(to)
        leaving = member is not None and member.status.in_ring and not can_work(member)
        return Beat(
            job=self._job,
            ballot=self.record.ballot,
            spec_digest=self.record.spec_digest,
            stage=self.record.stage,
            version=self._stage.offer.version if self._stage.offer is not None else 0,
            needs_you=leaving and self._keeper.depends_on(to),
        )

    def _drop(self, stages: Sequence[int]) -> DropOutputs:
        return DropOutputs(job=self._job, ballot=self.record.ballot, stages=tuple(stages))


def _session_of(seat: Seat, view: View) -> int:
    """The newest process that is known to stand behind a name; who has not spoken yet may be in the view."""
    member = view.get(seat.node)
    return max(seat.session, member.session if member is not None else 0)


def _named(nodes: Iterable[NodeId]) -> str:
    return "{" + ", ".join(nodes) + "}"
