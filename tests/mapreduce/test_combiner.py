"""A combiner sees every value once and in order, and what it makes does not depend on what a task spills.

It may shorten the values of a key, or drop them, but not change the key. Where its rounds end depends on the
pairs alone, so even floating-point sums are the same to the last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.columns import TUPLES, pack_column, unpack_column
from mapreduce.errors import JobDefinitionError
from tests.mapreduce.contract import CONFUSABLE
from tests.mapreduce.map_task import (
    NONE,
    PLENTY,
    Map,
    Memory,
    Pair,
    Seen,
    ValueOrder,
    expected,
    few_keys,
    magnitude,
    memories,
    merged,
    pairs_of_numbers,
    seen,
    value_orders,
)


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
