"""Handing a job to a swarm and following it, from outside.

Theory
------
A client talks to one peer at a time and knows of others: those it was given, and those it was told of.  It
repeats what it says (a submission with one nonce is one job, a `Follow` renews its lease), so every answer is
a sign of life, and a peer that gives none for `SILENCE_S` is left for the next one.  That is told in one
line; nothing else changes, because no peer knows anything of a job that others do not.

Parts are read from the peers that hold them, several chunks at a time, and checked against the digest that
stands in the job's record.  A holder that is gone, or whose bytes are not right, is left for the next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import xxhash

from mapreduce.errors import EnvironmentFailed, JobDefinitionError, JobError, UsageError
from mapreduce.failures import error_of
from mapreduce.outcome import JobStatus
from mapreduce.spec import unique_prefix
from p2p import job_questions as q
from p2p.client import Client
from p2p.errors import NoPeerReached, PeerError
from p2p.questions import AskMembers, MembersAre

__all__ = [
    "InputsNotThere",
    "JobClient",
    "JobUnknown",
    "Moved",
    "ResultGone",
    "SubmissionRefused",
    "failure_of",
    "report_of",
]

RENEW_S = 1.0
SILENCE_S = 3.0
SUBMIT_LIMIT_S = 60.0
CANCEL_WAIT_S = 10.0
RETRY_S = 0.1
ASKED_AHEAD = 8
ID_CHARS = 32
ASKED_IN_DOUBT = 3
FETCH_ROUNDS = 3
MAX_PEERS = 64


class JobUnknown(PeerError):
    """No peer knows a job of that id."""


class SubmissionRefused(PeerError):
    """The swarm will not run the job; the text says why and on which peer."""


class InputsNotThere(UsageError):
    """Some peer cannot read inputs that this machine can; `paths` are they."""

    def __init__(self, text: str, paths: Sequence[str]) -> None:
        super().__init__(text)
        self.paths = tuple(paths)


class ResultGone(JobError):
    """The job has no result to be had: it was not successful, or its time to live is over."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The client goes on with another peer, because `lost` does not answer."""

    lost: str
    to: str

    def __str__(self) -> str:
        return f"peer {self.lost} does not answer; following from {self.to}"


