"""From a map task's pairs to sorted runs, and from many runs back to one stream of groups.

Theory of operation
-------------------
*Collecting.*  Pairs are grouped by hash while they come.  With a combiner they are combined in
*rounds*.  Where a round ends depends on the pairs alone, never on memory or time: combining floats in
another order would give other last bits, and any two runs must be comparable byte for byte.  A round's
results are kept apart from the next round's pairs and combined with each other once, at the end.

*Spilling.*  What is grouped so far may at any moment (round boundary, with a combiner) go to disk as a
sorted run for each partition.  Spills are merged in the order they were written, so whether and when a
task spilled cannot be seen in its output; only this makes it right to let memory decide.

*Merging.*  Runs are merged in (key, run, position) order, and runs are given in map task order, so
values arrive in (map task, sequence) order whatever arrived first.  What fits in memory, which is nearly
everything, is grouped by hash again and its keys are sorted once, in C.  So a map task does not sort what
it could hold in memory: its runs are in the order in which keys came, and say so.  A reduce task whose
input does not fit sorts such runs first, one at a time, and merges them block by block; more runs than
can be open at once are first merged into fewer.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice, repeat
from operator import is_, itemgetter
from typing import Any, BinaryIO, Protocol

from mapreduce.columns import encoded_size, short_repr
from mapreduce.errors import JobDefinitionError
from mapreduce.groups import Groups, Pile, Rows
from mapreduce.records import (
    Pair,
    Partitions,
    in_key_order,
    is_one_key,
    order_key,
    places_among,
    sort_keys,
    sorts_by_itself,
)
from mapreduce.runs import BLOCK_BYTES, RunWriter, columns_of, read_blocks

# Estimated bytes of pairs in one combiner round.  A constant: see above.
ROUND_BYTES = 96 << 20
CHUNK_PAIRS = 16_384
# Between two looks at the memory there are no more pairs than this, to begin with, and then no more than
# take about so many bytes: a reader of documents gives pairs a thousand times as large as one of words.
FIRST_CHUNK_PAIRS = 256
CHUNK_BYTES = 8 << 20
SMALL_BYTES = 4 << 20
# What Python needs to keep a new key with its list, beside the key's own bytes; and a value's object.
KEY_OVERHEAD_BYTES = 200
VALUE_OVERHEAD_BYTES = 40
# A decoded block takes about so many times its encoded size.
DECODED_FACTOR = 8
MIN_FAN_IN, MAX_FAN_IN = 4, 128

# Takes keys and each one's values; gives for each key the pairs that the combiner makes of it.
Combine = Callable[[list[Any], Sequence[Iterable[Any]]], list[list[Pair]]]
ValueOrder = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRange:
    """Where a run lies: one partition's share of a map task's file.

    Attributes:
        path: the file.
        offset, length: the run's bytes in it.
        keys, values: how many it holds, to judge what it takes in memory.
        is_sorted: its keys are in key order, and each key's values in the job's value order if it has one.
    """

    path: str
    offset: int
    length: int
    keys: int
    values: int
    is_sorted: bool


class OpenFiles(Protocol):
    """Gives files to write to and to read from; the shell behind it owns paths and clean-up."""

    def create(self) -> tuple[str, BinaryIO]:
        """Open a new temporary file for writing."""

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading; kept open and given again until closed by the owner."""


class FailedAtKey(Exception):
    """Code of the user's raised while values were put into order; carries what it raised, and their key."""

    def __init__(self, key: Any, failure: Exception) -> None:
        super().__init__(key, failure)
        self.key = key
        self.failure = failure


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


