"""The copies of a result after its job's end, on whole peers in memory, on a clock of its own."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import xxhash

from mapreduce.effects import DropJob
from mapreduce.record import JobStatus, StageKind, StageRecord, Winner, born
from mapreduce.spec import InputSplit, JobCode, JobPlan, JobSpec, StepPlan
from mapreduce.stages import StageGraph
from membership.acceptor import Vote, encode_vote
from membership.register import AcceptorId, Ballot, Record
from membership.register_messages import Accept, Birth
from membership.ring import Ring
from membership.view import NodeId
from p2p import job_questions as q
from p2p.job_arrivals import JobArrivals
from p2p.job_hearing import JobHearing
from p2p.job_keys import JOB_KEY, SPEC_ATTEMPT
from p2p.job_protocol import pack_record
from p2p.record_handover import RecordHandover
from p2p.result_keeper import ORDER_AGAIN_S, ResultKeeper
from p2p.result_questions import AskKept, KeptSent, SendKept, TimeIsOver
from p2p.segments import SPEC_STAGE
from p2p.spec_packing import pack_spec
from p2p.store import Store
from p2p.votes import VoteStore
from tests.p2p.memory_swarm import Asker, MemorySwarm, Node

JOB = "0123456789abcdef0123456789abcdef"
TTL_S = 600.0
SETTLED_S = 30.0  # whoever starts anew asks once
PEERS = ("a", "b", "c", "d", "e")
GROUP = ("a", "b", "c")
PLACES = (("a", "b"), ("b", "d"), ("d", "a"), ("c", "e"))  # of each part, at the job's end
PARTS = [random.Random(part).randbytes(40_000) for part in range(len(PLACES))]
PLAN = JobPlan(
    name="job",
    steps=(
        StepPlan(
            name="main",
            map_only=True,
            splits=tuple(
                InputSplit(path=f"/{i}", name=f"{i}", size_bytes=1, key=f"/{i}:0") for i in range(4)
            ),
        ),
    ),
    split_bytes=100,
    python="3.11",
    replicas=2,
    ttl_s=TTL_S,
)
STAGE = StageGraph(PLAN).result_stage


def attempt_of(part: int) -> int:
    return 10 + part


class Ended(MemorySwarm):
    """Peers on whose disks lies what a job leaves that has just ended."""

    def __init__(
        self,
        directory: Path,
        group: tuple[str, ...] = GROUP,
        ignorant: tuple[str, ...] = (),
        away: tuple[str, ...] = (),
        left_s: float = TTL_S,
        ttl_s: float = TTL_S,
    ) -> None:
        super().__init__(directory)
        self._ended_at_s = 1e9 + self.now - ttl_s + left_s
        votes = {name: VoteStore(str(directory / name / "votes")) for name in group}
        members = tuple(AcceptorId(NodeId(name), store.disk) for name, store in votes.items())
        ballot = Ballot(1, NodeId("a"), 1)
        record = Record(
            generation=0, epoch=0, members=members, terminal=True, payload=pack_record(self.record())
        )
        runs = replace(self.record(), status=JobStatus.RUNNING, ended_at_s=0.0)
        earlier = replace(record, terminal=False, payload=pack_record(runs))
        for name, store in votes.items():
            vote = Vote(promised=ballot, accepted=ballot, record=earlier if name in away else record)
            store.save(JOB_KEY + JOB, encode_vote(vote))
        plan = replace(PLAN, ttl_s=ttl_s)
        code = JobCode(job=b"", files={}, file=None, digest="")
        for name in [name for name in PEERS if name not in ignorant]:
            segments = Store(str(directory / name / "segments"), low_free_bytes=0, high_free_bytes=0)
            segments.put(JOB, SPEC_STAGE, 0, SPEC_ATTEMPT, pack_spec(JobSpec(plan=plan, code=code)))
            for part, places in enumerate(PLACES):
                if name in places:
                    segments.put(JOB, STAGE, part, attempt_of(part), PARTS[part])
        self.start(*[name for name in PEERS if name not in away])

    def record(self) -> Any:
        winners = [
            Winner(
                attempt=attempt_of(part),
                worker=0,
                digest=xxhash.xxh3_128_digest(PARTS[part]),
                size_bytes=len(PARTS[part]),
                places=tuple(PEERS.index(name) for name in places),
            )
            for part, places in enumerate(PLACES)
        ]
        stage = StageRecord(kind=StageKind.MAP, tasks=4, partitions=0, winners=tuple(winners))
        return replace(
            born(JOB, "00" * 32, 1e9 + self.now - 1.0),
            status=JobStatus.COMMITTED,
            stage=0,
            stages=(stage,),
            nodes=tuple(NodeId(name) for name in PEERS),
            ended_at_s=self._ended_at_s,
        )

    def holders(self, part: int) -> set[str]:
        return {
            name for name, node in self.nodes.items() if node.engine.store.holds(JOB, STAGE, attempt_of(part))
        }

    def is_whole(self) -> bool:
        return all(len(self.holders(part)) >= 2 for part in range(len(PLACES)))

    @property
    def copies_made(self) -> int:
        return sum(node.engine.results.copies_made for node in self.nodes.values())

    def result_through(self, node: Node) -> list[bytes]:
        """What a client does: ask who has the parts, and read each from the first who gives it."""
        asker = Asker(self)
        answer = asker.ask(node, q.AskParts(number=1, job=JOB, first=0))
        by_address = {one.peer.swim.me.address: one for one in self.nodes.values()}
        found = []
        for row in answer.rows:
            read = q.ReadPart(number=2, job=JOB, stage=row.stage, attempt=row.attempt, offset=0)
            given = (asker.ask(by_address[address], read) for address in row.holders)
            found.append(next(chunk.data for chunk in given if chunk.is_here))
        return found


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Ended]:
    made = Ended(tmp_path)
    yield made
    made.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """All that peers say to each other about results."""
    said: list[object] = []
    hear = ResultKeeper.hear

    def listening(keeper: ResultKeeper, message: object, sender: NodeId, now: float) -> None:
        said.append(message)
        hear(keeper, message, sender, now)

    monkeypatch.setattr(ResultKeeper, "hear", listening)
    return said


def test_after_a_holders_death_there_are_r_copies_again_and_the_next_one_may_die(swarm: Ended) -> None:
    swarm.run(SETTLED_S)
    for lost in ("a", "b", "d"):  # two of the record's group of three, and both first holders of three parts
        swarm.crash(lost, wipe=True)
        assert not swarm.is_whole()
        if len(swarm.nodes) > 2:
            assert swarm.run(40, swarm.is_whole)
            for node in list(swarm.nodes.values()):
                assert swarm.result_through(node) == PARTS
    assert swarm.run(40, swarm.is_whole)
    assert swarm.result_through(swarm.nodes["e"]) == PARTS


@pytest.mark.parametrize("lost_type", [SendKept, KeptSent])
def test_an_order_or_its_answer_that_is_lost_delays_copies_by_seconds(
    monkeypatch: pytest.MonkeyPatch, swarm: Ended, lost_type: type
) -> None:
    swarm.run(SETTLED_S)
    hear, cut_until = ResultKeeper.hear, swarm.now + 10.0

    def losing(keeper: ResultKeeper, message: object, sender: NodeId, now: float) -> None:
        if not isinstance(message, lost_type) or now >= cut_until:
            hear(keeper, message, sender, now)

    monkeypatch.setattr(ResultKeeper, "hear", losing)
    swarm.crash("d", wipe=True)
    swarm.run(10.0)
    assert swarm.run(2 * ORDER_AGAIN_S, swarm.is_whole)
    keepers = [node.engine.results for node in swarm.nodes.values()]
    assert swarm.run(20.0, lambda: not any(keeper.is_looking for keeper in keepers))


def test_who_leaves_when_another_holder_has_just_died_hands_on_what_only_it_has(swarm: Ended) -> None:
    swarm.run(SETTLED_S)
    swarm.crash("c", wipe=True)
    swarm.leave("e")  # no member of the group; those who are would have seen to it some seconds later
    assert swarm.holders(3)
    assert swarm.run(40, swarm.is_whole)
    assert swarm.result_through(swarm.nodes["a"]) == PARTS


def test_who_leaves_does_not_rest_while_another_looks(swarm: Ended) -> None:
    swarm.run(SETTLED_S)
    keeper = swarm.nodes["e"].engine.results
    keeper.drain(swarm.now)
    keeper.hear(AskKept(number=1, job=JOB, stage=STAGE, left_s=TTL_S), NodeId("a"), swarm.now)
    assert keeper.next_deadline() <= swarm.now
    assert not keeper.has_handed_over()


def test_who_leaves_does_not_wait_for_what_nobody_can_take(swarm: Ended) -> None:
    swarm.run(SETTLED_S)
    for name in ("b", "c", "d", "e"):
        before = swarm.now
        swarm.leave(name)
        assert swarm.now - before < 5
    assert swarm.result_through(swarm.nodes["a"]) == PARTS


def test_the_last_of_those_who_keep_a_record_hands_it_on_when_it_leaves(tmp_path: Path) -> None:
    swarm = Ended(tmp_path, group=("a",), left_s=50.0)
    swarm.run(10.0)
    swarm.leave("a")
    for node in swarm.nodes.values():
        assert swarm.result_through(node) == PARTS
    swarm.run(50.0)
    assert not any(JOB_KEY + JOB in node.engine.registers.acceptor for node in swarm.nodes.values())
    swarm.close()


def keepers(swarm: Ended) -> list[Node]:
    """Who has the job's record."""
    return [node for node in swarm.nodes.values() if JOB_KEY + JOB in node.engine.registers.acceptor]


