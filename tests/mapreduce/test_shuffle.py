"""Whatever a map task spills, its runs hold the same groups: each key once, in key order, with its values.

How values are combined, runs merged and keys divided stands in `test_combiner`, `test_merging` and
`test_partitioner`; how much a task holds at a time in `test_shuffle_limits`.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.errors import BadKey, BadValue
from mapreduce.merging import gather_sorted
from mapreduce.records import Partitions
from mapreduce.run_files import memory_needed
from mapreduce.shuffle import MapOutput
from tests.mapreduce.contract import exactly, keys
from tests.mapreduce.map_task import (
    NONE,
    PLENTY,
    Files,
    Map,
    Memory,
    Pair,
    ValueOrder,
    expected,
    memories,
    merged,
    output,
    pairs_of_numbers,
    value_orders,
)


@given(pairs_of_numbers, memories, st.integers(1, 4), value_orders)
def test_a_task_gives_the_same_groups_however_it_spills(
    pairs: list[Pair], memory: Memory, partitions: int, value_order: ValueOrder
) -> None:
    task = Map(partitions=partitions, value_order=value_order)
    ranges = task.run(pairs, memory)
    assert len(ranges) == partitions
    of = Partitions(partitions).of([key for key, _ in pairs])
    for number, run in enumerate(ranges):
        own = [pair for pair, partition in zip(pairs, of, strict=True) if partition == number]
        assert (run is None) is (own == [])
        assert merged([run], task) == expected(own, value_order)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers()), max_size=30), st.integers(1000, 6000))
def test_pairs_that_are_piled_up_keep_all_their_values_when_a_task_spills(
    pairs: list[Pair], spill_bytes: int
) -> None:
    pairs = [*zip("abcdef", range(6), strict=True), *pairs]  # none repeats one: the others are piled up
    task = Map()
    runs = task.run(pairs, Memory(spill_bytes=spill_bytes, sample_pairs=6))
    assert merged(runs, task) == expected(pairs)


@given(st.lists(st.tuples(keys, st.integers()), max_size=30), memories)
def test_keys_of_any_type_come_in_order_however_a_task_spills(pairs: list[Pair], memory: Memory) -> None:
    task = Map()
    assert merged(task.run(pairs, memory), task) == expected(pairs)


def test_a_task_without_memory_spills_every_chunk_and_counts_it() -> None:
    task = Map(partitions=2)
    task.run([(number, "value") for number in range(30)], NONE)
    assert task.spills == 10
    assert task.spilled_bytes == sum(len(spool.kept) for spool in list(task.files.made.values())[:10]) > 0


def test_a_task_with_memory_spills_nothing() -> None:
    task = Map(partitions=2)
    task.run([(number, "value") for number in range(30)], PLENTY)
    assert (task.spills, task.spilled_bytes) == (0, 0)


def test_a_run_says_how_much_it_holds_and_whether_it_is_sorted() -> None:
    pairs = [(letter, 1) for letter in "hello world"]
    in_memory = Map().run(pairs)[0]
    spilled = Map().run(pairs, NONE)[0]
    assert in_memory is not None
    assert spilled is not None
    assert (in_memory.keys, in_memory.values, in_memory.is_sorted) == (8, 11, False)
    assert (spilled.keys, spilled.values, spilled.is_sorted) == (8, 11, True)
    assert memory_needed([in_memory, spilled]) > in_memory.length + spilled.length


def test_an_empty_task_has_no_runs() -> None:
    assert Map(partitions=3).run([]) == [None] * 3
    assert Map(partitions=3, grouped=False).run([]) == [None] * 3


def test_a_task_is_small_until_it_holds_much() -> None:
    def roomy() -> MapOutput:
        return output(Files(), spill_bytes=1 << 40, memory_is_short=lambda: False)

    few, many = roomy(), roomy()
    few.add(iter([("a", 1)] * 100), lambda pair: None)
    many.add(((number, 1) for number in range(100_000)), lambda pair: None)
    assert few.is_small
    assert not many.is_small


def test_one_pair_of_each_chunk_is_checked() -> None:
    looked_at: list[Pair] = []
    task = output(Files(), spill_bytes=1 << 40, memory_is_short=lambda: False, chunk_pairs=10)
    task.add(((number, None) for number in range(25)), looked_at.append)
    assert looked_at == [(0, None), (10, None), (20, None)]


@given(pairs_of_numbers, memories, st.integers(1, 3))
def test_a_pile_is_sorted_like_groups_without_being_grouped(
    pairs: list[Pair], memory: Memory, partitions: int
) -> None:
    piled, grouped = Map(partitions=partitions, grouped=False), Map(partitions=partitions)
    for pile, groups in zip(piled.run(pairs, memory), grouped.run(pairs, memory), strict=True):
        expected_groups = merged([groups], grouped)
        assert merged([pile], piled) == expected_groups
        for run, task in ((pile, piled), (groups, grouped)):
            found = gather_sorted([run] if run is not None else [], task.files)
            assert [(exactly(key), exactly(value)) for key, value in zip(*found, strict=True)] == [
                (key, value) for key, values in expected_groups for value in values
            ]


@pytest.mark.parametrize("memory", [PLENTY, NONE], ids=["in memory", "spilled"])
def test_bad_keys_and_values_are_refused(memory: Memory) -> None:
    with pytest.raises(BadKey, match="NaN cannot be a key"):
        Map().run([("a", 1), (math.nan, 2)], memory)
    with pytest.raises(BadValue, match="set cannot be sent"):
        Map().run([("a", 1), ("b", {2})], memory)
