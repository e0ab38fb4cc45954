"""From many runs back to one stream of groups: the reduce side of the shuffle.

Runs are merged in (key, run, position) order, and runs are given in map task order, so values arrive in
(map task, sequence) order whatever arrived first.  What fits in memory, which is nearly everything, is
*gathered*: grouped by hash again, and its keys are sorted once, in C.  So a map task does not sort what it
could hold in memory: its runs are in the order in which keys came, and say so.  A reduce task whose input
does not fit sorts such runs first, one at a time, and *merges* them block by block; more runs than can be
open at once are first merged into fewer.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, repeat
from operator import itemgetter
from typing import Any

from mapreduce.groups import Groups, Rows
from mapreduce.records import in_key_order, order_key
from mapreduce.run_files import OpenFiles, RunRange, write_merged, write_rows
from mapreduce.runs import BLOCK_BYTES, columns_of, read_blocks
from mapreduce.value_order import FailedAtKey, ValueOrder, sort_values

__all__ = ["MAX_FAN_IN", "MIN_FAN_IN", "fan_in_for", "gather", "gather_sorted", "merge_runs"]

# A decoded block takes about so many times its encoded size.
DECODED_FACTOR = 8
MIN_FAN_IN, MAX_FAN_IN = 4, 128


def fan_in_for(memory_bytes: int) -> int:
    """Return how many runs may be merged at once within so much memory: each holds one decoded block."""
    return max(MIN_FAN_IN, min(MAX_FAN_IN, memory_bytes // (DECODED_FACTOR * BLOCK_BYTES)))


def gather(
    runs: Sequence[RunRange], files: OpenFiles, value_order: ValueOrder | None
) -> tuple[list[Any], list[list[Any]]]:
    """Read runs into memory: keys in key order, each with its values in (run, position) order."""
    groups = Groups()
    for run in runs:
        for keys, counts, values in read_blocks(files.open(run.path), run.offset, run.length):
            groups.add_column(keys, columns_of(counts, values), values)
    columns: list[list[Any]]
    keys, columns = groups.take_in_key_order()
    if value_order is not None:
        sort_values(keys, columns, value_order)
    return keys, columns


def gather_sorted(runs: Sequence[RunRange], files: OpenFiles) -> tuple[list[Any], list[Any]]:
    """Read runs of pairs into memory, sorted by (key, run, position), without grouping them."""
    all_keys: list[Any] = []
    all_values: list[Any] = []
    for run in runs:
        for keys, counts, values in read_blocks(files.open(run.path), run.offset, run.length):
            if counts is not None:
                keys = list(chain.from_iterable(map(repeat, keys, counts)))
            all_keys += keys
            all_values += values
    return in_key_order(all_keys, all_values, distinct=False)


def merge_runs(
    runs: Sequence[RunRange], files: OpenFiles, value_order: ValueOrder | None, fan_in: int = MAX_FAN_IN
) -> Iterator[tuple[Any, Iterable[Any]]]:
    """Merge runs block by block.

    Args:
        runs: in map task order.
        files: opens them, and holds intermediate runs where there are more than `fan_in`.
        value_order: how each key's values are sorted, or None.
        fan_in: how many runs are open at once.

    Yields:
        (key, its values): the values are an iterator that is good until the next group is asked for.
    """
    runs = [run if run.is_sorted else _sorted_run(run, files, value_order) for run in runs]
    while len(runs) > fan_in:
        # Neighbours are merged with neighbours, so that map task order survives.
        runs = [
            merged
            for start in range(0, len(runs), fan_in)
            if (merged := _merge_some(runs[start : start + fan_in], files, value_order)) is not None
        ]
    yield from _merge_groups(runs, files, value_order)


def _sorted_run(run: RunRange, files: OpenFiles, value_order: ValueOrder | None) -> RunRange:
    """Write a run anew in key order; a map task could hold it in memory, and so can this one."""
    path, file = files.create()
    with file:
        return write_rows(file, path, "sorted", Rows(*gather([run], files, value_order), False), True)


def _merge_some(
    runs: Sequence[RunRange], files: OpenFiles, value_order: ValueOrder | None
) -> RunRange | None:
    path, file = files.create()
    with file:
        return write_merged(_merge_groups(runs, files, value_order), file, path, "merged")


def _merge_groups(
    runs: Sequence[RunRange], files: OpenFiles, value_order: ValueOrder | None
) -> Iterator[tuple[Any, Iterable[Any]]]:
    merged: Iterator[tuple[Any, ...]]
    if value_order is None:
        merged = heapq.merge(*(_entries(run, files) for run in runs), key=itemgetter(0))
    else:
        streams = (_sorted_entries(run, files, value_order) for run in runs)
        merged = heapq.merge(*streams, key=itemgetter(0, 3))
    for _, entries in groupby(merged, key=itemgetter(0)):
        head = next(entries)
        columns = chain((head[2],), map(itemgetter(2), entries))  # noqa: B031 - the rest, after its head
        yield head[1], chain.from_iterable(columns)


def _entries(run: RunRange, files: OpenFiles) -> Iterator[tuple[Any, ...]]:
    """Yield (order, key, values) of one run."""
    for keys, counts, values in read_blocks(files.open(run.path), run.offset, run.length):
        columns = columns_of(counts, values)
        if columns is None:
            for key, value in zip(keys, values, strict=True):
                yield order_key(key), key, (value,)
        else:
            for key, some in zip(keys, columns, strict=True):
                yield order_key(key), key, some


def _sorted_entries(run: RunRange, files: OpenFiles, value_order: ValueOrder) -> Iterator[tuple[Any, ...]]:
    """Yield (order, key, (value,), value's order) of one run whose values are sorted within each key."""
    for order, key, values in _entries(run, files):
        for value in values:
            try:
                place = value_order(value)
            except Exception as failure:
                raise FailedAtKey(key, failure) from None
            yield order, key, (value,), place
