"""Keys keep their type, their order and their partition; values come back as they were sent."""

from __future__ import annotations

import enum
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.columns import TUPLES, encoded_size, pack_column, unpack_column
from mapreduce.errors import BadKey, BadValue, JobDefinitionError
from mapreduce.groups import Groups, Pile
from mapreduce.records import (
    Partitions,
    in_key_order,
    normal_key,
    order_key,
    places_among,
    sort_keys,
    sorts_by_itself,
)
from tests.mapreduce.contract import CONFUSABLE, compare, exactly, in_order, keys, values


def grouped(pairs: list[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for key, value in pairs:
        found.setdefault(exactly(key), []).append(value)
    return found


def taken(groups: Groups) -> dict[Any, list[Any]]:
    found_keys, columns = groups.take()
    found = dict(zip(map(exactly, found_keys), columns, strict=True))
    assert len(found) == len(found_keys), "one key stands twice"
    return found


# --- identity and grouping ----------------------------------------------------------------------------


@given(st.lists(keys), st.integers(1, 5))
def test_pairs_are_grouped_exactly_by_type_and_value(some: list[Any], chunk: int) -> None:
    pairs = [(key, number) for number, key in enumerate(some)]
    groups = Groups()
    for start in range(0, len(pairs), chunk):
        groups.add_pairs(iter(pairs[start : start + chunk]))
    expected = grouped(pairs)
    assert len(groups) == len(expected)
    found = taken(groups)
    assert found == expected
    assert list(found) == list(expected), "keys come in order of first arrival"
    assert groups.take() == ([], []), "taking empties"


@given(st.lists(st.tuples(keys, st.lists(st.integers(), min_size=1, max_size=3))))
def test_columns_are_grouped_as_their_pairs_would_be(rows: list[tuple[Any, list[int]]]) -> None:
    groups = Groups()
    groups.add_column([key for key, _ in rows], [column for _, column in rows], ())
    assert taken(groups) == grouped([(key, value) for key, column in rows for value in column])


@given(st.lists(keys), st.lists(keys))
def test_blocks_and_pairs_may_alternate(first: list[Any], second: list[Any]) -> None:
    groups = Groups()
    groups.add_column(first, None, range(len(first)))
    groups.add_pairs((key, "pair") for key in second)
    groups.add_column(first, None, range(len(first)))
    pairs = [(key, number) for number, key in enumerate(first)]
    assert taken(groups) == grouped([*pairs, *((key, "pair") for key in second), *pairs])


def test_a_group_serves_again_after_an_unusual_key() -> None:
    groups = Groups()
    groups.add_pairs(iter([("a", 1), (1.0, 2)]))
    assert taken(groups) == {exactly("a"): [1], exactly(1.0): [2]}
    groups.add_pairs(iter([("a", 3), ("a", 4)]))
    assert taken(groups) == {exactly("a"): [3, 4]}


@given(st.lists(keys))
def test_a_pile_keeps_every_pair_as_it_came(some: list[Any]) -> None:
    pile = Pile()
    pile.add_pairs((key, number) for number, key in enumerate(some))
    assert len(pile) == len(some)
    found, numbers, *_ = pile.take_rows()
    assert list(map(exactly, found)) == list(map(exactly, some))
    assert numbers == list(range(len(some)))
    assert pile.take_rows()[:2] == ([], [])


def test_what_an_iterator_raises_goes_through_and_keeps_the_pairs_before_it() -> None:
    def pairs() -> Iterator[tuple[Any, Any]]:
        yield "a", 1
        raise TypeError("unhashable type: 'the user's own'")

    groups = Groups()
    with pytest.raises(TypeError, match="the user's own"):
        groups.add_pairs(pairs())
    assert taken(groups) == {exactly("a"): [1]}


# --- what may be a key --------------------------------------------------------------------------------

Point = namedtuple("Point", "x y")


class Word(str):
    pass


class Colour(str, enum.Enum):  # noqa: UP042 - its str() is "Colour.RED", unlike a StrEnum's
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Shout(str):
    def __str__(self) -> str:
        return self.upper() + "!"


@pytest.mark.parametrize(
    ("given_key", "plain"),
    [
        (Word("w"), "w"),
        (Shout("w"), "w"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Point(1, Word("y")), (1, "y")),
        ((1, (Colour.RED, Level.HIGH)), (1, ("red", 3))),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("s"), "s"),
        (np.bytes_(b"s"), b"s"),
        ((np.int32(1), "a"), (1, "a")),
    ],
)
def test_subclasses_and_numpy_scalars_stand_for_plain_keys(given_key: Any, plain: Any) -> None:
    assert exactly(normal_key(given_key)) == exactly(plain)
    groups = Groups()
    for pairs in ([(given_key, 1), (plain, 2), (given_key, 3)], [(plain, 1), (given_key, 2), (plain, 3)]):
        groups.add_pairs(iter(pairs))
        assert taken(groups) == {exactly(plain): [1, 2, 3]}
    pile = Pile()
    pile.add_pairs(iter([(given_key, 1)]))
    assert exactly(pile.take_rows()[0][0]) == exactly(plain)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (math.nan, "NaN cannot be a key"),
        (("a", math.nan), "NaN cannot be a key"),
        (np.float64("nan"), "NaN cannot be a key"),
        ([1], "list .* cannot be a key; use a tuple"),
        (("a", [1]), "list .* cannot be a key; use a tuple"),
        (memoryview(bytearray(b"x")), "memoryview .* cannot be a key"),
        (bytearray(b"x"), r"bytearray .* cannot be a key; use bytes\(…\)"),
        (memoryview(b"x"), r"memoryview .* cannot be a key; use bytes\(…\)"),
        ({}, "the dict {} cannot be a key"),
        ({1}, "the set .1. cannot be a key"),
        (frozenset(), r"frozenset\(\) cannot be a key"),
        (1j, "complex 1j cannot be a key"),
        (object(), "object .* cannot be a key"),
        (np.array([1]), "ndarray .* cannot be a key"),
    ],
)
@pytest.mark.parametrize("before", [[], [("a", 1)], [(1, 1)]], ids=["first", "after text", "after a number"])
def test_what_cannot_be_a_key_is_refused_by_name(
    key: Any, message: str, before: list[tuple[Any, Any]]
) -> None:
    with pytest.raises(BadKey, match=message):
        normal_key(key)
    with pytest.raises(BadKey, match=message):
        Groups().add_pairs(iter([*before, (key, 1)]))
    with pytest.raises(BadKey, match=message):
        Pile().add_pairs(iter([*before, (key, 1)]))


