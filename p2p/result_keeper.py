"""Copies of results: what is done about the parts of jobs that are over, until their time to live ends.

Theory
------
A job that has ended has no leader, and nothing of it but its record, with the group that kept it, and its
parts, with those who held them then.  So the members of the group look after the parts:

1. Each reads the record when the job ends, and remembers it: later too few of them may be left to read it.
2. As long as everybody who held a part is here, in the same life, nothing is said.  When one of them goes,
   starts anew, drains, or says that what it had was damaged (`KeptHurt`), a member *looks*: it asks all peers
   what lies with them (`AskKept`).
3. Of a part with fewer copies than R, or than there are peers that take copies, it asks the first holder to
   send it to the first owners of the part's key that lack it (`SendKept`), a few parts at a time and under
   the one throttle of repairs; then it looks again.  What it asks for it asks for again every
   `ORDER_AGAIN_S`, until it hears how that ended; a holder that is at it already goes on.  A result that has
   all its copies is left in peace.  One that cannot have R of them, as too few peers are here, is looked at
   when others come.

The members are not equally quick, by their order in the group, and one that hears another ask rests for
`REST_S`: so mostly one of them does the work, and the others find it done and know the new holders.  Two at
once might send a part twice, which is harmless: a store keeps what it has.

Of the record nobody makes copies when a member dies: when all of the group have died, one after another,
nobody knows any more which parts are the result; and a member that starts anew needs a majority of them to
read it.  A member that leaves in good order hands its place on (`p2p.record_handover`).

Whoever is asked learns how long the result lives, before anything is sent to it; so what comes, goes.

A peer that is about to leave looks, too, be it a member of the group or not: what lies with it shall lie with
R others before it goes, also when one of them has just died and nobody has seen to that yet.  It knows no
more of the result than what it has, and that is enough.

Bounds: `MAX_RESULTS` are looked after, the oldest go first; `MAX_LOOKS` at a time; `MAX_SENDING` parts of
each; `MAX_TRIES` looks without gain, after which only another change of the membership begins anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from mapreduce.placement import DRAINING
from mapreduce.record import JobRecord, JobStatus
from mapreduce.stages import StageGraph
from membership.view import Member, NodeId
from p2p import result_questions as r
from p2p.bulk import BulkEvent, Sent
from p2p.job_keys import JOB_KEY
from p2p.record_handover import RecordHandover

if TYPE_CHECKING:
    from mapreduce.spec import JobPlan
    from p2p.job_service import JobService

__all__ = ["ResultKeeper", "part_key"]

READ_AFTER_S = 1.0
SETTLE_S = 0.5
STAGGER_S = 1.0
REST_S = 10.0
ANSWER_LIMIT_S = 5.0
SEND_LIMIT_S = 60.0
ORDER_AGAIN_S = 5.0
RETRY_S = 2.0
MAX_TRIES = 30
MAX_RESULTS = 1_024
MAX_LOOKS = 4
MAX_SENDING = 64

Life = tuple[NodeId, int]


def part_key(job: str, part: int) -> str:
    """Return a part's key on the ring, whose owners get copies that are made later."""
    return f"{JOB_KEY}{job}/{part}"


@dataclass(slots=True)
class _Look:
    """What is under way for one result: who is still to answer, then which copies are still to arrive.

    Attributes:
        orders: what is still to be sent, as (attempt, to): who was asked to, and how.
        again_at: when to ask for that again.
    """

    number: int
    until: float
    waiting: set[NodeId]
    held: dict[NodeId, frozenset[int]] = field(default_factory=dict)
    orders: dict[tuple[int, NodeId], tuple[NodeId, r.SendKept]] = field(default_factory=dict)
    again_at: float = inf
    gained: bool = False


@dataclass(slots=True)
class _Result:
    """A result that this peer looks after.

    Attributes:
        until: when its time to live is over, once the job's record was read; None: it was not yet.
        attempts: {attempt: part} of those that have any bytes.
        held: which attempts lie with whom, as of the last look.
        relies_on: who holds copies, each in which life.
        is_short: copies are missing, perhaps: look whenever the membership changes.
        due: when to look; inf: all is well.
    """

    due: float
    until: float | None = None
    attempts: dict[int, int] = field(default_factory=dict)
    held: dict[NodeId, frozenset[int]] = field(default_factory=dict)
    relies_on: frozenset[Life] = frozenset()
    is_short: bool = False
    tries: int = 0
    look: _Look | None = None


