"""The tasks of a stage as a leader sees them: what waits is what nobody has in hand."""

from __future__ import annotations

from mapreduce.pool import TaskPool, TaskState
from membership.view import NodeId

A, B = NodeId("a"), NodeId("b")


def test_a_task_whose_first_output_is_gone_waits_until_its_second_attempt_is_done() -> None:
    pool = TaskPool([A, A])
    pool.grant(0, 1, A, 1, 0.0)
    pool.grant(0, 2, B, 1, 0.0)
    assert pool.finished(1, 1.0)
    pool.unfinished(0)
    assert (pool.states[0], pool.waiting_count) == (TaskState.WAITING, 2)
    assert pool.finished(2, 1.0)
    assert (pool.states[0], pool.waiting_count, pool.finished_count) == (TaskState.FINISHED, 1, 1)
    assert pool.take(B, 9, lambda _task: True) == [1]


def test_a_task_that_waits_is_given_out_once_however_often_it_came_back() -> None:
    pool = TaskPool([A])
    for number in range(1, 4):
        pool.grant(0, number, B, number, 0.0)
        pool.lost(number)
    assert pool.waiting_count == 1
    assert pool.take(A, 9, lambda _task: True) == [0]


def test_a_task_is_not_given_out_before_its_pause_is_over() -> None:
    pool = TaskPool([A])
    pool.grant(0, 1, A, 1, 0.0)
    assert pool.failed(1, A, counts=False, resume_at=5.0) == 0
    assert (pool.waiting_count, pool.resumes_at) == (0, 5.0)
    assert not pool.resume(4.9)
    assert pool.resume(5.0)
    assert pool.waiting_count == 1


def test_others_take_from_the_longest_queue_and_from_its_end() -> None:
    pool = TaskPool([A, A, A, B])
    assert pool.take(NodeId("c"), 2, lambda _task: True) == [2, 1]
    assert pool.take(A, 9, lambda _task: True, may_steal=False) == [0]