# --- order --------------------------------------------------------------------------------------------


def test_the_confusable_keys_are_listed_in_key_order() -> None:
    assert sorted(CONFUSABLE, key=in_order) == CONFUSABLE
    shuffled = CONFUSABLE[::-1]
    sort_keys(shuffled)
    assert list(map(exactly, shuffled)) == list(map(exactly, CONFUSABLE))


@given(st.lists(keys, unique_by=exactly))
def test_keys_sort_by_type_rank_then_value(some: list[Any]) -> None:
    expected = sorted(some, key=in_order)
    sort_keys(some)
    assert list(map(exactly, some)) == list(map(exactly, expected))


@given(keys, keys)
def test_order_keys_are_equal_only_for_one_key(left: Any, right: Any) -> None:
    assert (order_key(left) == order_key(right)) is (exactly(left) == exactly(right))
    assert (order_key(left) < order_key(right)) is (compare(left, right) < 0)


kinds_of_one = st.sampled_from(
    [
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.tuples(st.text(max_size=2), st.integers(0, 3)),
        st.tuples(st.integers(0, 2), st.floats(allow_nan=False)),
        st.tuples(st.none(), st.booleans()),
        st.tuples(st.tuples(st.integers(0, 2)), st.integers(0, 2)),
        keys,
    ]
)
many_of_one_kind = kinds_of_one.flatmap(lambda kind: st.lists(kind, max_size=20))


