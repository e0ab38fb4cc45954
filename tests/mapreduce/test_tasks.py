"""The table of a stage's tasks, cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from mapreduce.tasks import TaskState, TaskTable

WAITING, RUNNING, DONE, FAILED = TaskState.WAITING, TaskState.RUNNING, TaskState.DONE, TaskState.FAILED


def in_state(state: TaskState, *, max_attempts: int = 2) -> TaskTable:
    """Return a table of one task in a state, in its first attempt."""
    table = TaskTable(1, max_attempts)
    if state is not WAITING:
        assert table.take("w") == (0, 1)
    if state is DONE:
        assert table.done(0)
    if state is FAILED:
        assert not table.failed(0, "w", may_retry=False)
    assert table.state(0) is state
    return table


def done(table: TaskTable) -> bool:
    return table.done(0)


def failed(table: TaskTable) -> bool:
    return table.failed(0, "w")


def failed_for_good(table: TaskTable) -> bool:
    return table.failed(0, "w", may_retry=False)


def taken(table: TaskTable) -> bool:
    return table.take("w") is not None


@pytest.mark.parametrize(
    ("state", "event", "answer", "next_state"),
    [
        (WAITING, taken, True, RUNNING),
        (WAITING, done, False, WAITING),
        (WAITING, failed, True, WAITING),
        (WAITING, failed_for_good, True, WAITING),
        (RUNNING, taken, False, RUNNING),
        (RUNNING, done, True, DONE),
        (RUNNING, failed, True, WAITING),
        (RUNNING, failed_for_good, False, FAILED),
        (DONE, taken, False, DONE),
        (DONE, done, False, DONE),
        (DONE, failed, True, DONE),
        (DONE, failed_for_good, True, DONE),
        (FAILED, taken, False, FAILED),
        (FAILED, done, False, FAILED),
        (FAILED, failed, True, FAILED),
        (FAILED, failed_for_good, True, FAILED),
    ],
)
def test_every_cell_of_the_table(
    state: TaskState, event: Callable[[TaskTable], bool], answer: bool, next_state: TaskState
) -> None:
    table = in_state(state)
    assert event(table) is answer
    assert table.state(0) is next_state
    assert table.waiting_count == (next_state is WAITING)
    assert table.all_done is (next_state is DONE)


def test_a_task_given_back_waits_first_and_its_attempt_does_not_count() -> None:
    table = TaskTable(3, 1)
    assert table.take("w") == (0, 1)
    assert table.take("w") == (1, 1)
    table.give_back(1)
    table.give_back(0)
    assert table.attempts == 0
    assert [table.take("w") for _ in range(3)] == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.parametrize("state", [WAITING, DONE, FAILED])
def test_only_what_runs_can_be_given_back(state: TaskState) -> None:
    with pytest.raises(AssertionError):
        in_state(state).give_back(0)


def test_a_task_fails_when_its_attempts_are_used_up() -> None:
    table = TaskTable(1, 3)
    for attempt in (1, 2):
        assert table.take("w") == (0, attempt)
        assert table.failed(0, "w")
    assert table.take("w") == (0, 3)
    assert not table.failed(0, "w")
    assert (table.state(0), table.attempts, table.failed_attempts) == (FAILED, 3, 3)


def test_tasks_are_given_in_order_and_a_failed_one_goes_to_the_end() -> None:
    table = TaskTable(3, 2)
    assert table.take("w") == (0, 1)
    assert table.failed(0, "w")
    assert [table.take("w") for _ in range(4)] == [(1, 1), (2, 1), (0, 2), None]


def test_a_worker_does_not_get_what_failed_on_it_while_there_are_others() -> None:
    table = TaskTable(2, 3)
    assert table.take("a") == (0, 1)
    assert table.failed(0, "a")
    assert table.take("a", others=True) == (1, 1)
    assert table.take("a", others=True) is None
    assert table.waiting_count == 1
    assert table.take("b", others=True) == (0, 2)


def test_a_worker_that_is_alone_gets_it_again() -> None:
    table = TaskTable(1, 3)
    assert table.take("a") == (0, 1)
    assert table.failed(0, "a")
    assert table.take("a", others=False) == (0, 2)


def test_no_tasks_are_all_done() -> None:
    table = TaskTable(0, 1)
    assert table.all_done
    assert table.take("w") is None


@pytest.mark.parametrize("seed", range(100))
def test_every_history_ends_with_each_task_done_once_or_failed(seed: int) -> None:
    random = Random(seed)
    count, max_attempts = random.randint(0, 6), random.randint(1, 4)
    table = TaskTable(count, max_attempts)
    running: dict[int, int] = {}
    won: list[int] = []
    while running or table.waiting_count:
        event = random.choice(["take", "done", "failed", "given back"])
        if event == "take" or not running:
            if (found := table.take("w")) is not None:
                task, attempt = found
                assert task not in running
                assert 1 <= attempt <= max_attempts
                running[task] = attempt
            continue
        task = random.choice(sorted(running))
        attempt = running.pop(task)
        if event == "done":
            assert table.done(task)
            won.append(task)
        elif event == "failed":
            assert table.failed(task, "w") is (attempt < max_attempts)
        else:
            table.give_back(task)
    lost = [task for task in range(count) if table.state(task) is FAILED]
    assert sorted(won + lost) == list(range(count))
    assert table.done_count == len(won)
    assert table.all_done is (lost == [])
