"""A job's combiner, over what a map task has grouped: fewer values under the same keys.

A combiner is called for the keys that have several values; the others' one value stands for itself.  What it
gives must stay under the key it was called with.  Most combiners give one pair a key, and for these no list a
key is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any

from mapreduce.columns import short_repr
from mapreduce.errors import JobDefinitionError
from mapreduce.groups import Groups, Pile, Rows
from mapreduce.piling import GroupsOrPile
from mapreduce.records import Pair, is_one_key
from mapreduce.value_order import ValueOrder, sort_values

__all__ = ["Combine", "combined", "recombined"]

# Takes keys and each one's values; gives for each key the pairs that the combiner makes of it.
Combine = Callable[[list[Any], Sequence[Iterable[Any]]], list[list[Pair]]]


def combined(combine: Combine, groups: Groups | GroupsOrPile | Pile) -> Rows:
    """Run a combiner over the keys that have several values; empties the groups.

    Raises:
        JobDefinitionError: it gave something that is no pair, or a pair under another key.
    """
    assert isinstance(groups, Groups)
    keys, values, several, columns = groups.take_to_combine()
    return _combined(combine, keys, values, several, columns)


def recombined(
    groups: Iterator[tuple[Any, Iterable[Any]]], combine: Combine, value_order: ValueOrder | None
) -> Iterator[tuple[Any, Iterable[Any]]]:
    """Combine once more what was combined in parts: the groups of merged spills, one key at a time.

    Args:
        groups: (key, its values), in key order.
        combine: runs the job's combiner.
        value_order: sorts each key's values afterwards, or None.

    Yields:
        (key, its values); none for a key of which the combiner leaves nothing.
    """
    for key, values in groups:
        held = list(values)
        several = [0] if len(held) > 1 else []
        keys, rows, is_single, _ = _combined(combine, [key], held[:1], several, [held] if several else [])
        columns = [[row] for row in rows] if is_single else rows
        if value_order is not None:
            sort_values(keys, columns, value_order)
        yield from zip(keys, columns, strict=True)


def _combined(
    combine: Combine,
    keys: list[Any],
    values: list[Any],
    several: list[int],
    columns: Sequence[Iterable[Any]],
) -> Rows:
    some = [keys[index] for index in several]
    given = combine(some, columns)
    if set(map(len, given)) <= {1}:
        pairs = list(chain.from_iterable(given))
        _check_pairs(pairs)
        if all(map(is_, some, map(itemgetter(0), pairs))):
            # One pair for each key, under that very key, as combiners do.
            for index, pair in zip(several, pairs, strict=True):
                values[index] = pair[1]
            return Rows(keys, values, is_single=True)
    rows = [[value] for value in values]
    for index, pairs in zip(several, given, strict=True):
        _check_pairs(pairs)
        rows[index] = [_under(keys[index], pair) for pair in pairs]
    kept = [index for index, row in enumerate(rows) if row]
    return Rows([keys[index] for index in kept], [rows[index] for index in kept], is_single=False)


def _check_pairs(pairs: list[Pair]) -> None:
    if not (set(map(type, pairs)) <= {tuple, list} and set(map(len, pairs)) <= {2}):
        for pair in pairs:
            if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
                raise JobDefinitionError(
                    f"the combiner gave {short_repr(pair)} (a {type(pair).__name__}); "
                    "it must yield pairs, (key, value)"
                )


def _under(key: Any, pair: Pair) -> Any:
    """Return the value of a pair that a combiner gave for a key.

    Raises:
        JobDefinitionError: it gave another key.  That key may belong to another partition, and its order
            among the others is lost, so the output would depend on whether the task spilled.
    """
    if not is_one_key(pair[0], key):
        raise JobDefinitionError(
            f"the combiner was called with key {short_repr(key)} and gave key {short_repr(pair[0])}; "
            "a combiner keeps the key and shortens its values"
        )
    return pair[1]