def test_who_leaves_waits_until_those_who_shall_keep_its_record_are_born(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = Ended(tmp_path, group=("a",))
    swarm.run(SETTLED_S)
    hear, cut_until = JobHearing.hear, swarm.now + 8.0

    def losing(hearing: JobHearing, message: object, sender: NodeId, now: float) -> None:
        if not isinstance(message, Birth | Accept) or sender == hearing._desk.me or now >= cut_until:
            hear(hearing, message, sender, now)

    monkeypatch.setattr(JobHearing, "hear", losing)
    swarm.leave("a")
    assert len(keepers(swarm)) >= 2
    swarm.close()


def test_who_is_born_by_an_accept_learns_of_the_end_and_looks_after_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = Ended(tmp_path, ignorant=("d", "e"))
    swarm.run(SETTLED_S)
    hear = JobHearing.hear

    def losing(hearing: JobHearing, message: object, sender: NodeId, now: float) -> None:
        if not isinstance(message, Birth) or hearing._desk.me not in ("d", "e"):
            hear(hearing, message, sender, now)

    monkeypatch.setattr(JobHearing, "hear", losing)
    swarm.leave("a")
    born = [node.engine for node in keepers(swarm) if node.id in ("d", "e")]
    assert born
    assert swarm.run(60.0, lambda: all(engine.lives.until(JOB) < inf for engine in born))
    assert swarm.run(60.0, lambda: all(JOB in engine.results._results for engine in born))
    swarm.close()


def test_who_leaves_hands_on_the_record_of_a_job_that_ends_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = Ended(tmp_path, group=("a",))
    swarm.run(SETTLED_S)
    engine = swarm.nodes["a"].engine
    with monkeypatch.context() as patched:
        patched.setattr(RecordHandover, "begin", lambda *_: None)  # the job runs then
        engine.drain(swarm.now)
    engine.lives.drop(DropJob(job=JOB, keep_stage=STAGE, keep_s=TTL_S), swarm.now)
    swarm.run(20.0)
    assert len(keepers(swarm)) >= 3
    swarm.close()


def test_all_who_keep_a_record_may_leave_one_after_another_and_joiners_keep_it(tmp_path: Path) -> None:
    swarm = Ended(tmp_path, ignorant=("e",))  # it knows nothing of the job, not even its spec
    swarm.run(SETTLED_S)
    for name in GROUP:
        swarm.leave(name)
        swarm.add(f"{name}2", join=[swarm.nodes["e"].peer.swim.me.address])
        assert swarm.run(10, swarm.agreed)
    assert swarm.run(40, lambda: all(swarm.result_through(node) == PARTS for node in swarm.nodes.values()))
    swarm.close()


LONG_TTL_S = 4 * 3600.0
LONG_LEFT_S = 2 * 3600.0  # the job ended longer ago than a time to live that nobody has named


def keeping(swarm: Ended) -> set[str]:
    """Who has the job's record and will keep it for its whole time to live."""
    end = 100.0 + LONG_LEFT_S
    return {
        name
        for name, node in swarm.nodes.items()
        if JOB_KEY + JOB in node.engine.registers.acceptor
        and node.engine.lives.until(JOB) == pytest.approx(end, abs=1.0)
    }


def test_a_record_that_is_handed_on_hours_after_the_end_is_kept_by_the_ignorant_until_its_time_is_over(
    tmp_path: Path,
) -> None:
    swarm = Ended(tmp_path, ignorant=("d", "e"), left_s=LONG_LEFT_S, ttl_s=LONG_TTL_S)
    swarm.run(SETTLED_S)
    for name in ("a", "b"):
        swarm.leave(name)
        swarm.run(SETTLED_S)
    assert keeping(swarm) == {"c", "d", "e"}
    assert swarm.is_whole()
    assert all(swarm.result_through(node) == PARTS for node in swarm.nodes.values())
    swarm.close()


def test_who_keeps_a_record_and_its_spec_believes_nobody_who_says_that_its_time_is_over(
    tmp_path: Path,
) -> None:
    swarm = Ended(tmp_path, left_s=LONG_LEFT_S, ttl_s=LONG_TTL_S)
    swarm.run(5.0)
    node = swarm.nodes["a"]
    node.engine.results.hear(TimeIsOver(job=JOB), NodeId("d"), swarm.now)
    node.engine.results.hear(AskKept(number=1, job=JOB, stage=STAGE, left_s=1.0), NodeId("d"), swarm.now)
    swarm.run(5.0)
    assert "a" in keeping(swarm)
    assert node.engine.store.holds(JOB, STAGE, attempt_of(0))
    swarm.close()


def test_who_keeps_a_record_without_its_spec_asks_until_it_comes_and_forgets_nothing_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = JobArrivals.serve
    monkeypatch.setattr(JobArrivals, "serve", lambda *_: None)
    swarm = Ended(tmp_path, ignorant=("d", "e"), left_s=LONG_LEFT_S, ttl_s=LONG_TTL_S)
    swarm.leave("a")
    swarm.run(SETTLED_S)
    born = swarm.nodes["d"].engine
    assert JOB_KEY + JOB in born.registers.acceptor
    assert not born.is_gone(JOB)
    assert born.plan(JOB) is None
    monkeypatch.setattr(JobArrivals, "serve", serve)
    assert swarm.run(200.0, lambda: born.plan(JOB) is not None)
    assert "d" in keeping(swarm)
    swarm.close()


@pytest.mark.parametrize("restarted", [(), ("a", "b", "d", "e")], ids=["", "and all others began anew"])
def test_who_was_away_at_a_jobs_end_lets_go_of_it_when_he_comes_back_after_its_time(
    tmp_path: Path, restarted: tuple[str, ...]
) -> None:
    swarm = Ended(tmp_path, away=("c",), left_s=5.0)  # on its disk the job runs
    swarm.run(10.0)
    for name in restarted:
        swarm.crash(name)
    if restarted:
        swarm.start(*restarted)
    there = swarm.nodes["a"]
    late = swarm.add("c", join=[there.peer.swim.me.address])

    def has_let_go() -> bool:
        return JOB not in late.engine.store.jobs and JOB_KEY + JOB not in late.engine.registers.acceptor

    assert not has_let_go()
    assert swarm.run(60, has_let_go)
    assert not any("leads job" in line for node in swarm.nodes.values() for line in node.log)
    assert not any(JOB_KEY + JOB in node.engine.registers.acceptor for node in swarm.nodes.values())
    swarm.close()


def test_nothing_is_copied_where_nothing_is_missing_and_then_nothing_is_said(
    asked: list[object], swarm: Ended
) -> None:
    swarm.run(SETTLED_S)
    assert asked
    asked.clear()
    swarm.run(60)
    assert asked == []
    assert swarm.copies_made == 0


@pytest.mark.parametrize("how", ["truncate", "swap", "delete"])
def test_a_part_that_is_not_what_it_was_is_found_when_a_client_reads_it(swarm: Ended, how: str) -> None:
    node = swarm.nodes["a"]
    located = node.engine.store.find(JOB, STAGE, attempt_of(0))
    other = node.engine.store.find(JOB, STAGE, attempt_of(2))
    assert located is not None
    assert other is not None
    match how:
        case "truncate":
            os.truncate(located.path, located.offset + 5)
        case "swap":
            os.rename(other.path, located.path)
        case "delete":
            os.unlink(located.path)
    read = q.ReadPart(number=2, job=JOB, stage=STAGE, attempt=attempt_of(0), offset=0)
    assert not Asker(swarm).ask(node, read).is_here
    assert node.engine.store.damaged == 1
    swarm.run(SETTLED_S)
    assert swarm.result_through(node)[0] == PARTS[0]
    assert len(swarm.holders(0)) == 2


def test_of_a_job_that_ends_well_nothing_is_said_until_a_holder_goes(
    asked: list[object], swarm: Ended
) -> None:
    swarm.run(SETTLED_S)
    for node in swarm.nodes.values():  # they hear of its end, as if they had not started since
        node.engine.results.forget(JOB)
        node.engine.lives.drop(DropJob(job=JOB, keep_stage=STAGE, keep_s=TTL_S), swarm.now)
    asked.clear()
    swarm.run(20)
    assert asked == []
    swarm.crash("a")
    assert swarm.run(40, swarm.is_whole)
    assert swarm.result_through(swarm.nodes["d"]) == PARTS


def test_when_all_copies_are_there_again_all_are_quiet(asked: list[object], swarm: Ended) -> None:
    swarm.run(SETTLED_S)
    swarm.crash("a", wipe=True)
    assert swarm.run(40, swarm.is_whole)
    swarm.run(40)
    assert asked
    asked.clear()
    made = swarm.copies_made
    swarm.run(60)
    assert asked == []
    assert made == swarm.copies_made == 2  # the two parts that the dead one held, once each


def test_copies_for_which_there_were_too_few_peers_are_made_when_some_come(tmp_path: Path) -> None:
    swarm = Ended(tmp_path)
    try:
        swarm.run(SETTLED_S)
        swarm.crash("d", wipe=True)
        assert swarm.run(40, swarm.is_whole)
        swarm.crash("e")
        swarm.crash("b")
        swarm.crash("c")
        assert swarm.run(20, swarm.agreed)
        seed = swarm.nodes["a"].peer.swim.me.address
        swarm.add("b", join=[seed])
        swarm.add("c", join=[seed])
        assert swarm.run(60, swarm.is_whole)
    finally:
        swarm.close()


def test_a_damaged_part_is_made_again(swarm: Ended) -> None:
    swarm.run(SETTLED_S)
    store = swarm.nodes["e"].engine.store
    located = store.find(JOB, STAGE, attempt_of(3))
    assert located is not None
    path = Path(located.path)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert not store.verify(located.path)
    assert not swarm.is_whole()
    assert swarm.run(40, swarm.is_whole)
    assert swarm.result_through(swarm.nodes["a"]) == PARTS


def test_nothing_is_left_when_the_time_to_live_is_over(swarm: Ended) -> None:
    swarm.run(SETTLED_S)
    swarm.crash("a", wipe=True)
    assert swarm.run(40, swarm.is_whole)
    swarm.crash("e")
    assert swarm.run(20, swarm.agreed)
    swarm.add(
        "e", join=[swarm.nodes["b"].peer.swim.me.address]
    )  # keeps no record, and so cannot know by itself
    swarm.run(TTL_S)
    for node in swarm.nodes.values():
        assert JOB not in node.engine.store.jobs


def test_who_holds_parts_is_told_without_a_new_ring_for_each(
    swarm: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm.run(SETTLED_S)
    made: list[int] = []
    monkeypatch.setattr(Ring, "of", classmethod(lambda *_: made.append(1)))
    for part in range(len(PLACES)):
        assert swarm.nodes["a"].engine.results.holders(JOB, part, [NodeId("e")])[0] in swarm.holders(part)
    assert made == []
