"""One peer's engine by itself, on a fake clock, without children: what becomes of a job that is over."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mapreduce.bundling import digest
from mapreduce.config import JobsConfig
from mapreduce.messages import AskFate, Beat, Dissolve
from mapreduce.record import JobStatus, born
from mapreduce.spec import InputSplit, JobCode, JobPlan, JobSpec, StepPlan
from membership.acceptor import Acceptor, Vote, encode_vote
from membership.config import LOCAL
from membership.messages import Gossip, Rumour
from membership.register import AcceptorId, Ballot, Record
from membership.register_config import LOCAL_REGISTER
from membership.register_effects import SendTo
from membership.register_messages import Accept, AskHearing, Birth, Hearing, Prepare
from membership.swim import Swim
from membership.view import Member, NodeId, Status
from p2p import job_inquiries as iq
from p2p import job_questions as q
from p2p.bulk import CHUNK_BYTES, Bulk, Received, Stored
from p2p.job_files import JobFiles
from p2p.job_keys import JOB_KEY, SPEC_ATTEMPT
from p2p.job_locks import LOCK_KEY
from p2p.job_protocol import pack_record
from p2p.job_service import JobService, OwnLimits
from p2p.job_vetting import UNBORN_S
from p2p.job_watches import MAX_FOLLOWERS
from p2p.result_questions import AskKept
from p2p.roles import Role
from p2p.segments import SPEC_STAGE
from p2p.service import Effect, Origin, Reply, Say
from p2p.spec_packing import pack_spec, spec_digest
from p2p.store import Store
from p2p.submissions import UNABLE
from p2p.transport import BulkArrival, Connection
from p2p.votes import VoteStore
from tests.p2p.memory_swarm import MemorySwarm

JOB = "0123456789abcdef0123456789abcdef"
ORPHAN_S = 3600.0  # the job's time to live
STEP = StepPlan(
    name="main", map_only=True, splits=(InputSplit(path="/0", name="0", size_bytes=1, key="/0:0"),)
)
PLAN = JobPlan(name="job", steps=(STEP,), split_bytes=100, python="3.11", ttl_s=ORPHAN_S)
BEGUN_AT_S, WALL_S = 100.0, 1e9
LEFT_S = 0.5


def record_of(members: Sequence[AcceptorId], status: JobStatus) -> Record:
    """The job's record, as it was born or as it ended `LEFT_S` before its time to live is over."""
    record = born(JOB, "00" * 32, WALL_S - ORPHAN_S)
    if status.is_final:
        record = replace(record, status=status, ended_at_s=WALL_S - ORPHAN_S + LEFT_S)
    return Record(
        generation=0,
        epoch=0,
        members=tuple(members),
        terminal=status.is_final,
        payload=pack_record(record),
    )


class Client(Connection):
    """Somebody who asks this peer."""


