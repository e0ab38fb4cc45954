"""One job on one worker: what it is offered, what it claims, what it has in hand, what it reports.

Theory of operation
-------------------
A worker follows the leader with the highest ballot it has heard of.  From a `Beat` it learns that there is a
stage or a version that it does not know, and asks for the `Offer`, which it reads beside the job's plan
(`mapreduce.stage_offer`).  What it claims is decided by `mapreduce.claiming`, what is in its hands and in
which phase stands in `mapreduce.held`, what it tells and when in `mapreduce.reports`, and what waits to be
pushed in `mapreduce.outgoing`.  Here these are brought together: each message and each answer of the shell
changes what is in hand, and what follows from that goes out as effects.

What was granted and finds all slots taken by other jobs is said at once (`Working`), so that the leader can
ask it back for somebody idle.  A stage that is left takes everything with it that its attempts had under way:
the stage would not have been left if they were needed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from math import inf

from mapreduce.claiming import Claiming
from mapreduce.config import JobsConfig
from mapreduce.effects import (
    CancelPush,
    CancelTask,
    Fetch,
    FetchPlan,
    Forget,
    Push,
    Send,
    TaskOutput,
    WorkerEffect,
)
from mapreduce.failures import INPUT_GONE
from mapreduce.held import Hands, Held, Partitions
from mapreduce.messages import (
    AskOffer,
    Beat,
    Claim,
    Copied,
    CopyOrder,
    Failed,
    Finished,
    Grant,
    HeldGroup,
    Inventory,
    Missing,
    Offer,
    Phase,
    Returned,
    Revoke,
    ToLeader,
    Working,
)
from mapreduce.outgoing import LARGE_BYTES, Outgoing, OutPush
from mapreduce.record import Failure
from mapreduce.reports import Reports, inventory_parts
from mapreduce.spec import JobPlan
from mapreduce.stage_offer import StageOffer
from mapreduce.stages import StageGraph
from mapreduce.telling import plain, told, too_much_of
from membership.view import NodeId, View

__all__ = ["WorkerJob"]

MAX_COPY_ORDERS = 1_024
MAX_STATUS_CHARS = 1_024


class WorkerJob:
    """What a worker knows and does of one job.

    Args:
        me: this worker.
        session: of its process.
        job: the job's id.
        slots: of the worker.
        config: see there.
        push_numbers: never used twice by this worker.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        session: int,
        job: str,
        slots: int,
        config: JobsConfig,
        push_numbers: Iterator[int],
        now: float,
    ) -> None:
        self.job = job
        self.plan: JobPlan | None = None
        self.spec_digest = ""
        self.ballot = 0
        self.leader = NodeId("")
        self.members: tuple[NodeId, ...] = ()
        self.heard_at = now
        self.ask_at = now  # what became of it, once nobody has led it for a while
        self.is_needed = True
        self.hands = Hands()
        self.claiming = Claiming(self.hands, slots, config)
        self._me = me
        self._session = session
        self._config = config
        self._graph: StageGraph | None = None
        self._offer: Offer | None = None
        self._stage: StageOffer | None = None
        self._reports = Reports(self.hands, config)
        self._outgoing = Outgoing(config, push_numbers)
        self._copied: OrderedDict[int, bool] = OrderedDict()  # copy orders: whether they are done
        self._granted = False
        self._fetch_plan_at = inf
        self._status = ""
        self.out: list[WorkerEffect] = []

    # -- following the leader ------------------------------------------------------------------------------

    def obeys(self, ballot: int, sender: NodeId, now: float) -> bool:
        """Whether an order under this ballot counts; one of a higher ballot names a new leader."""
        if ballot < self.ballot:
            return False
        self.heard_at = now
        if ballot > self.ballot:
            self.ballot, self.leader = ballot, sender
            self.claiming.seen = 0
            self._offer = None
            self._copied.clear()
            for held in self.hands.attempts.values():
                held.version = 0  # each leader counts the versions of its places anew
        return True

    def take_beat(self, beat: Beat, now: float) -> None:
        """The leader says what there is; ask for what we do not have."""
        self._know_spec(beat.spec_digest, now)
        self.is_needed = beat.needs_you
        known = self._offer
        if beat.stage < 0:
            return
        if known is None or known.stage != beat.stage or known.version < beat.version:
            self._say(AskOffer(job=self.job, ballot=self.ballot))

    def take_offer(self, offer: Offer, view: View, now: float) -> None:
        """The leader says what the stage is."""
        self._know_spec(offer.spec_digest, now)
        self.members = offer.members
        old = self._offer
        if old is not None and offer.version <= old.version:
            return
        self._offer = offer
        if self._graph is not None:
            self._enter(view, now)

    def _know_spec(self, spec_digest: str, now: float) -> None:
        if not self.spec_digest:
            self.spec_digest = spec_digest
            self._fetch_plan_at = now

    def take_plan(self, plan: JobPlan, view: View, now: float) -> None:
        """The job's plan is here."""
        self.plan = plan
        self._graph = StageGraph(plan)
        self._fetch_plan_at = inf
        if self._offer is not None:
            self._enter(view, now)

    def plan_failed(self, now: float) -> None:
        """The plan could not be fetched: try again, perhaps the leader has changed."""
        self._fetch_plan_at = now + 2 * self._config.retry_s

    def _enter(self, view: View, now: float) -> None:
        """Follow an offer: a new stage, a new leader, or places that have moved."""
        offer, graph, old = self._offer, self._graph, self._stage
        assert offer is not None
        assert graph is not None
        assert self.plan is not None
        if offer.stage >= len(graph):
            return
        same = old is not None and old.continues(offer)
        if not same:
            self._leave_stage()
            self.claiming.begin_stage()
        self._stage = StageOffer(self.job, offer, self.plan, graph, self._me, old if same else None)
        self._distrust(_older_in(view, offer))
        for held in list(self.hands.attempts.values()):
            if held.phase in (Phase.PUSHING, Phase.FINISHED):
                self._owe(held, now)
        self._find_own(view)
        self.claiming.anew(now)
        self._reports.tell_all(now)

    def _leave_stage(self) -> None:
        """What is in hand belongs to a stage that is over."""
        for held in self.hands.attempts.values():
            self.out.append(CancelTask(job=self.job, attempt=held.attempt))
        self.out += [CancelPush(job=self.job, number=number) for number in self._outgoing.drop()]
        self.hands.clear()
        self._reports.clear()

    def _find_own(self, view: View) -> None:
        """Which tasks of the stage are ours, by their data or by the ring."""
        assert self._stage is not None
        busy = {held.task for held in self.hands.attempts.values()}
        homes = self._stage.homes(view)
        self.claiming.own(t for t, node in enumerate(homes) if node == self._me and t not in busy)

    def follow_view(self, view: View, restarted: frozenset[NodeId], now: float) -> None:
        """Other peers came or went; what those acknowledged that began anew is not certain any more."""
        if self._stage is None:
            return
        for held in self._distrust(restarted):
            self._owe(held, now)
        if self._offer is not None and not self._offer.homes:
            self._find_own(view)
            self.claiming.due_at = now

    def _distrust(self, restarted: frozenset[NodeId]) -> list[Held]:
        """Forget what these have acknowledged; gives the attempts that they may lack now.

        One that is reported already is among them: until it is settled nobody counts on its output, and
        whoever settles it without these knows so.
        """
        if not restarted:
            return []
        self._outgoing.doubt(restarted)
        lacking: list[Held] = []
        for held in self.hands.attempts.values():
            doubtful = [node for node in held.acked if node in restarted]
            for node in doubtful:
                del held.acked[node]
            if doubtful and held.phase in (Phase.PUSHING, Phase.FINISHED):
                lacking.append(held)
        return lacking

    # -- claiming ------------------------------------------------------------------------------------------

    @property
    def held_count(self) -> int:
        """How many attempts are in hand, in any phase."""
        return len(self.hands.attempts)

    def asks(self, now: float) -> bool:
        """Whether it has asked for tasks a moment ago, or is about to."""
        return self.claiming.asks(now, has_offer=self._offer is not None)

    def _claim(self, now: float) -> None:
        wanted = self.claiming.claim(now)
        if wanted is None:
            return
        assert self._stage is not None
        claim = Claim(
            job=self.job,
            ballot=self.ballot,
            stage=self._stage.index,
            session=self._session,
            seen=self.claiming.seen,
            room=wanted.room,
            idle=wanted.idle,
            tasks=wanted.tasks,
        )
        self._say(claim)

    def take_grant(self, grant: Grant) -> None:
        """The leader gives us attempts."""
        if self._stage is None or grant.stage != self._stage.index:
            return
        self.claiming.granted(grant.number, is_empty=not grant.items)
        for item in grant.items:
            if item.attempt in self.hands.attempts or item.attempt in self._reports:
                continue
            is_here = item.piece is None or self._me in item.piece.holders
            self.hands.take(Held(item.task, item.attempt, item.number, item.piece, is_here))
            if item.piece is not None and not is_here:
                self.out.append(Fetch(job=self.job, attempt=item.attempt, piece=item.piece))
        self._granted = bool(grant.items)

    def take_revoke(self, revoke: Revoke) -> None:
        """The leader wants attempts back, or wants them gone."""
        returned = []
        for attempt in revoke.attempts:
            held = self.hands.attempts.get(attempt)
            if held is None:
                returned.append(attempt)
            elif held.phase is Phase.QUEUED and held.is_here:
                self._drop(held)
                returned.append(attempt)
            elif revoke.force:
                self._drop(held)
            # What is being fetched will not be had any sooner by somebody else.
        if returned and not revoke.force:
            self._say(
                Returned(job=self.job, ballot=self.ballot, stage=revoke.stage, attempts=tuple(returned))
            )

    def return_queued(self) -> None:
        """Give back everything that has not begun."""
        queued = [held for held in self.hands.attempts.values() if held.phase is Phase.QUEUED]
        for held in queued:
            self._drop(held)
        if queued and self._stage is not None:
            attempts = tuple([held.attempt for held in queued])
            self._say(Returned(job=self.job, ballot=self.ballot, stage=self._stage.index, attempts=attempts))

    # -- running -------------------------------------------------------------------------------------------

    def run_next(self) -> bool:
        """Begin the attempt that has waited longest; False when none is ready."""
        held = self.hands.begin_next()
        if held is None:
            return False
        assert self._stage is not None
        self.out.append(self._stage.order(held))
        return True

    def task_done(self, attempt: int, output: TaskOutput, now: float) -> None:
        """An attempt succeeded: its output is to be pushed, and then reported."""
        held = self.hands.attempts.get(attempt)
        if held is None or held.phase is not Phase.RUNNING:
            return
        if problem := too_much_of(output):
            self.out.append(CancelTask(job=self.job, attempt=attempt))  # for what it wrote
            self.task_failed(attempt, Failure(kind="JobDefinitionError", message=problem), (), now)
            return
        self.hands.push(held)
        self.claiming.took(output.took_s)
        held.output = output
        self._owe(held, now)

    def task_failed(self, attempt: int, failure: Failure, missing: Sequence[int], now: float) -> None:
        """An attempt failed; it is reported until that is settled."""
        held = self.hands.attempts.get(attempt)
        if held is None or self._stage is None:
            return
        self._drop(held, cancel=False)
        piece = held.piece
        if failure.kind == INPUT_GONE and piece is not None and self._me in piece.holders:
            # It was to be read from our own store: the leader should not count on our copy any more.
            parts = {"tasks": (piece.part,), "attempts": (piece.attempt,)}
            self._say(Missing(job=self.job, ballot=self.ballot, stage=piece.stage, **parts))
        failed = Failed(
            job=self.job,
            ballot=self.ballot,
            stage=self._stage.index,
            task=held.task,
            attempt=attempt,
            failure=told(failure),
            missing=tuple(missing),
        )
        self._reports.failed(failed, now)
        self._say(failed)

    def note_status(self, text: str) -> None:
        """What user code says it does."""
        self._status = plain(text, MAX_STATUS_CHARS)

    # -- pushing -------------------------------------------------------------------------------------------

    def _owe(self, held: Held, now: float) -> None:
        """Push what the stage's places lack of an output; report it when that is nothing."""
        assert self._stage is not None
        assert held.output is not None
        places = self._stage.places_of(held)
        if places is None:
            held.owed = {}
            return  # there will be places when somebody joins who takes copies
        before, held.owed = held.owed, {}
        at_once = held.output.size_bytes >= LARGE_BYTES or not (self.hands.running or self.hands.queued)
        for node, wanted in places.items():
            left = held.lacks(node, wanted)
            if left is None:
                continue
            held.owed[node] = left
            if before.get(node) != left:
                self._outgoing.add(node, left, held.task, held.attempt, now, at_once=at_once)
        if held.owed:
            if held.phase is Phase.FINISHED:
                self.hands.push(held)
        elif held.phase is Phase.PUSHING or held.version != self._stage.version:
            self._finish(held, now)

    def _finish(self, held: Held, now: float) -> None:
        assert self._stage is not None
        self.hands.finish(held)
        # Until the next leader's offer the stage is the last one's, whose versions mean nothing to it.
        held.version = self._stage.version if self._offer is not None else 0
        self._reports.finished(held, now)

    def pushed(self, number: int, sent_bytes: int, now: float) -> None:
        """A place has acknowledged a push."""
        push = self._outgoing.answered(number)
        if push is None:
            return
        if push.is_doubtful:
            self._push_again(push, "it began anew meanwhile", now)
            return
        if push.copy_order:
            self._copy_ended(push, "")
            return
        for attempt in push.group.attempts:
            held = self.hands.attempts.get(attempt)
            if held is None:
                continue
            held.acknowledge(push.to, push.group.partitions)
            held.sent_bytes += sent_bytes
            sent_bytes = 0  # the first stands for all
            if held.phase is Phase.PUSHING and not held.owed and self._has_places(held):
                self._finish(held, now)

    def _has_places(self, held: Held) -> bool:
        assert self._stage is not None
        return self._stage.places_of(held) is not None

    def push_failed(self, number: int, reason: str, now: float) -> None:
        """A place did not take a push: try again, if it is a place still."""
        push = self._outgoing.answered(number)
        if push is not None:
            self._push_again(push, reason, now)

    def _push_again(self, push: OutPush, reason: str, now: float) -> None:
        if push.copy_order:
            self._copy_ended(push, reason or "it failed")
            return
        # What is owed may have become less since, by an older push of other partitions.
        again: dict[Partitions, list[tuple[int, int]]] = {}
        for task, attempt in zip(push.group.tasks, push.group.attempts, strict=True):
            held = self.hands.attempts.get(attempt)
            if held is not None and push.to in held.owed:
                again.setdefault(held.owed[push.to], []).append((task, attempt))
        for partitions, outputs in again.items():
            self._outgoing.again(push.to, partitions, outputs, now)

    def take_copy_order(self, order: CopyOrder) -> None:
        """The leader wants outputs that lie here to lie elsewhere as well."""
        done = self._copied.get(order.number)
        if done is not None:
            if done:  # the answer was lost
                self._say(Copied(job=self.job, ballot=self.ballot, number=order.number))
            return
        self._copied[order.number] = False
        if len(self._copied) > MAX_COPY_ORDERS:
            self._copied.popitem(last=False)
        group = HeldGroup(
            stage=order.stage, partitions=order.partitions, tasks=order.tasks, attempts=order.attempts
        )
        push = self._outgoing.begin(order.to, group, order.number, order.ballot)
        self.out.append(Push(job=self.job, number=push.number, to=order.to, group=group, is_repair=True))

    def _copy_ended(self, push: OutPush, reason: str) -> None:
        if push.ballot != self.ballot:
            return  # who ordered it leads no more; its successor learns from inventories what lies where
        if reason:
            self._copied.pop(push.copy_order, None)
        else:
            self._copied[push.copy_order] = True
        self._say(Copied(job=self.job, ballot=self.ballot, number=push.copy_order, reason=reason[:1024]))

    # -- reporting -----------------------------------------------------------------------------------------

    def take_settled(self, attempts: Iterable[int]) -> None:
        """What was reported of these attempts is in the record, or will never matter."""
        settled = []
        for attempt in attempts:
            self._reports.settled(attempt)
            held = self.hands.attempts.get(attempt)
            if held is not None and held.phase in (Phase.PUSHING, Phase.FINISHED):
                self._drop(held, cancel=False)
                settled.append(attempt)
        if settled:
            self.out.append(Forget(job=self.job, attempts=tuple(settled)))

    def _report(self, now: float) -> None:
        """Say what is to be said now of what is in hand and what is done."""
        assert self._stage is not None
        held = self._reports.all_in_hand(now)
        if held is not None:
            self._say(
                Working(
                    job=self.job,
                    ballot=self.ballot,
                    stage=self._stage.index,
                    session=self._session,
                    seen=self.claiming.seen,
                    held=held,
                    status=self._status,
                )
            )
            for failed in self._reports.again(self.ballot, now):
                self._say(failed)
        for version, items in self._reports.done(now):
            self._say(
                Finished(
                    job=self.job, ballot=self.ballot, stage=self._stage.index, version=version, items=items
                )
            )

    def say_inventory(self, groups: Sequence[HeldGroup]) -> None:
        """Say what lies here, in as many messages as it takes."""
        *most, last = inventory_parts(groups)
        for part in most:
            self._say(self._inventory(part, is_last=False))
        self._say(self._inventory(last, is_last=True))

    def _inventory(self, groups: Sequence[HeldGroup], *, is_last: bool) -> Inventory:
        return Inventory(
            job=self.job, ballot=self.ballot, session=self._session, groups=tuple(groups), is_last=is_last
        )

    # -- time ----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now >= self._fetch_plan_at:
            self._fetch_plan_at = inf
            sources = tuple(dict.fromkeys((self.leader, *self.members)))
            self.out.append(FetchPlan(job=self.job, spec_digest=self.spec_digest, sources=sources))
        stage = self._stage
        if stage is None:
            return
        for push in self._outgoing.flush(stage.index, now, self.hands.attempts):
            self.out.append(Push(job=self.job, number=push.number, to=push.to, group=push.group))
        if self._offer is None:
            return  # a new leader has yet to say what the stage is; our news are for that one
        if self._granted:
            self._granted = False
            if self.hands.queue and not self.hands.running:
                self._reports.tell_all_soon(now)  # the slots are other jobs': somebody else may be idle
        self._report(now)
        if now >= self.claiming.due_at:
            self._claim(now)

    @property
    def next_deadline(self) -> float:
        """When something is due."""
        if self._stage is None:
            return self._fetch_plan_at
        due = min(self._fetch_plan_at, self._outgoing.next_deadline)
        if self._offer is None:
            return due
        return min(due, self._reports.next_deadline, self.claiming.due_at)

    def end(self) -> None:
        """The job is over, or not ours any more: let go of everything."""
        self._leave_stage()
        self.out += [CancelPush(job=self.job, number=number) for number in self._outgoing.drop_all()]

    # -- inside --------------------------------------------------------------------------------------------

    def _drop(self, held: Held, *, cancel: bool = True) -> None:
        """Let go of an attempt."""
        self.hands.drop(held)
        if cancel:
            self.out.append(CancelTask(job=self.job, attempt=held.attempt))

    def _say(self, message: ToLeader) -> None:
        self.out.append(Send(to=self.leader, message=message))


def _older_in(view: View, offer: Offer) -> frozenset[NodeId]:
    """The places of which the leader knows a later life than this worker's view does."""
    known = zip(offer.nodes, offer.sessions, strict=False)
    return frozenset(
        [node for node, session in known if (seen := view.get(node)) is not None and seen.session < session]
    )
