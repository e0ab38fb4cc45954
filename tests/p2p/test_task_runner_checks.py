"""How many children a runner has while jobs are checked beside its tasks; no process is started."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mapreduce.effects import RunTask, StageSetup
from mapreduce.executor import Executor
from mapreduce.loads import Load
from mapreduce.orders import CheckOrder, MapOrder, TaskDone
from mapreduce.plan import Split
from mapreduce.record import StageKind
from membership.view import NodeId
from p2p import task_runner
from p2p.job_files import JobFiles, OpenedJob
from p2p.store import Store
from p2p.task_runner import MAX_CHECKERS, MAX_CHECKS, Checked, TaskRunner, _Run

SLOTS = 2
JOBS = [f"{number:032x}" for number in range(MAX_CHECKS + 10)]
CODE = OpenedJob(plan=None, code=b"code", params={}, side_files={})  # type: ignore[arg-type]


class Hands(Executor):
    """An executor whose children do nothing by themselves."""

    def start(self) -> Any:
        child: Any = SimpleNamespace(
            orders=[], closed_at=None, code=b"", window=4, took_s=0.1, answered=None, is_alive=True
        )
        self.children.append(child)
        return child

    def dismiss(self, child: Any) -> None:
        assert not child.orders
        child.is_alive = False
        self.children.remove(child)

    def submit(self, child: Any, order: Any, load: Load | None = None) -> None:
        assert load is not None
        assert child.is_alive
        child.orders.append(order)

    def wait(self, timeout_s: float) -> Iterator[Any]:
        assert timeout_s == 0.0
        return iter(())

    def close(self) -> None:
        self.children.clear()
        super().close()


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskRunner]:
    monkeypatch.setattr(task_runner, "Executor", Hands)
    files = JobFiles(str(tmp_path / "jobs"))
    with closing(files):
        store = Store(str(tmp_path / "store"))
        made = TaskRunner(me=NodeId("n0"), slots=SLOTS, memory_bytes=1 << 27, files=files, store=store)
        with closing(made):
            yield made


ATTEMPTS = itertools.count(1)


def give_task(runner: TaskRunner) -> None:
    """Have an attempt run whose order is made already."""
    setup = StageSetup(
        job=JOBS[0],
        stage=0,
        step=0,
        step_name="main",
        kind=StageKind.MAP,
        partitions=1,
        borders=None,
        out_format="",
        map_only=False,
    )
    attempt = next(ATTEMPTS)
    task = RunTask(setup=setup, task=attempt, attempt=attempt, number=1)
    split = Split(path="/0", name="0", size_bytes=1)
    order = MapOrder(task=attempt, attempt=attempt, split=split)
    runner._waiting.append(_Run(JOBS[0], order, Load(b"code"), task))
    runner._hand_out()


def children(runner: TaskRunner) -> list[Any]:
    return list(runner._executor.children)


def answer(runner: TaskRunner, child: Any) -> list[Any]:
    """A child is done with its order."""
    child.answered = child.orders.pop(0)
    runner._take(child, TaskDone(task=0, attempt=child.answered.attempt))
    return runner.pump()


def tasks_at_work(runner: TaskRunner) -> int:
    return sum(bool(child.orders) and isinstance(child.orders[0], MapOrder) for child in children(runner))


def test_a_check_does_not_wait_for_tasks_and_its_child_ends_with_it(runner: TaskRunner) -> None:
    for _ in range(SLOTS):
        give_task(runner)
    assert len(children(runner)) == SLOTS
    runner.check(CODE, JOBS[1], ())
    (checker,) = [child for child in children(runner) if isinstance(child.orders[0], CheckOrder)]
    assert answer(runner, checker) == [Checked(JOBS[1], None)]
    assert len(children(runner)) == SLOTS
    assert not checker.is_alive


def test_of_many_checks_all_are_made_by_few_children(runner: TaskRunner) -> None:
    for _ in range(SLOTS):
        give_task(runner)
    for job in JOBS[:50]:
        runner.check(CODE, job, ())
    checked: list[str] = []
    while len(checked) < 50:
        assert len(children(runner)) <= SLOTS + MAX_CHECKERS
        checker = next(child for child in children(runner) if isinstance(child.orders[0], CheckOrder))
        checked += [event.job for event in answer(runner, checker)]
    assert sorted(checked) == JOBS[:50]
    assert len(children(runner)) == SLOTS


def test_what_checks_leave_behind_makes_no_more_slots(runner: TaskRunner) -> None:
    for job in JOBS[: SLOTS + MAX_CHECKERS]:
        runner.check(CODE, job, ())
    for _ in range(3 * SLOTS):
        give_task(runner)
    while any(isinstance(child.orders[0], CheckOrder) for child in children(runner) if child.orders):
        checker = next(
            child for child in children(runner) if child.orders and isinstance(child.orders[0], CheckOrder)
        )
        answer(runner, checker)
        assert tasks_at_work(runner) <= SLOTS
    assert tasks_at_work(runner) == SLOTS
    assert len(children(runner)) == SLOTS


def test_of_more_checks_than_can_wait_nothing_is_told_of_the_oldest(runner: TaskRunner) -> None:
    for job in JOBS:
        runner.check(CODE, job, ())
    checked: list[str] = []
    while runner.is_busy:
        checked += [event.job for event in answer(runner, next(c for c in children(runner) if c.orders))]
    begun = SLOTS + MAX_CHECKERS
    assert sorted(checked) == sorted([*JOBS[:begun], *JOBS[-MAX_CHECKS:]])


def test_checks_of_a_job_that_is_dropped_are_not_made(runner: TaskRunner) -> None:
    for job in JOBS[:20]:
        runner.check(CODE, job, ())
    runner.drop_job(JOBS[15])
    checked: list[str] = []
    while runner.is_busy:
        checked += [event.job for event in answer(runner, next(c for c in children(runner) if c.orders))]
    assert JOBS[15] not in checked
    assert len(checked) == 19