class Alone:
    """A peer that keeps the votes of a job that is over, or in `status`; the others of its group are silent.

    Without a status it keeps a vote on the job's locks alone.
    """

    def __init__(
        self, directory: Path, members: int = 3, status: JobStatus | None = JobStatus.CANCELLED
    ) -> None:
        votes = VoteStore(str(directory / "votes"))
        self.members = [AcceptorId(NodeId("a"), votes.disk)]
        self.members += [AcceptorId(NodeId(name), "00" * 8) for name in ("b", "c")][: members - 1]
        ballot = Ballot(1, NodeId("b"), 1)
        if status is not None:
            vote = Vote(promised=ballot, accepted=ballot, record=record_of(self.members, status))
            votes.save(JOB_KEY + JOB, encode_vote(vote))
        locks = Record(generation=0, epoch=0, members=tuple(self.members))
        votes.save(LOCK_KEY + JOB, encode_vote(Vote(promised=ballot, accepted=ballot, record=locks)))
        self.now = BEGUN_AT_S
        me = Member(NodeId("a"), "memory:a")
        swim = Swim(me=me, config=LOCAL, rng=random.Random(1), seeds=[], known=self._known())
        swim.start(self.now)
        self.engine = JobService(
            swim=swim,
            store=Store(str(directory / "segments"), low_free_bytes=0, high_free_bytes=0),
            votes=votes,
            files=JobFiles(str(directory / "jobs")),
            limits=OwnLimits(slots=1, memory_bytes=256 << 20),
            jobs=JobsConfig(),
            registers=LOCAL_REGISTER,
            send_chunk=lambda _to, _parts: True,
            log=lambda _text: None,
            now=self.now,
            wall=WALL_S,
        )
        self.engine.warmth_is_wanted = False
        self.answers: list[Any] = []
        self.ticks = 0
        if status is not None and status.is_final:
            self.engine.take_plan(JOB, PLAN)
        self._take(self.engine.start(self.now))

    def _known(self) -> list[Member]:
        """Other peers that membership has told us of."""
        return []

    def hear(self, message: Any, sender: str) -> None:
        self._take(self.engine.receive(message, Origin(NodeId(sender), 1, Role.PEER, Client()), self.now))

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.engine.next_deadline()) <= until:
            self.now = max(self.now, due)
            self.ticks += 1
            self._take(self.engine.tick(self.now))
        self.now = until

    def leave_alone(self, seconds: float) -> None:
        """Let time pass in one leap, and a little more, in which house is kept."""
        self.now += seconds
        self.advance(2.0)

    def has_lock_vote(self) -> bool:
        return self.engine.registers.acceptor.get(LOCK_KEY + JOB) is not None

    def knows_the_job(self) -> bool:
        return self.engine.registers.group(JOB_KEY + JOB) is not None

    def _take(self, effects: Sequence[Effect]) -> None:
        self.answers += [effect.message for effect in effects if isinstance(effect, Reply)]


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Alone]:
    alone = Alone(tmp_path)
    yield alone
    alone.engine.close()


def test_who_waits_for_news_when_a_jobs_time_is_over_is_told_that_nobody_knows_it(peer: Alone) -> None:
    peer.advance(LEFT_S)
    peer.hear(q.Follow(number=7, job=JOB), "client")
    assert peer.answers == []
    peer.advance(0.6)  # house is kept once a second
    assert peer.answers == [q.JobIs(number=7, view=None)]


def test_who_follows_a_job_on_takes_nobody_elses_place(peer: Alone) -> None:
    for client in (*range(MAX_FOLLOWERS), 5):
        peer.hear(q.Follow(number=client, job=JOB), f"client {client}")
    peer.advance(LEFT_S + 0.6)
    assert {answer.number for answer in peer.answers} == set(range(MAX_FOLLOWERS))


def test_who_still_follows_a_job_that_is_over_costs_no_turns_of_the_loop(tmp_path: Path) -> None:
    peer = Alone(tmp_path, members=1)
    try:
        peer.hear(q.Follow(number=7, job=JOB, lease_s=4.0), "client")
        assert [answer.view.state for answer in peer.answers] == [JobStatus.CANCELLED]
        before = peer.ticks
        peer.advance(0.4)
        assert peer.ticks - before < 10
    finally:
        peer.engine.close()


def test_of_a_job_whose_time_is_over_a_peer_says_so_at_once(peer: Alone) -> None:
    peer.advance(2.0)
    peer.hear(q.Follow(number=8, job=JOB), "client")
    peer.hear(q.AskJobs(number=9), "client")
    assert peer.answers == [q.JobIs(number=8, view=None), q.JobsAre(number=9, jobs=())]


def test_what_others_still_say_of_such_a_job_does_not_begin_it_anew(peer: Alone) -> None:
    peer.advance(2.0)
    assert not peer.knows_the_job()
    late = Birth(key=JOB_KEY + JOB, record=record_of(peer.members, JobStatus.RUNNING), to=peer.members[0])
    peer.hear(late, "b")
    assert not peer.knows_the_job()
    locks = Record(generation=0, epoch=0, members=tuple(peer.members))
    peer.hear(Birth(key=LOCK_KEY + JOB, record=locks, to=peer.members[0]), "b")
    assert not peer.has_lock_vote()