class JobClient(Client):
    """A client that knows about jobs; see `Client` for its arguments."""

    topics = frozenset({"jobs"})

    # ---- submitting ----------------------------------------------------------------------------------------

    def submit(
        self, packed: bytes, nonce: str | None = None, on_move: Callable[[Moved], None] | None = None
    ) -> q.Submitted:
        """Hand in a job; returns when it exists and will outlive the peer that took it.

        Args:
            packed: its spec, see `p2p.job_protocol.pack_spec`.
            nonce: what makes it another job than one with the same spec; default: a fresh one.
            on_move: told when another peer has to be asked.

        Raises:
            NoPeerReached: nobody answered, or no majority of the job's group did.
            InputsNotThere: a peer cannot read an input.
            JobDefinitionError, SubmissionRefused: a peer cannot run it, or may not.
        """
        question = q.Submit(number=0, nonce=nonce or os.urandom(16).hex(), spec=packed, upload="")
        deadline = time.monotonic() + SUBMIT_LIMIT_S
        warnings: list[str] = []
        uploaded_to = ""
        unable: list[str] = []
        while True:
            address = self._addresses[0]
            if len(packed) > q.INLINE_SPEC_BYTES and uploaded_to != address:
                question = self._uploaded(packed, question)
                uploaded_to = address = self._addresses[0]  # who took it, if the first did not
            answer = self._until_submitted(question, deadline)
            if answer is None:
                self._move(address, on_move)
                continue
            if answer.reason == "upload" and time.monotonic() < deadline:
                uploaded_to = ""  # others' uploads have displaced ours
                continue
            if answer.reason in ("quorum", "disk", "busy") and address not in unable:
                # It may be cut off, alone or with a few; its disk and its hands are its own as well.
                unable.append(address)
                if len(unable) < len(self._addresses):
                    self._go_round()
                    continue
            warnings += [line for line in answer.warnings if line not in warnings]
            if answer.reason != "group" or question.group:
                break
            # Fixed from now on: with another group, another peer would begin the job a second time.
            question = replace(question, group=answer.group)
        answer = replace(answer, warnings=tuple(warnings))
        for peer in answer.peers:
            self._learn(peer)
        _check(answer)
        return answer

    def _until_submitted(self, question: q.Submit, deadline: float) -> q.Submitted | None:
        """Repeat a submission until it is decided; None if the peer falls silent."""
        question = self._numbered(question)
        address = self._addresses[0]
        heard_at = time.monotonic()
        said_at = 0.0
        while (now := time.monotonic()) - heard_at < SILENCE_S:
            if now > deadline:
                raise NoPeerReached("the job's submission was not decided in time; the peers are too busy")
            if now - said_at >= RENEW_S:
                self._send(address, question)
                said_at = now
            for message in self._arrived(RENEW_S):
                if getattr(message, "number", None) != question.number:
                    continue
                heard_at = time.monotonic()
                if isinstance(message, q.Submitted) and message.reason != "pending":
                    return message
            if address in self._failed:
                break
        return None

    def _uploaded(self, packed: bytes, question: q.Submit) -> q.Submit:
        name = os.urandom(16).hex()
        offset = 0
        while offset < len(packed):
            chunk = packed[offset : offset + q.CHUNK_BYTES]
            upload = q.Upload(number=0, upload=name, offset=offset, size_bytes=len(packed), data=chunk)
            answer = self.ask(upload, q.Uploaded)
            # Another peer than before has nothing of it: it is sent from the beginning.
            offset = answer.received
        return replace(question, spec=b"", upload=name)

    # ---- asking --------------------------------------------------------------------------------------------

    def jobs(self, prefix: str = "") -> q.JobsAre:
        """Return the jobs that the swarm knows, youngest first."""
        return self.ask(q.AskJobs(number=0, prefix=prefix), q.JobsAre)

    def find(self, prefix: str) -> str:
        """Return the full id of a job.

        Raises:
            JobUnknown: the prefix fits no job, or several, or is too short.
        """
        if not all(character in "0123456789abcdef" for character in prefix) or len(prefix) > ID_CHARS:
            raise JobUnknown(f"{prefix!r} is no job's id: 'ringreduce jobs' lists them")
        if len(prefix) == ID_CHARS:
            return prefix  # whether it is known shows when it is asked for
        found: list[str] = []
        for _ in range(self._asked_in_doubt()):
            found = [row.job for row in self.jobs(prefix).jobs]
            if found:
                break
            self._go_round()
        try:
            return unique_prefix(prefix, found)
        except ValueError as error:
            raise JobUnknown(str(error)) from None

    def view(self, job: str) -> q.JobView:
        """Return how a job is.

        Raises:
            JobUnknown: nobody knows it.
        """
        for _ in range(self._asked_in_doubt()):
            answer = self.ask(q.Follow(number=0, job=job), q.JobIs)
            if answer.view is not None:
                return answer.view
            self._go_round()
        raise JobUnknown(f"no job {job!r} is known")

    def follow(self, job: str) -> Iterator[q.JobView | Moved | None]:
        """Yield how a job is whenever that changes, until it has ended; `None` where nothing has for a while.

        Raises:
            JobUnknown: nobody knows it.
            NoPeerReached: no peer answers any more.
        """
        question = self._numbered(q.Follow(number=0, job=job, lease_s=4 * RENEW_S))
        self._failed = {}
        heard_at, said_at = time.monotonic(), 0.0
        knows_others = len(self._addresses) > 1
        doubts_left = self._asked_in_doubt()
        while True:
            address = self._addresses[0]
            now = time.monotonic()
            if now - said_at >= RENEW_S:
                self._send(address, question)
                said_at = now
                if not knows_others:
                    self._send(address, AskMembers(number=question.number))
            seen = False
            for message in self._arrived(RENEW_S / 4):
                if getattr(message, "number", None) != question.number:
                    continue
                heard_at = time.monotonic()
                if isinstance(message, MembersAre):
                    knows_others = True
                    self._learn_all(message)
                elif isinstance(message, q.JobIs):
                    self._failed = {}
                    if message.view is None:
                        doubts_left -= 1
                        if doubts_left <= 0:
                            raise JobUnknown(f"no job {job!r} is known")
                        self._go_round()
                        said_at = 0.0
                        break
                    yield message.view
                    seen = True
                    if message.view.state.is_final:
                        return
            if address != self._addresses[0]:
                continue
            if time.monotonic() - heard_at >= SILENCE_S or address in self._failed:
                yield self._moved(address)
                heard_at, said_at = time.monotonic(), 0.0
            elif not seen:
                yield None

    def cancel(self, job: str) -> q.JobView | None:
        """End a job; returns how it is then, None if nobody who leads it was reached."""
        view = self.view(job)
        if view.state.is_final:
            return view
        timeout_s, self._timeout_s = self._timeout_s, CANCEL_WAIT_S
        try:
            return self.ask(q.CancelJob(number=0, job=job), q.Cancelled).view
        finally:
            self._timeout_s = timeout_s

    def logs(self, job: str) -> list[q.LogsAre]:
        """Return what user code of a job has printed, peer by peer."""
        members = self.ask(AskMembers(number=0), MembersAre).members
        question = self._numbered(q.AskLogs(number=0, job=job))
        waiting = {member.id for member in members if member.status.in_ring}
        for member in members:
            if member.id in waiting:
                self._send(member.address, question)
        found: dict[str, q.LogsAre] = {}
        deadline = time.monotonic() + self._timeout_s
        while waiting and (left_s := deadline - time.monotonic()) > 0:
            for message in self._arrived(left_s):
                if isinstance(message, q.LogsAre) and message.number == question.number:
                    found[message.node] = message
                    waiting.discard(message.node)
        return [found[node] for node in sorted(found)]

    # ---- results -------------------------------------------------------------------------------------------

    def parts(self, job: str) -> list[q.PartRow]:
        """Return the parts of a job's result, in order.

        Raises:
            ResultGone: there is none to be had.
            JobUnknown: its time to live has ended meanwhile.
        """
        rows: list[q.PartRow] = []
        deadline = time.monotonic() + SILENCE_S
        while True:
            answer = self.ask(q.AskParts(number=0, job=job, first=len(rows)), q.PartsAre)
            if answer.total < 0:
                # The members may be electing somebody, or a peer that was asked has just died.
                if time.monotonic() < deadline:
                    self._arrived(RETRY_S)
                    self.view(job)
                    continue
                raise ResultGone(f"job {job[:12]} has no result to be had any more")
            rows += answer.rows
            if len(rows) >= answer.total:
                return rows
            if not answer.rows:
                raise ResultGone(f"job {job[:12]}: its parts are not all known any more")

    def read_part(self, job: str, row: q.PartRow) -> bytes:
        """Return the bytes of a part, whole; see `write_part` for large ones."""
        chunks: list[bytes] = []
        self.write_part(job, row, chunks.append, chunks.clear)
        return b"".join(chunks)

    def write_part(
        self, job: str, row: q.PartRow, write: Callable[[bytes], Any], restart: Callable[[], Any]
    ) -> None:
        """Fetch a part.

        Args:
            job: whose.
            row: which.
            write: takes its bytes in order.
            restart: drops all that was written; another holder is tried from the start.

        Raises:
            ResultGone: no holder has it.
            NoPeerReached: a holder that may have it does not answer.
        """
        if not row.attempt or not row.size_bytes:
            return
        # The one we talk to already needs no new connection.
        holders = sorted(row.holders, key=lambda address: address != self._addresses[0])
        silent = list(holders)
        for _ in range(FETCH_ROUNDS):
            for address in list(silent):
                had = self._read_from(address, job, row, write)
                if had:
                    return
                restart()
                if had is not None:
                    silent.remove(address)
        if silent:
            raise NoPeerReached(
                f"part {row.part} of job {job[:12]}: {', '.join(silent)} does not answer; "
                f"'ringreduce result {job[:12]}' fetches it again"
            )
        raise ResultGone(
            f"part {row.part} of job {job[:12]}: none of its {len(holders)} holders gives it; "
            "submit the job again"
        )

    def _read_from(
        self, address: str, job: str, row: q.PartRow, write: Callable[[bytes], Any]
    ) -> bool | None:
        """Fetch a part from one holder; False if it does not have it whole, None if it falls silent."""
        digest = xxhash.xxh3_128()
        self._failed.pop(address, None)
        asked, done = 0, 0
        waiting: dict[int, int] = {}
        arrived: dict[int, bytes] = {}
        heard_at = time.monotonic()
        while done < row.size_bytes:
            while asked < row.size_bytes and len(waiting) < ASKED_AHEAD:
                question = self._numbered(
                    q.ReadPart(number=0, job=job, stage=row.stage, attempt=row.attempt, offset=asked)
                )
                waiting[question.number] = asked
                self._send(address, question)
                asked += q.CHUNK_BYTES
            for message in self._arrived(RENEW_S / 4):
                if not isinstance(message, q.PartChunk) or message.number not in waiting:
                    continue
                heard_at = time.monotonic()
                offset = waiting.pop(message.number)
                if not message.is_here or len(message.data) != min(q.CHUNK_BYTES, row.size_bytes - offset):
                    return False  # nothing more would come of what is lacking
                arrived[offset] = message.data
            while done in arrived:
                data = arrived.pop(done)
                digest.update(data)
                write(data)
                done += len(data)
            if address in self._failed or time.monotonic() - heard_at > SILENCE_S:
                return None
        return digest.digest() == row.digest

    # ---- peers ---------------------------------------------------------------------------------------------

    def _asked_in_doubt(self) -> int:
        """How many peers must not know a job before nobody does: one that has just started knows nothing."""
        return max(1, min(len(self._addresses), ASKED_IN_DOUBT))

    def _go_round(self) -> None:
        """Talk to the next peer."""
        self._addresses.append(self._addresses.pop(0))

    def _learn(self, address: str) -> None:
        if address not in self._addresses and len(self._addresses) < MAX_PEERS:
            self._addresses.append(address)

    def _learn_all(self, answer: MembersAre) -> None:
        for member in answer.members:
            if member.status.in_ring:
                self._learn(member.address)

    def _moved(self, address: str) -> Moved:
        """Leave a peer for the next.

        Raises:
            NoPeerReached: all have failed since one of them last answered.
        """
        reason = self._failed.pop(address, f"no answer within {SILENCE_S:g} s")
        if address in self._addresses[-1:] and len(self._addresses) > 1:
            self._failed[address] = reason  # it was put behind the others when its link failed
        else:
            self._turn_away(address, reason)
        if len(self._failed) >= len(self._addresses):
            reasons = "; ".join(f"{lost}: {why}" for lost, why in self._failed.items())
            raise NoPeerReached(f"no peer reached ({reasons})")
        return Moved(address, self._addresses[0])

    def _move(self, address: str, on_move: Callable[[Moved], None] | None) -> None:
        moved = self._moved(address)
        if on_move is not None:
            on_move(moved)


