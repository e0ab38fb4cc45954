"""What is wanted here and lies elsewhere: specs, parts, blocks; and what to do when it has come.

`p2p.fetches` says whom to ask next.  Everything that was asked for bears a tag, by which its end finds the
one who wanted it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mapreduce.errors import JobError
from mapreduce.messages import Piece
from mapreduce.record import Failure
from membership.view import NodeId
from p2p import job_inquiries as iq
from p2p.errors import MalformedFrame
from p2p.fetches import PATIENCE_S, FetchEnded, Fetches
from p2p.job_keys import SPEC_ATTEMPT
from p2p.segments import SPEC_STAGE, DamagedSegment
from p2p.spec_packing import unpack_spec
from p2p.submissions import UNABLE

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["JobArrivals"]


class JobArrivals:
    """All that one peer waits for; `desk` is the service that this is a part of."""

    def __init__(self, desk: JobService) -> None:
        self._desk = desk
        self._fetches = Fetches()

    def want(
        self, job: str, stage: int, attempt: int, holders: Sequence[NodeId], tag: object, now: float
    ) -> None:
        """Begin to fetch an output; the end of it is told by the tag."""
        self._fetches.want(job, stage, attempt, holders, tag, now)
        self.tick(now)

    def want_spec(self, job: str, holders: Sequence[NodeId], tag: object, now: float) -> None:
        """Begin to fetch a job's spec."""
        self.want(job, SPEC_STAGE, SPEC_ATTEMPT, holders, tag, now)

    def fetch_plan(self, job: str, sources: tuple[NodeId, ...], now: float) -> None:
        """The worker wants a job's plan."""
        if self._desk.plan(job) is not None:
            self._plan_is_here(job, now)
            return
        others = [node for node in sources if node != self._desk.me]
        self.want_spec(job, others, ("plan", job), now)

    def _plan_is_here(self, job: str, now: float) -> None:
        failure = self.open_files(job)
        plan = self._desk.plan(job)
        if failure is None and plan is not None:
            self._desk.perform(self._desk.worker.on_plan(job, plan, now))
        else:
            self._desk.log(f"job {job[:12]} cannot be opened: {failure.message if failure else 'no spec'}")
            self._desk.perform(self._desk.worker.on_plan_failed(job, now))

    def open_files(self, job: str) -> Failure | None:
        """Unpack a job's cargo; None, or why that fails."""
        if self._desk.files.get(job) is not None:
            return None
        located = self._desk.store.find(job, SPEC_STAGE, SPEC_ATTEMPT)
        if located is None:
            return Failure(kind="EnvironmentFailed", message="the spec is not here", node=self._desk.me)
        try:
            self._desk.files.open(job, unpack_spec(self._desk.store.read(located)))
        except JobError as error:
            return Failure(kind=type(error).__name__, message=str(error), node=self._desk.me)
        except DamagedSegment:
            self._desk.records.forget(job)  # so that it is fetched from another peer
            return Failure(kind="EnvironmentFailed", message="the spec was damaged here", node=self._desk.me)
        except (OSError, MalformedFrame, ValueError) as error:
            return Failure(kind="EnvironmentFailed", message=str(error), node=self._desk.me)
        return None

    def fetch_piece(self, job: str, attempt: int, piece: Piece, now: float) -> None:
        """The worker wants a part that one of its attempts reads."""
        if self._desk.store.find(job, piece.stage, piece.attempt) is not None:
            self._desk.perform(self._desk.worker.on_fetched(job, attempt, now))
            return
        holders = [node for node in piece.holders if node != self._desk.me]
        self.want(job, piece.stage, piece.attempt, holders, ("piece", job, attempt), now)

    def serve(self, message: iq.FetchSegment, sender: NodeId, now: float) -> None:
        """A peer wants an output that may lie here."""
        sources = self._desk.store.sources(message.job, message.stage, (message.attempt,), ())
        if not sources:
            answer = iq.NotHeld(
                number=message.number, job=message.job, stage=message.stage, attempt=message.attempt
            )
            self._desk.say(sender, answer)
            return
        tag = ("serve", sender, message.job, message.stage, message.attempt)
        if not self._desk.bulk.is_sending(
            tag
        ):  # it is asked for again by who has not seen anything of it yet
            self._desk.send_copy(message.job, message.stage, sources, sender, tag, now, is_repair=False)

    # ---- going on ------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._fetches.next_deadline() > now:
            return
        for job, stage, attempts in self._desk.bulk.arriving(now - PATIENCE_S):
            self._fetches.comes(job, stage, attempts, now)
        asked, ended = self._fetches.tick(now)
        for node, question in asked:
            self._desk.say(node, question)
        self._ended(ended, now)

    def something_arrived(self, now: float) -> None:
        """The store holds more than before."""
        for job, stage, attempt in self._fetches.wanted():
            if self._desk.store.holds(job, stage, attempt):
                self._ended(self._fetches.arrived(job, stage, attempt), now)

    def on_not_held(self, message: iq.NotHeld, sender: NodeId, now: float) -> None:
        """Somebody who was asked does not have it."""
        self._fetches.on_not_held(message, sender, now)

    def peer_is_gone(self, node: NodeId, now: float) -> None:
        """Ask somebody else."""
        self._fetches.peer_is_gone(node, now)

    def drop_job(self, job: str) -> None:
        """Nothing of this job is wanted any more."""
        self._fetches.drop_job(job)

    def next_deadline(self) -> float:
        """When to be ticked again."""
        return self._fetches.next_deadline()

    def _ended(self, ended: Iterable[FetchEnded], now: float) -> None:
        for one in ended:
            match one.tag:
                case ("plan", str(job)) if not one.reason:
                    self._plan_is_here(job, now)
                case ("plan", str(job)):
                    self._desk.perform(self._desk.worker.on_plan_failed(job, now))
                case ("piece", str(job), int(attempt)) if not one.reason:
                    self._desk.perform(self._desk.worker.on_fetched(job, attempt, now))
                case ("input", str(job), int(attempt), int(block)):
                    self._desk.ring_inputs.fetched(job, attempt, block, one.reason, now)
                case ("piece", str(job), int(attempt)):
                    self._desk.perform(self._desk.worker.on_fetch_failed(job, attempt, one.reason, now))
                case ("vet", str(job)) if not one.reason:
                    self._desk.vetting.look_at(job, now)
                case ("vet", str(job)):
                    self._desk.vetting.answer(job, UNABLE, f"the job's spec did not come: {one.reason}")
                case ("lead", str(job)):
                    self._desk.leading.spec_sought(job, now)
                case ("kept", str(job)):
                    self._desk.lives.spec_sought(job, one.reason, now)
                case _:
                    raise AssertionError(f"a fetch with the tag {one.tag!r}")