def test_a_job_whose_keepers_are_all_away_is_not_unknown_to_who_has_its_spec(peer: Alone) -> None:
    other = JOB[::-1]
    split = InputSplit(path="/0", name="0", size_bytes=1, key="/0:0")
    step = StepPlan(name="main", map_only=True, splits=(split,))
    peer.engine.take_plan(other, JobPlan(name="job", steps=(step,), split_bytes=100, python="3.11"))
    peer.hear(q.Follow(number=8, job=other), "client")
    peer.advance(5.0)
    (answer,) = peer.answers
    assert answer.view.state is JobStatus.RUNNING
    assert not answer.view.is_fresh
    assert "none of them answers" in answer.view.waiting_for


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Alone]:
    """A peer that keeps the votes of a job that runs, and has its spec and an output on its disk."""
    Store(str(tmp_path / "segments"), low_free_bytes=0, high_free_bytes=0).put(
        JOB, SPEC_STAGE, 0, SPEC_ATTEMPT, b"spec"
    )
    Store(str(tmp_path / "segments"), low_free_bytes=0, high_free_bytes=0).put(JOB, 0, 0, 1, b"output")
    alone = Alone(tmp_path, status=JobStatus.RUNNING)
    yield alone
    alone.engine.close()


class Leading(Alone):
    """A peer whose job's other members vote until they are `silent`, so that it comes to lead the job."""

    def __init__(self, directory: Path) -> None:
        self.silent = False
        self.others: dict[AcceptorId, Acceptor] = {}
        self.said: list[Say] = []
        super().__init__(directory, status=JobStatus.RUNNING)

    def come_to_lead(self) -> None:
        """Bring the job's plan, and wait until this peer leads it."""
        split = InputSplit(path="/0", name="0", size_bytes=1, key="/0:0")
        step = StepPlan(name="main", map_only=True, splits=(split,))
        self.engine.take_plan(JOB, JobPlan(name="job", steps=(step,), split_bytes=100, python="3.11"))
        self.advance(10.0)
        assert self.leads()

    def _take(self, effects: Sequence[Effect]) -> None:
        super()._take(effects)
        self.said += [effect for effect in effects if isinstance(effect, Say)]
        for effect in effects:
            match effect:
                case Say(message=Prepare() | Accept() | Birth() as asked) if not self.silent:
                    self._vote(asked)
                case Say(address=address, message=AskHearing(key=key, number=number)) if not self.silent:
                    hearing = Hearing(key=key, number=number, leader=None, fence=None)
                    self.hear(hearing, address.removeprefix("memory:"))

    def _vote(self, asked: Prepare | Accept | Birth) -> None:
        if asked.to not in self.others:
            ballot = Ballot(1, NodeId("b"), 1)
            vote = Vote(promised=ballot, accepted=ballot, record=record_of(self.members, JobStatus.RUNNING))
            saved = {JOB_KEY + JOB: encode_vote(vote)}
            self.others[asked.to] = Acceptor(asked.to, LOCAL_REGISTER, saved)
        acceptor = self.others[asked.to]
        for effect in acceptor.receive(asked, NodeId("a"), self.now):
            if isinstance(effect, SendTo):
                self.hear(effect.message, asked.to.node)

    def _known(self) -> list[Member]:
        return [Member(member.node, f"memory:{member.node}") for member in self.members[1:]]

    def leads(self) -> bool:
        return self.engine.leader(JOB) is not None

    def suspect(self, *nodes: str) -> None:
        """Let gossip accuse peers."""
        for node in nodes:
            accused = replace(self.engine.swim.get(NodeId(node)), status=Status.SUSPECT)
            news = Gossip(rumours=(Rumour(member=accused, accusers=(NodeId("d"),)),))
            self.engine.swim.receive(news, NodeId("d"), self.now)


