"""However runs are merged: one output, in (key, map task, sequence) order, through as few files as it takes.

Runs may be sorted, having been spilled, or not; where the job sorts values they stay sorted over all map
tasks, and equal ones keep their order.
"""

from __future__ import annotations

import io
from itertools import chain
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mapreduce.merging import MAX_FAN_IN, MIN_FAN_IN, fan_in_for, merge_runs
from mapreduce.run_files import write_merged
from mapreduce.runs import BLOCK_BYTES
from tests.mapreduce.map_task import (
    NONE,
    Map,
    Memory,
    Pair,
    expected,
    few_keys,
    memories,
    merged,
    pairs_of_numbers,
)


@given(
    st.lists(st.tuples(st.lists(few_keys, max_size=12), memories), max_size=6),
    st.integers(2, 5),
    st.booleans(),
)
def test_values_come_in_map_task_order_then_sequence(
    tasks: list[tuple[list[Any], Memory]], fan_in: int, grouped: bool
) -> None:
    """Some of the runs are sorted, having been spilled, and some are not."""
    task = Map(grouped=grouped)
    pairs = [
        [(key, (number, sequence)) for sequence, key in enumerate(some)]
        for number, (some, _) in enumerate(tasks)
    ]
    runs = [task.run(some, memory)[0] for some, (_, memory) in zip(pairs, tasks, strict=True)]
    assert merged(runs, task, fan_in) == expected(chain.from_iterable(pairs))


@given(st.lists(st.tuples(pairs_of_numbers, memories), max_size=5), st.integers(2, 4))
def test_sorted_values_stay_sorted_over_map_tasks_and_equal_ones_keep_their_order(
    tasks: list[tuple[list[Pair], Memory]], fan_in: int
) -> None:
    def order(value: tuple[int, int, int]) -> int:
        return abs(value[0])

    task = Map(value_order=order)
    pairs = [
        [(key, (value, number, sequence)) for sequence, (key, value) in enumerate(some)]
        for number, (some, _) in enumerate(tasks)
    ]
    runs = [task.run(some, memory)[0] for some, (_, memory) in zip(pairs, tasks, strict=True)]
    assert merged(runs, task, fan_in) == expected(chain.from_iterable(pairs), order)


def test_many_runs_are_merged_through_fewer_files() -> None:
    task = Map()
    runs = [task.run([("a", number), (number, "b")])[0] for number in range(100)]
    pairs = [pair for number in range(100) for pair in (("a", number), (number, "b"))]
    for fan_in in (2, 3, 99, 100, 101):
        assert merged(runs, task, fan_in) == expected(pairs)


def test_a_reducer_may_leave_values_unread() -> None:
    task = Map()
    runs = [task.run([("a", 1), ("a", 2), ("b", 3), ("c", 4)], NONE)[0] for _ in range(3)]
    some = [run for run in runs if run is not None]
    assert [key for key, _ in merge_runs(some, task.files, None)] == ["a", "b", "c"]
    assert [(key, next(iter(values))) for key, values in merge_runs(some, task.files, None)] == [
        ("a", 1),
        ("b", 3),
        ("c", 4),
    ]


def test_a_merge_writes_a_key_with_many_values_in_pieces() -> None:
    task = Map()
    path, file = task.files.create()
    with file:
        run = write_merged(iter([("a", range(10_000)), ("b", [1])]), file, path, "merged")
    assert run is not None
    assert (run.values, run.is_sorted) == (10_001, True)
    assert merged([run], task) == expected([*(("a", number) for number in range(10_000)), ("b", 1)])


def test_merging_nothing_writes_no_run() -> None:
    assert write_merged(iter([]), io.BytesIO(), "path", "label") is None
    assert merged([], Map()) == []


def test_as_many_runs_are_merged_at_once_as_memory_holds_blocks() -> None:
    assert fan_in_for(0) == MIN_FAN_IN
    assert fan_in_for(1 << 50) == MAX_FAN_IN
    assert MIN_FAN_IN < fan_in_for(100 * BLOCK_BYTES) < MAX_FAN_IN