@given(many_of_one_kind)
def test_rows_go_with_their_keys_and_equal_keys_keep_their_order(some: list[Any]) -> None:
    expected = sorted(((key, row) for row, key in enumerate(some)), key=lambda pair: in_order(pair[0]))
    found, rows = in_key_order(list(some), list(range(len(some))), distinct=False)
    assert list(map(exactly, found)) == [exactly(key) for key, _ in expected]
    assert rows == [row for _, row in expected]


@given(kinds_of_one.flatmap(lambda kind: st.lists(kind, max_size=20, unique_by=exactly)))
def test_distinct_keys_sort_with_their_rows(some: list[Any]) -> None:
    expected = sorted(((key, row) for row, key in enumerate(some)), key=lambda pair: in_order(pair[0]))
    found, rows = in_key_order(list(some), list(range(len(some))), distinct=True)
    assert [(exactly(key), row) for key, row in zip(found, rows, strict=True)] == [
        (exactly(key), row) for key, row in expected
    ]


@given(st.one_of(many_of_one_kind, st.lists(keys)), st.lists(keys, max_size=5))
def test_a_key_stands_behind_the_borders_that_are_less(some: list[Any], borders: list[Any]) -> None:
    ordered, _ = in_key_order(list(borders), [0] * len(borders), distinct=False)
    expected = [sum(compare(border, key) < 0 for border in borders) for key in some]
    assert places_among(ordered, some, alike=sorts_by_itself(some)) == expected


# --- partitions ---------------------------------------------------------------------------------------


@given(st.lists(keys, min_size=1), st.integers(1, 40))
def test_a_key_has_one_partition_whatever_stands_beside_it(some: list[Any], count: int) -> None:
    together = Partitions(count).of(some)
    assert all(0 <= index < count for index in together)
    assert together == [index for key in some for index in Partitions(count).of([key])]


def test_partitions_are_the_same_in_every_version() -> None:
    # Recorded once: data that was partitioned by an older version must find its other half.
    some = ["a", "é", b"a", 1, True, None, 1.0, ("a", 1), 2**70, "\ud800"]
    assert Partitions(1000).of(some) == [376, 786, 712, 715, 421, 812, 950, 429, 70, 203]


def test_keys_spread_over_all_partitions() -> None:
    counts = Counter(Partitions(16).of([f"key {number}" for number in range(16_000)]))
    assert sorted(counts) == list(range(16))
    assert all(800 < count < 1200 for count in counts.values())


def test_confusable_keys_have_partitions_of_their_own() -> None:
    found = Partitions(1 << 60).of(CONFUSABLE)
    assert len(set(found)) == len(CONFUSABLE)


# --- columns ------------------------------------------------------------------------------------------


@given(st.lists(values))
def test_a_column_of_values_comes_back_as_it_was(column: list[Any]) -> None:
    form, data = pack_column(column)
    assert exactly(unpack_column(form, data)) == exactly(column)
    assert exactly(unpack_column(form, memoryview(data))) == exactly(column)


@given(many_of_one_kind)
def test_a_column_of_keys_comes_back_with_its_tuples(column: list[Any]) -> None:
    form, data = pack_column(column)
    assert exactly(unpack_column(form | TUPLES, data)) == exactly(column)


@pytest.mark.parametrize(
    "column",
    [
        [(1, 2), (3,)],
        [[1, 2], [3]],
        [(1, 2), [1, 2]],
        [[(1, 2)], [[1, 2]]],
        [([1],), ((1,),)],
        [{"a": (1, [2])}],
        [{(1, "a"): 1}],
        [2**64, -(2**63) - 1],
        [(2**64,)],
        [[2**64, (1,)]],
        ["\udcff", "plain"],
        ["\udcff", 2**64],
        [2**64, "\udcff"],
        [("\udcff", 2**64)],
        [("\udcff",), ["x"]],
        [{"\udcff": 2**64}],
    ],
)
def test_lists_tuples_large_numbers_and_lone_surrogates_survive_together(column: list[Any]) -> None:
    form, data = pack_column(column)
    assert exactly(unpack_column(form, data)) == exactly(column)