def test_a_leader_with_nothing_to_write_says_that_it_lacks_a_quorum_once_the_others_are_suspected(
    tmp_path: Path,
) -> None:
    peer = Leading(tmp_path)
    try:
        peer.come_to_lead()
        peer.silent = True
        said = []
        for accused in ("b", "c"):
            peer.suspect(accused)
            peer.answers.clear()
            peer.hear(q.Follow(number=8, job=JOB), "client")
            said.append(peer.answers[0].view.waiting_for)
        assert said == ["", "waiting for a quorum: {b, c} do not answer"]
    finally:
        peer.engine.close()


class Talking(Alone):
    """A peer with two others, all of whose words are written down."""

    def __init__(self, directory: Path) -> None:
        self.said: list[Say] = []
        super().__init__(directory, status=None)

    def _known(self) -> list[Member]:
        return [Member(member.node, f"memory:{member.node}") for member in self.members[1:]]

    def _take(self, effects: Sequence[Effect]) -> None:
        super()._take(effects)
        self.said += [effect for effect in effects if isinstance(effect, Say)]


def the_end(keep_s: float) -> Dissolve:
    """What is told of the job when it is over: its result is the output of stage 1."""
    return Dissolve(job=JOB, ballot=1, status=JobStatus.COMMITTED, keep_stage=1, keep_s=keep_s)


def test_a_peer_that_finds_outputs_on_its_disk_asks_the_others_whether_their_job_is_over(
    tmp_path: Path,
) -> None:
    for stage in (0, 1):
        found = Store(str(tmp_path / "segments"), low_free_bytes=0, high_free_bytes=0)
        found.put(JOB, stage, 0, stage + 1, b"output")
    peer = Talking(tmp_path)
    try:
        peer.advance(6.0)
        asked = {say.address for say in peer.said if isinstance(say.message, AskFate)}
        assert asked == {"memory:b", "memory:c"}
        assert peer.engine.store.holds(JOB, 0, 1)
        peer.hear(the_end(keep_s=60.0), "b")
        assert not peer.engine.store.holds(JOB, 0, 1)
        assert peer.engine.store.holds(JOB, 1, 2)
        peer.leave_alone(60.0)
        assert not peer.engine.store.holds(JOB, 1, 2)
        peer.said.clear()
        peer.advance(60.0)
        assert not any(isinstance(say.message, AskFate) for say in peer.said)
    finally:
        peer.engine.close()


def test_who_was_told_of_a_jobs_end_tells_it_to_others_and_how_long_the_result_stays(tmp_path: Path) -> None:
    peer = Talking(tmp_path)
    try:
        peer.hear(the_end(keep_s=60.0), "b")
        peer.advance(20.0)
        peer.hear(AskFate(job=JOB), "c")
        assert Say(NodeId("c"), "memory:c", the_end(keep_s=40.0)) in peer.said
        peer.leave_alone(60.0)
        peer.hear(AskFate(job=JOB), "c")
        assert Say(NodeId("c"), "memory:c", the_end(keep_s=0.0)) in peer.said
    finally:
        peer.engine.close()


def test_a_job_that_runs_keeps_its_spec_and_its_outputs_however_long_nobody_leads_it(member: Alone) -> None:
    for _ in range(2):
        member.leave_alone(ORPHAN_S)
        assert member.engine.store.holds(JOB, SPEC_STAGE, SPEC_ATTEMPT)
        assert member.engine.store.holds(JOB, 0, 1)


def test_a_lock_vote_outlives_every_silence_while_the_job_runs(member: Alone) -> None:
    member.leave_alone(ORPHAN_S)
    assert member.has_lock_vote()
    member.hear(Beat(job=JOB, ballot=1, spec_digest="00" * 32, stage=0, version=0), "b")
    member.leave_alone(JobsConfig().forget_s)
    assert member.has_lock_vote()


