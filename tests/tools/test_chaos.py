"""The chaos script's own reasoning: what it may break, what it counts, what it shows; and one small storm."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from p2p.job_questions import StageView
from p2p.store import Store
from tools.chaos import faults
from tools.chaos.chaos_peer import ChaosPeer, PeerState
from tools.chaos.chart import Course
from tools.chaos.cluster import Cluster
from tools.chaos.drills import DRILLS
from tools.chaos.faults import FaultKind, FaultUnavailable, Place
from tools.chaos.invariants import ROWS, Invariants, difference
from tools.chaos.job_run import Bounds, copies_of
from tools.chaos.journal import Journal
from tools.chaos.network import CHOICE
from tools.chaos.recovery import JobBar, elections_of, percentile, recoveries_of
from tools.chaos.report import page
from tools.chaos.scenario_cli import SCENARIOS
from tools.chaos.scenarios import Blow, Result, Trial, share_done, shortfall
from tools.chaos.selection import run_selection
from tools.chaos.storm import Settings, Storm
from tools.chaos.watching import Span
from tools.chaos.workloads import Expected


def idle_cluster(tmp_path: Path, *, peers: int, replicas: int) -> Cluster:
    """A cluster in the books only: no process is started."""
    cluster = Cluster(tmp_path / "cluster", Journal(), replicas=replicas)
    for number in range(peers):
        peer = ChaosPeer(number=number, place=Place(), data=tmp_path, log=tmp_path / "log")
        peer.state = PeerState.UP
        cluster.peers.append(peer)
    return cluster


# ---- how much may be broken ----------------------------------------------------------------------------


def test_no_more_peers_are_spared_than_copies_less_one(tmp_path: Path) -> None:
    with idle_cluster(tmp_path, peers=5, replicas=3) as cluster:
        choice = random.Random(1).choice
        first, second = cluster.spare(2, choice)
        assert cluster.spare(3, choice) == []
        first.state = PeerState.DOWN
        assert len(cluster.spare(1, choice)) == 1
        assert cluster.spare(2, choice) == []
        second.state = PeerState.STOPPED
        assert cluster.spare(1, choice) == []


def test_a_peer_that_carries_a_burden_counts_as_down_and_is_not_hurt_again(tmp_path: Path) -> None:
    with idle_cluster(tmp_path, peers=3, replicas=2) as cluster:
        choice = random.Random(1).choice
        [peer] = cluster.spare(1, choice)
        cluster.burden(peer)
        assert cluster.spare(1, choice) == []
        cluster.unburden(peer)
        assert len(cluster.spare(1, choice)) == 1
        cluster.burden(peer)
        cluster.unburden(peer, heals_in_s=60.0)
        assert cluster.weighing() == {peer.number}


def test_a_copy_counts_also_with_a_peer_that_holds_an_attempt_that_lost(tmp_path: Path) -> None:
    with idle_cluster(tmp_path, peers=3, replicas=2) as cluster:
        job, stage, part = "7" * 32, 1, 0
        for peer, attempts in zip(cluster.peers, ((8,), (8, 9), (7, 9)), strict=True):
            peer.data = tmp_path / str(peer.number)
            store = Store(str(peer.segments))
            for attempt in attempts:
                store.put(job, stage, part, attempt, b"part")
        assert copies_of(job, cluster) == ({part: {0: {8}, 1: {8, 9}, 2: {7, 9}}}, [])
        cluster.peers[0].state = PeerState.DOWN
        assert copies_of(job, cluster)[0] == {part: {1: {8, 9}, 2: {7, 9}}}


def test_two_kinds_of_faults_that_need_different_worlds_do_not_go_together() -> None:
    def world(directory: Path, count: int) -> faults.Surroundings:
        raise AssertionError("it is not made here")

    def other(directory: Path, count: int) -> faults.Surroundings:
        raise AssertionError("it is not made here")

    def kind(name: str, surroundings: object) -> FaultKind:
        return FaultKind(name=name, description="", make=lambda: None, surroundings=surroundings)  # type: ignore[arg-type, return-value]

    assert faults.surroundings_of([kind("a", None), kind("b", world)]) is world
    with pytest.raises(FaultUnavailable, match=r"a, b.*different worlds"):
        faults.surroundings_of([kind("a", world), kind("b", other)])


class OnlyRoom:
    """A fault for which there is room while no other is under way."""

    taken = False
    description = "takes the only room"

    def __init__(self, name: str) -> None:
        self.name = name

    def start(self, cluster: Cluster, rng: random.Random) -> bool:
        has_room = not OnlyRoom.taken
        OnlyRoom.taken = True
        return has_room

    def stop(self) -> None:
        OnlyRoom.taken = False


def test_where_there_is_room_for_one_fault_every_kind_comes_as_often(tmp_path: Path) -> None:
    kinds = [
        FaultKind(name=name, description="", make=partial(OnlyRoom, name), lasts_s=(1.0, 1.0), every_s=0.01)
        for name in ("a", "b", "c")
    ]
    storm = Storm(Settings(kinds=tuple(kinds)), tmp_path / "storm", say=lambda _: None)
    try:
        for turn in range(600):
            storm._hurt(turn / 10)
    finally:
        storm.watching.close()
        storm.cluster.close()
    counts = [storm.started[kind.name] for kind in kinds]
    assert min(counts) >= 5
    assert max(counts) - min(counts) <= 1


def test_what_a_machine_lacks_for_a_fault_is_said() -> None:
    lacking = FaultKind(name="netns", description="", make=lambda: None, missing=lambda: "no root")  # type: ignore[arg-type, return-value]
    with pytest.raises(FaultUnavailable, match="fault netns: no root"):
        faults.surroundings_of([lacking])


# ---- what is counted -----------------------------------------------------------------------------------


def right(parts: dict[str, bytes]) -> Expected:
    return Expected(parts=parts, counters={}, map_tasks=1, reduce_tasks=1, output_records=1, wall_s=0.0)


def test_a_difference_names_the_part_and_the_byte() -> None:
    expected = right({"_SUCCESS": b"", "part-00000": b"abcdef"})
    assert difference({"_SUCCESS": b"", "part-00000": b"abcdef"}, expected) == ""
    assert "part-00000" in difference({"_SUCCESS": b"", "part-00000": b"abXdef"}, expected)
    assert "byte 2" in difference({"_SUCCESS": b"", "part-00000": b"abXdef"}, expected)
    assert "byte 4" in difference({"_SUCCESS": b"", "part-00000": b"abcd"}, expected)
    assert "missing: ['_SUCCESS']" in difference({"part-00000": b"abcdef"}, expected)


def test_a_broken_row_breaks_the_table_and_one_never_looked_at_says_so() -> None:
    table = Invariants()
    assert table.check("bytes", "")
    assert table.holds
    assert not table.check("bytes", "part-00000 differs")
    assert not table.holds
    lines = "\n".join(table.lines())
    assert re.search(r"BROKEN 1x +2 +bytes", lines)
    assert lines.count("not checked") == len(ROWS) - 1


def leader_event(at_s: float, node: str) -> dict[str, object]:
    return {"time": at_s, "kind": "leader", "node": node, "text": ""}


def committed_event(at_s: float) -> dict[str, object]:
    return {"time": at_s, "kind": "committed", "node": "b", "text": "3 map tasks"}


def a_takeover() -> tuple[Journal, JobBar]:
    """Peer 0 leads, is killed after 3 s; peer 1 leads after 5 s and commits after 6 s."""
    journal = Journal(began_at=0.0, began_wall_s=1_000.0)
    for peer, node in enumerate("ab"):
        journal.begin("life", peer, node).began_s = 0.0
    kill = journal.instant("kill", 0)
    kill.began_s = kill.ended_s = 3.0
    events = [
        leader_event(1_001.0, "a"),
        committed_event(1_002.0),
        leader_event(1_005.0, "b"),
        committed_event(1_006.0),
        committed_event(1_007.0),
    ]
    job = JobBar(number=1, id="j", name="words", began_s=0.5, ended_s=8.0, problem="", events=events)
    return journal, job


def test_recovery_lasts_from_the_injury_of_a_leader_to_its_successors_first_commit() -> None:
    journal, job = a_takeover()
    assert [(election.peer, election.before) for election in elections_of(job, journal)] == [(0, -1), (1, 0)]
    assert recoveries_of(job, journal) == [pytest.approx(3.0)]


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([1.0], 99) == 1.0
    assert percentile([float(n) for n in range(1, 101)], 50) == 50.0
    assert percentile([float(n) for n in range(1, 101)], 99) == 99.0
    assert percentile([1.0, 2.0], 99) == 2.0


def test_copies_are_not_looked_for_after_their_time_to_live() -> None:
    with pytest.raises(ValueError, match=r"settle_s \(30\) must be below ttl_s \(20\)"):
        Bounds(settle_s=30.0, ttl_s=20.0)


# ---- what continuous integration runs --------------------------------------------------------------------


def test_the_selection_runs_all_its_parts_and_fails_if_one_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHOICE, "")
    parts: list[Sequence[str]] = []

    def run(part: Sequence[str], broken: str = "") -> int:
        parts.append(part)
        return int(part[0] == broken)

    assert run_selection(run, ["--seed", "7"]) == 0
    assert "HOLDS: all parts" in capsys.readouterr().out
    known = {*SCENARIOS, *DRILLS}
    assert {part[0] for part in parts if not part[0].startswith("--")} <= known
    assert all(part[part.index("--seed") + 1] == "7" for part in parts)
    assert run_selection(partial(run, broken="rot"), []) == 1
    assert len(parts) % 2 == 0
    assert "BROKEN" in capsys.readouterr().out


# ---- what is shown -------------------------------------------------------------------------------------


def test_a_moment_is_a_share_of_all_tasks_those_of_stages_that_are_not_open_among_them() -> None:
    maps_are_done = [StageView(name="map", done=16, total=16), StageView(name="reduce", done=0, total=-1)]
    assert share_done(maps_are_done, tasks=16 + 64) == pytest.approx(0.2)
    all_is_done = [StageView(name="map", done=16, total=16), StageView(name="reduce", done=64, total=64)]
    assert share_done(all_is_done, tasks=16 + 64) == 1.0


def test_a_scenario_in_which_nobody_was_hit_shows_nothing() -> None:
    blow = Trial(blows=(Blow(at=0.5, victims=("leader",)),))
    calm, late = Result(number=1, trial=Trial()), Result(number=2, trial=blow, missed=True)
    hit, wrong = Result(number=3, trial=blow), Result(number=4, trial=blow, problems=["other bytes"])
    assert shortfall([calm, late, hit]) == ""
    assert shortfall([calm, late, late]).startswith("nobody was hit")
    assert shortfall([calm, hit, wrong]) == "1 of 3 runs went wrong"


def test_the_page_escapes_everything_and_loads_nothing() -> None:
    journal, job = a_takeover()
    nasty = "<script>alert('x')</script>"
    bad = JobBar(number=2, id=nasty, name=nasty, began_s=1.0, ended_s=2.0, problem=nasty, events=job.events)
    spans = [Span(0, nasty, nasty, 1.0, 2.0)]
    journal.instant("kill", 1, nasty)
    course = Course(title=nasty, peers=2, journal=journal, spans=spans, jobs=[job, bad])
    html = page(nasty, nasty, False, [(nasty, nasty)], [course], [1.0, 2.0], nasty, "")
    assert "<script" not in html
    assert not re.search(r"(src|href)=", html)
    assert html.count("&lt;script&gt;") >= 8


# ---- all together --------------------------------------------------------------------------------------


def test_a_small_storm_holds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Three real peers, jobs two at a time, a leader or another peer killed every other second."""
    faults.load_all()
    settings = Settings(
        peers=3,
        jobs=3,
        minutes=1.0,
        kinds=(faults.KINDS["kill"],),
        every_s={"kill": 1.5},
        lasts_s={"kill": (0.5, 1.5)},
        workloads=("wordcount", "map-only"),
        size_bytes=60_000,
        bounds=Bounds(settle_s=20.0, job_s=60.0, apart_s=(0.1, 0.5)),
        sees_expiry=False,
    )
    storm = Storm(settings, tmp_path / "storm", say=lambda _: None)
    assert storm.run(), "\n".join(storm.invariants.lines())
    assert len(storm.runs) >= 3
    assert storm.started["kill"] > 0
    assert [name for name, count in storm.invariants.checked.items() if not count] == ["expired"]
