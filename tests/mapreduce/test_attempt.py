"""One attempt in this very process: what it writes, from where it reads, and where it says it was."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import closing
from itertools import count, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from xxhash import xxh3_128_digest

from mapreduce import Job, Step, batch, identity, task
from mapreduce.attempt import Attempt
from mapreduce.columns import unpack_column
from mapreduce.context import TaskContext
from mapreduce.orders import (
    MapOrder,
    Order,
    ReduceOrder,
    SampleOrder,
    StepSetup,
    TaskDone,
    TaskError,
    TaskProgress,
    pack_report,
    unpack_report,
)
from mapreduce.plan import Split
from mapreduce.run_files import RunRange
from mapreduce.runs import read_blocks
from mapreduce.task_files import SharedRuns, TaskFiles, file_lock, resident_bytes

PLENTY = 1 << 40
# Of the files that the attempts of this process share.
NUMBERS = count()


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    """Attempts fill the context of this process; put back what was there."""
    before = dict(vars(task))
    yield
    vars(task).clear()
    vars(task).update(before)


class Child:
    """What a child process does for its orders, without the process."""

    def __init__(self, job: Job, directory: Path, *, memory_bytes: int = PLENTY, **more: Any) -> None:
        self.job = job
        self.directory = directory
        self.told: list[TaskProgress] = []
        self.setup = StepSetup(
            **{
                "step": job.last_step,
                "partitions": 1,
                "borders": None,
                "params": {},
                "side_files": {},
                "work_dir": str(directory),
                "out_format": None,
                "split_bytes": 1 << 20,
                "memory_bytes": memory_bytes,
                **more,
            }
        )

    def attempt(self, order: Order, shared: SharedRuns) -> Attempt:
        return Attempt(self.job, self.setup, order, shared, self.told.append)

    def run(self, *orders: Order) -> list[TaskDone]:
        with closing(SharedRuns(str(self.directory), self.setup.step, next(NUMBERS))) as shared:
            return [self.attempt(order, shared).run() for order in orders]

    def position(self, order: Order, kind: type[Exception]) -> str:
        """Run an order that must fail; tell where it says it was."""
        with closing(SharedRuns(str(self.directory), self.setup.step, next(NUMBERS))) as shared:
            attempt = self.attempt(order, shared)
            with pytest.raises(kind):
                attempt.run()
            return attempt.position()


def map_order(path: Path, number: int = 0, **more: Any) -> MapOrder:
    split = Split(path=str(path), name=path.name, size_bytes=path.stat().st_size)
    return MapOrder(task=number, attempt=1, split=split, **more)


def pairs_of(path: str, start: int = 0, end: int | None = None) -> list[tuple[Any, Any]]:
    with open(path, "rb") as file:
        length = (os.path.getsize(path) if end is None else end) - start
        blocks = list(read_blocks(file, start, length, whole=end is None))
    return [pair for keys, _, values in blocks for pair in zip(keys, values, strict=True)]


def numbers(path: Path, count: int, seed: int) -> Path:
    random = Random(seed)
    path.write_text("".join(f"{random.randint(0, 99)} {random.randint(-9, 9)}\n" for _ in range(count)))
    return path


def split_line(line: str) -> Any:
    key, value = line.split()
    yield int(key), int(value)


def test_a_mapper_of_a_split_is_called_once_and_reads_while_it_goes(tmp_path: Path) -> None:
    seen: list[int] = []

    @batch("split")
    def mapper(lines: Iterator[str]) -> Any:
        read = {line: number for number, line in enumerate(lines)}
        seen.append(len(read))
        return read

    lines = [f"{number:0500}" for number in range(2000)]
    path = tmp_path / "lines"
    path.write_text("\n".join(lines))
    (done,) = Child(Job(mapper, identity), tmp_path).run(map_order(path))
    assert seen == [2000]
    ((_, run),) = done.ranges
    assert run.keys == 2000


def listed(key: Any, values: Any) -> Any:
    yield key, list(values)


# --- reducing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        Step(mapper=split_line, reducer=listed),
        Step(mapper=split_line, reducer=listed, sort_values=True),
        Step(mapper=split_line, reducer=listed, sort_values=abs),
        Step(mapper=split_line, reducer=identity),
        Step(mapper=split_line, reducer=identity, sort_values=True),
    ],
    ids=["as they came", "sorted", "sorted by a function", "identity", "identity sorted"],
)
def test_a_reduce_task_gives_the_same_whether_its_input_fits_into_memory(tmp_path: Path, step: Step) -> None:
    job = Job(steps={"step": step})
    orders = [map_order(numbers(tmp_path / f"{seed}.txt", 300, seed), seed) for seed in range(9)]
    mapped = Child(job, tmp_path).run(*orders)
    runs = tuple(run for done in mapped for _, run in done.ranges)
    assert len(runs) == 9
    found = []
    for memory_bytes in (PLENTY, 1):  # with 1 byte, nine runs are merged four at a time from the disk
        out = str(tmp_path / f"part {memory_bytes}")
        order = ReduceOrder(task=0, attempt=1, runs=runs, out_path=out)
        (done,) = Child(job, tmp_path, memory_bytes=memory_bytes).run(order)
        assert done.path == out
        found.append(pairs_of(out))
    assert found[0] == found[1]
    lines = [line.split() for order in orders for line in Path(order.split.path).read_text().splitlines()]
    key = {True: int, abs: lambda value: abs(int(value)), False: lambda value: 0}[step.sort_values]
    expected = sorted(lines, key=lambda line: (int(line[0]), key(line[1])))
    flat = found[0] if step.reducer is identity else [(k, value) for k, some in found[0] for value in some]
    assert flat == [(int(k), int(value)) for k, value in expected]


def test_a_merging_reduce_task_leaves_no_files(tmp_path: Path) -> None:
    job = Job(split_line, listed)
    orders = [map_order(numbers(tmp_path / f"{seed}.txt", 50, seed), seed) for seed in range(9)]
    runs = tuple(run for done in Child(job, tmp_path).run(*orders) for _, run in done.ranges)
    order = ReduceOrder(task=0, attempt=1, runs=runs, out_path=str(tmp_path / "part"))
    Child(job, tmp_path, memory_bytes=1).run(order)
    assert list(tmp_path.glob("*spill*")) == []


def test_an_empty_reduce_task_writes_an_empty_part(tmp_path: Path) -> None:
    for memory_bytes in (PLENTY, 1):
        for job in (Job(split_line, listed), Job(split_line, identity)):
            order = ReduceOrder(task=0, attempt=1, runs=(), out_path=str(tmp_path / "part"))
            (done,) = Child(job, tmp_path, memory_bytes=memory_bytes).run(order)
            assert (done.cuts, done.records_in, done.records_out) == ([], 0, 0)
            assert pairs_of(done.path) == []


# --- mapping ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [0, 1, 50_000])
@pytest.mark.parametrize("out_format", [None, "text", "jsonl", "msgpack"])
def test_a_part_is_reported_with_the_digest_of_its_bytes(
    tmp_path: Path, out_format: str | None, lines: int
) -> None:
    child = Child(Job(mapper=split_line), tmp_path, out_format=out_format)
    path = numbers(tmp_path / "in", lines, 1)
    (done,) = child.run(map_order(path, out_path=str(tmp_path / "part")))
    content = Path(done.path).read_bytes()
    assert len(content) == done.bytes_out
    assert done.digest == xxh3_128_digest(content)


@pytest.mark.parametrize("out_format", ["text", None])
def test_room_is_left_before_an_output_that_has_a_file_of_its_own(
    tmp_path: Path, out_format: str | None
) -> None:
    """Whoever asked for it writes there; nothing else about the output is changed by it."""
    path = tmp_path / "lines"
    path.write_text("".join(f"{number:0500}\n" for number in range(20_000)))

    def outputs(head_bytes: int) -> tuple[bytes, TaskDone, bytes, TaskDone]:
        directory = tmp_path / f"{head_bytes}"
        directory.mkdir()
        child = Child(
            Job(lambda line: [(line, 1)], identity), directory, out_format=out_format, head_bytes=head_bytes
        )
        (mapped,) = child.run(map_order(path))
        runs = tuple(run for _, run in mapped.ranges)
        order = ReduceOrder(task=0, attempt=1, runs=runs, out_path=str(directory / "part"))
        (reduced,) = child.run(order)
        return Path(mapped.path).read_bytes(), mapped, Path(reduced.path).read_bytes(), reduced

    run, mapped, part, reduced = outputs(0)
    run_behind, mapped_behind, part_behind, reduced_behind = outputs(28)
    assert mapped.path.endswith(".run")
    assert (run_behind, part_behind) == (bytes(28) + run, bytes(28) + part)
    assert [found.offset for _, found in mapped_behind.ranges] == [28]
    for one, behind in ((mapped, mapped_behind), (reduced, reduced_behind)):
        assert (one.bytes_out, one.digest, one.cuts) == (behind.bytes_out, behind.digest, behind.cuts)


def test_small_map_outputs_share_a_file(tmp_path: Path) -> None:
    orders = [map_order(numbers(tmp_path / f"{seed}.txt", 20, seed), seed) for seed in range(3)]
    done = Child(Job(split_line, listed), tmp_path, partitions=2).run(*orders)
    assert len({one.path for one in done}) == 1
    ranges = [run for one in done for _, run in one.ranges]
    assert {run.path for run in ranges} == {done[0].path}
    ends = [(run.offset, run.offset + run.length) for run in ranges]
    assert ends[0][0] == 0
    assert all(before[1] == after[0] for before, after in pairwise(ends))
    assert ends[-1][1] == os.path.getsize(done[0].path) == sum(one.bytes_out for one in done)


def test_a_large_map_output_has_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("once\n")
    job = Job(lambda line: ((number, None) for number in range(50_000)), listed)
    (done,) = Child(job, tmp_path).run(map_order(path, 7))
    assert os.path.basename(done.path) == "main.map-00007.1.run"
    assert sum(run.keys for _, run in done.ranges) == 50_000


def test_an_attempt_that_fails_half_way_leaves_the_outputs_of_others_whole(tmp_path: Path) -> None:
    def mapper(line: str) -> Any:
        yield line, 1
        if line == "bad":
            raise LookupError

    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("a\nb\n")
    bad.write_text("c\nbad\n")
    child = Child(Job(mapper, listed), tmp_path)
    with closing(SharedRuns(str(tmp_path), "main")) as shared:
        first = child.attempt(map_order(good, 0), shared).run()
        with pytest.raises(LookupError):
            child.attempt(map_order(bad, 1), shared).run()
        second = child.attempt(map_order(good, 2), shared).run()
    for done in (first, second):
        ((_, run),) = done.ranges
        with open(run.path, "rb") as file:
            assert list(read_blocks(file, run.offset, run.length)) == [(["a", "b"], None, [1, 1])]


def test_a_process_with_the_id_of_a_dead_one_does_not_write_over_its_outputs(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("a\n")
    child = Child(Job(lambda line: [(line, 1)], listed), tmp_path)
    with closing(SharedRuns(str(tmp_path), "main")) as shared:
        done = child.attempt(map_order(path), shared).run()
    with closing(SharedRuns(str(tmp_path), "main")) as later:  # this very process is the one that has its id
        child.attempt(map_order(path, 1), later).run()
    ((_, run),) = done.ranges
    with open(run.path, "rb") as file:
        assert list(read_blocks(file, run.offset, run.length)) == [(["a"], None, [1])]
    assert later.path != run.path


def test_a_parts_splits_cover_it_and_meet_at_blocks(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"{number:08}\n" for number in range(60_000)))
    out = str(tmp_path / "part")
    job = Job(lambda line: [(line, line * 3)])
    (done,) = Child(job, tmp_path, split_bytes=500_000).run(map_order(path, out_path=out))
    assert len(done.cuts) > 3
    assert done.cuts[-1] == os.path.getsize(out)
    apart = [pairs_of(out, start, end) for start, end in pairwise(done.cuts)]
    assert all(apart)
    assert [pair for some in apart for pair in some] == pairs_of(out)
    assert len(pairs_of(out)) == done.records_out == 60_000


def test_a_sample_is_of_the_first_keys_and_counts_nothing(tmp_path: Path) -> None:
    def mapper(line: str) -> Any:
        task.counters["mapped"] += 1
        yield (int(line), "x"), None

    path = tmp_path / "in.txt"
    path.write_text("".join(f"{number}\n" for number in range(100)))
    split = Split(path=str(path), name="in.txt", size_bytes=path.stat().st_size)
    order = SampleOrder(task=0, attempt=1, split=split, keys=5)
    (done,) = Child(Job(mapper, listed), tmp_path).run(order)
    assert unpack_column(*done.sample) == [(number, "x") for number in range(5)]
    assert done.counters == {}


# --- where user code was ------------------------------------------------------------------------------


def test_a_place_is_right_behind_a_combiner_round_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    """A round ends when enough was collected, wherever the mapper stands then."""

    def mapper(line: str) -> Any:
        if line == "stop":
            raise ValueError
        for number in range(20_000):
            yield (line, number, "x" * 4_000), 1

    path = tmp_path / "in.txt"
    path.write_text("a\nb\nstop\nc\n")
    job = Job(mapper, listed, combiner=lambda key, values: [(key, sum(values))])
    assert Child(job, tmp_path).position(map_order(path), ValueError) == "in.txt, line 3 (byte 4)"


def test_a_place_of_a_merging_reduce_task_is_its_key(tmp_path: Path) -> None:
    def reducer(key: int, values: Any) -> Any:
        if key >= 50:
            raise ValueError
        yield key, None

    job = Job(split_line, reducer)
    path = numbers(tmp_path / "in.txt", 300, 1)
    keys = sorted({int(line.split()[0]) for line in path.read_text().splitlines()})
    runs = tuple(run for done in Child(job, tmp_path).run(map_order(path)) for _, run in done.ranges)
    order = ReduceOrder(task=0, attempt=1, runs=runs, out_path=str(tmp_path / "part"))
    wanted = f"key {next(key for key in keys if key >= 50)}"
    for memory_bytes in (PLENTY, 1):
        assert Child(job, tmp_path, memory_bytes=memory_bytes).position(order, ValueError) == wanted


@pytest.mark.parametrize("hook", ["setup", "teardown"])
def test_a_hook_is_nowhere_in_the_input(tmp_path: Path, hook: str) -> None:
    def fail() -> None:
        raise ValueError

    path = numbers(tmp_path / "in.txt", 30, 1)
    child = Child(Job(split_line, listed, **{hook: fail}), tmp_path)
    assert child.position(map_order(path), ValueError) == "in.txt"
    order = ReduceOrder(task=0, attempt=1, runs=(), out_path=str(tmp_path / "part"))
    assert child.position(order, ValueError) == ""


# --- what an attempt stands on ------------------------------------------------------------------------


def test_files_of_a_task_are_opened_again_beyond_a_bound_and_gone_at_the_end(tmp_path: Path) -> None:
    files = TaskFiles(str(tmp_path), "task")
    paths = []
    for number in range(250):
        path, file = files.create()
        with file:
            file.write(b"%d" % number)
        paths.append(path)
    open_before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(2):
        for number, path in enumerate(paths):
            file = files.open(path)
            file.seek(0)
            assert file.read() == b"%d" % number
    if open_before:
        assert len(os.listdir("/proc/self/fd")) <= open_before + 201
    files.close()
    assert os.listdir(tmp_path) == []


def test_the_tokens_of_a_lock_grow(tmp_path: Path) -> None:
    tokens = []
    for name in ("a", "b", "a", "a/../b", "a"):
        with file_lock(str(tmp_path), name) as token:
            tokens.append((name, token))
    assert tokens == [("a", 1), ("b", 1), ("a", 2), ("a/../b", 1), ("a", 3)]


def test_a_process_knows_what_it_holds() -> None:
    held = resident_bytes()
    ballast = b"x" * (64 << 20)
    assert resident_bytes() - held > 32 << 20 or held == 0
    del ballast


def test_outside_a_job_the_task_is_there_and_does_nothing() -> None:
    fresh = TaskContext()
    fresh.counters["any"] += 1
    fresh.status("nobody sees it")
    assert (fresh.params, fresh.input_path, fresh.attempt) == ({}, "", 1)
    with pytest.raises(KeyError, match="has no side file 'x'; it has: none"):
        fresh.side_file("x")
    with pytest.raises(RuntimeError, match="works inside a running job only"):
        fresh.lock("x")


def test_the_task_travels_as_a_reference() -> None:
    assert pickle.loads(pickle.dumps(task)) is task


def test_reports_survive_the_way_to_the_parent() -> None:
    run = RunRange(path="p", offset=1, length=2, keys=3, values=4, is_sorted=True)
    for report in (
        TaskDone(
            task=1, attempt=2, path="p", ranges=[(5, run)], cuts=[1, 2], sample=(3, b"x"), counters={"a": 1}
        ),
        TaskError(task=1, attempt=2, kind="UserCode", message="\udcff", position="here", traceback="…"),
        TaskProgress(task=1, attempt=2, bytes_read=3, status="s"),
    ):
        assert unpack_report(pack_report(report)) == report
