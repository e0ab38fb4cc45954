"""Runs in files: where one lies, and how rows and merged groups become one.

A map task's file holds a run for each partition, one behind the other; spills and intermediate merges are
files of runs as well.  A `RunRange` says where a run lies and how much it holds, so that whoever reads it can
choose between gathering it in memory and merging before a byte is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Protocol

from mapreduce.groups import Rows
from mapreduce.runs import RunWriter

__all__ = ["OpenFiles", "RunRange", "memory_needed", "write_merged", "write_rows"]

# What Python needs to keep a new key with its list, beside the key's own bytes; and a value's object.
KEY_OVERHEAD_BYTES = 200
VALUE_OVERHEAD_BYTES = 40
# Of merged groups so many values are held before they are written.
HELD_VALUES = 4096


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


def memory_needed(runs: Iterable[RunRange]) -> int:
    """Return about how many bytes it takes to hold all groups of some runs in memory."""
    return sum(
        run.keys * KEY_OVERHEAD_BYTES + run.values * VALUE_OVERHEAD_BYTES + 2 * run.length for run in runs
    )


def write_rows(file: BinaryIO, path: str, label: str, rows: Rows, is_sorted: bool) -> RunRange:
    """Write rows as one run, from the file's position on.

    Args:
        file: where to write, and `path` its name.
        label: names the run.
        rows: in the order in which they are to stand.
        is_sorted: what the range says of their order.
    """
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


def write_merged(
    groups: Iterator[tuple[Any, Iterable[Any]]], file: BinaryIO, path: str, label: str
) -> RunRange | None:
    """Write a stream of groups as one run, holding no more than about a block of it.

    Args:
        groups: (key, its values), in key order.
        file: where to write, and `path` its name.
        label: names the run.

    Returns:
        Where it lies; None when there was no group.
    """
    offset = file.tell()
    writer = RunWriter(file, label)
    keys: list[Any] = []
    columns: list[list[Any]] = []
    held = 0
    for key, values in groups:
        rest = iter(values)
        while some := list(islice(rest, HELD_VALUES)):
            keys.append(key)
            columns.append(some)
            held += len(some)
            if held >= HELD_VALUES:
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
