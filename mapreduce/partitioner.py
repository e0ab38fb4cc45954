"""To which partition a key belongs, and how rows are laid into partitions.

By the hash of the encoded key; by a job's own partitioner, whose results are checked; or, for a total
order over all parts, between *border* keys that are drawn from a sample of the input (as in O'Malley,
*TeraByte Sort on Apache Hadoop*, 2008).  Whole columns are cut at a time: a call a key would cost as much as
the grouping.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from operator import is_
from typing import Any

from mapreduce.errors import JobDefinitionError
from mapreduce.records import Partitions, in_key_order, places_among, sort_keys, sorts_by_itself

__all__ = ["Part", "Splitter", "borders_of", "split_by_borders", "split_by_function", "split_by_hash"]

# Keys and beside each a row: a list of values, or one value.
Part = tuple[list[Any], list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitter:
    """Cuts rows into partitions.

    Attributes:
        cut: takes keys, rows and whether the keys are distinct; gives each partition's rows.
        sorts: each partition comes out in key order; else in the order given.
    """

    cut: Callable[[list[Any], list[Any], bool], list[Part]]
    sorts: bool


def split_by_hash(count: int) -> Splitter:
    """Return what cuts rows into partitions by the hash of their keys."""
    return _split_by_index(Partitions(count).of, count)


def split_by_function(function: Callable[[Any, int], int], count: int) -> Splitter:
    """Return what cuts rows by a job's own partitioner, its results checked."""

    def partition(keys: Sequence[Any]) -> list[int]:
        found = [function(key, count) for key in keys]
        if not (set(map(type, found)) <= {int} and all(0 <= index < count for index in found)):
            key, index = next(
                (key, index)
                for key, index in zip(keys, found, strict=True)
                if type(index) is not int or not 0 <= index < count
            )
            raise JobDefinitionError(
                f"the partitioner returned {index!r} for key {key!r}; it must return an int, 0 to {count - 1}"
            )
        return found

    return _split_by_index(partition, count)


def split_by_borders(borders: Sequence[Any], count: int) -> Splitter:
    """Return what cuts rows at border keys: partition i holds the keys in (border i-1, border i]."""

    def cut(keys: list[Any], rows: list[Any], distinct: bool) -> list[Part]:
        # Cut first: small sorts stay in the caches, and together take two thirds of the time of a large one.
        alike = sorts_by_itself(keys)
        parts = _divided(places_among(borders, keys, alike=alike), keys, rows, count)
        return [in_key_order(*part, distinct=distinct, alike=alike or None) for part in parts]

    return Splitter(cut=cut, sorts=True)


def _split_by_index(partition: Callable[[Sequence[Any]], list[int]], count: int) -> Splitter:
    def cut(keys: list[Any], rows: list[Any], _distinct: bool) -> list[Part]:
        indexes = partition(keys)
        return [(keys, rows)] if count == 1 else _divided(indexes, keys, rows, count)

    return Splitter(cut=cut, sorts=False)


def _divided(indexes: list[int], keys: list[Any], rows: list[Any], count: int) -> list[Part]:
    """Lay each key and its row into the part that its index names; their order stays."""
    keys_of: list[list[Any]] = [[] for _ in range(count)]
    for index, key in zip(indexes, keys, strict=True):
        keys_of[index].append(key)
    if rows and all(map(is_, rows, repeat(rows[0]))):
        return [(some, rows[: len(some)]) for some in keys_of]
    rows_of: list[list[Any]] = [[] for _ in range(count)]
    for index, row in zip(indexes, rows, strict=True):
        rows_of[index].append(row)
    return list(zip(keys_of, rows_of, strict=True))


def borders_of(sample: list[Any], partitions: int) -> list[Any]:
    """Return the keys that cut a sample of keys into parts of about equal size.

    Args:
        sample: sampled keys, with repetitions.
        partitions: how many parts.

    Returns:
        At most `partitions - 1` distinct keys in key order.
    """
    ordered = list(sample)
    sort_keys(ordered)
    borders = [ordered[index * len(ordered) // partitions] for index in range(1, partitions) if ordered]
    return [key for key, _ in groupby(borders)]
