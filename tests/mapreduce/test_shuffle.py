"""Whatever a task spills and however runs are merged: one output, in (key, map task, sequence) order."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle, pairwise
from random import Random
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.columns import TUPLES, pack_column, unpack_column
from mapreduce.errors import BadKey, BadValue, JobDefinitionError
from mapreduce.merging import MAX_FAN_IN, MIN_FAN_IN, fan_in_for, gather, gather_sorted, merge_runs
from mapreduce.partitioner import Splitter, borders_of, split_by_borders, split_by_function, split_by_hash
from mapreduce.records import Partitions
from mapreduce.run_files import RunRange, memory_needed, write_merged
from mapreduce.runs import BLOCK_BYTES
from mapreduce.shuffle import MapOutput
from tests.mapreduce.contract import CONFUSABLE, compare, exactly, in_order, keys

Pair = tuple[Any, Any]
ValueOrder = Callable[[Any], Any] | None
# Groups as they are compared: exact keys and exact values, in order.
Seen = list[tuple[Any, list[Any]]]


class Spool(io.BytesIO):
    """A file that is kept when it is closed."""

    kept = b""

    def close(self) -> None:
        if not self.closed:
            self.kept = self.getvalue()
        super().close()


class Files:
    """Files in memory."""

    def __init__(self) -> None:
        self.made: dict[str, Spool] = {}

    def create(self) -> tuple[str, BinaryIO]:
        path = f"file {len(self.made)}"
        self.made[path] = Spool()
        return path, self.made[path]

    def open(self, path: str) -> BinaryIO:
        spool = self.made[path]
        return io.BytesIO(spool.kept if spool.closed else spool.getvalue())


@dataclass(frozen=True, kw_only=True)
class Memory:
    """When a map task spills, and how large its chunks and combiner rounds are."""

    spill_bytes: int = 1 << 40
    short: tuple[bool, ...] = (False,)
    chunk_pairs: int = 3
    round_bytes: int = 1 << 40


PLENTY = Memory()
NONE = Memory(spill_bytes=0, short=(True,))
memories = st.builds(
    Memory,
    spill_bytes=st.sampled_from([0, 500, 2000, 1 << 40]),
    short=st.lists(st.booleans(), min_size=1, max_size=5).map(tuple),
    chunk_pairs=st.just(3),
)


@dataclass(kw_only=True)
class Map:
    """A map task's settings, and how to run it."""

    partitions: int = 1
    splitter: Splitter | None = None
    grouped: bool = True
    combine: Callable[[Any, Iterator[Any]], Iterable[Pair]] | None = None
    value_order: ValueOrder = None
    files: Files = field(default_factory=Files)
    spilled_bytes: int = 0
    spills: int = 0

    def run(self, pairs: Iterable[Pair], memory: Memory = PLENTY) -> list[RunRange | None]:
        shortage = cycle(memory.short)
        output = MapOutput(
            partitions=self.partitions,
            splitter=self.splitter or split_by_hash(self.partitions),
            grouped=self.grouped,
            combine=self._combine if self.combine else None,
            value_order=self.value_order,
            files=self.files,
            label="step/map-00000.1",
            spill_bytes=memory.spill_bytes,
            memory_is_short=lambda: next(shortage),
            round_bytes=memory.round_bytes,
            chunk_pairs=memory.chunk_pairs,
        )
        before = len(self.files.made)
        output.add(iter(pairs), lambda pair: None)
        self.spills = len(self.files.made) - before
        path, file = self.files.create()
        with file:
            ranges = output.finish(file, path)
        self.spilled_bytes = output.spilled_bytes
        return ranges

    def _combine(self, keys: list[Any], columns: Sequence[Iterable[Any]]) -> list[list[Pair]]:
        assert self.combine is not None
        return list(map(list, map(self.combine, keys, map(iter, columns))))


def seen(groups: Iterable[tuple[Any, Iterable[Any]]]) -> Seen:
    return [(exactly(key), list(map(exactly, values))) for key, values in groups]


def merged(runs: Iterable[RunRange | None], task: Map, fan_in: int = 8) -> Seen:
    """Read runs of one partition in both ways, which must agree."""
    some = [run for run in runs if run is not None]
    together = seen(zip(*gather(some, task.files, task.value_order), strict=True))
    assert seen(merge_runs(some, task.files, task.value_order, fan_in)) == together
    return together


