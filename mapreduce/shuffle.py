"""From a map task's pairs to a run for each partition: the map side of the shuffle.

Theory of operation
-------------------
*Collecting.*  Pairs are grouped by hash while they come (`mapreduce.groups`), or piled up where that would be
in vain (`mapreduce.piling`).  With a combiner they are
combined in *rounds* (`mapreduce.combiner`).  Where a round ends depends on the pairs alone, never on memory
or time: combining floats in another order would give other last bits, and any two runs must be comparable
byte for byte.  A round's results are kept apart from the next round's pairs and combined with each other
once, at the end.

*Spilling.*  What is grouped so far may at any moment (round boundary, with a combiner) go to disk as a
sorted run for each partition (`mapreduce.partitioner`).  Spills are merged in the order they were written
(`mapreduce.merging`, as reduce tasks do with the runs of many map tasks), so whether and when a task spilled
cannot be seen in its output; only this makes it right to let memory decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, BinaryIO

from mapreduce.columns import encoded_size
from mapreduce.combiner import Combine, combined, recombined
from mapreduce.groups import Groups, Pile, Rows
from mapreduce.merging import MAX_FAN_IN, merge_runs
from mapreduce.partitioner import Splitter
from mapreduce.piling import SAMPLE_PAIRS, GroupsOrPile
from mapreduce.records import Pair, in_key_order
from mapreduce.run_files import (
    KEY_OVERHEAD_BYTES,
    VALUE_OVERHEAD_BYTES,
    OpenFiles,
    RunRange,
    write_merged,
    write_rows,
)
from mapreduce.value_order import ValueOrder, sort_values

__all__ = ["MapOutput"]

# Estimated bytes of pairs in one combiner round.  A constant: see above.
ROUND_BYTES = 96 << 20
CHUNK_PAIRS = 16_384
# Between two looks at the memory there are no more pairs than this, to begin with, and then no more than
# take about so many bytes: a reader of documents gives pairs a thousand times as large as one of words.
FIRST_CHUNK_PAIRS = 256
CHUNK_BYTES = 8 << 20
SMALL_BYTES = 4 << 20


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
        sample_pairs: see `GroupsOrPile`.
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
        sample_pairs: int = SAMPLE_PAIRS,
    ) -> None:
        self._partitions = partitions
        self._splitter = splitter
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
        self._fresh: Groups | GroupsOrPile | Pile = Groups()
        if not grouped:
            self._fresh = Pile()
        elif combine is None and value_order is None:
            self._fresh = GroupsOrPile(sample_pairs)
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
        keys, rows, is_single, _ = combined(self._combine, self._fresh)
        self._combined.add_column(keys, None if is_single else rows, rows)
        self._rounds += 1
        self._fresh_bytes = self._value_bytes = 0
        held = len(self._combined) * (self._key_bytes + self._rounds * VALUE_OVERHEAD_BYTES)
        if held > self._spill_bytes or (self._memory_is_short() and held > self._spill_bytes // 8):
            self._spill(self._combined)

    def _spill(self, groups: Groups | GroupsOrPile | Pile) -> None:
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
        is_single, is_distinct = rows.is_single, rows.is_distinct
        parts = self._splitter.cut(rows.keys, rows.rows, is_distinct)
        del rows
        ranges: list[RunRange | None] = []
        for index, part in enumerate(parts):
            parts[index] = ([], [])  # once written, its memory may go
            if not part[0]:
                ranges.append(None)
                continue
            if is_sorted and not self._splitter.sorts:
                part = in_key_order(*part, distinct=is_distinct)
            if is_sorted and value_order is not None and not is_single:
                sort_values(*part, value_order)
            label = f"{self._label}/{index}"
            ranges.append(write_rows(file, path, label, Rows(*part, is_single), is_sorted))
        return ranges

    def _merge_spills(self, file: BinaryIO, path: str) -> list[RunRange | None]:
        ranges: list[RunRange | None] = []
        for partition in range(self._partitions):
            runs = [found for spill in self._spills if (found := spill[partition]) is not None]
            groups: Iterator[tuple[Any, Iterable[Any]]] = merge_runs(
                runs, self._files, self._spill_order, self._fan_in
            )
            if self._combine is not None:
                groups = recombined(groups, self._combine, self._value_order)
            ranges.append(write_merged(groups, file, path, f"{self._label}/{partition}"))
        return ranges