def test_a_lock_vote_stays_where_no_other_vote_is_until_the_job_is_known_to_be_over(tmp_path: Path) -> None:
    keeper = Alone(tmp_path, status=None)
    try:
        keeper.leave_alone(ORPHAN_S)
        assert keeper.has_lock_vote()
        keeper.hear(AskKept(number=1, job=JOB, stage=0, left_s=5.0), "b")
        keeper.advance(4.0)
        assert keeper.has_lock_vote()
        keeper.advance(3.0)
        assert not keeper.has_lock_vote()
    finally:
        keeper.engine.close()


def test_with_a_job_that_is_over_its_votes_on_locks_go(peer: Alone) -> None:
    assert peer.has_lock_vote()
    peer.advance(2.0)
    assert not peer.has_lock_vote()


def spec_of_another_python() -> bytes:
    """What a peer refuses when it has looked at it."""
    split = InputSplit(path="/0", name="0", size_bytes=1, key="/0:0")
    step = StepPlan(name="main", map_only=True, splits=(split,))
    plan = JobPlan(name="job", steps=(step,), split_bytes=100, python="2.7", replicas=2, ttl_s=60.0)
    return pack_spec(JobSpec(plan=plan, code=JobCode(job=b"", files={}, file=None, digest="")))


def test_a_spec_that_was_fetched_for_a_job_that_is_never_born_does_not_stay(peer: Alone) -> None:
    job, packed = "1" * 32, spec_of_another_python()
    peer.hear(iq.Vet(number=1, job=job, spec_digest=spec_digest(packed), spec=b""), "b")
    peer.engine.store.put(job, SPEC_STAGE, 0, SPEC_ATTEMPT, packed)
    peer.engine.arrivals.something_arrived(peer.now)
    peer.leave_alone(UNBORN_S - 3.0)
    assert peer.engine.store.holds(job, SPEC_STAGE, SPEC_ATTEMPT)
    peer.advance(3.0)
    assert not peer.engine.store.holds(job, SPEC_STAGE, SPEC_ATTEMPT)


def spec_with_a_side_file(content: bytes) -> bytes:
    """A spec with a side file of this content."""
    split = InputSplit(path="/0", name="0", size_bytes=1, key="/0:0")
    step = StepPlan(name="main", map_only=True, splits=(split,))
    plan = JobPlan(name="job", steps=(step,), split_bytes=100, python="3.11")
    code = JobCode(job=b"", files={}, file=None, digest=digest(b"", {}, None))
    return pack_spec(JobSpec(plan=plan, code=code, side_files={"words": content}))


@pytest.mark.parametrize("has_plan", [False, True], ids=["after a restart", "with the plan in memory"])
def test_a_spec_that_rots_on_disk_is_not_opened_but_fetched_from_another_peer(
    peer: Alone, has_plan: bool
) -> None:
    job, said = "1" * 32, b"the text of a side file"
    packed = spec_with_a_side_file(said)
    peer.engine.store.put(job, SPEC_STAGE, 0, SPEC_ATTEMPT, packed)
    if has_plan:
        assert peer.engine.plan(job) is not None
    (path,) = [path for path in peer.engine.store.segments() if f"/{job}/" in path]
    content = Path(path).read_bytes()
    assert said in content
    Path(path).write_bytes(content.replace(said, said[:-1] + b"!"))

    assert peer.engine.arrivals.open_files(job) is not None
    assert peer.engine.files.get(job) is None
    assert peer.engine.plan(job) is None
    assert not peer.engine.store.holds(job, SPEC_STAGE, SPEC_ATTEMPT)

    peer.engine.store.put(job, SPEC_STAGE, 0, SPEC_ATTEMPT, packed)
    assert peer.engine.arrivals.open_files(job) is None
    opened = peer.engine.files.get(job)
    assert opened is not None
    assert Path(opened.side_files["words"]).read_bytes() == said