def expected(pairs: Iterable[Pair], value_order: ValueOrder = None) -> Seen:
    """What a reducer must see of pairs: keys in key order, values as they came or in their order."""
    groups: dict[Any, tuple[Any, list[Any]]] = {}
    for key, value in pairs:
        groups.setdefault(exactly(key), (key, []))[1].append(value)
    ordered = sorted(groups.values(), key=lambda group: in_order(group[0]))
    return seen(
        (key, values if value_order is None else sorted(values, key=value_order)) for key, values in ordered
    )


def magnitude(value: int) -> int:
    return abs(value)


few_keys = st.sampled_from([*"abcd", 1, 1.0, True, None, ("a", 1), ("a",), -0.0, 0.0, "\ud800"])
pairs_of_numbers = st.lists(st.tuples(few_keys, st.integers(-9, 9)), max_size=40)
value_orders = st.sampled_from([None, magnitude])


# --- collecting and spilling --------------------------------------------------------------------------


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
    def output() -> MapOutput:
        return MapOutput(
            partitions=1,
            splitter=split_by_hash(1),
            grouped=True,
            combine=None,
            value_order=None,
            files=Files(),
            label="",
            spill_bytes=1 << 40,
            memory_is_short=lambda: False,
        )

    few, many = output(), output()
    few.add(iter([("a", 1)] * 100), lambda pair: None)
    many.add(((number, 1) for number in range(100_000)), lambda pair: None)
    assert few.is_small
    assert not many.is_small


def test_one_pair_of_each_chunk_is_checked() -> None:
    looked_at: list[Pair] = []
    Map().run([])
    output = MapOutput(
        partitions=1,
        splitter=split_by_hash(1),
        grouped=True,
        combine=None,
        value_order=None,
        files=Files(),
        label="",
        spill_bytes=1 << 40,
        memory_is_short=lambda: False,
        chunk_pairs=10,
    )
    output.add(((number, None) for number in range(25)), looked_at.append)
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


# --- combining ----------------------------------------------------------------------------------------


def total(key: Any, values: Iterable[Any]) -> Iterator[Pair]:
    yield key, sum(values)


def joined(key: Any, values: Iterable[tuple[Any, ...]]) -> Iterator[Pair]:
    yield key, tuple(chain.from_iterable(values))


@given(
    st.integers(0, 100),
    st.randoms(use_true_random=False),
    memories,
    st.sampled_from([1, 700, 2000, 1 << 40]),
    st.integers(1, 3),
    value_orders,
)
def test_combined_floats_are_the_same_to_the_last_bit_however_a_task_spills(
    count: int, random: Random, memory: Memory, round_bytes: int, partitions: int, value_order: ValueOrder
) -> None:
    # The sums of such numbers depend on their order and bracketing in the last bits.
    pairs = [(random.choice("abc"), random.uniform(-1, 1) * 10 ** random.randint(0, 9)) for _ in range(count)]

    def run(memory: Memory) -> list[Seen]:
        task = Map(partitions=partitions, combine=total, value_order=value_order)
        rounds = Memory(spill_bytes=memory.spill_bytes, short=memory.short, round_bytes=round_bytes)
        return [merged([run], task) for run in task.run(pairs, rounds)]

    assert run(memory) == run(PLENTY)


@given(
    st.lists(st.tuples(few_keys, st.integers()), max_size=60), memories, st.sampled_from([1, 700, 1 << 40])
)
def test_a_combiner_sees_every_value_once_and_in_order(
    pairs: list[Pair], memory: Memory, round_bytes: int
) -> None:
    task = Map(combine=joined)
    memory = Memory(spill_bytes=memory.spill_bytes, short=memory.short, round_bytes=round_bytes)
    found = merged(task.run([(key, (value,)) for key, value in pairs], memory), task)
    assert all(len(values) == 1 for _, values in found), "each key is combined to one value"
    assert [(key, list(value[1])) for key, (value,) in found] == expected(pairs)


