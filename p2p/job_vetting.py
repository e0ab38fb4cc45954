"""Jobs on their way in, on both sides: the peer that takes a submission, and those that it asks.

`p2p.submissions` says what is to be done next; here it is done: the spec is stored, all peers are asked, a
child looks at the job's code and its inputs, the first record is written.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from mapreduce.failpoints import failpoint
from mapreduce.orders import TaskError
from mapreduce.record import born
from mapreduce.spec import JobPlan, job_id_of
from mapreduce.streams import is_url
from membership.register import AcceptorId, Group, Record
from membership.view import NodeId
from p2p import job_inquiries as iq
from p2p import job_questions as q
from p2p.blocks import RING
from p2p.errors import MalformedFrame
from p2p.job_keys import JOB_KEY, SPEC_ATTEMPT, nodes_of
from p2p.job_protocol import pack_record
from p2p.segments import SPEC_STAGE
from p2p.spec_packing import spec_digest, unpack_spec
from p2p.submissions import UNABLE, Begun, Submissions
from p2p.transport import Connection

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["JobVetting"]

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
UNBORN_S = 60.0
MAX_PEERS_TOLD = 32
MAX_ASKERS = 16


class JobVetting:
    """Submissions to one peer, and what others ask it of theirs; `desk` is the service it is part of."""

    def __init__(self, desk: JobService) -> None:
        self._desk = desk
        self._submissions = Submissions()
        self._vets: dict[str, list[tuple[NodeId, int]]] = {}

    # ---- the peer that takes a submission ------------------------------------------------------------------

    def submit(
        self,
        packed: bytes,
        nonce: str,
        chosen: tuple[AcceptorId, ...],
        client: tuple[Connection, int],
        now: float,
    ) -> None:
        """Take a job from a client; it is answered with the job's group, or why it is refused.

        With `chosen`, the group that its client has fixed, it is answered when the job is born.
        """

        def refuse(job: str, reason: str, text: str) -> None:
            self._tell_client(client, q.Submitted(number=0, job=job, reason=reason, text=text))

        try:
            spec = unpack_spec(packed)
        except (MalformedFrame, ValueError) as error:
            refuse("", "spec", f"the submission is malformed: {error}")
            return
        if len({acceptor.node for acceptor in chosen}) != len(chosen):
            refuse("", "spec", "the submission is malformed: its group names a peer twice")
            return
        digest = spec_digest(packed)
        job = job_id_of(digest, nonce)
        under_way = self._submissions.get(job)
        if under_way is not None and (under_way.is_being_born or not chosen):
            self._submissions.join(job, client)
            self._tell_client(client, q.Submitted(number=0, job=job, reason="pending"))
            return
        if self._desk.is_gone(job):
            refuse(job, "gone", f"job {job[:12]} has ended and its time to live is over: submit it anew")
            return
        group = self._desk.job_group(job)
        if group is not None or job in self._desk.heard:
            members = [one.node for one in group.members] if group else self._desk.heard[job].members
            self._tell_client(client, q.Submitted(number=0, job=job, members=tuple(members)))
            return
        try:
            self._take_spec(job, packed, spec.plan, now)
        except OSError as error:
            refuse(job, "disk", f"this peer cannot store the job: {error.strerror or error}")
            return
        failpoint("submit.stored")
        if chosen:
            step = self._submissions.begin_birth(job, digest, spec.plan, client, chosen, now)
            if isinstance(step, Begun):
                self._give_birth(step, now)
            else:
                self._tell_client(client, step)
            return
        here = [member.id for member in self._desk.swim.view.ring_members]
        refused = self._submissions.begin(job, digest, spec.plan, client, here, now)
        if refused is not None:
            self._tell_client(client, refused)
            return
        inline = packed if len(packed) <= q.INLINE_SPEC_BYTES else b""
        for node in here:
            vet = iq.Vet(number=0, job=job, spec_digest=digest, spec=inline if node != self._desk.me else b"")
            self._desk.say(node, vet)
        failpoint("submit.asked")

    def _take_spec(self, job: str, packed: bytes, plan: JobPlan, now: float) -> None:
        if not self._desk.store.holds(job, SPEC_STAGE, SPEC_ATTEMPT):
            self._desk.store.put(job, SPEC_STAGE, 0, SPEC_ATTEMPT, packed)
        self._desk.take_plan(job, plan)
        self._expect_birth(job, now)

    def _expect_birth(self, job: str, now: float) -> None:
        """Keep what lies here of a job that may never be born no longer than that may take."""
        if job not in self._desk.heard and self._desk.registers.group(JOB_KEY + job) is None:
            self._desk.lives.expires(job, now + UNBORN_S)

    def _give_birth(self, step: Begun, now: float) -> None:
        failpoint("birth.begin")
        record = born(step.job, step.digest, now + self._desk.wall_offset_s)
        first = Record(generation=0, epoch=0, members=step.members, payload=pack_record(record))
        self._desk.perform_register(self._desk.registers.found(JOB_KEY + step.job, first, now))

    def founded(self, group: Group) -> None:
        """A majority holds a job's first record."""
        failpoint("birth.done")
        job = group.key.removeprefix(JOB_KEY)
        self._desk.lives.goes_on(job)
        for step in self._submissions.founded(job, group.members):
            for client in step.clients:
                self._tell_client(client, step.answer)
        self._desk.answers.learn(job, nodes_of(group.members))

    def _tell_client(self, client: tuple[Connection, int], answer: q.Submitted) -> None:
        here = (member.address for member in self._desk.swim.view.alive if member.id != self._desk.me)
        peers = tuple(islice(here, MAX_PEERS_TOLD))
        self._desk.answer(client[0], replace(answer, number=client[1], peers=peers))

    def on_vetted(self, message: iq.Vetted, sender: NodeId, now: float) -> None:
        """A peer has looked at a job."""
        self._submissions.on_vetted(message, sender)
        self.tick(now)

    def forget(self, job: str) -> None:
        """Nothing of the job is kept here any more: nobody waits to hear whether it can run."""
        self._vets.pop(job, None)

    def peer_is_gone(self, node: NodeId) -> None:
        """Do not wait for it."""
        self._submissions.peer_is_gone(node)

    def tick(self, now: float) -> None:
        """Answer what is decided."""
        for step in self._submissions.due(self._desk.swim.view, now):
            for client in step.clients:
                self._tell_client(client, step.answer)

    def next_deadline(self) -> float:
        """When to be ticked again."""
        return self._submissions.next_deadline()

    # ---- the peers that are asked --------------------------------------------------------------------------

    def vet(self, message: iq.Vet, sender: NodeId, now: float) -> None:
        """A peer asks whether a job could run here."""
        job = message.job
        group = self._desk.registers.group(JOB_KEY + job)
        if group is not None:
            text = " ".join(nodes_of(group.members))
            self._desk.say(sender, iq.Vetted(number=message.number, job=job, reason="known", text=text))
            return
        self._vets.setdefault(job, []).append((sender, message.number))
        del self._vets[job][:-MAX_ASKERS]
        if message.spec:
            try:
                if spec_digest(message.spec) != message.spec_digest:
                    raise MalformedFrame("its digest does not fit")
                self._take_spec(job, message.spec, unpack_spec(message.spec).plan, now)
            except (MalformedFrame, ValueError) as error:
                self.answer(job, "spec", f"the spec cannot be read: {error}")
                return
            except OSError as error:
                self.answer(job, UNABLE, f"the spec cannot be stored: {error.strerror or error}")
                return
        if self._desk.plan(job) is None:
            self._desk.arrivals.want_spec(job, [sender], ("vet", job), now)
            return
        self.look_at(job, now)

    def look_at(self, job: str, now: float) -> None:
        """Have a child look whether a job can run here, whose spec has come."""
        self._expect_birth(job, now)
        plan = self._desk.plan(job)
        if plan is None:
            self.answer(job, UNABLE, "the spec cannot be read")
            return
        if plan.python != PYTHON:
            text = f"the job was packed by Python {plan.python}, and this peer runs {PYTHON}"
            self.answer(job, "python", text)
            return
        failure = self._desk.arrivals.open_files(job)
        if failure is not None:
            self.answer(job, UNABLE if failure.kind == "EnvironmentFailed" else "code", failure.message)
            return
        opened = self._desk.files.get(job)
        assert opened is not None
        failpoint("vet.begin")
        self._desk.runner.check(opened, job, _local_inputs(plan))

    def checked(self, job: str, error: TaskError | None) -> None:
        """A child has looked whether a job can run here."""
        if error is None:
            self.answer(job)
        elif error.kind == "InputNotHere":
            self.answer(job, "inputs", error.message, tuple(error.traceback.split("\n")))
        else:
            self.answer(job, "code", error.message)

    def answer(self, job: str, reason: str = "", text: str = "", paths: tuple[str, ...] = ()) -> None:
        """Tell whoever has asked whether the job can run here; `reason` is why not."""
        failpoint("vet.answer")
        for sender, number in self._vets.pop(job, ()):
            self._desk.say(sender, iq.Vetted(number=number, job=job, reason=reason, text=text, paths=paths))


def _local_inputs(plan: JobPlan) -> tuple[tuple[str, int], ...]:
    """The files that a job reads in place, and how long each must be; of URLs, one for each place.

    To ask a server for each of thousands of names would take longer than the vetting may.
    """
    sizes: dict[str, int] = {}
    places: set[str] = set()
    for step in plan.steps:
        for split in step.splits:
            if split.path.startswith(RING):
                continue
            if is_url(split.path):
                place = "/".join(split.path.split("/")[:3])
                if place not in places:
                    sizes[split.path] = 0
                    places.add(place)
            else:
                end = split.end if split.end >= 0 else split.size_bytes
                sizes[split.path] = max(end, sizes.get(split.path, 0))
    return tuple(sizes.items())
