"""The data plane of a simulated peer: outputs on their way to their places, and parts to those who read them.

A push is one datagram with whole segments, sent again until it is acknowledged or has been sent too often;
what arrives is checked and stored before it is acknowledged. A fetch asks one holder after the other. All of
it is lost, doubled and late like other datagrams, for which the real data plane (`p2p.bulk`) has its own
tests; here it is what leaders and workers must bear. Only a plan comes without a datagram, if any of those
who have it is up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from mapreduce.effects import Fetch, FetchPlan, Push
from mapreduce.messages import Piece
from mapreduce.worker import Worker
from membership.view import NodeId
from tools.simulation.jobs_attempts import Attempts
from tools.simulation.jobs_store import DiskFailed, JobFault, Segment, SegmentMissing, Store, segment_of
from tools.simulation.jobs_swarm import Life
from tools.simulation.world import Violation

__all__ = ["SimFetch", "SimFetched", "SimPush", "SimPushed", "Transfer", "Transfers"]

RESEND_S = 0.4
MAX_SENDS = 8


@dataclass(frozen=True, slots=True)
class SimPush:
    """Segments on their way to a place."""

    number: int
    boot: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class SimPushed:
    """They are stored, or (with a reason) are not."""

    number: int
    boot: int
    reason: str


@dataclass(frozen=True, slots=True)
class SimFetch:
    """A request for a range of a part."""

    job: str
    attempt: int
    piece: Piece


@dataclass(frozen=True, slots=True)
class SimFetched:
    """The range; None where it does not lie there."""

    job: str
    attempt: int
    data: bytes | None


Transfer = SimPush | SimPushed | SimFetch | SimFetched


class Transfers:
    """What one life of a peer sends and waits for.

    Args:
        life: of the peer.
        store: takes what arrives, and gives what is asked for.
        worker: hears what was pushed, fetched or found damaged.
        attempts: whose fresh outputs are pushed, and who read what was fetched.

    Attributes:
        pushes: by number: what it is, its segments, how often it was sent.
        fetches: by (job, attempt): what it is, and who has not been asked yet.
    """

    def __init__(self, life: Life, store: Store, worker: Worker, attempts: Attempts) -> None:
        self.pushes: dict[int, tuple[Push, tuple[Segment, ...], int]] = {}
        self.fetches: dict[tuple[str, int], tuple[Fetch, list[NodeId]]] = {}
        self._life = life
        self._swarm = life.swarm
        self._store = store
        self._worker = worker
        self._attempts = attempts

    def receive(self, message: Transfer, sender: str, now: float) -> Iterable[object]:
        """Take what another peer's data plane says; returns what the worker has to say to it."""
        match message:
            case SimPush():
                if self._store.slow_s:
                    self._life.later(self._disk_s(), lambda _now: self._take_push(message, sender))
                    return []
                return self._take_push(message, sender)
            case SimPushed():
                return self._take_pushed(message, now)
            case SimFetch():
                self._answer_fetch(message, sender)
                return []
            case SimFetched():
                return self._take_fetched(message, now)
            case _:
                assert_never(message)

    # -- pushing ---------------------------------------------------------------------------------------------

    def push(self, push: Push) -> None:
        """Send outputs to a place; if that is this peer, put them into its own store."""
        try:
            segments = tuple(self._segments(push))
        except SegmentMissing as missing:
            reason, task, attempt = str(missing), missing.task, missing.attempt
            self._life.later(
                0.001, lambda now: self._worker.on_push_failed(push.job, push.number, reason, now)
            )
            if missing.damaged:
                self._life.later(
                    0.001,
                    lambda now: self._worker.on_missing(push.job, push.group.stage, [task], [attempt], now),
                )
            return
        if push.to == self._life.me:
            self._life.later(0.001 + self._disk_s(), lambda now: self._link(push, segments, now))
            return
        self.pushes[push.number] = push, segments, 0
        self._send_push(push.number)

    def cancel_push(self, number: int) -> None:
        """Send it no more."""
        self.pushes.pop(number, None)

    def _segments(self, push: Push) -> Iterable[Segment]:
        group = push.group
        for task, attempt in zip(group.tasks, group.attempts, strict=True):
            made = self._attempts.made.get((push.job, attempt))
            if made is not None:
                yield segment_of(push.job, group.stage, task, attempt, group.partitions, made.runs)
            else:
                yield self._store.extract(push.job, group.stage, task, attempt, group.partitions)

    def _disk_s(self) -> float:
        """How long the disk takes for what is written now."""
        self._swarm.fired[JobFault.SLOW] += self._store.slow_s > 0
        return self._store.slow_s

    def _link(self, push: Push, segments: Sequence[Segment], now: float) -> Iterable[object]:
        try:
            for segment in segments:
                if self._worker.accepts(segment.job):
                    self._store.write(segment)
        except DiskFailed as error:
            return self._worker.on_push_failed(push.job, push.number, str(error), now)
        return self._worker.on_pushed(push.job, push.number, now)

    def _send_push(self, number: int) -> None:
        if number not in self.pushes:
            return
        push, segments, sends = self.pushes[number]
        if sends >= MAX_SENDS:
            del self.pushes[number]
            self._life.later(0.0, lambda now: self._worker.on_push_failed(push.job, number, "no answer", now))
            return
        self.pushes[number] = push, segments, sends + 1
        self._life.send(push.to, SimPush(number, self._life.boot, segments))
        self._life.later(RESEND_S, lambda _: self._resend(number))

    def _resend(self, number: int) -> list[object]:
        self._send_push(number)
        return []

    def _take_push(self, push: SimPush, sender: str) -> list[object]:
        reason = ""
        try:
            for segment in push.segments:
                if not self._worker.accepts(segment.job):
                    reason = "the job is over"
                    break
                if not segment.is_intact:
                    reason = "damaged on the way"
                    break
                self._store.write(segment)
                self._worker.on_stored(segment.job, self._life.now, source=NodeId(sender))
        except DiskFailed as error:
            reason = str(error)
        self._life.send(sender, SimPushed(push.number, push.boot, reason))
        return []

    def _take_pushed(self, answer: SimPushed, now: float) -> Iterable[object]:
        if answer.boot != self._life.boot or answer.number not in self.pushes:
            return []
        push, segments, _ = self.pushes.pop(answer.number)
        if answer.reason:
            return self._worker.on_push_failed(push.job, push.number, answer.reason, now)
        size = sum(len(run.data) for segment in segments for run in segment.runs.values())
        return self._worker.on_pushed(push.job, push.number, now, sent_bytes=size)

    # -- fetching --------------------------------------------------------------------------------------------

    def fetch(self, fetch: Fetch) -> None:
        """Ask for a range of a part that an attempt is to read."""
        self.fetches[fetch.job, fetch.attempt] = fetch, list(fetch.piece.holders)
        self._life.later(0.0, lambda now: self._fetch(fetch.job, fetch.attempt, now))

    def cancel_fetch(self, job: str, attempt: int) -> None:
        """Ask nobody any more."""
        self.fetches.pop((job, attempt), None)

    def _fetch(self, job: str, attempt: int, now: float) -> Iterable[object]:
        """Ask the next holder; each has a while to answer."""
        waiting = self.fetches.get((job, attempt))
        if waiting is None:
            return []
        fetch, holders = waiting
        if not holders:
            del self.fetches[job, attempt]
            return self._worker.on_fetch_failed(job, attempt, "nobody answers", now)
        holder = holders.pop(0)
        self._life.send(holder, SimFetch(job, attempt, fetch.piece))
        left = len(holders)

        def next_one(now: float) -> Iterable[object]:
            still = self.fetches.get((job, attempt))
            return self._fetch(job, attempt, now) if still is not None and len(still[1]) == left else []

        self._life.later(2 * RESEND_S, next_one)
        return []

    def _answer_fetch(self, fetch: SimFetch, sender: str) -> None:
        data: bytes | None = None
        piece = fetch.piece
        try:
            part = self._store.read(fetch.job, piece.stage, piece.part, piece.attempt, 0)
            data = part.data[piece.start : piece.end] if part is not None else b""
        except SegmentMissing as missing:
            task, attempt = missing.task, missing.attempt
            self._life.later(
                0.0, lambda now: self._worker.on_missing(fetch.job, piece.stage, [task], [attempt], now)
            )
        answer = SimFetched(fetch.job, fetch.attempt, data)
        self._life.send(sender, answer)

    def _take_fetched(self, answer: SimFetched, now: float) -> Iterable[object]:
        key = answer.job, answer.attempt
        if key not in self.fetches:
            return []
        if answer.data is None:
            return self._fetch(answer.job, answer.attempt, now)
        del self.fetches[key]
        self._attempts.fetched[key] = answer.data
        return self._worker.on_fetched(answer.job, answer.attempt, now)

    # -- plans -----------------------------------------------------------------------------------------------

    def fetch_plan(self, fetch: FetchPlan) -> None:
        """Ask for a job's plan: it comes, if anybody who has it is up."""
        if fetch.spec_digest != self._swarm.digests[fetch.job]:
            raise Violation(f"{self._life.me} was told another spec of {fetch.job[:8]}")

        def arrive(now: float) -> Iterable[object]:
            nodes = [self._swarm.node_of[source] for source in fetch.sources if source in self._swarm.node_of]
            if any(node.running for node in nodes):
                return self._worker.on_plan(fetch.job, self._swarm.plans[fetch.job], now)
            return self._worker.on_plan_failed(fetch.job, now)

        self._life.later(self._life.random.uniform(0.001, 0.05), arrive)
