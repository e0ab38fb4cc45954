"""The client that hands jobs in and fetches results: whom it asks next, and when it gives up.

Its peers are functions from a message to their answers; a peer that is `None` is one whose link has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import xxhash

from mapreduce.outcome import JobStatus
from membership.register import AcceptorId
from membership.view import NodeId
from p2p import job_questions as q
from p2p.errors import NoPeerReached
from p2p.job_client import JobClient, JobUnknown, ResultGone

A, B, C = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"
JOB = "0123456789abcdef0123456789abcdef"
DATA = b"key\tvalue\n"

Peer = Callable[[Any], Sequence[Any]] | None


class ScriptedClient(JobClient):
    """A client whose peers are functions; `asked` are the addresses and messages in order."""

    def __init__(self, peers: dict[str, Peer]) -> None:
        self._peers = peers
        self._addresses, self._unresolved = list(peers), {}
        self._failed, self._number, self._timeout_s = {}, 0, 1.0
        self._waiting: list[Any] = []
        self.asked: list[tuple[str, Any]] = []

    def _send(self, address: str, message: Any) -> None:
        self.asked.append((address, message))
        peer = self._peers[address]
        if peer is None:
            self._failed[address] = "refused"
        else:
            self._waiting += peer(message)

    def _arrived(self, timeout_s: float) -> list[Any]:
        messages, self._waiting = self._waiting, []
        return messages

    def _turn_away(self, address: str, reason: str) -> None:
        self._failed[address] = reason
        self._addresses.remove(address)
        self._addresses.append(address)


def unknowing(message: Any) -> list[Any]:
    match message:
        case q.AskJobs():
            return [q.JobsAre(number=message.number, jobs=())]
        case q.Follow():
            return [q.JobIs(number=message.number, view=None)]
    return []


def knowing(message: Any) -> list[Any]:
    match message:
        case q.AskJobs():
            row = q.JobRow(
                job=JOB,
                name="",
                state=JobStatus.RUNNING,
                leader=NodeId("a"),
                done=0,
                total=1,
                born_at_s=0.0,
                ended_at_s=0.0,
                members=(),
                is_fresh=True,
            )
            return [q.JobsAre(number=message.number, jobs=(row,))]
    return []


def vetting(*nodes: str, reason: str = "group") -> Callable[[Any], list[Any]]:
    """A peer that would begin a job with these members, and says so or why not."""
    group = tuple(AcceptorId(NodeId(node), "disk") for node in nodes)

    def answer(message: q.Submit) -> list[Any]:
        if not message.group:
            return [q.Submitted(number=message.number, job=JOB, reason=reason, group=group)]
        members = tuple(acceptor.node for acceptor in message.group)
        return [q.Submitted(number=message.number, job=JOB, members=members)]

    return answer


def holding(data: bytes) -> Callable[[Any], list[Any]]:
    def answer(message: q.ReadPart) -> list[Any]:
        return [q.PartChunk(number=message.number, is_here=bool(data), offset=message.offset, data=data)]

    return answer


def part(*holders: str) -> q.PartRow:
    digest = xxhash.xxh3_128(DATA).digest()
    return q.PartRow(part=0, stage=1, attempt=1, size_bytes=len(DATA), digest=digest, holders=holders)


def test_a_peer_that_knows_no_jobs_is_not_the_last_one_asked() -> None:
    assert ScriptedClient({A: unknowing, B: knowing}).find(JOB[:6]) == JOB


def test_a_job_that_no_peer_knows_is_unknown() -> None:
    client = ScriptedClient({A: unknowing, B: unknowing, C: unknowing})
    with pytest.raises(JobUnknown):
        client.view(JOB)
    assert [address for address, _ in client.asked] == [A, B, C]


def test_the_group_that_the_first_peer_names_is_the_one_that_every_peer_is_told() -> None:
    first, second = vetting("a", "b", "c"), vetting("x")

    def falls_silent(message: q.Submit) -> list[Any]:
        client._peers[A] = None
        return first(message)

    client = ScriptedClient({A: falls_silent, B: second})
    assert client.submit(b"spec").members == ("a", "b", "c")
    address, last = client.asked[-1]
    assert address == B
    assert [acceptor.node for acceptor in last.group] == ["a", "b", "c"]


@pytest.mark.parametrize("reason", ["quorum", "disk", "busy"])
def test_a_peer_that_cannot_take_a_job_is_left_for_one_that_can(reason: str) -> None:
    client = ScriptedClient({A: vetting(reason=reason), B: vetting("b", "c", "d")})
    assert client.submit(b"spec").members == ("b", "c", "d")


def test_a_submission_ends_when_no_peer_has_a_quorum() -> None:
    client = ScriptedClient({A: vetting(reason="quorum"), B: vetting(reason="quorum")})
    with pytest.raises(NoPeerReached):
        client.submit(b"spec")
    assert [address for address, _ in client.asked] == [A, B]


def test_a_part_comes_from_the_holder_that_has_it() -> None:
    assert ScriptedClient({A: holding(b""), B: holding(DATA)}).read_part(JOB, part(A, B)) == DATA


def test_a_part_that_its_holders_do_not_have_is_gone() -> None:
    with pytest.raises(ResultGone):
        ScriptedClient({A: holding(b""), B: holding(b"")}).read_part(JOB, part(A, B))


def test_a_part_that_is_shorter_than_it_should_be_is_not_waited_for() -> None:
    with pytest.raises(ResultGone):
        ScriptedClient({A: holding(DATA[:3])}).read_part(JOB, part(A))


def test_a_part_whose_holder_is_silent_may_be_there_still() -> None:
    with pytest.raises(NoPeerReached, match=B):
        ScriptedClient({A: holding(b""), B: None}).read_part(JOB, part(A, B))
