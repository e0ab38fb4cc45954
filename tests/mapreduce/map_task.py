"""A map task in memory, and what a reducer must see of it: the bench of the tests of the shuffle.

`Map` runs `mapreduce.shuffle` over files that are kept in memory; `Memory` says when it spills. `merged`
reads its runs in both ways that there are, and `expected` says from the pairs alone what must come out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, BinaryIO

from hypothesis import strategies as st

from mapreduce.merging import gather, merge_runs
from mapreduce.partitioner import Splitter, split_by_hash
from mapreduce.run_files import RunRange
from mapreduce.shuffle import MapOutput
from tests.mapreduce.contract import exactly, in_order

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
    """When a map task spills, and how large its chunks, samples and combiner rounds are."""

    spill_bytes: int = 1 << 40
    short: tuple[bool, ...] = (False,)
    chunk_pairs: int = 3
    sample_pairs: int = 1 << 40
    round_bytes: int = 1 << 40


PLENTY = Memory()
NONE = Memory(spill_bytes=0, short=(True,))
memories = st.builds(
    Memory,
    spill_bytes=st.sampled_from([0, 500, 2000, 1 << 40]),
    short=st.lists(st.booleans(), min_size=1, max_size=5).map(tuple),
    chunk_pairs=st.just(3),
    sample_pairs=st.sampled_from([4, 1 << 40]),
)


def output(files: Files, **more: Any) -> MapOutput:
    """A map task of one partition with no combiner and values in the order in which they come."""
    return MapOutput(
        partitions=1,
        splitter=split_by_hash(1),
        grouped=True,
        combine=None,
        value_order=None,
        files=files,
        label="",
        **more,
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
            sample_pairs=memory.sample_pairs,
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
