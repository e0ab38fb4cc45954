"""Jobs on their way in: asked about everywhere, then born.

Theory
------
A submission takes three steps, and two questions of its client.

1. *Vetting.*  Every peer that is here gets the spec, loads the code in a child process and looks for the
   inputs.  A peer that cannot (a missing module, another Python, an input that is not there) is named and the
   job refused; a peer that says nothing within `VET_LIMIT_S` is left out with a warning, for it is as good as
   gone, and so is one that has trouble of its own (a full disk, a spec that does not come).  Vetting is no
   detour: afterwards every peer has the spec, and its code loaded in a warm child.
   But a peer that hears less than a majority of those it believes to be here is rather gone itself (it slept,
   or is cut off), and so is what it knows: it begins nothing.
2. *The group.*  C0 is the first 2R-1 owners of the job's key among those who have the spec.  It is told to
   the client, and with that the first question is answered: nothing has begun yet.
3. *Birth.*  The client submits again and names C0.  The first record goes to C0's acceptors; when a majority
   has it the job exists, whatever becomes of this peer, and the client is told.

Everything here may be repeated: a client that has heard nothing submits the same spec with the same nonce to
another peer, which finds the same id.  Two births of one job are births of one register only if they name the
same group (`membership.register`, what is not promised).  Peers cannot see to that: one that slept, or was
cut off, has another view of who is here than the one that was asked in its stead.  So the client does: it is
one process, takes the first group that it is told, and names that one to everybody from then on.

This module is pure; `p2p.job_service` performs what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from mapreduce.placement import holders_ring
from mapreduce.spec import JobPlan
from membership.register import AcceptorId
from membership.view import Member, NodeId, View
from p2p.job_inquiries import Vetted
from p2p.job_questions import Submitted
from p2p.transport import Connection

__all__ = [
    "DISK_META",
    "UNABLE",
    "Answered",
    "Begun",
    "Submission",
    "Submissions",
    "acceptors",
    "first_group",
]

VET_LIMIT_S = 10.0
BIRTH_LIMIT_S = 10.0
MAX_SUBMISSIONS = 64
UNABLE = "unable"
"""Why a peer does not take part that could not look at the job, through no fault of the job's."""
DISK_META = "disk"
"""The name in a member's meta under which the id of its acceptor's disk stands."""