@given(values, st.integers(2, 300))
def test_one_value_many_times_comes_back_as_often(value: Any, count: int) -> None:
    form, data = pack_column([value] * count)
    assert exactly(unpack_column(form, data)) == exactly([value] * count)


@pytest.mark.parametrize("value", [[0], {"a": 0}, ([0],)])
def test_who_changes_one_value_changes_no_other(value: Any) -> None:
    form, data = pack_column([value, value, value])
    first, second, third = unpack_column(form, data)
    inner = first[0] if isinstance(first, tuple) else first
    inner.clear()
    assert second == third == value


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Word("w"), "w"),
        (Shout("w"), "w"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Point(1, 2), (1, 2)),
        ([Colour.RED, Point(1, [2])], ["red", (1, [2])]),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        (np.int64(3), 3),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("s"), "s"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    ],
)
def test_values_of_subclasses_and_numpy_arrive_plain(value: Any, plain: Any) -> None:
    form, data = pack_column([value])
    assert exactly(unpack_column(form, data)) == exactly([plain])


class Thing:
    def __repr__(self) -> str:
        return "<a thing>"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1, 2}, r"set cannot be sent; yield sorted\(…\) instead"),
        (frozenset({1}), r"frozenset cannot be sent; yield sorted\(…\) instead"),
        ([{1}], "set cannot be sent"),
        (("a", {"b": Thing()}), "Thing cannot be sent"),
        (Thing(), "Thing cannot be sent"),
        (1j, "complex cannot be sent"),
        (len, "cannot be sent"),
    ],
)
def test_values_that_cannot_be_sent_are_refused_by_type(value: Any, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        pack_column(["fine", value])


def nested(kind: type, depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"k": value} if kind is dict else kind([value])
    return value


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_a_value_nested_too_deeply_is_refused(kind: type) -> None:
    form, data = pack_column([nested(kind, 50)])
    assert exactly(unpack_column(form, data)) == exactly([nested(kind, 50)])
    with pytest.raises(BadValue, match="nested too deeply"):
        pack_column(["fine", nested(kind, 5000)])


def test_a_value_that_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(BadValue, match="nested too deeply"):
        pack_column([circle])


@given(values)
def test_the_size_of_a_value_is_never_in_doubt(value: Any) -> None:
    assert encoded_size(value) >= 0


def test_sizes_grow_with_what_they_measure() -> None:
    assert encoded_size("x" * 1000) == encoded_size(b"x" * 1000) == 1000
    assert encoded_size(["x" * 1000] * 5) > 5000
    assert encoded_size(object()) > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (7, "cannot unpack non-iterable int object"),
        (None, "cannot unpack non-iterable NoneType object"),
        (("a",), "not enough values to unpack"),
        (("a", 1, 2), "too many values to unpack"),
    ],
)
@pytest.mark.parametrize("before", [[], [("a", 1)], [("a", 1), ("b", 2)], [(1, 1)]])
@pytest.mark.parametrize("collection", [Groups, Pile])
def test_what_is_no_pair_is_refused(
    wrong: Any, message: str, before: list[tuple[Any, Any]], collection: type[Groups | Pile]
) -> None:
    with pytest.raises(JobDefinitionError, match=rf"must yield pairs, \(key, value\): {message}"):
        collection().add_pairs(iter([*before, wrong]))


@given(
    st.lists(
        st.dictionaries(st.one_of(st.text(max_size=2), st.binary(max_size=1), st.integers()), st.integers())
    )
)
def test_the_items_of_dicts_are_grouped_like_pairs(dicts: list[dict[Any, int]]) -> None:
    groups, pile = Groups(), Pile()
    for items in dicts:
        groups.add_items(list(items), list(items.values()))
        pile.add_items(list(items), list(items.values()))
    pairs = [pair for items in dicts for pair in items.items()]
    assert len(groups) == len(grouped(pairs))
    assert taken(groups) == grouped(pairs)
    assert list(zip(*pile.take_rows()[:2], strict=True)) == pairs
