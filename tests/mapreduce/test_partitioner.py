"""Where a key goes: by borders, so that all parts make one sequence, or where the job's own function says.

Borders are cut from a sample, few, distinct and in key order; a function must return a partition.
"""

from __future__ import annotations

import math
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.errors import JobDefinitionError
from mapreduce.partitioner import borders_of, split_by_borders, split_by_function
from tests.mapreduce.contract import compare, exactly, in_order, keys
from tests.mapreduce.map_task import (
    Map,
    Memory,
    Pair,
    expected,
    memories,
    merged,
)


@given(st.lists(st.tuples(keys, st.integers()), max_size=30), st.lists(keys, max_size=5), memories)
def test_parts_between_borders_make_one_sorted_sequence(
    pairs: list[Pair], borders: list[Any], memory: Memory
) -> None:
    borders = sorted({exactly(key): key for key in borders}.values(), key=in_order)
    count = len(borders) + 1
    task = Map(partitions=count, splitter=split_by_borders(borders, count), grouped=False)
    parts = [merged([run], task) for run in task.run(pairs, memory)]
    assert list(chain.from_iterable(parts)) == expected(pairs)
    for run, low, high in zip(parts, [None, *borders], [*borders, None], strict=True):
        for key, _ in run:
            original = next(one for one, _ in pairs if exactly(one) == key)
            assert run is parts[-1] or compare(original, high) <= 0
            assert run is parts[0] or compare(original, low) > 0


def test_fewer_borders_than_partitions_leave_the_last_parts_empty() -> None:
    task = Map(partitions=4, splitter=split_by_borders(["m"], 4))
    assert [run is not None for run in task.run([("a", 1), ("z", 2)])] == [True, True, False, False]


@given(st.lists(keys, max_size=40), st.integers(1, 8))
def test_borders_are_few_distinct_and_in_key_order(sample: list[Any], partitions: int) -> None:
    borders = borders_of(sample, partitions)
    assert len(borders) <= partitions - 1
    assert all(compare(one, other) < 0 for one, other in pairwise(borders))
    assert {exactly(key) for key in borders} <= {exactly(key) for key in sample}


def test_borders_cut_an_even_sample_into_even_parts() -> None:
    sample = [number * 37 % 1000 for number in range(1000)]
    task = Map(partitions=8, splitter=split_by_borders(borders_of(sample, 8), 8), grouped=False)
    sizes = [run.keys if run else 0 for run in task.run([(key, None) for key in sample])]
    assert sum(sizes) == 1000
    assert all(abs(size - 125) <= 1 for size in sizes)


def test_a_partitioner_of_the_job_decides() -> None:
    task = Map(partitions=3, splitter=split_by_function(lambda key, count: len(key) % count, 3))
    ranges = task.run([("a", 1), ("bb", 2), ("ccc", 3), ("dddd", 4)])
    assert [merged([run], task) for run in ranges] == [
        expected([("ccc", 3)]),
        expected([("a", 1), ("dddd", 4)]),
        expected([("bb", 2)]),
    ]


@pytest.mark.parametrize("wrong", [-1, 3, 1.0, "1", None, True, math.inf])
def test_a_partitioner_must_return_a_partition(wrong: Any) -> None:
    splitter = split_by_function(lambda key, count: wrong if key == "b" else 0, 3)
    with pytest.raises(JobDefinitionError) as refused:
        Map(partitions=3, splitter=splitter).run([("a", 1), ("b", 2), ("c", 3)])
    assert str(refused.value) == (
        f"the partitioner returned {wrong!r} for key 'b'; it must return an int, 0 to 2"
    )


def test_a_partitioner_is_checked_where_there_is_one_partition_too() -> None:
    splitter = split_by_function(lambda _key, _count: 1, 1)
    with pytest.raises(JobDefinitionError, match=r"the partitioner returned 1 .* an int, 0 to 0"):
        Map(partitions=1, splitter=splitter).run([("a", 1)])


def test_rows_that_are_one_object_are_divided_as_any_others() -> None:
    alike = Map(partitions=4).run([(str(number), None) for number in range(100)])
    others = Map(partitions=4).run([(str(number), number) for number in range(100)])
    assert [run and (run.keys, run.values) for run in alike] == [
        run and (run.keys, run.values) for run in others
    ]