@dataclass(slots=True)
class Submission:
    """One job on its way in."""

    job: str
    digest: str
    plan: JobPlan
    clients: list[tuple[Connection, int]]
    waiting: set[NodeId]
    # How many were asked; those that died meanwhile are not counted any more.
    asked: int
    until: float
    willing: list[NodeId] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refusal: Submitted | None = None
    # Who keeps the job, if somebody said that it exists.
    known: tuple[NodeId, ...] = ()
    is_being_born: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """The client has fixed this group: found the job with it."""

    job: str
    digest: str
    members: tuple[AcceptorId, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """Tell the clients; their question is answered."""

    clients: tuple[tuple[Connection, int], ...]
    answer: Submitted


class Submissions:
    """All submissions that this peer has taken and not answered yet."""

    def __init__(self) -> None:
        self._open: dict[str, Submission] = {}

    def get(self, job: str) -> Submission | None:
        """Return a submission under way."""
        return self._open.get(job)

    def begin(
        self,
        job: str,
        digest: str,
        plan: JobPlan,
        client: tuple[Connection, int],
        peers: Sequence[NodeId],
        now: float,
    ) -> Submitted | None:
        """Take a submission; None, or why it is not taken."""
        if len(self._open) >= MAX_SUBMISSIONS:
            text = "this peer has too many submissions in hand: try again, or another peer"
            return Submitted(number=client[1], job=job, reason="busy", text=text)
        self._open[job] = Submission(job, digest, plan, [client], set(peers), len(peers), now + VET_LIMIT_S)
        return None

    def begin_birth(
        self,
        job: str,
        digest: str,
        plan: JobPlan,
        client: tuple[Connection, int],
        group: tuple[AcceptorId, ...],
        now: float,
    ) -> Submitted | Begun:
        """Take a submission whose client has fixed the group; what to do, or why it is not taken."""
        if len(self._open) >= MAX_SUBMISSIONS and job not in self._open:
            text = "this peer has too many submissions in hand: try again, or another peer"
            return Submitted(number=client[1], job=job, reason="busy", text=text)
        # Who asked for the group without naming one hears of the birth instead.
        before = self._open.pop(job, None)
        clients = [*before.clients, client] if before is not None else [client]
        self._open[job] = Submission(
            job, digest, plan, clients, set(), 0, now + BIRTH_LIMIT_S, is_being_born=True
        )
        return Begun(job, digest, group)

    def join(self, job: str, client: tuple[Connection, int]) -> None:
        """Another client, or the same again, waits for the same job."""
        self._open[job].clients.append(client)
        del self._open[job].clients[:-16]

    def on_vetted(self, message: Vetted, sender: NodeId) -> None:
        """A peer has looked at the job."""
        submission = self._open.get(message.job)
        if submission is None or sender not in submission.waiting:
            return
        submission.waiting.discard(sender)
        if message.reason == "known":
            submission.known = tuple(NodeId(name) for name in message.text.split())
        elif not message.reason:
            submission.willing.append(sender)
        elif message.reason == UNABLE:
            submission.warnings.append(f"peer {sender} is left out of the job's start: {message.text}")
        elif submission.refusal is None or (message.reason == submission.refusal.reason == "inputs"):
            # Of inputs the client wants to know all that anybody lacks.
            before = submission.refusal.paths if submission.refusal is not None else ()
            submission.refusal = Submitted(
                number=0,
                job=message.job,
                reason=message.reason,
                text=f"{message.text} (on peer {sender})",
                paths=tuple(dict.fromkeys((*before, *message.paths))),
            )

    def peer_is_gone(self, node: NodeId) -> None:
        """Do not wait for it."""
        for submission in self._open.values():
            submission.asked -= node in submission.waiting
            submission.waiting.discard(node)
            submission.willing = [one for one in submission.willing if one != node]

    def due(self, view: View, now: float) -> list[Answered]:
        """Return what can be answered: all have been heard, or enough time has passed."""
        out: list[Answered] = []
        for submission in list(self._open.values()):
            if submission.is_being_born:
                if now >= submission.until:
                    text = "no majority of the job's group answers; submit it again to find it or begin it"
                    out.append(self._answer(submission, reason="quorum", text=text))
                continue
            if submission.waiting and now < submission.until:
                continue
            if submission.known:
                out.append(self._answer(submission, members=submission.known))
                continue
            if 2 * len(submission.waiting) >= submission.asked:
                told = submission.asked - len(submission.waiting)
                text = (
                    f"only {told} of {submission.asked} peers answered: submit it again, or to another peer"
                )
                out.append(self._answer(submission, reason="quorum", text=text))
                continue
            for silent in sorted(submission.waiting):
                submission.warnings.append(f"peer {silent} did not say whether it can run the job")
            if submission.refusal is not None:
                refusal = submission.refusal
                out.append(
                    self._answer(submission, reason=refusal.reason, text=refusal.text, paths=refusal.paths)
                )
                continue
            out.append(self._with_group(submission, view))
        return out

    def founded(self, job: str, members: Sequence[AcceptorId]) -> list[Answered]:
        """A majority holds the job's first record."""
        submission = self._open.get(job)
        if submission is None:
            return []
        return [self._answer(submission, members=tuple(member.node for member in members))]

    def next_deadline(self) -> float:
        """When `due` is to be asked at the latest."""
        return min((submission.until for submission in self._open.values()), default=inf)

    def _with_group(self, submission: Submission, view: View) -> Answered:
        plan = submission.plan
        willing = set(submission.willing)
        if plan.strict_replicas and len(willing) < plan.replicas:
            text = f"{plan.replicas} copies are wanted and {len(willing)} peers are here"
            return self._answer(submission, reason="replicas", text=text)
        if len(willing) < plan.replicas:
            submission.warnings.append(
                f"{plan.replicas} copies are wanted and {len(willing)} peers are here: copies are missing "
                "until more join"
            )
        members = first_group(submission.job, plan.replicas, view, willing)
        if not members:
            text = "no peer can keep the job's record"
            return self._answer(submission, reason="quorum", text=text)
        return self._answer(submission, reason="group", group=members)

    def _answer(
        self,
        submission: Submission,
        *,
        members: tuple[NodeId, ...] = (),
        group: tuple[AcceptorId, ...] = (),
        reason: str = "",
        text: str = "",
        paths: tuple[str, ...] = (),
    ) -> Answered:
        del self._open[submission.job]
        answer = Submitted(
            number=0,
            job=submission.job,
            members=members,
            group=group,
            warnings=tuple(submission.warnings),
            reason=reason,
            text=text,
            paths=paths,
        )
        return Answered(tuple(submission.clients), answer)


def acceptor_of(member: Member) -> AcceptorId | None:
    """Return the acceptor that a member runs, None if it names no disk."""
    disk = dict(member.meta).get(DISK_META)
    return AcceptorId(member.id, disk) if disk else None


def acceptors(job: str, view: View) -> list[AcceptorId]:
    """Return all acceptors of members that are here, in the order of the job's owners on the ring."""
    ring = holders_ring(view)
    if not len(ring):
        return []
    by_id = {member.id: member for member in view.ring_members}
    owners = ring.owners(f"job/{job}", len(ring))
    found = (acceptor_of(by_id[node]) for node in owners if node in by_id)
    return [acceptor for acceptor in found if acceptor is not None]


def first_group(job: str, replicas: int, view: View, willing: set[NodeId]) -> tuple[AcceptorId, ...]:
    """Return C0: the first 2R-1 willing owners of the job's key, or the largest odd number there is."""
    found = [acceptor for acceptor in acceptors(job, view) if acceptor.node in willing]
    count = min(2 * replicas - 1, len(found))
    return tuple(found[: count - (count + 1) % 2])