class MapOutput:
    """Collects a map task's pairs and writes them as one run for each partition.

    Args:
        partitions: how many.
        splitter: cuts keys into partitions.
        grouped: False piles pairs up without grouping them, for a step that only sorts.
        combine: runs the job's combiner over keys and their values; None without one.
        value_order: sorts each key's values by it; None keeps the order they came in.
        files: where spills go.
        label: names the runs.
        spill_bytes: estimated bytes in memory that make the task spill.
        memory_is_short: asked after every chunk; True makes the task spill whatever the estimate says.
        fan_in: how many spills are merged at once; each holds a decoded block in memory.
    """

    def __init__(
        self,
        *,
        partitions: int,
        splitter: Splitter,
        grouped: bool,
        combine: Combine | None,
        value_order: ValueOrder | None,
        files: OpenFiles,
        label: str,
        spill_bytes: int,
        memory_is_short: Callable[[], bool],
        round_bytes: int = ROUND_BYTES,
        chunk_pairs: int = CHUNK_PAIRS,
        fan_in: int = MAX_FAN_IN,
    ) -> None:
        self._partitions = partitions
        self._splitter = splitter
        self._grouped = grouped
        self._combine = combine
        self._value_order = value_order
        self._files = files
        self._label = label
        self._spill_bytes = spill_bytes
        self._memory_is_short = memory_is_short
        self._round_bytes = round_bytes
        self._max_chunk_pairs = chunk_pairs
        self._chunk_pairs = min(FIRST_CHUNK_PAIRS, chunk_pairs)
        self._fan_in = fan_in
        self._fresh: Groups | Pile = Groups() if grouped else Pile()
        self._combined = Groups()
        self._rounds = 0
        self._pairs = 0
        self._fresh_bytes = 0
        self._value_bytes = 0
        self._last_size = 0
        self._key_bytes = KEY_OVERHEAD_BYTES
        self._spills: list[list[RunRange | None]] = []
        self.spilled_bytes = 0

    def add(self, pairs: Iterator[Pair], check_first: Callable[[Any], None]) -> None:
        """Collect all pairs of an iterator; `check_first` looks at one pair of each chunk."""
        groups = self._fresh
        for first in pairs:
            check_first(first)
            groups.add_pairs(chain((first,), islice(pairs, self._chunk_pairs - 1)))
            self._after_chunk(*first, self._chunk_pairs)

    def add_items(self, keys: list[Any], values: list[Any]) -> None:
        """Collect the items of one dict, whose keys need not be compared with each other."""
        if keys:
            self._fresh.add_items(keys, values)
            self._after_chunk(keys[0], values[0], len(keys))

    def _after_chunk(self, key: Any, value: Any, count: int) -> None:
        self._pairs += count
        self._account(key, value, count)
        if self._combine is not None:
            if self._fresh_bytes > self._round_bytes:
                self._end_round()
        elif self._fresh_bytes > self._spill_bytes or (
            self._memory_is_short() and self._fresh_bytes > self._spill_bytes // 8
        ):
            self._spill(self._fresh)
            self._fresh_bytes = self._value_bytes = 0

    @property
    def is_small(self) -> bool:
        """True when there are few keys, all in memory."""
        return self._pairs <= 2 * CHUNK_PAIRS and len(self._fresh) * self._key_bytes < SMALL_BYTES

    def finish(self, file: BinaryIO, path: str) -> list[RunRange | None]:
        """Write everything.

        Returns:
            Each partition's range in the file, None where it holds nothing.
        """
        if self._rounds:
            self._end_round()
        groups = self._combined if self._rounds else self._fresh
        if not self._spills:
            rows = groups.take_rows() if self._combine is None else combined(self._combine, groups)
            return self._write(rows, file, path, self._splitter.sorts, self._value_order)
        if len(groups):
            self._spill(groups)
        return self._merge_spills(file, path)

    def _account(self, key: Any, value: Any, count: int) -> None:
        """Estimate what is held, from one pair of each chunk and the number of keys: from data alone."""
        if value is None or value is True or value is False or (type(value) is int and -6 < value < 257):
            size = 0  # shared objects
        else:
            size = VALUE_OVERHEAD_BYTES + encoded_size(value)
        fitting = CHUNK_BYTES // (VALUE_OVERHEAD_BYTES + size)
        self._chunk_pairs = max(1, min(self._max_chunk_pairs, 4 * self._chunk_pairs, fitting))
        # A pair may be far larger than its like: of two pairs the smaller speaks for the chunk.  Too low an
        # estimate is mended by a look at the memory really used; too high a one would make the task spill.
        size, self._last_size = min(size, self._last_size), size
        self._value_bytes += count * (8 + size)
        self._key_bytes = max(self._key_bytes, KEY_OVERHEAD_BYTES + encoded_size(key))
        self._fresh_bytes = len(self._fresh) * self._key_bytes + self._value_bytes

    def _end_round(self) -> None:
        assert self._combine is not None
        keys, rows, is_single = combined(self._combine, self._fresh)
        self._combined.add_column(keys, None if is_single else rows, rows)
        self._rounds += 1
        self._fresh_bytes = self._value_bytes = 0
        held = len(self._combined) * (self._key_bytes + self._rounds * VALUE_OVERHEAD_BYTES)
        if held > self._spill_bytes or (self._memory_is_short() and held > self._spill_bytes // 8):
            self._spill(self._combined)

    def _spill(self, groups: Groups | Pile) -> None:
        path, file = self._files.create()
        with file:
            self._spills.append(self._write(groups.take_rows(), file, path, True, self._spill_order))
            self.spilled_bytes += file.tell()

    @property
    def _spill_order(self) -> ValueOrder | None:
        """How values are sorted in spills: what is yet to be combined stays in its order of arrival."""
        return self._value_order if self._combine is None else None

    def _write(
        self,
        rows: Rows,
        file: BinaryIO,
        path: str,
        is_sorted: bool,
        value_order: ValueOrder | None,
    ) -> list[RunRange | None]:
        is_single = rows.is_single
        parts = self._splitter.cut(rows.keys, rows.rows, self._grouped)
        del rows
        ranges: list[RunRange | None] = []
        for index, part in enumerate(parts):
            parts[index] = ([], [])  # once written, its memory may go
            if not part[0]:
                ranges.append(None)
                continue
            if is_sorted and not self._splitter.sorts:
                part = in_key_order(*part, distinct=self._grouped)
            if is_sorted and value_order is not None and not is_single:
                _sort_values(*part, value_order)
            label = f"{self._label}/{index}"
            ranges.append(_write_run(file, path, label, Rows(*part, is_single), is_sorted))
        return ranges

    def _merge_spills(self, file: BinaryIO, path: str) -> list[RunRange | None]:
        ranges: list[RunRange | None] = []
        for partition in range(self._partitions):
            runs = [found for spill in self._spills if (found := spill[partition]) is not None]
            groups: Iterator[tuple[Any, Iterable[Any]]] = merge_runs(
                runs, self._files, self._spill_order, self._fan_in
            )
            if self._combine is not None:
                groups = _recombined(groups, self._combine, self._value_order)
            ranges.append(write_merged(groups, file, path, f"{self._label}/{partition}"))
        return ranges


def _write_run(file: BinaryIO, path: str, label: str, rows: Rows, is_sorted: bool) -> RunRange:
    offset = file.tell()
    writer = RunWriter(file, label)
    if rows.is_single:
        writer.write_pairs(rows.keys, rows.rows)
    else:
        writer.write_groups(rows.keys, rows.rows)
    length = writer.finish()
    return RunRange(
        path=path,
        offset=offset,
        length=length,
        keys=len(rows.keys),
        values=writer.values_written,
        is_sorted=is_sorted,
    )


def _sort_values(keys: Iterable[Any], columns: Iterable[list[Any]], value_order: ValueOrder) -> None:
    for key, values in zip(keys, columns, strict=True):
        if len(values) > 1:
            try:
                values.sort(key=value_order)
            except Exception as failure:
                raise FailedAtKey(key, failure) from None


def combined(combine: Combine, groups: Groups | Pile) -> Rows:
    """Run a combiner over the keys that have several values."""
    assert isinstance(groups, Groups)
    keys, values, several, columns = groups.take_to_combine()
    return _combined(combine, keys, values, several, columns)


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


def _recombined(
    groups: Iterator[tuple[Any, Iterable[Any]]], combine: Combine, value_order: ValueOrder | None
) -> Iterator[tuple[Any, Iterable[Any]]]:
    for key, values in groups:
        held = list(values)
        several = [0] if len(held) > 1 else []
        keys, rows, is_single = _combined(combine, [key], held[:1], several, [held] if several else [])
        columns = [[row] for row in rows] if is_single else rows
        if value_order is not None:
            _sort_values(keys, columns, value_order)
        yield from zip(keys, columns, strict=True)


def write_merged(
    groups: Iterator[tuple[Any, Iterable[Any]]], file: BinaryIO, path: str, label: str
) -> RunRange | None:
    """Write a stream of groups as one run, holding no more than about a block of it."""
    offset = file.tell()
    writer = RunWriter(file, label)
    keys: list[Any] = []
    columns: list[list[Any]] = []
    held = 0
    for key, values in groups:
        rest = iter(values)
        while some := list(islice(rest, 4096)):
            keys.append(key)
            columns.append(some)
            held += len(some)
            if held >= 4096:
                writer.write_groups(keys, columns)
                keys, columns, held = [], [], 0
    if keys:
        writer.write_groups(keys, columns)
    length = writer.finish()
    if not writer.keys_written:
        return None
    return RunRange(
        path=path,
        offset=offset,
        length=length,
        keys=writer.keys_written,
        values=writer.values_written,
        is_sorted=True,
    )


def memory_needed(runs: Iterable[RunRange]) -> int:
    """Return about how many bytes it takes to hold all groups of some runs in memory."""
    return sum(
        run.keys * KEY_OVERHEAD_BYTES + run.values * VALUE_OVERHEAD_BYTES + 2 * run.length for run in runs
    )


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
        _sort_values(keys, columns, value_order)
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
        return _write_run(file, path, "sorted", Rows(*gather([run], files, value_order), False), True)


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


def fan_in_for(memory_bytes: int) -> int:
    """Return how many runs may be merged at once within so much memory: each holds one decoded block."""
    return max(MIN_FAN_IN, min(MAX_FAN_IN, memory_bytes // (DECODED_FACTOR * BLOCK_BYTES)))


def borders_of(sample: list[Any], partitions: int) -> list[Any]:
    """Return the keys that cut a sample of keys into parts of about equal size.

    Args:
        sample: sampled keys, with repetitions.
        partitions: how many parts.

    Returns:
        At most `partitions - 1` distinct keys in key order.
    """
    ordered = sorted(sample, key=order_key)
    borders = [ordered[index * len(ordered) // partitions] for index in range(1, partitions) if ordered]
    distinct = [key for key, _ in groupby(borders)]
    sort_keys(distinct)
    return distinct
