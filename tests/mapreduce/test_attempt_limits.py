"""What an attempt bears: numpy's counters, bad records in a sample, files and locks of the dead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mapreduce import Job, identity, task
from mapreduce.attempt import MAX_SAMPLE_BYTES, Attempt
from mapreduce.columns import unpack_column
from mapreduce.errors import JobDefinitionError
from mapreduce.orders import MapOrder, SampleOrder, StepSetup, TaskDone, pack_report
from mapreduce.plan import Split
from mapreduce.task_files import SharedRuns, file_lock

MEMORY_BYTES = 1 << 40


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    """Attempts fill the context of this process; put back what was there."""
    before = dict(vars(task))
    yield
    vars(task).clear()
    vars(task).update(before)


def run(tmp_path: Path, mapper: Any, lines: str, *, sample: bool = False, **more: Any) -> TaskDone:
    job = Job(mapper=mapper, reducer=identity, **more)
    setup = StepSetup(
        step=job.last_step,
        partitions=1,
        borders=None,
        params={},
        side_files={},
        work_dir=str(tmp_path),
        out_format=None,
        split_bytes=1 << 20,
        memory_bytes=MEMORY_BYTES,
    )
    path = tmp_path / "input.txt"
    path.write_text(lines)
    split = Split(path=str(path), name="input.txt", size_bytes=len(lines))
    order: Any = MapOrder(task=0, attempt=1, split=split)
    if sample:
        order = SampleOrder(task=0, attempt=1, split=split, keys=100)
    with closing(SharedRuns(str(tmp_path), "step")) as shared:
        return Attempt(job, setup, order, shared, lambda progress: None).run()


def test_a_counter_of_numpy_is_a_whole_number(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")

    def mapper(line: str) -> Any:
        task.counters["bytes"] += np.int64(len(line))
        yield line, 1

    done = run(tmp_path, mapper, "one\nthree\n")
    assert done.counters == {"bytes": 8}
    assert type(done.counters["bytes"]) is int
    assert pack_report(done)


@pytest.mark.parametrize(
    ("name", "value"), [("seconds", 0.5), ("many", 1 << 63), (7, 1), ("names", ["x"])], ids=str
)
def test_a_counter_that_cannot_be_counted_is_the_jobs_mistake(tmp_path: Path, name: Any, value: Any) -> None:
    def mapper(line: str) -> Any:
        task.counters[name] = value
        yield line, 1

    with pytest.raises(JobDefinitionError, match="whole numbers"):
        run(tmp_path, mapper, "a\n")


@pytest.mark.parametrize("name", ["n" * 257, "\udcff"], ids=["long", "half a character"])
def test_a_counter_has_a_name_that_can_be_told_everywhere(tmp_path: Path, name: str) -> None:
    def mapper(line: str) -> Any:
        task.counters[name] += 1
        yield line, 1

    with pytest.raises(JobDefinitionError, match="at most 256 characters"):
        run(tmp_path, mapper, "a\n")


def test_a_task_that_counts_under_thousands_of_names_is_told_what_these_are(tmp_path: Path) -> None:
    def mapper(line: str) -> Any:
        task.counters.update(str(number) for number in range(int(line)))
        yield line, 1

    assert len(run(tmp_path, mapper, "4096\n").counters) == 4_096
    with pytest.raises(JobDefinitionError, match="4,097 names"):
        run(tmp_path, mapper, "4097\n")


def test_a_sample_of_long_keys_has_fewer_of_them_spread_over_all_that_were_read(tmp_path: Path) -> None:
    def mapper(line: str) -> Any:
        yield line * 10_000, 1

    lines = "".join(f"{number:02}\n" for number in range(100))
    form, data = run(tmp_path, mapper, lines, sample=True).sample
    assert len(data) <= MAX_SAMPLE_BYTES
    assert [key[:2] for key in unpack_column(form, data)] == [f"{number:02}" for number in range(0, 100, 4)]


def test_bad_records_of_a_sample_are_left_to_the_map_task_to_count(tmp_path: Path) -> None:
    def mapper(line: str) -> Any:
        yield int(line), 1

    given: dict[str, Any] = {"on_bad_record": "skip:5"}
    assert run(tmp_path, mapper, "1\nx\n2\n", sample=True, **given).bad_records == 0
    assert run(tmp_path, mapper, "1\nx\n2\n", **given).bad_records == 1


def test_a_record_that_memory_was_short_for_is_not_a_bad_one(tmp_path: Path) -> None:
    def mapper(line: str) -> Any:
        raise MemoryError

    with pytest.raises(MemoryError):
        run(tmp_path, mapper, "a\n", on_bad_record="skip:5")


def test_runs_that_a_dead_process_of_our_id_left_are_not_written_over(tmp_path: Path) -> None:
    left = tmp_path / f"step.{os.getpid()}.0.runs"
    left.write_bytes(b"committed")
    with closing(SharedRuns(str(tmp_path), "step")) as shared:
        assert shared.path != str(left)
        shared.file.write(b"new")
    assert left.read_bytes() == b"committed"


def test_a_lock_whose_holder_dies_while_it_takes_a_token_gives_higher_tokens_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for expected in (1, 2, 3):
        with file_lock(str(tmp_path), "one") as token:
            assert token == expected
    writes = count()

    def dies(descriptor: int, data: bytes, offset: int) -> int:
        next(writes)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", dies)
        with pytest.raises(KeyboardInterrupt), file_lock(str(tmp_path), "one"):
            pass
    assert next(writes) == 1
    with file_lock(str(tmp_path), "one") as token:
        assert token == 4