def test_a_peer_that_cannot_get_a_jobs_spec_says_that_it_is_unable_and_not_that_the_job_is_wrong(
    tmp_path: Path,
) -> None:
    peer = Leading(tmp_path)
    try:
        job = "2" * 32
        peer.hear(iq.Vet(number=5, job=job, spec_digest="00" * 32, spec=b""), "b")
        for _ in range(2):  # asked twice
            (fetch,) = [one.message for one in peer.said if isinstance(one.message, iq.FetchSegment)]
            peer.said.clear()
            peer.hear(iq.NotHeld(number=fetch.number, job=job, stage=fetch.stage, attempt=fetch.attempt), "b")
            peer.advance(0.5)
        (answer,) = [one.message for one in peer.said if isinstance(one.message, iq.Vetted)]
        assert (answer.number, answer.reason) == (5, UNABLE)
        assert "nobody has it" in answer.text
    finally:
        peer.engine.close()


def outputs_from(directory: Path, stage: int, data: bytes = b"output") -> list[BulkArrival]:
    """An output of the job's task 0, on its way from peer b."""
    sent: list[BulkArrival] = []

    def send(_to: NodeId, parts: Sequence[bytes]) -> bool:
        sent.append(BulkArrival(tuple(map(memoryview, parts)), Role.PEER, "memory:b"))
        return True

    store = Store(str(directory), low_free_bytes=0, high_free_bytes=0)
    store.put(JOB, stage, 0, 1, data)
    other = Bulk(me=NodeId("b"), session=7 + stage, store=store, send_chunk=send)
    other.send(JOB, stage, store.sources(JOB, stage, (1,), ()), NodeId("a"), "tag", 0.0)
    for turn in range(10):
        other.tick(0.1 * turn)
    return sent


def test_who_brings_outputs_of_a_job_that_is_over_is_told_so_and_nothing_of_them_stays(
    tmp_path: Path,
) -> None:
    # It slept while the job ended, and went on where it was.
    peer = Leading(tmp_path / "a")
    try:
        over = Dissolve(job=JOB, ballot=9, status=JobStatus.COMMITTED, keep_stage=1, keep_s=60.0)
        peer.hear(over, "b")
        for stage, is_kept in ((0, False), (1, True)):
            peer.said.clear()
            for arrival in outputs_from(tmp_path / f"of {stage}", stage):
                peer._take(peer.engine.pump([arrival], peer.now))
            assert peer.engine.store.holds(JOB, stage, 1) == is_kept
            answers = [effect.message for effect in peer.said]
            assert [one.reason for one in answers if isinstance(one, Stored)] == [
                "" if is_kept else "the job is over"
            ]
            assert (over in answers) != is_kept
    finally:
        peer.engine.close()


def test_chunks_that_come_together_are_answered_together_and_each_transfer_for_itself(tmp_path: Path) -> None:
    peer = Leading(tmp_path / "a")
    try:
        large = outputs_from(tmp_path / "large", 0, bytes(2 * CHUNK_BYTES + 5))
        small = outputs_from(tmp_path / "small", 1)
        for arrivals in ([*large[:2], *small], large[2:]):
            peer._take(peer.engine.pump(arrivals, peer.now))
        said = [one.message for one in peer.said if isinstance(one.message, Received | Stored)]
        assert said == [
            Received(session=7, transfer=1, bytes_here=2 * CHUNK_BYTES),
            Stored(session=8, transfer=1, reason=""),
            Stored(session=7, transfer=1, reason=""),
        ]
    finally:
        peer.engine.close()


def test_no_question_has_the_number_of_one_of_an_earlier_life(tmp_path: Path) -> None:
    """What others answer to a peer's former life must not pass for an answer to this one."""
    swarm = MemorySwarm(tmp_path)
    lives: list[set[int]] = []
    for _ in range(2):
        engine = swarm.add("a").engine
        lives.append({engine.fresh_number() for _ in range(1_000)})
        swarm.crash("a")
    assert not lives[0] & lives[1]