@given(pairs_of_numbers, memories)
def test_combined_values_are_sorted_where_the_job_sorts_values(pairs: list[Pair], memory: Memory) -> None:
    def mirrored(key: Any, values: Iterable[int]) -> Iterator[Pair]:
        for value in sorted(values, reverse=True):
            yield key, value

    task = Map(combine=mirrored, value_order=magnitude)
    for key, values in merged(task.run(pairs, memory), task):
        assert values == sorted(values, key=lambda value: abs(value[1])), key


@pytest.mark.parametrize("memory", [PLENTY, NONE], ids=["in memory", "spilled"])
def test_a_combiner_may_give_nothing_or_several_values(memory: Memory) -> None:
    def picky(key: str, values: Iterable[int]) -> Iterator[Pair]:
        if key != "drop":
            yield key, min(values)
            yield key, "and more"

    task = Map(combine=picky)
    pairs = [("b", 2), ("drop", 1), ("drop", 2), ("a", 5), ("b", 1), ("alone", 7)]
    spilled = Memory(spill_bytes=memory.spill_bytes, short=memory.short, chunk_pairs=10)
    assert merged(task.run(pairs, spilled), task) == seen(
        [("a", [5]), ("alone", [7]), ("b", [1, "and more"])]
    )


ROUNDS = Memory(spill_bytes=0, short=(True,), round_bytes=1)


@pytest.mark.parametrize("memory", [PLENTY, NONE, ROUNDS], ids=["in memory", "one round", "spilled"])
@pytest.mark.parametrize("given_key", ["A", "a", 1, ("a",)])
def test_a_combiner_that_changes_keys_is_refused(memory: Memory, given_key: Any) -> None:
    def changing(key: Any, values: Iterable[int]) -> Iterator[Pair]:
        yield given_key, sum(values)

    task = Map(combine=changing, partitions=2)
    with pytest.raises(JobDefinitionError) as refused:
        task.run([("a", 1), (True, 1)] * 5, memory)
    assert str(refused.value) == (
        f"the combiner was called with key {True if given_key == 'a' else 'a'!r} and gave key {given_key!r}; "
        "a combiner keeps the key and shortens its values"
    )


@pytest.mark.parametrize("key", [key for key in CONFUSABLE if key is not None], ids=ascii)
def test_a_combiner_may_give_an_equal_key_that_is_another_object(key: Any) -> None:
    form, data = pack_column([key])

    def copied(key: Any, values: Iterable[int]) -> Iterator[Pair]:
        yield unpack_column(form | TUPLES, data)[0], sum(values)

    task = Map(combine=copied)
    assert merged(task.run([(key, 1), (None, 5), (key, 2)]), task) == expected([(key, 3), (None, 5)])


@pytest.mark.parametrize("memory", [PLENTY, NONE], ids=["in memory", "spilled"])
@pytest.mark.parametrize("wrong", [7, None, "ab", ("a",), ("a", 1, 2), {"a": 1}])
def test_a_combiner_must_give_pairs(memory: Memory, wrong: Any) -> None:
    task = Map(combine=lambda key, values: [wrong])
    with pytest.raises(
        JobDefinitionError, match=r"the combiner gave .*; it must yield pairs, \(key, value\)"
    ):
        task.run([("a", 1), ("a", 1)], memory)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=40))
def test_where_rounds_end_depends_on_the_pairs_alone(pairs: list[Pair]) -> None:
    def calls(memory: Memory) -> Counter[tuple[str, int]]:
        counted: Counter[tuple[str, int]] = Counter()

        def counting(key: str, values: Iterable[int]) -> Iterator[Pair]:
            some = list(values)
            counted[key, len(some)] += 1
            yield key, sum(some)

        Map(combine=counting).run(pairs, memory)
        return counted

    plenty, none = Memory(round_bytes=700), Memory(round_bytes=700, spill_bytes=0, short=(True,))
    assert calls(plenty) == calls(none)


# --- merging ------------------------------------------------------------------------------------------


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


# --- partitions ---------------------------------------------------------------------------------------


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


# --- what cannot be shuffled --------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [PLENTY, NONE], ids=["in memory", "spilled"])
def test_bad_keys_and_values_are_refused(memory: Memory) -> None:
    with pytest.raises(BadKey, match="NaN cannot be a key"):
        Map().run([("a", 1), (math.nan, 2)], memory)
    with pytest.raises(BadValue, match="set cannot be sent"):
        Map().run([("a", 1), ("b", {2})], memory)
