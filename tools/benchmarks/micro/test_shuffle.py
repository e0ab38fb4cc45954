"""A task's pairs: grouped, combined, cut, sorted, written as runs, read and merged again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mapreduce.combiner import combined
from mapreduce.groups import Groups, Rows
from mapreduce.merging import gather, gather_sorted, merge_runs
from mapreduce.partitioner import split_by_hash
from mapreduce.piling import GroupsOrPile
from mapreduce.records import Pair, in_key_order
from mapreduce.run_files import RunRange, write_rows
from mapreduce.shuffle import CHUNK_PAIRS

PARTITIONS = 8
MAPS = 16


class Files:
    """The files of a task, in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, BinaryIO] = {}
        self._made = 0

    def create(self) -> tuple[str, BinaryIO]:
        """See `OpenFiles`."""
        self._made += 1
        path = self._directory / str(self._made)
        return str(path), path.open("wb")

    def open(self, path: str) -> BinaryIO:
        """See `OpenFiles`."""
        if path not in self._open:
            self._open[path] = Path(path).open("rb")  # noqa: SIM115 - see close
        return self._open[path]

    def close(self) -> None:
        """Close everything."""
        for file in self._open.values():
            file.close()


def grouped(pairs: Iterable[Pair]) -> Groups:
    groups = Groups()
    groups.add_pairs(iter(pairs))
    return groups


def add(keys: list[Any], columns: Sequence[Iterable[Any]]) -> list[list[Pair]]:
    return [[(key, sum(column))] for key, column in zip(keys, columns, strict=True)]


def test_group_pairs_of_words_and_ones(benchmark: BenchmarkFixture, words: list[str]) -> None:
    groups = benchmark(lambda: grouped(zip(words, repeat(1))))
    assert len(groups) == len(set(words))


def test_group_pairs_of_words_and_numbers(benchmark: BenchmarkFixture, words: list[str]) -> None:
    groups = benchmark(lambda: grouped(zip(words, range(len(words)), strict=True)))
    assert len(groups) == len(set(words))


def test_group_pairs_of_numbers(benchmark: BenchmarkFixture, words: list[str]) -> None:
    numbers = [int(word[1:], 16) for word in words]
    groups = benchmark(lambda: grouped(zip(numbers, words, strict=True)))
    assert len(groups) == len(set(words))


def test_collect_pairs_of_which_no_key_comes_again(benchmark: BenchmarkFixture, words: list[str]) -> None:
    def collect() -> Rows:
        pairs, collected = enumerate(words), GroupsOrPile()
        while len(collected) < len(words):
            collected.add_pairs(islice(pairs, CHUNK_PAIRS))
        return collected.take_rows()

    assert benchmark(collect).rows == words


def test_group_and_combine_words(benchmark: BenchmarkFixture, words: list[str]) -> None:
    rows = benchmark(lambda: combined(add, grouped(zip(words, repeat(1)))))
    assert dict(zip(rows.keys, rows.rows, strict=True)) == Counter(words)


def test_cut_counted_words_into_partitions(benchmark: BenchmarkFixture, words: list[str]) -> None:
    counts = Counter(words)
    keys, values = list(counts), list(counts.values())
    parts = benchmark(split_by_hash(PARTITIONS).cut, keys, values, True)
    assert sum(sum(values) for _, values in parts) == len(words)


def test_sort_words_and_their_values(benchmark: BenchmarkFixture, words: list[str]) -> None:
    def arguments() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (list(words), list(range(len(words)))), {"distinct": False}

    keys, _ = benchmark.pedantic(in_key_order, setup=arguments, rounds=10)
    assert keys == sorted(words)


# --- runs -------------------------------------------------------------------------------------------


def runs_of(files: Files, words: list[str], *, is_sorted: bool) -> list[RunRange]:
    """Write what so many map tasks found, one run each."""
    found = []
    for number in range(MAPS):
        keys, columns = grouped((word, place) for place, word in enumerate(words[number::MAPS])).take()
        if is_sorted:
            keys, columns = in_key_order(keys, columns, distinct=True)
        path, file = files.create()
        with file:
            found.append(write_rows(file, path, "a run", Rows(keys, columns, is_single=False), is_sorted))
    return found


def test_write_a_run(benchmark: BenchmarkFixture, words: list[str], tmp_path: Path) -> None:
    keys, columns = grouped(zip(words, range(len(words)), strict=True)).take()
    rows = Rows(keys, columns, is_single=False)

    def write() -> RunRange:
        with (tmp_path / "run").open("wb") as file:
            return write_rows(file, "run", "a run", rows, False)

    assert benchmark(write).values == len(words)


@pytest.mark.parametrize("read", [gather, merge_runs], ids=["gathered", "merged"])
def test_read_the_runs_of_sixteen_maps(
    benchmark: BenchmarkFixture, words: list[str], tmp_path: Path, read: Any
) -> None:
    files = Files(tmp_path)
    runs = runs_of(files, words, is_sorted=True)

    def read_all() -> int:
        if read is gather:
            _, columns = gather(runs, files, None)
            return sum(map(len, columns))
        return sum(len(list(values)) for _, values in merge_runs(runs, files, None))

    try:
        assert benchmark(read_all) == len(words)
    finally:
        files.close()


def test_sort_the_pairs_of_sixteen_runs(
    benchmark: BenchmarkFixture, words: list[str], tmp_path: Path
) -> None:
    files = Files(tmp_path)
    runs = runs_of(files, words, is_sorted=False)
    try:
        keys, _ = benchmark(gather_sorted, runs, files)
        assert keys == sorted(words)
    finally:
        files.close()