class ResultKeeper:
    """What this peer does about results; `desk` is the service that it is a part of."""

    handles = frozenset((r.AskKept, r.KeptHere, r.SendKept, r.KeptSent, r.KeptHurt, r.TimeIsOver))

    def __init__(self, desk: JobService) -> None:
        self._desk = desk
        self._results: OrderedDict[str, _Result] = OrderedDict()
        # What is on its way from here, {(job, attempt, to): the last who has asked for it}.
        self._sending: dict[tuple[str, int, NodeId], tuple[r.SendKept, NodeId]] = {}
        self._view_version = -1
        self._is_leaving = False
        self._records = RecordHandover(desk)
        self._handing_over: set[str] = set()  # jobs whose results lay here when this peer began to leave
        self.copies_made = 0

    # ---- which results -------------------------------------------------------------------------------------

    def job_is_over(self, job: str, now: float, *, is_sure: bool = True) -> None:
        """A job has ended with a result; it is looked after if this peer keeps its record.

        Args:
            is_sure: that was just now; else in an earlier life of this peer, perhaps of all others, too: then
                nobody may know how long to keep what he has.
        """
        if job not in self._results and self._desk.registers.acceptor.get(JOB_KEY + job) is not None:
            due = now + READ_AFTER_S + self._stagger_s(job)
            self._results[job] = _Result(due, is_short=not is_sure)
            if len(self._results) > MAX_RESULTS:
                self._results.popitem(last=False)
        if self._is_leaving:
            self._hand_over(job, now)

    def record_is_here(self, job: str, now: float) -> None:
        """A job is over whose record may lie here: if this peer is about to leave, it hands that on, too."""
        if self._is_leaving:
            self._records.job_is_over(job, now)

    def forget(self, job: str) -> None:
        """Its time to live is over."""
        self._results.pop(job, None)
        self._handing_over.discard(job)

    def drain(self, now: float) -> None:
        """This peer is about to leave: what lies here of results shall lie elsewhere first."""
        self._is_leaving = True
        self._records.begin(now)
        for job in self._desk.store.jobs:
            if self._desk.lives.is_over(job):
                self._hand_over(job, now)

    def has_handed_over(self) -> bool:
        """Whether nothing more can be done for results and records here, when this peer is about to leave."""
        if not self._records.is_done:
            return False
        results = [self._results.get(job) for job in self._handing_over]
        return all(result is None or (result.look is None and result.due == inf) for result in results)

    def _hand_over(self, job: str, now: float) -> None:
        plan, until = self._desk.plan(job), self._desk.lives.until(job)
        is_enough = job in self._handing_over or len(self._handing_over) >= MAX_RESULTS
        if plan is None or until == inf or is_enough:
            return
        held = self._held_here(job, StageGraph(plan).result_stage)
        if not held:
            return
        self._handing_over.add(job)
        result = self._results.setdefault(job, _Result(now))
        if result.until is None:
            result.until, result.attempts = until, held
        result.is_short, result.tries = True, 0
        if result.look is None:
            result.due = now

    def holders(self, job: str, part: int, recorded: Iterable[NodeId]) -> list[NodeId]:
        """Return who may hold a part, the surest first.

        Args:
            recorded: who held it when it was committed.
        """
        here, recorded = self._desk.here(), list(recorded)
        result, plan = self._results.get(job), self._desk.plan(job)
        known: list[NodeId] = []
        if result is not None:
            wanted = {attempt for attempt, of in result.attempts.items() if of == part}
            known = sorted(node for node, attempts in result.held.items() if wanted & attempts)
        found = [node for node in dict.fromkeys((*known, *recorded)) if node in here]
        ring = self._desk.ring_files.blocks.ring
        if plan is not None and len(found) < plan.replicas and len(ring):
            # Another member has seen to it, perhaps: then by this rule.
            found += ring.owners(part_key(job, part), 2 * plan.replicas).peers
        return list(dict.fromkeys(found))

    # ---- messages ------------------------------------------------------------------------------------------

    def hear(self, message: object, sender: NodeId, now: float) -> None:
        """Take a message of a type in `handles`."""
        match message:
            case r.AskKept(job=job):
                if self._desk.is_gone(job):
                    return  # nothing is to be sent here any more
                result, asking = self._results.get(job), self._desk.swim.get(sender)
                # Who leaves sees to what he has and no more, and has no time to rest.
                is_seen_to = asking is not None and _stays(asking) and job not in self._handing_over
                if result is not None and is_seen_to and result.look is None and now + REST_S > result.due:
                    result.due = now + REST_S + self._stagger_s(job)
                self._desk.lives.keep_result(job, now + message.left_s)
                attempts = tuple(sorted(self._held_here(job, message.stage)))
                self._desk.say(sender, r.KeptHere(number=message.number, job=job, attempts=attempts))
            case r.KeptHere(job=job, number=number, attempts=kept):
                look = self._look_of(job, number)
                if look is not None and sender in look.waiting:
                    look.waiting.discard(sender)
                    look.held[sender] = frozenset(kept)
                    if not look.waiting:
                        self._judge(job, now)
            case r.SendKept():
                self._send(message, sender, now)
            case r.KeptSent(job=job, number=number, attempt=attempt, to=to, reason=reason):
                look = self._look_of(job, number)
                if look is not None and (attempt, to) in look.orders:
                    del look.orders[attempt, to]
                    result = self._results[job]
                    if not reason:
                        look.gained = True
                        result.held[to] = result.held.get(to, frozenset()) | {attempt}
                    if not look.orders:
                        self._look_again(job, result, now)
            case r.TimeIsOver(job=job):
                self._desk.lives.time_is_over(job, now)
            case r.KeptHurt(job=job):
                result = self._results.get(job)
                if result is not None and result.look is None:
                    result.tries = 0
                    result.due = min(result.due, now + SETTLE_S + self._stagger_s(job))

    def _look_of(self, job: str, number: int) -> _Look | None:
        result = self._results.get(job)
        look = result.look if result is not None else None
        return look if look is not None and look.number == number else None

    def _held_here(self, job: str, stage: int) -> dict[int, int]:
        """{attempt: part} of the whole outputs of a stage that lie here."""
        return {
            attempt: part
            for of, covers in self._desk.store.held(job)
            if of == stage and not covers.partitions
            for attempt, part in zip(covers.attempts, covers.tasks, strict=True)
        }

    def _send(self, order: r.SendKept, sender: NodeId, now: float) -> None:
        sources = self._desk.store.sources(order.job, order.stage, (order.attempt,), ())
        if not sources or order.to not in self._desk.here():
            self._sent(order, sender, "it does not lie here, or nobody is there to take it")
            return
        what = (order.job, order.attempt, order.to)
        is_under_way = what in self._sending
        self._sending[what] = (order, sender)
        if not is_under_way:  # whoever asks again, or another member, is told of the end of the first
            tag = ("kept", *what)
            self._desk.send_copy(order.job, order.stage, sources, order.to, tag, now, is_repair=True)

    def on_sent(self, job: str, attempt: int, to: NodeId, event: BulkEvent) -> None:
        """A copy that this peer was asked to send has arrived, or has not."""
        order, sender = self._sending.pop((job, attempt, to))
        self._sent(order, sender, "" if isinstance(event, Sent) else event.reason)

    def _sent(self, order: r.SendKept, sender: NodeId, reason: str) -> None:
        self.copies_made += not reason
        answer = r.KeptSent(
            number=order.number, job=order.job, attempt=order.attempt, to=order.to, reason=reason[:1_000]
        )
        self._desk.say(sender, answer)

    def hurt(self, job: str) -> None:
        """Something of a job was damaged here: if it is over, let those know who look after its result."""
        for node in sorted(self._desk.here()):
            self._desk.say(node, r.KeptHurt(job=job))

    # ---- looking -------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._records.tick(now)
        if self._view_version != self._desk.swim.version:
            self._view_version = self._desk.swim.version
            self._members_changed(now)
        for job, result in list(self._results.items()):
            if result.look is not None and result.look.until <= now:
                self._look_again(job, result, now)
            elif result.look is not None and result.look.again_at <= now:
                self._order(result.look, now)
        room = MAX_LOOKS - sum(result.look is not None for result in self._results.values())
        due = [job for job, result in self._results.items() if result.look is None and result.due <= now]
        for job in due[: max(0, room)]:
            self._begin(job, self._results[job], now)

    def next_deadline(self) -> float:
        """When to be ticked again."""
        looks = [result.look for result in self._results.values() if result.look is not None]
        moments = [moment for look in looks for moment in (look.until, look.again_at)]
        moments.append(self._records.next_deadline())
        if len(looks) < MAX_LOOKS:
            moments += [result.due for result in self._results.values() if result.look is None]
        return min(moments, default=inf)

    @property
    def is_looking(self) -> bool:
        """Whether copies are being looked for, or made."""
        return any(result.look is not None for result in self._results.values())

    def _members_changed(self, now: float) -> None:
        lives = self._lives()
        for job, result in self._results.items():
            if result.until is not None and not result.is_short and result.relies_on <= lives:
                continue
            result.tries = 0
            if result.look is None:
                result.due = min(result.due, now + SETTLE_S + self._stagger_s(job))
            else:
                result.look.waiting &= self._desk.here()
                result.look.until = min(result.look.until, now + SETTLE_S)

    def _lives(self) -> frozenset[Life]:
        """Who takes and keeps copies, each in its present life."""
        return frozenset((one.id, one.session) for one in self._desk.swim.view.ring_members if _stays(one))

    def _begin(self, job: str, result: _Result, now: float) -> None:
        """Look at a result; first of all, read its record."""
        plan = self._desk.plan(job)
        is_new = result.until is None
        if plan is None or (is_new and not self._read(job, result, plan, now)):
            self._try_again(result, now)
            return
        is_well = is_new and not result.is_short
        if is_well or not result.attempts or result.until is None or result.until <= now:
            result.due = inf
            return
        here = self._desk.here()
        look = _Look(self._desk.fresh_number(), now + ANSWER_LIMIT_S, set(here))
        result.look = look
        ask = r.AskKept(
            number=look.number, job=job, stage=StageGraph(plan).result_stage, left_s=result.until - now
        )
        for node in sorted(here):
            self._desk.say(node, ask)

    def _read(self, job: str, result: _Result, plan: JobPlan, now: float) -> bool:
        """Take what is to be known of a result from its job's record; False if that is still being read."""
        record = self._desk.answers.final(job, now)
        if record is None:
            return False
        result.until = record.ended_at_s + plan.ttl_s - self._desk.wall_offset_s
        if record.status is JobStatus.COMMITTED:  # else there is none, and nothing to be done
            self._adopt(result, record, StageGraph(plan).result_stage, plan.replicas)
        return True

    def _adopt(self, result: _Result, record: JobRecord, stage: int, replicas: int) -> None:
        lives = self._lives()
        winners = record.stages[stage].winners
        present = {node for node, _ in lives}
        for part, winner in enumerate(winners):
            if winner is not None and not winner.is_empty:
                result.attempts[winner.attempt] = part
                holders = {record.nodes[index] for index in winner.places}
                result.is_short |= len(holders & present) < replicas
                result.relies_on |= {life for life in lives if life[0] in holders}

    def _judge(self, job: str, now: float) -> None:
        """Everybody has answered: have copies made, or see that all is well."""
        result = self._results[job]
        plan, look = self._desk.plan(job), result.look
        if plan is None or look is None:
            return
        ring = self._desk.ring_files.blocks.ring
        lives = self._lives()
        staying = {node for node, _ in lives}
        wanted = min(plan.replicas, len(ring))
        result.held = look.held
        keeping = {node for node in staying if look.held.get(node, frozenset()) & result.attempts.keys()}
        result.relies_on = frozenset(life for life in lives if life[0] in keeping)
        result.is_short = wanted < plan.replicas
        for attempt, part in result.attempts.items():
            holders = sorted(node for node, attempts in look.held.items() if attempt in attempts)
            lacking = wanted - len(staying.intersection(holders))
            if lacking <= 0:
                continue
            result.is_short = True
            if not holders:
                continue  # it may come back with one who is gone; that will be a change
            owners = ring.owners(part_key(job, part), len(holders) + wanted).peers
            for node in [node for node in owners if node not in holders][:lacking]:
                order = r.SendKept(
                    number=look.number,
                    job=job,
                    stage=StageGraph(plan).result_stage,
                    attempt=attempt,
                    to=node,
                )
                look.orders[attempt, node] = (holders[0], order)
            if len(look.orders) >= MAX_SENDING:
                break
        if look.orders:
            look.until = now + SEND_LIMIT_S
            self._order(look, now)
        else:
            result.look, result.due, result.tries = None, inf, 0

    def _order(self, look: _Look, now: float) -> None:
        """Ask for what is still to be sent."""
        look.again_at = now + ORDER_AGAIN_S
        for holder, order in look.orders.values():
            self._desk.say(holder, order)

    def _look_again(self, job: str, result: _Result, now: float) -> None:
        """A look has come to its end, be it that somebody did not answer."""
        look, result.look = result.look, None
        result.is_short = True
        if look is not None and look.gained:
            result.tries, result.due = 0, now
        else:
            self._try_again(result, now)
            if result.due == inf:
                self._desk.log(f"job {job[:12]}: copies of its result are missing and cannot be made now")

    def _try_again(self, result: _Result, now: float) -> None:
        result.tries += 1
        result.due = now + RETRY_S if result.tries < MAX_TRIES else inf

    def _stagger_s(self, job: str) -> float:
        """How much later than others this peer acts, by its place in the job's group."""
        group = self._desk.job_group(job)
        here = self._desk.here()
        members = [member.node for member in group.members if member.node in here] if group else []
        me = self._desk.me
        return STAGGER_S * (members.index(me) if me in members else len(members))


def _stays(member: Member) -> bool:
    """Whether copies with a member count: one that is full still has them, one that drains soon has not."""
    return all(name != DRAINING for name, _ in member.meta)
