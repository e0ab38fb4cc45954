"""Pairs are grouped while that pays, and piled up while hardly any key comes again."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice, repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.errors import BadKey, JobDefinitionError
from mapreduce.groups import Rows
from mapreduce.piling import GroupsOrPile
from mapreduce.records import Pair

SAMPLE = 100


def collected(pairs: Iterable[Pair], sample_pairs: int = SAMPLE) -> GroupsOrPile:
    found = GroupsOrPile(sample_pairs)
    some = iter(pairs)
    for first in some:
        found.add_pairs(chain((first,), islice(some, 6)))
    return found


def values_by_key(rows: Rows) -> dict[tuple[type, Any], list[Any]]:
    columns = [[row] for row in rows.rows] if rows.is_single else rows.rows
    found: dict[tuple[type, Any], list[Any]] = {}
    for key, values in zip(rows.keys, columns, strict=True):
        found.setdefault((type(key), key), []).extend(values)
    return found


def is_piled(rows: Rows) -> bool:
    return rows.is_single and not rows.is_distinct


keys = st.integers(0, 60) | st.sampled_from(["a", "b", b"a", True, 1.0, None, ("a", 1)])


@given(st.lists(st.tuples(keys, st.integers()), max_size=120), st.sampled_from([1, 5, 20]))
def test_every_key_keeps_its_values_in_their_order_piled_or_not(pairs: list[Pair], sample: int) -> None:
    expected: dict[tuple[type, Any], list[Any]] = {}
    for key, value in pairs:
        expected.setdefault((type(key), key), []).append(value)
    assert values_by_key(collected(pairs, sample).take_rows()) == expected


def test_keys_of_which_hardly_any_comes_again_are_piled_up() -> None:
    often = [("often", number) for number in range(5)]
    found = collected([*often, *((f"key {number}", number) for number in range(1000)), *often])
    assert len(found) > 1000
    rows = found.take_rows()
    assert is_piled(rows)
    assert values_by_key(rows)[str, "often"] == [*range(5), *range(5)]


def test_keys_that_come_again_and_again_are_grouped() -> None:
    rows = collected((f"key {number % 40}", number) for number in range(1000)).take_rows()
    assert len(rows.keys) == 40
    assert rows.is_distinct
    assert not rows.is_single


def test_a_pile_that_grows_beyond_the_estimate_is_grouped_after_all() -> None:
    # Of the first hundred none repeats one: at a hundred pairs no more than 10,000 may be piled up.
    numbers = range(12_000)
    rows = collected((f"key {number % 500}", number) for number in numbers).take_rows()
    assert len(rows.keys) == 500
    assert rows.is_distinct
    assert rows.rows[7] == list(numbers)[7::500]


def test_taken_rows_are_gone_and_the_next_pairs_are_judged_anew() -> None:
    found = collected((number, None) for number in range(1000))
    assert is_piled(found.take_rows())
    assert len(found) == 0
    found.add_pairs(zip(repeat("again", 1000), range(1000), strict=True))
    assert len(found.take_rows().keys) == 1


def test_the_items_of_one_dict_stay_as_they_are_and_several_are_united() -> None:
    found = GroupsOrPile(SAMPLE)
    found.add_items(["a", "b"], [1, 2])
    assert found.take_rows() == Rows(["a", "b"], [1, 2], is_single=True)
    found.add_items(["a", "b"], [1, 2])
    found.add_items(["b", "c"], [3, 4])
    assert values_by_key(found.take_rows()) == {(str, "a"): [1], (str, "b"): [2, 3], (str, "c"): [4]}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(([], 1), BadKey), ((float("nan"), 1), BadKey), (("one", "two", "three"), JobDefinitionError)],
)
def test_what_cannot_be_piled_up_is_refused_before_the_next_pair_is_asked_for(
    wrong: Any, error: type[Exception]
) -> None:
    found = collected((number, None) for number in range(SAMPLE + 50))
    rest = iter([("fine", 1), wrong, ("never asked for", 1)])
    with pytest.raises(error):
        found.add_pairs(rest)
    assert next(rest) == ("never asked for", 1)
    assert is_piled(found.take_rows())
