"""The pool of children, driven by hand: what it hands out, what it hears, and how it ends them."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mapreduce import Job, child_output, identity, task
from mapreduce.child_output import SHOWN_OUTPUT_BYTES, Printed
from mapreduce.child_process import MAX_WINDOW, Child, how_it_ended
from mapreduce.executor import ChildDied, Event, Executor
from mapreduce.loading import Code, pack
from mapreduce.loads import Load, packed_code
from mapreduce.orders import CheckOrder, MapOrder, StepSetup, TaskDone, TaskError, TaskProgress
from mapreduce.plan import Split
from tests.mapreduce.conftest import Place, ones

PATIENCE_S = 30.0


class Pool:
    """An executor of one job of one step, without the engine around it."""

    def __init__(self, place: Place, mapper: Any, *, workers: int = 1, **more: Any) -> None:
        self.place = place
        self.job = Job(mapper, identity)
        self.executor = Executor(pack(self.job), workers=workers, **more)
        self.executor.begin_step(self.setup())
        self.events: list[tuple[Child, Event]] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.close()
        for path in self.place.temp.iterdir():
            path.unlink()

    def setup(self) -> StepSetup:
        return StepSetup(
            step=self.job.last_step,
            partitions=1,
            borders=None,
            params={},
            side_files={},
            work_dir=str(self.place.temp),
            out_format=None,
            split_bytes=1 << 20,
            memory_bytes=1 << 30,
        )

    def load(self, *, task_timeout_s: float | None = None) -> Load:
        """Return what an order of this job needs, for another pool or with a limit of its own."""
        setup = pickle.dumps(self.setup())
        return Load(packed_code(pack(self.job)), setup, str(self.place.temp), task_timeout_s)

    def order(self, number: int, text: str = "a\n", **more: Any) -> MapOrder:
        path = self.place.write(f"in-{number}.txt", text)
        return MapOrder(task=number, attempt=1, split=Split(path=path, name=path), **more)

    def until(self, kind: type[Event], count: int = 1) -> list[Any]:
        """Wait until so many events of a kind have come; return all of that kind."""
        deadline = time.monotonic() + PATIENCE_S
        while len(found := [event for _, event in self.events if isinstance(event, kind)]) < count:
            assert time.monotonic() < deadline, f"waited in vain; so far: {self.events}"
            self.events += self.executor.wait(0.2)
        return found

    def printed(self) -> str:
        return "\n".join(event.text for _, event in self.events if isinstance(event, Printed))


@pytest.fixture
def descriptors() -> Iterator[None]:
    """See that no descriptor stays open."""
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    yield
    assert len(os.listdir("/proc/self/fd") if before else []) == before


pytestmark = pytest.mark.usefixtures("descriptors")


# --- handing out --------------------------------------------------------------------------------------


def test_a_child_works_its_orders_off_in_turn(place: Place) -> None:
    with Pool(place, ones()) as pool:
        child = pool.executor.start()
        for number in (3, 1, 2):
            pool.executor.submit(child, pool.order(number))
        done = pool.until(TaskDone, 3)
        assert [report.task for report in done] == [3, 1, 2]
        assert len(child.orders) == 0


def test_children_are_started_when_there_is_work_for_them(place: Place) -> None:
    with Pool(place, ones(), workers=2) as pool:
        executor = pool.executor
        assert executor.child_with_room(0) is None
        first = executor.child_with_room(5)
        assert first is not None
        assert executor.child_with_room(5) is first, "one that is idle comes before a new one"
        executor.submit(first, pool.order(0))
        second = executor.child_with_room(4)
        assert second is not None
        assert second is not first
        executor.submit(second, pool.order(1))
        assert len(executor.children) == 2
        # Both are busy: each may have one more order at hand, as its tasks might be short.
        for number in (2, 3):
            child = executor.child_with_room(4 - number)
            assert child is not None
            executor.submit(child, pool.order(number))
        assert {len(child.orders) for child in executor.children} == {2}
        assert executor.child_with_room(1) is None
        pool.until(TaskDone, 4)


def test_short_tasks_are_handed_out_many_at_a_time_and_long_ones_two(place: Place) -> None:
    with Pool(place, ones()) as pool:
        child = pool.executor.start()
        assert child.window == 2
        child.task_s = 0.001
        assert 2 < child.window <= MAX_WINDOW
        child.task_s = 0.0
        assert child.window == MAX_WINDOW


def test_large_orders_wait_here_while_a_child_prints(place: Place) -> None:
    """Neither side may wait for the other to read: this was a deadlock once."""

    def mapper(line: str) -> Any:
        print("x" * 500_000)
        yield line, 1

    with Pool(place, mapper) as pool:
        child = pool.executor.start()
        for number in range(4):
            pool.executor.submit(child, pool.order(number, out_path="long" * 300_000))
        assert [report.task for report in pool.until(TaskDone, 4)] == [0, 1, 2, 3]


# --- what is heard ------------------------------------------------------------------------------------


def test_a_child_that_dies_gives_back_what_it_had_not_begun(place: Place) -> None:
    def mapper(line: str) -> Any:
        if line == "die":
            os._exit(7)
        yield line, 1

    with Pool(place, mapper) as pool:
        child = pool.executor.start()
        orders = [pool.order(0), pool.order(1, "die\n"), pool.order(2), pool.order(3)]
        for order in orders:
            pool.executor.submit(child, order)
        (died,) = pool.until(ChildDied)
        assert [event.task for _, event in pool.events if isinstance(event, TaskDone)] == [0]
        assert (died.order, died.unbegun) == (orders[1], tuple(orders[2:]))
        assert died.reason == "its process exited with code 7"
        assert pool.executor.children == []


def test_a_child_that_dies_with_nothing_to_do_is_told_too(place: Place) -> None:
    with Pool(place, ones()) as pool:
        child = pool.executor.start()
        os.kill(child.process.pid, signal.SIGKILL)
        (died,) = pool.until(ChildDied)
        assert (died.order, died.unbegun) == (None, ())
        assert died.reason.startswith("its process was killed by SIGKILL")


def test_a_child_that_is_killed_on_purpose_dies_for_that_reason(place: Place) -> None:
    def mapper(line: str) -> Any:
        task.status("running")
        time.sleep(600)
        yield line, 1

    with Pool(place, mapper) as pool:
        child = pool.executor.start()
        pool.executor.submit(child, pool.order(0))
        pool.until(TaskProgress)
        pool.executor.kill(child, "somebody else was faster")
        (died,) = pool.until(ChildDied)
        assert died.reason == "somebody else was faster"


def test_what_a_task_prints_comes_before_its_report_by_whole_lines(place: Place) -> None:
    def mapper(line: str) -> Any:
        os.write(1, b"one\ntwo\nno end of line")
        os.write(2, b"\xff error\n")
        os.write(1, b"the last")
        yield line, 1

    with Pool(place, mapper) as pool:
        pool.executor.submit(pool.executor.start(), pool.order(0))
        pool.until(TaskDone)
        assert pool.printed() == "one\ntwo\nno end of line\ufffd error\nthe last"
        assert isinstance(pool.events[-1][1], TaskDone)


def test_of_a_task_that_prints_much_the_beginning_is_shown(place: Place) -> None:
    def mapper(line: str) -> Any:
        for number in range(100_000):
            print(f"line {number}")
        yield line, 1

    with Pool(place, mapper) as pool:
        child = pool.executor.start()
        pool.executor.submit(child, pool.order(0))
        pool.executor.submit(child, pool.order(1, ""))
        pool.until(TaskDone, 2)
        shown = pool.printed()
        assert shown.startswith("line 0\nline 1\n")
        assert shown.endswith("(this task prints more than is shown)")
        assert SHOWN_OUTPUT_BYTES // 2 < len(shown) < 4 * SHOWN_OUTPUT_BYTES


def test_the_last_that_a_dying_child_printed_is_kept(place: Place) -> None:
    def mapper(line: str) -> Any:
        for number in range(1000):
            print(f"line {number}", flush=True)
        os._exit(1)

    with Pool(place, mapper) as pool:
        pool.executor.submit(pool.executor.start(), pool.order(0))
        (died,) = pool.until(ChildDied)
        assert died.output.splitlines()[-20:] == [f"line {number}" for number in range(980, 1000)]


def test_a_task_that_overruns_its_time_is_ended_and_the_next_has_its_own(place: Place) -> None:
    def mapper(line: str) -> Any:
        if line == "slow":
            time.sleep(600)
        yield line, 1

    with Pool(place, mapper) as pool:
        child = pool.executor.start()
        pool.executor.submit(child, pool.order(0))
        pool.until(TaskDone)  # its process has begun
        assert pool.executor.until_deadline(60.0) == 60.0
        load = pool.load(task_timeout_s=0.3)
        slow, next_one = pool.order(1, "slow\n"), pool.order(2)
        for order in (slow, next_one):
            pool.executor.submit(child, order, load)
        assert pool.executor.until_deadline(60.0) <= 0.3
        (died,) = pool.until(ChildDied)
        assert died.reason == "it ran longer than 0.3 s"
        assert (died.order, died.unbegun) == (slow, (next_one,))
        assert pool.executor.until_deadline(60.0) == 60.0


def test_a_job_that_cannot_be_loaded_is_told_in_answer_to_an_order(place: Place) -> None:
    script = place.write("job.py", "import module_that_nobody_has\n")
    with Pool(place, ones()) as pool:
        load = Load(packed_code(Code(job=b"", file=script)), b"", str(place.temp))
        child = pool.executor.start()
        pool.executor.submit(child, CheckOrder(), load)
        (error,) = pool.until(TaskError)
        assert error.kind == "JobDefinitionError"
        assert "there is no module 'module_that_nobody_has'" in error.message
        pool.executor.submit(child, pool.order(0))
        assert [report.task for report in pool.until(TaskDone)] == [0], "the child goes on with another job"


def test_one_pool_serves_two_jobs(place: Place) -> None:
    def shout(line: str) -> Any:
        print(line.upper())

    with Pool(place, ones()) as pool, Pool(place, shout) as other:
        load = other.load()
        child = pool.executor.start()
        pool.executor.submit(child, pool.order(0))
        pool.executor.submit(child, CheckOrder(task=1, attempt=1), load)
        pool.executor.submit(child, other.order(2), load)
        pool.executor.submit(child, pool.order(3))
        assert [report.task for report in pool.until(TaskDone, 4)] == [0, 1, 2, 3]
        assert pool.printed() == "A"


# --- the end ------------------------------------------------------------------------------------------


def test_closing_ends_busy_children_and_counts_what_they_used(place: Place) -> None:
    def mapper(line: str) -> Any:
        task.status("running")
        while True:
            pass

    with Pool(place, mapper, workers=2) as pool:
        for number in range(2):
            pool.executor.submit(pool.executor.start(), pool.order(number))
        pool.until(TaskProgress, 2)
        assert len(place.processes()) == 4, "two children, each with its guard"
        pool.executor.close()
        assert place.processes() == []
        assert pool.executor.children == []
        assert pool.executor.cpu_s > 0
        assert pool.executor.peak_memory_bytes > 1 << 20
        pool.executor = Executor(None, workers=1)  # for the pool to close


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "its process exited with code 0"),
        (3, "its process exited with code 3"),
        (-signal.SIGSEGV, "its process was killed by SIGSEGV"),
        (-signal.SIGKILL, "its process was killed by SIGKILL (perhaps the machine ran out of memory)"),
        (-99, "its process was killed by signal 99"),
    ],
)
def test_exit_codes_are_put_into_words(code: int, words: str) -> None:
    assert how_it_ended(code) == words


def test_the_memory_of_the_parent_is_not_taken_for_the_childs(place: Place) -> None:
    ballast = b"x" * (300 << 20)
    with Pool(place, ones()) as pool:
        pool.executor.submit(pool.executor.start(), pool.order(0))
        pool.until(TaskDone)
        pool.executor.close()
        assert 1 << 20 < pool.executor.peak_memory_bytes < len(ballast)
        pool.executor = Executor(None, workers=1)  # for the pool to close


def test_what_a_dead_child_used_is_counted(place: Place) -> None:
    def mapper(line: str) -> Any:
        while time.process_time() < 0.3:
            pass
        os._exit(1)

    with Pool(place, mapper) as pool:
        pool.executor.submit(pool.executor.start(), pool.order(0))
        pool.until(ChildDied)
        assert pool.executor.cpu_s >= 0.3


@pytest.mark.parametrize("where", ["kill", "communicate"])
def test_an_interrupt_while_a_child_is_ended_spares_no_child(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    interrupts = [KeyboardInterrupt()]
    with Pool(place, ones()) as pool:
        children = [pool.executor.start() for _ in range(3)]
        guard = children[0].guard
        end = getattr(guard, where)

        def interrupted() -> None:
            if interrupts:
                raise interrupts.pop()
            end()

        monkeypatch.setattr(guard, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.executor.close()
        assert pool.executor.children == []
        assert place.processes() == []
        pool.executor = Executor(None, workers=1)  # for the pool to close


def hang_up() -> None:
    """Close the connection to the parent, as the end of the process does."""
    for descriptor in range(3, 30):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as channel:
            channel.shutdown(socket.SHUT_RDWR)


def test_a_child_that_hangs_up_may_come_to_its_own_end(place: Place) -> None:
    def mapper(line: str) -> Any:
        hang_up()
        time.sleep(0.1)
        os.write(2, b"the reason\n")
        os._exit(3)

    with Pool(place, mapper) as pool:
        pool.executor.submit(pool.executor.start(), pool.order(0))
        (died,) = pool.until(ChildDied)
        assert died.reason == "its process exited with code 3"
        assert died.output == "the reason"


def test_a_child_that_hangs_up_gets_no_orders_and_ends_soon(place: Place) -> None:
    def mapper(line: str) -> Any:
        hang_up()
        time.sleep(600)

    with Pool(place, mapper) as pool:
        child = pool.executor.start()
        pool.executor.submit(child, pool.order(0))
        while child.closed_at is None:
            assert list(pool.executor.wait(PATIENCE_S)) == []
        assert pool.executor.child_with_room(9) is None
        assert pool.executor.until_deadline(60.0) < 1.0
        (died,) = pool.until(ChildDied)
        assert died.reason == "it closed its connection and went on running"


@pytest.mark.parametrize("started_before", [0, 1], ids=["child", "guard"])
def test_a_child_that_cannot_be_started_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, started_before: int
) -> None:
    popen = subprocess.Popen
    started: list[Any] = []

    def limited(*args: Any, **more: Any) -> Any:
        if len(started) == started_before:
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        started.append(popen(*args, **more))
        return started[-1]

    with Pool(place, ones()) as pool:
        before = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", limited)
            with pytest.raises(BlockingIOError):
                pool.executor.start()
        assert len(started) == started_before
        assert pool.executor.children == []
        assert place.processes() == []
        assert len(os.listdir("/proc/self/fd")) == before
        pool.executor.submit(pool.executor.start(), pool.order(0))
        pool.until(TaskDone)


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
def test_a_group_that_is_gone_can_be_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    killpg = os.killpg

    def too_late(group: int, number: int) -> None:
        killpg(group, number)
        raise error

    def mapper(line: str) -> Any:
        while True:
            os.write(1, b"line\n" * 1000)

    monkeypatch.setattr(child_output, "MAX_TASK_OUTPUT_BYTES", 1 << 20)
    with Pool(place, mapper) as pool:
        monkeypatch.setattr(os, "killpg", too_late)
        pool.executor.submit(pool.executor.start(), pool.order(0))
        (died,) = pool.until(ChildDied)
        assert died.reason.startswith("it printed more than 1 MiB")