def _check(answer: q.Submitted) -> None:
    """Raise what a refused submission means for the one who made it."""
    match answer.reason:
        case "":
            return
        case "inputs":
            raise InputsNotThere(answer.text, answer.paths)
        case "code" | "python" | "spec":
            raise JobDefinitionError(answer.text)
        case "quorum":
            raise NoPeerReached(answer.text)
        case "replicas":
            raise SubmissionRefused(f"{answer.text} (--strict-replicas)")
        case _:
            raise SubmissionRefused(answer.text or f"the job was refused: {answer.reason}")


def failure_of(view: q.JobView) -> JobError:
    """Return why a job that has ended without a result did so, as the embedded engine would raise it."""
    assert view.failure is not None, "a job that failed says why"
    if view.state is JobStatus.CANCELLED:
        return JobError(f"job {view.job[:12]} was {view.failure.message}")
    error = error_of(view.failure)
    return error if isinstance(error, JobError) else EnvironmentFailed(str(error))


def report_of(view: q.JobView, wall_s: float | None = None) -> dict[str, Any]:
    """Return what `--report` writes.

    Args:
        view: the job as it ended.
        wall_s: how long its client waited; default: from its birth to its end.
    """
    totals = view.totals
    return {
        "job_id": view.job,
        "job": view.name,
        "state": view.state.value,
        "wall_s": round(view.ended_at_s - view.born_at_s if wall_s is None else wall_s, 6),
        "cpu_s": round(totals.cpu_ms / 1000, 6),
        "input_bytes": view.input_bytes,
        "shuffle_bytes": totals.shuffle_bytes,
        "spilled_bytes": totals.spilled_bytes,
        "output_bytes": totals.output_bytes,
        "output_records": totals.output_records,
        "replica_bytes": totals.replica_bytes,
        "map_tasks": totals.map_tasks,
        "reduce_tasks": totals.reduce_tasks,
        "attempts": totals.attempts,
        "failed_attempts": totals.failed_attempts,
        "speculated": totals.speculated,
        "maps_run_again": totals.maps_run_again,
        "parts_run_again": totals.parts_run_again,
        "leader_changes": totals.leader_changes,
        "peers_lost": totals.peers_lost,
        "leader": view.leader,
        "epoch": view.epoch,
        "members": list(view.members),
        "counters": dict(view.counters),
        "events": [
            {"time": event.at_s, "kind": event.kind, "node": event.node, "text": event.text}
            for event in view.events
        ],
    }
