"""The record changes only in the ways that its tables say, whatever is proposed, however often."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce.changes import (
    MAX_LOG_CHARS,
    MAX_ROUTINE_EVENTS,
    AddEvents,
    Cancel,
    Change,
    Commit,
    CommitTasks,
    DropStages,
    Fail,
    Finish,
    Lost,
    LostTask,
    OpenStage,
    Place,
    Proposal,
    Redo,
    apply,
    changed,
)
from mapreduce.record import MAX_EVENTS, EventRecord, Failure, JobRecord, JobStatus, StageKind, born
from membership.view import NodeId
from p2p.errors import MalformedFrame
from p2p.job_protocol import MAX_RECORD_BYTES, pack_record, unpack_record

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
JOB = "0" * 32


def takeover(token: str = "t1", leader: NodeId = A, *changes: Change) -> Proposal:
    return Proposal(leader=leader, token=token, number=1, changes=changes)


def then(record: JobRecord, *changes: Change) -> JobRecord:
    """The record after a further proposal of whoever leads it."""
    proposal = Proposal(
        leader=record.leader, token=record.token, number=max(1, record.applied) + 1, changes=changes
    )
    return apply(record, proposal)


def maps(tasks: int = 3, partitions: int = 2) -> OpenStage:
    return OpenStage(
        stage=0, kind=StageKind.MAP, tasks=tasks, partitions=partitions, places=((A, B),) * partitions
    )


REDUCES = OpenStage(stage=1, kind=StageKind.REDUCE, tasks=2, partitions=2, places=((A, B), (A, B)))


def commit(
    task: int, attempt: int = 0, counters: dict[str, int] | None = None, stage: int = 0
) -> CommitTasks:
    one = Commit(
        task=task, attempt=attempt or 100 + task, worker=A, counters=counters or {"n": 1}, size_bytes=10
    )
    return CommitTasks(stage=stage, commits=(one,))


def led(*changes: Change) -> JobRecord:
    return apply(born(JOB, "ab", 1.0), takeover("t1", A, *changes))


# -- leadership ---------------------------------------------------------------------------------------------


def test_each_takeover_gets_the_next_ballot() -> None:
    record = led()
    assert (record.leader, record.ballot, record.totals.leader_changes) == (A, 1, 0)
    record = apply(record, takeover("t2", B))
    assert (record.leader, record.ballot, record.totals.leader_changes) == (B, 2, 1)


def test_a_takeover_that_is_applied_again_is_the_same_takeover() -> None:
    record = led(maps())
    assert apply(record, takeover("t1", A, maps())) is record


def test_a_deposed_leader_changes_nothing() -> None:
    record = apply(led(maps()), takeover("t2", B))
    late = Proposal(leader=A, token="t1", number=2, changes=(commit(0),))
    assert apply(record, late) is record


def test_a_proposal_that_is_applied_twice_counts_once() -> None:
    record = led(maps())
    proposal = Proposal(leader=A, token="t1", number=2, changes=(commit(0),))
    once = apply(record, proposal)
    assert apply(once, proposal) is once
    assert once.counters == {"n": 1}


# -- winners and counters -----------------------------------------------------------------------------------


def test_the_first_attempt_of_a_task_wins_for_ever() -> None:
    record = then(led(maps()), commit(1, 7))
    later = then(record, commit(1, 8, {"n": 50}))
    assert later.stages[0].winners == record.stages[0].winners
    assert later.counters == {"n": 1}


def test_of_two_attempts_in_one_proposal_the_first_wins() -> None:
    both = CommitTasks(stage=0, commits=(*commit(1, 7).commits, *commit(1, 8).commits))
    record = then(led(maps()), both)
    winner = record.stages[0].winners[1]
    assert winner is not None
    assert winner.attempt == 7
    assert record.counters == {"n": 1}


def test_a_lost_winner_is_replaced_and_does_not_count_again() -> None:
    record = then(led(maps()), commit(1, 7))
    record = then(record, Lost(stage=0, tasks=(LostTask(task=1, attempt=7),)))
    assert record.stages[0].winners[1] is None
    assert record.totals.maps_run_again == 1
    record = then(record, commit(1, 9))
    winner = record.stages[0].winners[1]
    assert winner is not None
    assert winner.attempt == 9
    assert record.counters == {"n": 1}
    assert (record.totals.map_tasks, record.totals.shuffle_bytes) == (1, 10)


def test_a_loss_of_another_attempt_takes_nothing_back() -> None:
    record = then(led(maps()), commit(1, 7))
    assert then(record, Lost(stage=0, tasks=(LostTask(task=1, attempt=6),))).stages == record.stages


def test_commits_for_tasks_that_do_not_exist_are_ignored() -> None:
    record = led(maps())
    assert then(record, commit(99)).stages == record.stages
    assert then(record, commit(0, stage=5)).stages == record.stages


# -- stages -------------------------------------------------------------------------------------------------


def test_a_stage_is_not_opened_before_all_tasks_of_the_ones_before_are_committed() -> None:
    record = then(led(maps()), commit(0), commit(1))
    assert then(record, REDUCES).stage == 0
    record = then(record, commit(2), REDUCES)
    assert (record.stage, len(record.stages)) == (1, 2)


def test_a_stage_without_tasks_is_complete_at_once() -> None:
    record = led(maps(tasks=0), REDUCES)
    assert record.stage == 1


def test_a_loss_sends_the_job_back_and_the_next_stage_keeps_its_winners() -> None:
    record = then(led(maps(tasks=1)), commit(0), REDUCES)
    record = then(record, commit(1, 40, stage=1))
    record = then(record, Lost(stage=0, tasks=(LostTask(task=0, attempt=100),)))
    assert record.stage == 0
    record = then(record, commit(0, 101), REDUCES)
    assert record.stage == 1
    assert record.stages[1].done == 1


def test_a_dropped_stage_counts_as_complete_and_can_be_redone() -> None:
    record = then(led(maps(tasks=1)), commit(0), REDUCES, DropStages(stages=(0,)))
    assert record.stages[0].is_dropped
    assert record.stages[0].winners == ()
    assert (record.stages[0].is_complete, record.stages[0].done) == (True, 1)
    record = then(record, Redo(stage=0))
    assert (record.stage, record.stages[0].winners) == (0, (None,))
    assert record.totals.maps_run_again == 1
    assert then(record, commit(0, 101)).counters == {"n": 1}


def test_the_current_stage_is_not_dropped() -> None:
    record = then(led(maps(tasks=1)), commit(0))
    assert not then(record, DropStages(stages=(0,))).stages[0].is_dropped


def test_places_move_and_new_nodes_get_names() -> None:
    record = then(led(maps()), Place(stage=0, rows=((1, (C, A)),)))
    assert record.places(0) == [(A, B), (C, A)]


# -- the end ------------------------------------------------------------------------------------------------


def test_a_job_is_not_committed_before_every_stage_is_complete() -> None:
    record = then(led(maps(tasks=1)), commit(0), REDUCES)
    assert then(record, Finish(stages=2, at_s=9.0)).status is JobStatus.RUNNING
    record = then(record, commit(0, stage=1), commit(1, stage=1), Finish(stages=2, at_s=9.0))
    assert (record.status, record.ended_at_s) == (JobStatus.COMMITTED, 9.0)


@pytest.mark.parametrize(
    "end",
    [
        Fail(failure=Failure(kind="TaskFailed", message="no"), at_s=2.0),
        Cancel(by="somebody", at_s=2.0),
    ],
)
def test_what_has_ended_absorbs_everything(end: Change) -> None:
    record = then(led(maps()), end)
    assert record.status.is_final
    assert then(record, commit(0), Cancel(by="another", at_s=3.0)) is record
    assert apply(record, takeover("t9", C)) is record


def test_changes_behind_an_end_in_the_same_proposal_do_nothing() -> None:
    record = then(led(maps()), Cancel(by="x", at_s=2.0), commit(0))
    assert record.counters == {}


def test_the_event_log_is_bounded_and_keeps_the_newest() -> None:
    record = led()
    for number in range(3):
        events = tuple(EventRecord(at_s=1.0, kind="k", text=f"{number}/{i}") for i in range(MAX_EVENTS // 2))
        record = then(record, AddEvents(events=events))
    assert len(record.events) == MAX_EVENTS
    assert record.events[-1].text == f"2/{MAX_EVENTS // 2 - 1}"


def test_when_the_log_is_full_the_lines_of_routine_go_first() -> None:
    record = then(led(), AddEvents(events=(EventRecord(at_s=0.0, kind="lost", text="n1"),)))
    for number in range(MAX_EVENTS):
        event = EventRecord(at_s=float(number), kind="granted", text=str(number))
        record = then(record, AddEvents(events=(event,)))
    assert record.events[0].text == "n1"
    assert [event.text for event in record.events[-2:]] == [str(MAX_EVENTS - 2), str(MAX_EVENTS - 1)]
    assert len(record.events) == MAX_ROUTINE_EVENTS + 1


def test_long_lines_leave_the_records_room_to_the_winners() -> None:
    record = led()
    for number in range(MAX_EVENTS):
        event = EventRecord(at_s=1.0, kind="failed", text=f"{number:01024}")
        record = then(record, AddEvents(events=(event,)))
    assert len(pack_record(record)) < MAX_RECORD_BYTES / 4
    assert int(record.events[-1].text) == MAX_EVENTS - 1
    assert len(record.events) == MAX_LOG_CHARS // 1_024


# -- any history --------------------------------------------------------------------------------------------

tasks = st.integers(-1, 4)
attempts = st.integers(1, 9)
changes = st.one_of(
    st.builds(commit, tasks, attempts, st.just({"n": 1}), st.integers(0, 2)),
    st.builds(
        lambda stage, task, attempt: Lost(stage=stage, tasks=(LostTask(task=task, attempt=attempt),)),
        st.integers(0, 2),
        tasks,
        attempts,
    ),
    st.just(maps()),
    st.just(REDUCES),
    st.builds(Redo, stage=st.integers(0, 2)),
    st.builds(lambda index: DropStages(stages=(index,)), st.integers(0, 1)),
    st.builds(Finish, stages=st.just(2), at_s=st.just(5.0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(changes, max_size=40))
def test_whatever_is_proposed_winners_change_only_by_loss_and_each_task_counts_once(
    history: list[Change],
) -> None:
    record = led(maps())
    ever: set[tuple[int, int]] = set()
    for change in history:
        before, record = record, then(record, change)
        for index, stage in enumerate(record.stages):
            if stage.is_dropped or index >= len(before.stages) or before.stages[index].is_dropped:
                continue
            for task, winner in enumerate(stage.winners):
                was = before.stages[index].winners[task]
                if winner is not None:
                    ever.add((index, task))
                    assert was is None or was == winner
                if winner is None and was is not None:
                    assert isinstance(change, Lost)
        if len(record.stages) > 1 and record.stage == 1:
            assert record.stages[0].is_complete
        assert record.counters.get("n", 0) == len(ever)
        assert unpack_record(pack_record(record)) == record


def test_planning_ahead_does_not_touch_the_record() -> None:
    record = led(maps())
    assert changed(record, [commit(0)]).counters == {"n": 1}
    assert record.counters == {}


# -- bytes --------------------------------------------------------------------------------------------------


def test_a_record_of_thousands_of_winners_fits_its_register() -> None:
    record = led(maps(tasks=16_384))
    every = tuple(
        Commit(task=task, attempt=(9 << 24) + task, worker=A, size_bytes=1 << 25) for task in range(16_384)
    )
    record = then(record, CommitTasks(stage=0, commits=every))
    packed = pack_record(record)
    assert len(packed) < 512 * 1024
    assert unpack_record(packed) == record


def test_damaged_bytes_are_no_record() -> None:
    packed = bytearray(pack_record(led(maps())))
    for data in (packed[:-1], b"", b"\xc1", b"\x90"):
        with pytest.raises(MalformedFrame):
            unpack_record(bytes(data))


def test_a_record_with_a_number_out_of_range_is_refused() -> None:
    record = led(maps())
    wrong = replace(record, stages=(replace(record.stages[0], partitions=1 << 30),))
    with pytest.raises(MalformedFrame, match="partitions"):
        unpack_record(pack_record(wrong))
